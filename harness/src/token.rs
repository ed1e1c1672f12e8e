//! A token per core: heavy tests take one each, whatever process they run in, so that those that run
//! beside each other do not starve each other.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::time;

/// The right to load a core; it ends with the test.
#[derive(Debug)]
pub struct Token {
    _lock: Flock<File>,
}

thread_local! {
    /// A test runs on a thread: whatever it makes loads one core.
    static OWN: RefCell<Weak<Token>> = const { RefCell::new(Weak::new()) };
}

/// Waits for one of the machine's tokens; a thread that has one is given the same.
///
/// # Errors
/// When there is no place for them, or none becomes free: then somebody hangs.
pub fn take() -> Result<Rc<Token>> {
    if let Some(token) = OWN.with_borrow(Weak::upgrade) {
        return Ok(token);
    }
    let token = Rc::new(wait()?);
    OWN.set(Rc::downgrade(&token));
    Ok(token)
}

fn wait() -> Result<Token> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let user = nix::unistd::geteuid().as_raw();
    let directory = PathBuf::from(format!("/tmp/copepod-test-tokens-{user}"));
    // Whoever is before us may take as long as its own watchdog lets it.
    for _ in 0..WATCHDOGS {
        if let Ok(token) = time::until("a core's token", || take_of(&directory, cores)) {
            return Ok(token);
        }
    }
    bail!("no token below {} becomes free", directory.display())
}

/// Limits that one may wait for others.
const WATCHDOGS: usize = 30;

fn take_of(directory: &Path, cores: usize) -> Result<Token> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let owner = fs::symlink_metadata(directory)?.uid();
    ensure!(owner == nix::unistd::geteuid().as_raw(), "{} is another user's", directory.display());
    for core in 0..cores {
        let path = directory.join(core.to_string());
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            return Ok(Token { _lock: lock });
        }
    }
    bail!("all {cores} are taken")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_are_as_many_as_cores() {
        let root = tempfile::tempdir().unwrap();
        let take = || take_of(&root.path().join("tokens"), 2);
        let (first, _second) = (take().unwrap(), take().unwrap());
        assert!(take().unwrap_err().to_string().contains("all 2"));
        drop(first);
        take().unwrap();
    }
}
