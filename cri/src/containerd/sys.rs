//! What a child starts with, and a descriptor that tells of a process' end.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::sys::resource::{Resource, setrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// Makes the command start a session, so that signals to ours do not reach it,
/// with `open_files` as soft and hard limit or with ours.
pub(super) fn own_session(command: &mut Command, open_files: Option<(u64, u64)>) {
    let enter = move || {
        nix::unistd::setsid()?;
        if let Some((soft, hard)) = open_files {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        Ok::<_, io::Error>(())
    };
    // SAFETY: setsid and setrlimit are async-signal-safe and allocate nothing, as
    // is asked of code between fork and exec; neither does turning errno into an error.
    unsafe { command.pre_exec(enter) };
}

/// A descriptor that becomes readable when the process ends. Call it inside a
/// tokio runtime.
pub(super) fn pidfd(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the call takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor, and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the descriptor is valid, and only `AsyncFd` closes it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
