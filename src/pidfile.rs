//! One copepod per run directory: a locked file with its process id.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// The lock; dropping it, or dying, frees the run directory.
#[derive(Debug)]
pub struct Held {
    _lock: Flock<File>,
}

/// Takes the lock and writes this process's id.
///
/// # Errors
/// When another process holds it: says which.
pub fn hold(path: &Path) -> Result<Held> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())?;
            Ok(Held { _lock: lock })
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            bail!("copepod runs already, as process {}: copepod down ends it", pid.trim())
        }
        Err((_, error)) => Err(error).with_context(|| format!("lock {}", path.display())),
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
}
