//! Processes: started inside namespaces, found, signalled and waited for.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

/// A command that runs this very program, also after its file was replaced or removed: then the kernel
/// still has it under the name /proc/self/exe.
pub fn own_command() -> Command {
    match std::env::current_exe() {
        Ok(path) if path.exists() => Command::new(path),
        _ => {
            let mut command = Command::new("/proc/self/exe");
            command.arg0("copepod");
            command
        }
    }
}

/// Where this program's file is or was: whoever starts it by path later takes the one that replaced it.
pub fn own_path() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let name = path.to_string_lossy();
    Ok(name.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

/// Lets `fd` survive an exec in the child that inherits it.
pub fn keep_across_exec(fd: &impl AsFd) -> io::Result<()> {
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Makes `command` start inside the network namespace at `netns`, with mount,
/// UTS, IPC and (for its children) PID namespaces of its own, in a new session.
pub fn isolate(command: &mut Command, netns: &Path) -> io::Result<()> {
    let netns: OwnedFd = File::open(netns)?.into();
    let others =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID;
    let enter = move || -> io::Result<()> {
        setsid()?;
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
        unshare(others)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes three system calls and
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

/// Makes `command` start in a session of its own, out of reach of the
/// terminal's signals.
pub fn detach(command: &mut Command) {
    let enter = || -> io::Result<()> {
        setsid()?;
        Ok(())
    };
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(enter) };
}

/// A process held by a descriptor, so that a recycled id is never signalled.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens the process `pid` if it lives.
    pub fn open(pid: i32) -> io::Result<Option<Self>> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if raw < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        }
        let raw = i32::try_from(raw).map_err(io::Error::other)?;
        // SAFETY: the kernel just handed us this descriptor; nobody else owns it.
        let pidfd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw) };
        Ok(Some(Self { pid, pidfd }))
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends `signal`; a process that is gone is success.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is a live pidfd, the info pointer may be null.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), signal as libc::c_int, none, 0)
        };
        if sent == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
    }

    /// Waits until the process has ended; `false` when `timeout` came first.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let millis = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, millis) {
                Ok(0) if Instant::now() >= deadline => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks the process to end and kills it when it has not within `grace`.
    pub fn terminate(&self, grace: Duration) -> io::Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.wait(grace)? {
            return Ok(());
        }
        self.signal(Signal::SIGKILL)?;
        if self.wait(Duration::from_secs(10))? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {} survives SIGKILL", self.pid)))
    }
}

/// Whether a process runs: it is there, and neither dead nor about to be.
pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat_is_alive(&stat))
}

/// By a stat line of the kernel's: zombies and processes whose end has begun do not count.
fn stat_is_alive(stat: &str) -> bool {
    /// `PF_EXITING` of the kernel: whoever was killed has it before it is a zombie.
    const EXITING: u64 = 0x4;
    let Some(after_command) = stat.rfind(')').and_then(|at| stat.get(at + 1..)) else { return false };
    let fields: Vec<_> = after_command.split_whitespace().collect();
    let state = fields.first().copied().unwrap_or_default();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(EXITING);
    !matches!(state, "Z" | "X" | "x") && flags & EXITING == 0
}

/// Sends `signal` to a direct child.
pub fn signal_child(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    kill(Pid::from_raw(pid), signal)?;
    Ok(())
}

/// Makes `command` start with no signal blocked, whatever its parent blocks.
pub fn unblock_signals(command: &mut Command) {
    let unblock = || -> io::Result<()> {
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: one system call between fork and exec.
    unsafe { command.pre_exec(unblock) };
}

/// Waits for one of the blocked `signals`; `None` when `timeout` came first.
pub fn wait_signal(signals: &nix::sys::signal::SigSet, timeout: Duration) -> io::Result<Option<Signal>> {
    let timeout = nix::sys::time::TimeSpec::from_duration(timeout);
    // SAFETY: both pointers are to live values; a null info pointer is allowed.
    let signal = unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), timeout.as_ref()) };
    if signal >= 0 {
        return Ok(Some(Signal::try_from(signal)?));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => Ok(None),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn zombies_and_dying_processes_are_not_alive() {
        for (stat, alive) in [
            ("7 (a) S 1 7 7 0 -1 4194560 1", true),
            ("7 (a) b) c) R 1 7 7 0 -1 4194560 1", true),
            ("7 (a) Z 1 7 7 0 -1 4194564 1", false),
            ("7 (a) S 1 7 7 0 -1 4194564 1", false),
            ("7 (a) X", false),
            ("7 (a", false),
            ("", false),
        ] {
            assert_eq!(stat_is_alive(stat), alive, "{stat}");
        }
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(is_alive(own));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::open(pid).unwrap().unwrap();
        assert!(process.wait(harness::time::limit()).unwrap());
        assert!(!is_alive(pid), "a zombie");
        child.wait().unwrap();
        assert!(!is_alive(pid));
    }

    #[test]
    fn this_program_can_be_run_again() {
        assert!(own_path().unwrap().exists());
        assert!(own_command().arg("--list").stdout(std::process::Stdio::null()).status().unwrap().success());
    }
}
