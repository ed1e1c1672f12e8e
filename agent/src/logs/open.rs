//! Opens logs. Their names and what lies under them are not always the runtime's alone: a pod may have the directory of
//! logs as a volume and put a link, a pipe or a device there.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Elements of a log's path below the directory of all logs: pod, container, file.
const DEPTH: usize = 3;

/// Opens a log, or what was rotated of it, for reading. Below the directory of all logs no link is followed, nothing
/// but a file is opened, and nothing waits. Blocking.
pub fn log(path: &Path) -> io::Result<File> {
    let file = File::from(below_all_logs(path, path, OFlag::O_NONBLOCK)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    Ok(file)
}

/// Opens the directory a log is in, with the same care; `None` when there is no such directory, whatever is in its
/// place. Blocking.
pub fn directory_of(log: &Path) -> io::Result<Option<OwnedFd>> {
    let directory = log.parent().unwrap_or(log);
    match below_all_logs(log, directory, OFlag::O_DIRECTORY) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens `path`, which is a log or above one, for reading.
fn below_all_logs(log: &Path, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let root = log.ancestors().nth(DEPTH).ok_or(Errno::EINVAL)?;
    let below = path.strip_prefix(root).map_err(|_| Errno::EINVAL)?;
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(&root, below, how)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_files_of_the_pod_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let container = dir.path().join("pods/ns_web_u/c");
        std::fs::create_dir_all(&container).unwrap();
        std::fs::create_dir_all(dir.path().join("elsewhere")).unwrap();
        std::fs::write(dir.path().join("elsewhere/0.log"), "secret").unwrap();
        std::fs::write(container.join("0.log"), "mine").unwrap();
        assert_eq!(std::io::read_to_string(log(&container.join("0.log")).unwrap()).unwrap(), "mine");
        symlink(dir.path().join("elsewhere/0.log"), container.join("1.log")).unwrap();
        symlink(dir.path().join("elsewhere"), container.with_file_name("d")).unwrap();
        nix::unistd::mkfifo(&container.join("2.log"), Mode::S_IRWXU).unwrap();
        std::fs::create_dir(container.join("3.log")).unwrap();
        for bad in ["c/1.log", "d/0.log", "c/2.log", "c/3.log", "c/4.log", "../../elsewhere/0.log"] {
            assert!(log(&dir.path().join("pods/ns_web_u").join(bad)).is_err(), "{bad}");
        }
    }
}
