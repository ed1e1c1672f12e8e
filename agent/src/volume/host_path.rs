//! hostPath volumes: checks and creation by type.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use super::plan::HostPathKind;

/// Checks, and for the `OrCreate` types creates, the path. The error is the text
/// of the `FailedMount` event.
pub fn prepare(path: &str, kind: HostPathKind) -> Result<(), String> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(format!("hostPath {path:?} must be absolute and must not contain \"..\""));
    }
    let target = Path::new(path);
    let found = match fs::metadata(target) {
        Ok(meta) => Some(meta.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("inspect hostPath {path}: {error}")),
    };
    match (kind, found) {
        (HostPathKind::Unset, _) => Ok(()),
        (HostPathKind::DirectoryOrCreate, None) => {
            create_directory(target).map_err(|error| format!("create hostPath {path}: {error}"))
        }
        (HostPathKind::FileOrCreate, None) => {
            create_file(target).map_err(|error| format!("create hostPath {path}: {error}"))
        }
        (kind, found) => {
            let (fits, name) = match kind {
                HostPathKind::Directory | HostPathKind::DirectoryOrCreate => {
                    (found.is_some_and(|f| f.is_dir()), "a directory")
                }
                HostPathKind::File | HostPathKind::FileOrCreate => (found.is_some_and(|f| f.is_file()), "a file"),
                HostPathKind::Socket => (found.is_some_and(|f| f.is_socket()), "a socket file"),
                HostPathKind::CharDevice => (found.is_some_and(|f| f.is_char_device()), "a character device"),
                HostPathKind::BlockDevice => (found.is_some_and(|f| f.is_block_device()), "a block device"),
                HostPathKind::Unset => (true, "anything"),
            };
            if fits { Ok(()) } else { Err(format!("hostPath type check failed: {path} is not {name}")) }
        }
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn create_file(path: &Path) -> io::Result<()> {
    match File::create_new(path) {
        Ok(_) => fs::set_permissions(path, Permissions::from_mode(0o644)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn types_are_checked_or_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let check = |name: &str, kind, expect: Result<(), &str>| {
            let got = prepare(&path(name), kind);
            let expect = expect.map_err(|what| format!("hostPath type check failed: {} is not {what}", path(name)));
            assert_eq!(got, expect);
        };
        let _socket = std::os::unix::net::UnixListener::bind(path("sock")).unwrap();
        check("none", HostPathKind::Unset, Ok(()));
        check("none", HostPathKind::Directory, Err("a directory"));
        check("none", HostPathKind::File, Err("a file"));
        check("deep/dir", HostPathKind::DirectoryOrCreate, Ok(()));
        check("deep/dir", HostPathKind::Directory, Ok(()));
        check("deep/dir", HostPathKind::FileOrCreate, Err("a file"));
        check("file", HostPathKind::FileOrCreate, Ok(()));
        check("file", HostPathKind::File, Ok(()));
        check("file", HostPathKind::DirectoryOrCreate, Err("a directory"));
        check("file", HostPathKind::BlockDevice, Err("a block device"));
        check("sock", HostPathKind::Socket, Ok(()));
        check("sock", HostPathKind::CharDevice, Err("a character device"));
        assert_eq!(prepare("/dev/null", HostPathKind::CharDevice), Ok(()));
        assert!(prepare("relative", HostPathKind::Unset).is_err());
        assert!(prepare("/a/../b", HostPathKind::Unset).is_err());
    }
}
