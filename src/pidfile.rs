//! One copepod per run directory, and one node per network namespace: a locked file with its process id.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::ready;
use crate::sys::process;

/// How long a lock that nobody alive has may be in the way.
const PASSING: Duration = Duration::from_secs(10);

/// The lock; dropping it, or dying, frees what it stands for.
#[derive(Debug)]
pub struct PidLock {
    path: PathBuf,
    _lock: Flock<File>,
}

impl PidLock {
    /// Removes the file, and with it the lock.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }
}

/// What came of asking for the lock.
#[derive(Debug)]
enum LockAttempt {
    Got(Flock<File>),
    /// Who asks [`holder`] has it for a moment, and so have children that are just being made beside
    /// it, which inherit it until their program begins; likewise those of a process that died.
    Passing,
    /// The process that has it, in the file's words.
    Running(String),
}

/// Takes the lock and writes this process's id; the other process's id where one has it.
///
/// # Errors
/// When the file cannot be locked or written.
pub fn try_hold(path: &Path) -> Result<Result<PidLock, String>> {
    let asked = ready::wait_until(PASSING, || {
        Ok(match try_lock(path)? {
            LockAttempt::Got(lock) => Some(Ok(lock)),
            LockAttempt::Running(pid) => Some(Err(pid)),
            LockAttempt::Passing => None,
        })
    });
    let mut lock = match asked.with_context(|| format!("lock {}", path.display()))? {
        Ok(lock) => lock,
        Err(pid) => return Ok(Err(pid)),
    };
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(Ok(PidLock { path: path.to_owned(), _lock: lock }))
}

/// Takes the lock of a run directory.
///
/// # Errors
/// When another process holds it: says which.
pub fn hold(path: &Path) -> Result<PidLock> {
    match try_hold(path)? {
        Ok(held) => Ok(held),
        Err(pid) => bail!("copepod runs already, as process {pid}: copepod down ends it"),
    }
}

fn try_lock(path: &Path) -> Result<LockAttempt> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) if is_at(&lock, path)? => return Ok(LockAttempt::Got(lock)),
        // Removed by who had it before.
        Ok(_) => return Ok(LockAttempt::Passing),
        Err((file, Errno::EWOULDBLOCK)) => file,
        Err((_, error)) => return Err(error.into()),
    };
    let mut file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => return Ok(LockAttempt::Passing),
        Err((file, Errno::EWOULDBLOCK)) => file,
        Err((_, error)) => return Err(error.into()),
    };
    let mut pid = String::new();
    file.read_to_string(&mut pid)?;
    let pid = pid.trim();
    let lives = pid.parse().is_ok_and(process::is_alive);
    Ok(if lives { LockAttempt::Running(pid.to_owned()) } else { LockAttempt::Passing })
}

/// Whether the file is the one that others find at `path`.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let own = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The process that holds the lock, if any.
///
/// # Errors
/// When the file cannot be read.
pub fn holder(path: &Path) -> Result<Option<i32>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut pid = String::new();
    file.read_to_string(&mut pid).with_context(|| format!("read {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        Err((_, Errno::EWOULDBLOCK)) => Ok(pid.trim().parse().ok()),
        Err((_, error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_one_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        assert_eq!(holder(&path).unwrap(), None);
        let held = hold(&path).unwrap();
        assert_eq!(holder(&path).unwrap(), Some(i32::try_from(std::process::id()).unwrap()));
        let error = hold(&path).unwrap_err().to_string();
        assert!(error.contains("runs already"), "{error}");
        drop(held);
        assert_eq!(holder(&path).unwrap(), None, "a file of the dead holds nothing");
        hold(&path).unwrap();
    }

    #[test]
    fn a_look_at_the_lock_keeps_nobody_from_taking_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        std::fs::write(&path, "1\n").unwrap();
        // As `holder`, in the moment between taking and giving back; or a child made in that moment.
        let looking = Flock::lock(File::open(&path).unwrap(), FlockArg::LockSharedNonblock).unwrap();
        assert!(matches!(try_lock(&path).unwrap(), LockAttempt::Passing));
        drop(looking);
        hold(&path).unwrap();
    }

    #[test]
    fn children_of_the_dead_keep_the_lock_for_a_moment_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        // Beyond all process ids: those of the dead are given to others.
        std::fs::write(&path, format!("{}\n", i32::MAX)).unwrap();
        let child = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        assert!(matches!(try_lock(&path).unwrap(), LockAttempt::Passing));
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(matches!(try_lock(&path).unwrap(), LockAttempt::Running(_)), "in the way for good");
        drop(child);
        hold(&path).unwrap();
    }

    #[test]
    fn many_who_look_while_children_are_made_are_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let stop = std::sync::atomic::AtomicBool::new(false);
        let going = || !stop.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while going() {
                    holder(&path).unwrap();
                }
            });
            scope.spawn(|| {
                while going() {
                    std::process::Command::new("true").status().unwrap();
                }
            });
            let taken: Vec<_> = (0..200).map(|_| hold(&path).map(drop)).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(taken.iter().all(Result::is_ok), "{taken:?}");
        });
    }
}
