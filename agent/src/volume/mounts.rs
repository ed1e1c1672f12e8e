//! Mounts below the pods' directories: reading the table, tmpfs, unmounting.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri::dirtree;
use cri::mountinfo::mount_points;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::read;

/// Mount points at or below `dir`, the deepest last mounted first.
pub fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    // The table shows resolved paths only. What does not exist has no mounts.
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    // The thread's own table: a test may stand in a namespace of its own.
    let table = read::bytes("/proc/thread-self/mountinfo", read::MUCH)?;
    let mut points = mount_points(&table);
    points.retain(|point| point.starts_with(&dir));
    points.reverse();
    Ok(points)
}

/// Whether `dir` is the root of a file system other than its parent's. Bind
/// mounts of the same file system are not seen.
pub fn is_other_filesystem(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::symlink_metadata(dir)?.dev() != fs::symlink_metadata(parent)?.dev())
}

/// Mounts a tmpfs unless one is there. `size` in bytes; `keep_in_memory` asks
/// that the content is never swapped out, where the kernel (6.4 on) can.
pub fn mount_tmpfs(dir: &Path, size: Option<u64>, keep_in_memory: bool) -> io::Result<()> {
    if is_other_filesystem(dir)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let flags = if keep_in_memory { flags | MsFlags::MS_NOEXEC } else { MsFlags::empty() };
    let size = size.map(|size| format!("size={size}"));
    let try_mount = |extra: Option<&str>| {
        let options: Vec<&str> = size.as_deref().into_iter().chain(extra).collect();
        mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options.join(",").as_str()))
    };
    if keep_in_memory {
        match try_mount(Some("noswap")) {
            Err(Errno::EINVAL) => {}
            done => return Ok(done?),
        }
    }
    Ok(try_mount(None)?)
}

/// Mounts a hugetlbfs unless one is there. `page_size` in bytes.
pub fn mount_hugetlbfs(dir: &Path, page_size: Option<u64>) -> io::Result<()> {
    if is_other_filesystem(dir)? {
        return Ok(());
    }
    let options = page_size.map(|size| format!("pagesize={size}"));
    Ok(mount(Some("nodev"), dir, Some("hugetlbfs"), MsFlags::empty(), options.as_deref())?)
}

/// Unmounts without following a link at the end; absent mounts are success.
/// A busy one is tried again for about two seconds.
pub fn unmount(point: &Path) -> io::Result<()> {
    let mut pause = Duration::from_millis(10);
    loop {
        match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if pause < Duration::from_secs(1) => {
                // Runs on a blocking thread; the kernel has no event for this.
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Unmounts everything at or below `dir` and removes it.
pub fn unmount_and_remove(dir: &Path) -> io::Result<()> {
    for point in mounts_below(dir)? {
        unmount(&point)?;
    }
    dirtree::remove(dir)
}
