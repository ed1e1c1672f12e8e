//! Files replaced whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces `path` with `content`: readers see the old file or the new one, and
/// after a crash one of the two is there. A file that says so already stays as it
/// is: a start that has nothing new to note needs no room on the disk.
///
/// # Errors
/// When the directory is missing or not writable.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if says(path, content, mode) {
        return Ok(());
    }
    let parent = path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no parent directory"))?;
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = parent.join(temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn says(path: &Path, content: &[u8], mode: u32) -> bool {
    let regular = |found: fs::Metadata| found.is_file() && found.permissions().mode() & 0o7777 == mode;
    fs::symlink_metadata(path).is_ok_and(regular) && fs::read(path).is_ok_and(|old| old == content)
}

/// Whether `file` is what an interrupted replacement of the file `name` left.
pub fn is_temporary(file: &OsStr, name: &OsStr) -> bool {
    let (file, name) = (file.to_string_lossy(), name.to_string_lossy());
    let pid = file.strip_prefix('.').and_then(|rest| rest.strip_prefix(&*name)).and_then(|rest| rest.strip_prefix('.'));
    pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_said_already_is_not_written() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let inode = || fs::symlink_metadata(&path).unwrap().ino();
        replace(&path, b"one", 0o600).unwrap();
        let first = inode();
        replace(&path, b"one", 0o600).unwrap();
        assert_eq!(inode(), first, "no other file, so no room for one");
        replace(&path, b"one", 0o640).unwrap();
        assert_ne!(inode(), first, "open to others");
        // A link to such a file is none.
        let other = dir.path().join("b");
        fs::rename(&path, &other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        replace(&path, b"one", 0o640).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn temporaries_are_told_from_files_of_others() {
        let is = |file: &str| is_temporary(OsStr::new(file), OsStr::new("a.json"));
        assert!(is(".a.json.17"));
        for other in ["a.json", ".a.json", ".a.json.", ".a.json.bak", ".b.json.17", "a.json.17"] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(replace(&dir.path().join("none/a"), b"", 0o600).is_err());
    }
}
