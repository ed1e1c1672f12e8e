//! Everything a private containerd left behind, removed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::timeout;
use tracing::warn;

use super::process::{self, Process};
use super::{ContainerdError, Options, sys};
use crate::client::CriClient;
use crate::dirtree;
use crate::error::CriError;
use crate::mountinfo::mount_points;
use crate::service::RuntimeService;
use crate::types::{ContainerFilter, SandboxFilter};

/// How long a killed shim may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Directories that containerd and its shims make wherever their own are: the
/// shims' sockets and the CNI library's cache. The inner ones first.
pub const SHARED_DIRECTORIES: [&str; 4] =
    ["/run/containerd/s", "/run/containerd", "/var/lib/cni/results", "/var/lib/cni"];

/// What a purge leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Images, and whatever else lies in the root directory.
    Images,
    Nothing,
}

/// Removes every pod, ends the daemon and its shims, unmounts what is mounted
/// below its directories and removes them. Works on what a crash left too, and
/// may be repeated. The daemon's supervisor must be shut down before.
pub async fn purge(options: &Options, keep: Keep) -> Result<(), ContainerdError> {
    // Read first: the daemon forgets dead shims, and leaves their sockets.
    let sockets = shim_sockets(&options.state);
    end_pods(options).await?;
    kill_shims(options).await?;
    for socket in sockets {
        // A shim that ended well removed it itself.
        let _ = fs::remove_file(socket);
    }
    unmount_below(&[&options.state, &options.root])?;
    remove_directory(&options.state)?;
    // containerd made them; whoever else has something in there keeps it.
    let shared = SHARED_DIRECTORIES.map(Path::new).into_iter();
    let shared = shared.filter(|directory| !options.directories_of_others.iter().any(|theirs| theirs == directory));
    for directory in [options.cni_conf_dir.as_path()].into_iter().chain(shared) {
        remove_unused(directory);
    }
    match keep {
        Keep::Nothing => remove_directory(&options.root),
        Keep::Images => Ok(()),
    }
}

/// Removes a directory that is empty, and that nobody on this machine has something
/// mounted at: the kernel would remove one that is a mount point in other mount
/// namespaces only, and detach what other nodes have there.
pub fn remove_unused(directory: &Path) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut tables = processes.filter_map(|process| fs::read(process.path().join("mountinfo")).ok());
    if !tables.any(|table| !mounts_below(&table, &[directory]).is_empty()) {
        let _ = fs::remove_dir(directory);
    }
}

/// Removes all pods through the daemon and ends it.
async fn end_pods(options: &Options) -> Result<(), ContainerdError> {
    let mut daemon = match process::running(options).await {
        Some(process) => Some(process),
        // Pods may outlive their daemon: start it once more, to end them well.
        None => start_again(options).await,
    };
    let mut may_be_dying = true;
    while let Some(process) = daemon.take() {
        let removed = remove_pods(&CriClient::connect(options.socket())).await;
        process.stop().await?;
        match removed {
            // A daemon that was just killed takes connections until all its threads are gone.
            Err(CriError::Unavailable { .. }) if may_be_dying => daemon = start_again(options).await,
            Err(problem) => warn!(%problem, "the runtime did not remove all pods; killing what is left"),
            Ok(()) => {}
        }
        may_be_dying = false;
    }
    Ok(())
}

/// Starts the daemon as it was set up last, if it ever was.
async fn start_again(options: &Options) -> Option<Process> {
    if !options.config_file().exists() {
        return None;
    }
    let plan = process::prepare(options).await.ok()?;
    match process::start(options, &plan).await {
        Ok(process) => Some(process),
        Err(problem) => {
            warn!(%problem, "containerd does not start for the last time");
            None
        }
    }
}

