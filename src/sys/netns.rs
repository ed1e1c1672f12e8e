//! Named network namespaces: made, entered and removed by path.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::{bind_mount, unmount};

/// Makes a network namespace and keeps it alive by a bind mount at `path`.
/// A namespace that is there already stays.
///
/// # Errors
/// When the file cannot be made or the kernel refuses the namespace.
pub fn create(path: &Path) -> io::Result<()> {
    if is_namespace(path) {
        return Ok(());
    }
    File::create(path)?;
    let target = path.to_owned();
    // A thread of its own: unshare moves the calling thread, which then ends.
    let made = thread::spawn(move || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        bind_mount(Path::new("/proc/thread-self/ns/net"), &target)?;
        Ok(())
    });
    let result = made.join().map_err(|_| io::Error::other("the thread that makes a network namespace panicked"))?;
    if result.is_err() {
        let _ = std::fs::remove_file(path);
    }
    result
}

/// Whether a namespace is mounted at `path`.
pub fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x6e73_6673);
    nix::sys::statfs::statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

/// Lets go of the namespace at `path`; the kernel ends it with its last process.
///
/// # Errors
/// When the mount or the file cannot be removed; a missing one is success.
pub fn delete(path: &Path) -> io::Result<()> {
    unmount(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The processes in the namespace at `path` that are in another PID namespace than we are, the oldest
/// ids first.
///
/// # Errors
/// When /proc cannot be read.
pub fn inhabitants(path: &Path) -> io::Result<Vec<i32>> {
    if !is_namespace(path) {
        return Ok(Vec::new());
    }
    let identity = |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let (wanted, own_pids) = (identity(path), identity(Path::new("/proc/self/ns/pid")));
    let entries = std::fs::read_dir("/proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_inside = |pid: &i32| {
        let namespaces = Path::new("/proc").join(pid.to_string()).join("ns");
        let pids = identity(&namespaces.join("pid"));
        identity(&namespaces.join("net")) == wanted && pids.is_some() && pids != own_pids
    };
    let mut found: Vec<_> = pids.filter(is_inside).collect();
    found.sort_unstable();
    Ok(found)
}

/// Runs `work` on a thread inside the network namespace at `path`, with a
/// single-threaded tokio runtime whose sockets all belong to that namespace.
///
/// # Errors
/// What entering the namespace or `work` itself reports.
pub fn run_inside<T, F>(path: &Path, work: F) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: AsyncFnOnce() -> anyhow::Result<T> + Send + 'static,
{
    let namespace = File::open(path)?;
    let inside = thread::spawn(move || -> anyhow::Result<T> {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work())
    });
    inside.join().map_err(|_| anyhow::anyhow!("the thread inside {} panicked", path.display()))?
}
