//! The instance: a random id that is stamped into a node's data directory and marks whatever the
//! node makes on the machine. `down` removes what bears the mark of the directory it is given, and
//! nothing else.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use netproxy::links::Owner;

use crate::paths::Paths;

/// Bytes of randomness in an id.
const RANDOM: usize = 16;

/// The instance of these directories, stamped now if it is new.
///
/// # Errors
/// When the stamp cannot be read or written, or is damaged.
pub fn ensure(paths: &Paths) -> Result<Owner> {
    match find(paths)? {
        Some(owner) => Ok(owner),
        None => stamp(&paths.instance_id()).and_then(|()| find(paths)?.context("the instance's id is gone again")),
    }
}

/// The instance of these directories; `None` where none ever ran.
///
/// # Errors
/// When the stamp cannot be read or is damaged.
pub fn find(paths: &Paths) -> Result<Option<Owner>> {
    let path = paths.instance_id();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let owner = Owner::new(text.trim());
    owner.map(Some).with_context(|| format!("{} is damaged: nothing made by this instance can be told", path.display()))
}

/// Writes a new id; one that somebody else wrote meanwhile stays. Never half of one.
fn stamp(path: &Path) -> Result<()> {
    let mut random = [0; RANDOM];
    fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random)).context("draw an id")?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let temporary = path.with_extension(std::process::id().to_string());
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary);
    let written =
        written.and_then(|mut file| file.write_all(format!("{id}\n").as_bytes()).and_then(|()| file.sync_all()));
    let linked = match written.and_then(|()| fs::hard_link(&temporary, path)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    let _ = fs::remove_file(&temporary);
    linked.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn paths(data: &Path) -> Paths {
        Paths { data: data.to_owned(), run: data.join("run"), log: data.join("log") }
    }

    #[test]
    fn an_instance_keeps_its_id_and_no_two_share_one() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(find(&paths(one.path())).unwrap(), None);
        let owner = ensure(&paths(one.path())).unwrap();
        assert_eq!(ensure(&paths(one.path())).unwrap(), owner);
        assert_eq!(find(&paths(one.path())).unwrap(), Some(owner.clone()));
        assert_ne!(ensure(&paths(two.path())).unwrap(), owner);
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_damaged_stamp_is_told_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = paths(dir.path()).instance_id();
        for text in ["", "x", "two words in it", "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}"] {
            fs::write(&path, text).unwrap();
            assert!(ensure(&paths(dir.path())).unwrap_err().to_string().contains("is damaged"), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn two_that_start_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let paths = paths(dir.path());
                std::thread::spawn(move || ensure(&paths).unwrap())
            })
            .collect();
        let owners: std::collections::BTreeSet<_> =
            threads.into_iter().map(|thread| thread.join().unwrap().id().to_owned()).collect();
        assert_eq!(owners.len(), 1);
    }
}
