//! Ending what is left in a cgroup: processes that left their container's, or
//! that the runtime forgot.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::CgroupError;
use crate::read;

/// How often lists of processes are gone over: they may fork meanwhile. As upstream
/// (pkg/kubelet/cm/pod_container_manager_linux.go).
const ROUNDS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// A cgroup and those below it, parents first. Iterative: containers with a
/// hierarchy of their own nest as they like.
fn with_descendants(dir: &Path) -> Vec<PathBuf> {
    let (mut all, mut next) = (vec![dir.to_owned()], 0);
    while let Some(dir) = all.get(next) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let below: Vec<PathBuf> =
            entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
        all.extend(below);
        next += 1;
    }
    all
}

/// Has the kernel kill everything in a v2 cgroup and below it at once, and waits until it did. False where the kernel
/// has no such file (before 5.14). Blocking.
pub(super) fn by_kernel(dir: &Path) -> bool {
    let asked = put(&dir.join("cgroup.kill"), "1");
    if asked {
        wait_until(|| !is_occupied(dir));
    }
    asked
}

/// Kills every process of these directories and those below, held still by the file `freezer` meanwhile where there
/// is one: v1's `freezer.state` or v2's `cgroup.freeze`. Blocking.
pub(super) fn by_signals(dirs: &[PathBuf], freezer: Option<&Path>) {
    let left = || -> Vec<Pid> { dirs.iter().flat_map(|dir| processes(dir)).collect() };
    if left().is_empty() {
        return;
    }
    let is_v2 = freezer.and_then(|file| file.file_name()).is_some_and(|name| name == "cgroup.freeze");
    let (freeze, thaw) = if is_v2 { ("1", "0") } else { ("FROZEN", "THAWED") };
    let set = |state: &str| freezer.is_some_and(|file| put(file, state));
    for _ in 0..ROUNDS {
        if set(freeze) && !is_v2 {
            wait_until(|| freezer.is_some_and(|file| holds(file, freeze)));
        }
        let left = left();
        for pid in &left {
            // One that ended meanwhile is what we want.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        // A signal that kills reaches a frozen process of v2 at once, one of v1 when it is thawed.
        if !is_v2 {
            set(thaw);
        }
        if left.is_empty() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    set(thaw);
}

/// Whether there is a process in a cgroup or below it, also one of another PID namespace.
pub fn is_occupied(dir: &Path) -> bool {
    let lists = with_descendants(dir).into_iter().filter_map(|d| read::text(d.join("cgroup.procs"), read::MUCH).ok());
    lists.into_iter().any(|list| !list.trim().is_empty())
}

/// Removes a cgroup and those below it. Directories only, deepest first: files
/// of a cgroup go by themselves. Absent is success.
pub fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    for dir in with_descendants(dir).into_iter().rev() {
        match fs::remove_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(CgroupError::Remove { path: dir, source: e }),
            _ => {}
        }
    }
    Ok(())
}

/// Names of what is in a directory.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether the kernel has the file and takes the value.
fn put(file: &Path, value: &str) -> bool {
    OpenOptions::new().write(true).open(file).and_then(|mut file| file.write_all(value.as_bytes())).is_ok()
}

fn holds(file: &Path, value: &str) -> bool {
    read::text(file, read::MUCH).is_ok_and(|text| text.trim() == value)
}

/// Waits for what the kernel does in its own time; not for ever.
fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..ROUNDS {
        if done() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Processes that a cgroup and those below it hold; never ourselves, nor those
/// of other PID namespaces, which show as 0.
fn processes(dir: &Path) -> Vec<Pid> {
    let lists = with_descendants(dir).into_iter().filter_map(|d| read::text(d.join("cgroup.procs"), read::MUCH).ok());
    let pids: Vec<Pid> = lists.flat_map(|list| parse(&list)).collect();
    pids.into_iter().filter(|pid| *pid != Pid::this()).collect()
}

pub(crate) fn parse(list: &str) -> Vec<Pid> {
    list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).map(Pid::from_raw).collect()
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::{Child, Command, Stdio};
    use std::sync::Mutex;

    use super::*;

    /// A cgroup of a test's own in the kernel's mounts, gone with everything in it when this is dropped.
    pub(in super::super) struct Real {
        pub cgroup: PathBuf,
        mounts: Vec<PathBuf>,
        children: Mutex<Vec<Child>>,
    }

    impl Real {
        pub fn new(mounts: &[PathBuf]) -> Self {
            let cgroup = PathBuf::from(format!("copepod-test-{:08x}", rand::random::<u32>()));
            for mount in mounts {
                fs::create_dir(mount.join(&cgroup)).expect("cgroup tests need root and cgroups that can be written");
            }
            Self { cgroup, mounts: mounts.to_vec(), children: Mutex::default() }
        }

        /// A shell in `below` that makes processes which make processes, a bounded number at a time. It runs when this
        /// returns.
        pub fn fork_bomb(&self, below: &str) {
            let directories: Vec<PathBuf> =
                self.mounts.iter().map(|mount| mount.join(&self.cgroup).join(below)).collect();
            directories.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
            let join: String =
                directories.iter().map(|dir| format!("echo $$ > {}/cgroup.procs; ", dir.display())).collect();
            let script =
                format!("{join} echo in; f() {{ sleep 0.02; f & }}; for i in 1 2 3 4 5 6 7 8; do f & done; sleep 60");
            let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
            let mut output = child.stdout.take().unwrap();
            io::Read::read_exact(&mut output, &mut [0; 3]).unwrap();
            self.children.lock().unwrap().push(child);
        }
    }

    impl Drop for Real {
        fn drop(&mut self) {
            for mount in &self.mounts {
                let dir = mount.join(&self.cgroup);
                if !by_kernel(&dir) {
                    by_signals(std::slice::from_ref(&dir), Some(&dir.join("freezer.state")));
                }
            }
            for mut child in self.children.lock().unwrap().drain(..) {
                let _ = child.kill();
                let _ = child.wait();
            }
            for mount in &self.mounts {
                let _ = remove_tree(&mount.join(&self.cgroup));
            }
        }
    }

    #[test]
    fn lists_of_processes() {
        assert_eq!(parse("0\n1\n-5\n17\nx\n\n23\n"), [17, 23].map(Pid::from_raw));
    }

    /// On a directory that looks like a cgroup of v1: the kernel's part is the list.
    #[test]
    fn processes_of_the_whole_subtree_are_killed() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(dir.path().join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        fs::write(below.join("cgroup.procs"), format!("{}\n", child.id())).unwrap();
        by_signals(&[dir.path().to_owned()], None);
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[test]
    fn descendants_come_after_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        let all = with_descendants(dir.path());
        assert_eq!(all, ["", "a", "a/b"].map(|p| dir.path().join(p).components().collect::<PathBuf>()));
        assert_eq!(with_descendants(&dir.path().join("none")).len(), 1);
    }
}
