//! hostPath: a file or directory of the machine, checked or made by its type; upstream's
//! pkg/volume/hostpath. What is there stays when the pod goes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::plugins::{MounterArgs, Plugin, SetUp, SetUpError, Spec, Volume};

const NAME: &str = "kubernetes.io/host-path";

/// It has no directory below the pod's, so nothing is taken down.
pub(super) const PLUGIN: Plugin = Plugin { name: NAME, new_volume, tear_down: |_, _| Ok(()) };

/// A path of the machine.
#[derive(Clone, Debug)]
struct HostPath {
    name: String,
    path: PathBuf,
    kind: HostPathType,
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostPathType {
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

fn new_volume(spec: &Spec<'_>) -> Option<Result<Box<dyn Volume>, String>> {
    let asked = spec.volume.host_path.as_ref()?;
    let kind = read_type(asked.type_.as_deref().unwrap_or_default());
    let volume = kind.map(|kind| HostPath { name: spec.volume.name.clone(), path: PathBuf::from(&asked.path), kind });
    Some(volume.map(|volume| Box::new(volume) as Box<dyn Volume>))
}

fn read_type(kind: &str) -> Result<HostPathType, String> {
    Ok(match kind {
        "" => HostPathType::Unset,
        "DirectoryOrCreate" => HostPathType::DirectoryOrCreate,
        "Directory" => HostPathType::Directory,
        "FileOrCreate" => HostPathType::FileOrCreate,
        "File" => HostPathType::File,
        "Socket" => HostPathType::Socket,
        "CharDevice" => HostPathType::CharDevice,
        "BlockDevice" => HostPathType::BlockDevice,
        other => return Err(format!("{other} is an invalid volume type")),
    })
}

#[async_trait]
impl Volume for HostPath {
    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> &Path {
        &self.path
    }

    async fn set_up(&self, args: &MounterArgs<'_>) -> Result<SetUp, SetUpError> {
        let (path, kind) = (self.path.clone(), self.kind);
        let done = args.jobs.run(move || prepare(&path.to_string_lossy(), kind)).await;
        done.map(|()| SetUp::Current).map_err(SetUpError::Unavailable)
    }
}

/// Checks, and for the `OrCreate` types creates, the path. The error is the text
/// of the `FailedMount` event. Blocking.
fn prepare(path: &str, kind: HostPathType) -> Result<(), String> {
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
        (HostPathType::Unset, _) => Ok(()),
        (HostPathType::DirectoryOrCreate, None) => {
            create_directory(target).map_err(|error| format!("create hostPath {path}: {error}"))
        }
        (HostPathType::FileOrCreate, None) => {
            create_file(target).map_err(|error| format!("create hostPath {path}: {error}"))
        }
        (kind, found) => {
            let (fits, name) = match kind {
                HostPathType::Directory | HostPathType::DirectoryOrCreate => {
                    (found.is_some_and(|f| f.is_dir()), "a directory")
                }
                HostPathType::File | HostPathType::FileOrCreate => (found.is_some_and(|f| f.is_file()), "a file"),
                HostPathType::Socket => (found.is_some_and(|f| f.is_socket()), "a socket file"),
                HostPathType::CharDevice => (found.is_some_and(|f| f.is_char_device()), "a character device"),
                HostPathType::BlockDevice => (found.is_some_and(|f| f.is_block_device()), "a block device"),
                HostPathType::Unset => (true, "anything"),
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
        check("none", HostPathType::Unset, Ok(()));
        check("none", HostPathType::Directory, Err("a directory"));
        check("none", HostPathType::File, Err("a file"));
        check("deep/dir", HostPathType::DirectoryOrCreate, Ok(()));
        check("deep/dir", HostPathType::Directory, Ok(()));
        check("deep/dir", HostPathType::FileOrCreate, Err("a file"));
        check("file", HostPathType::FileOrCreate, Ok(()));
        check("file", HostPathType::File, Ok(()));
        check("file", HostPathType::DirectoryOrCreate, Err("a directory"));
        check("file", HostPathType::BlockDevice, Err("a block device"));
        check("sock", HostPathType::Socket, Ok(()));
        check("sock", HostPathType::CharDevice, Err("a character device"));
        assert_eq!(prepare("/dev/null", HostPathType::CharDevice), Ok(()));
        assert!(prepare("relative", HostPathType::Unset).is_err());
        assert!(prepare("/a/../b", HostPathType::Unset).is_err());
        assert_eq!(read_type("Socket"), Ok(HostPathType::Socket));
        assert_eq!(read_type("Odd"), Err("Odd is an invalid volume type".to_owned()));
    }
}