async fn remove_pods(client: &CriClient) -> Result<(), CriError> {
    let mut last = Ok(());
    for container in client.list_containers(&ContainerFilter::default()).await? {
        // One that ends by itself meanwhile is not removed unless it was stopped.
        let stopped = client.stop_container(&container.id, Duration::ZERO).await;
        last = stopped.and(client.remove_container(&container.id).await).and(last);
    }
    for sandbox in client.list_pod_sandboxes(&SandboxFilter::default()).await? {
        let stopped = client.stop_pod_sandbox(&sandbox.id).await;
        last = stopped.and(client.remove_pod_sandbox(&sandbox.id).await).and(last);
    }
    last
}

/// The sockets of all shims that the daemon of `state` started: each task's
/// directory names its shim's, in a file that depends on the release.
fn shim_sockets(state: &Path) -> Vec<PathBuf> {
    let below = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
    let namespaces = below(state.join("io.containerd.runtime.v2.task"));
    let files = namespaces.flat_map(below).flat_map(|task| ["address", "bootstrap.json"].map(|name| task.join(name)));
    files.filter_map(|file| socket_in(&fs::read_to_string(file).ok()?)).collect()
}

/// The first socket's path in a text, quoted or not.
fn socket_in(text: &str) -> Option<PathBuf> {
    let (_, rest) = text.split_once("unix://")?;
    rest.split(|c: char| c == '"' || c.is_whitespace()).next().filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The shims that the daemon of `state` started. The path of its socket is the same text in every
/// mount namespace, so a shim counts as ours only where its own view of that path leads to the very
/// same directory: nodes of local clusters use one path each in namespaces of their own.
fn shims(state: &Path, socket: &Path) -> Vec<u32> {
    let Some(ours) = identity(state) else { return Vec::new() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_shim_of(&line, socket) && identity(&seen_by(*pid, state)) == Some(ours)
    })
    .collect()
}

/// Whether a command line is that of a shim which reports to the daemon at `socket`.
fn is_shim_of(command_line: &[u8], socket: &Path) -> bool {
    let words: Vec<_> = command_line.split(|byte| *byte == 0).collect();
    let program = words.first().and_then(|word| word.rsplit(|byte| *byte == b'/').next()).unwrap_or_default();
    let address = words.iter().position(|word| *word == b"-address").and_then(|at| words.get(at + 1));
    program.starts_with(b"containerd-shim-") && address.is_some_and(|word| *word == socket.as_os_str().as_bytes())
}

/// `path` as the process `pid` sees it.
fn seen_by(pid: u32, path: &Path) -> PathBuf {
    Path::new(&format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap_or(path))
}

/// Which directory a path leads to: file system and inode.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(directory).ok().filter(fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}

/// Kills the shims and, before them, their children: the containers' processes.
async fn kill_shims(options: &Options) -> Result<(), ContainerdError> {
    for shim in shims(&options.state, &options.socket()) {
        for pid in children(shim) {
            let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            kill_and_wait(pid).await?;
            for directory in cgroup_directories(&cgroups) {
                // Nobody runs runc for it any more. One that is still in use
                // refuses, which is right.
                let _ = fs::remove_dir(directory);
            }
        }
        kill_and_wait(shim).await?;
    }
    Ok(())
}

/// Where the cgroups in a `/proc/PID/cgroup` may be, in every usual layout.
fn cgroup_directories(text: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut directories = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        // The root is not ours, and neither is what lies outside of our view.
        if path.is_empty() || path.starts_with("..") {
            continue;
        }
        if controllers.is_empty() {
            directories.extend([root.join(path), root.join("unified").join(path)]);
        } else {
            directories.push(root.join(controllers.trim_start_matches("name=")).join(path));
        }
    }
    directories
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect()
}

async fn kill_and_wait(pid: u32) -> Result<(), ContainerdError> {
    // The descriptor is opened first, so that the number cannot change owners.
    let Ok(fd) = sys::pidfd(pid) else { return Ok(()) };
    let Ok(raw) = i32::try_from(pid) else { return Ok(()) };
    let _ = kill(Pid::from_raw(raw), Signal::SIGKILL);
    match timeout(KILL_TIMEOUT, fd.readable()).await {
        Ok(_) => Ok(()),
        Err(_) => Err(ContainerdError::Stuck { pid, within: KILL_TIMEOUT }),
    }
}

