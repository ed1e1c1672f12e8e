//! The binary's only home of raw system calls: memory, namespaces, mounts,
//! inherited descriptors and signals to processes. Everything outside is safe Rust.

#![allow(unsafe_code)]

pub mod memory;
pub mod netns;
pub mod process;

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, RawFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Takes over a listening socket that the parent process left open at `fd`.
///
/// # Errors
/// When the descriptor is closed or is not a socket.
pub fn inherited_listener(fd: RawFd) -> io::Result<TcpListener> {
    if fd < 3 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "descriptors 0 to 2 are the standard streams"));
    }
    // Neither containerd nor a shim may keep the port busy after us.
    nix::fcntl::fcntl(borrow(fd), nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    // SAFETY: the descriptor is open (checked above), and by the contract of
    // the option that names it nothing else in this process owns it.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    listener.local_addr()?;
    Ok(listener)
}

fn borrow<'a>(fd: RawFd) -> std::os::fd::BorrowedFd<'a> {
    // SAFETY: only handed to fcntl, which reports a closed descriptor as EBADF
    // instead of touching it.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}

/// Keeps mounts of this mount namespace from travelling to any other.
pub fn make_mounts_private() -> nix::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// Mounts the proc file system of the current PID namespace.
pub fn mount_proc() -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
}

/// Mounts an empty in-memory file system of at most `size_mib` over `target`.
pub fn mount_tmpfs(target: &Path, size_mib: u32) -> nix::Result<()> {
    let options = format!("mode=755,size={size_mib}m");
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
}

/// Makes the directory or file `source` appear at `target`.
pub fn bind_mount(source: &Path, target: &Path) -> nix::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

/// Detaches whatever is mounted at `target`; nothing mounted is success.
pub fn unmount(target: &Path) -> nix::Result<()> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}