/// Mount points below some directories, the deepest first, from mountinfo.
fn mounts_below(mountinfo: &[u8], directories: &[&Path]) -> Vec<PathBuf> {
    let points = mount_points(mountinfo).into_iter();
    let mut below: Vec<_> = points.filter(|p| directories.iter().any(|d| p.starts_with(d))).collect();
    below.sort();
    below.reverse();
    below
}

fn unmount_below(directories: &[&Path]) -> Result<(), ContainerdError> {
    let path = PathBuf::from("/proc/self/mountinfo");
    let table = fs::read(&path).map_err(|source| ContainerdError::File { what: "read", path, source })?;
    for point in mounts_below(&table, directories) {
        match umount2(&point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(e) => return Err(ContainerdError::File { what: "unmount", path: point, source: e.into() }),
        }
    }
    Ok(())
}

fn remove_directory(path: &Path) -> Result<(), ContainerdError> {
    dirtree::remove(path).map_err(|source| ContainerdError::File { what: "remove", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn mounts_below_directories_come_deepest_first() {
        let text = b"20 1 0:5 / /run/a rw - tmpfs none rw\n\
                    21 20 0:6 / /run/a/b\\040c rw - overlay none rw\n\
                    22 1 0:7 / /run/ab rw - tmpfs none rw\n\
                    23 1 0:8 / /x rw - tmpfs none rw\nshort line\n";
        let found = mounts_below(text, &[Path::new("/run/a"), Path::new("/y")]);
        assert_eq!(found, [PathBuf::from("/run/a/b c"), PathBuf::from("/run/a")]);
    }

    #[test]
    fn cgroups_of_all_layouts() {
        let text = "4:memory:/k/a\n3:name=systemd:/k/a\n2:cpu,cpuacct:/\n1:pids:/../x\n0::/k/b\nnonsense\n";
        let root = Path::new("/sys/fs/cgroup");
        let expected = ["memory/k/a", "systemd/k/a", "k/b", "unified/k/b"].map(|p| root.join(p));
        assert_eq!(cgroup_directories(text), expected);
    }

    #[test]
    fn sockets_are_found_in_the_files_of_all_releases() {
        let socket = Some(PathBuf::from("/run/containerd/s/1f"));
        assert_eq!(socket_in("unix:///run/containerd/s/1f"), socket);
        assert_eq!(socket_in(r#"{"version":3,"address":"unix:///run/containerd/s/1f","protocol":"ttrpc"}"#), socket);
        for garbage in ["", "unix://", "{}", "vsock://1:2"] {
            assert_eq!(socket_in(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_shim_is_told_by_its_program_and_its_daemon() {
        let socket = Path::new("/run/copepod/containerd/containerd.sock");
        let line = |words: &[&str]| is_shim_of(words.join("\0").as_bytes(), socket);
        let address = "/run/copepod/containerd/containerd.sock";
        assert!(line(&["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "a", "-address", address]));
        for other in [
            &["/usr/bin/containerd-shim-runc-v2", "-id", "a", "-address", "/run/k3s/containerd/containerd.sock"][..],
            &["/usr/bin/containerd-shim-runc-v2", "-id", address],
            &["/usr/bin/ctr", "-address", address, "tasks", "ls"],
            &["sh", "-c", "containerd-shim-runc-v2 -address", address],
            &["containerd-shim-runc-v2", "-address"],
            &[],
        ] {
            assert!(!line(other), "{other:?}");
        }
    }

    #[test]
    fn a_directory_is_told_from_another_of_the_same_path() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = seen_by(std::process::id(), one.path());
        assert_eq!(identity(&own), identity(one.path()));
        assert_ne!(identity(one.path()), identity(other.path()));
        assert_eq!(identity(&one.path().join("none")), None);
    }
}
