//! Ending what is left in a cgroup: processes that left their container's, or
//! that the runtime forgot.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often v1's list of processes is gone over: they may fork meanwhile.
const ROUNDS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// A cgroup and those below it, parents first. Iterative: containers with a
/// hierarchy of their own nest as they like.
pub(super) fn with_descendants(dir: &Path) -> Vec<PathBuf> {
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

/// Kills every process in a cgroup and below it. Blocking. What refuses shows
/// when the cgroup is removed.
pub(super) fn kill_all(dir: &Path) {
    // v2 since 5.14 does it at once, whatever forks.
    if put(&dir.join("cgroup.kill"), "1") {
        wait_until_empty(dir);
        return;
    }
    // v1: frozen processes cannot fork away from the signal, and die when thawed.
    let frozen = put(&dir.join("freezer.state"), "FROZEN");
    for _ in 0..ROUNDS {
        let left = processes(dir);
        for pid in &left {
            // One that ended meanwhile is what we want.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        if frozen {
            put(&dir.join("freezer.state"), "THAWED");
        }
        if left.is_empty() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether there is a process in a cgroup or below it, also one of another PID namespace.
pub(super) fn is_occupied(dir: &Path) -> bool {
    let lists = with_descendants(dir).into_iter().filter_map(|d| fs::read_to_string(d.join("cgroup.procs")).ok());
    lists.into_iter().any(|list| !list.trim().is_empty())
}

/// Whether the kernel has the file and takes the value.
fn put(file: &Path, value: &str) -> bool {
    OpenOptions::new().write(true).open(file).and_then(|mut file| file.write_all(value.as_bytes())).is_ok()
}

fn wait_until_empty(dir: &Path) {
    for _ in 0..ROUNDS {
        if processes(dir).is_empty() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Processes that a cgroup and those below it hold; never ourselves, nor those
/// of other PID namespaces, which show as 0.
fn processes(dir: &Path) -> Vec<Pid> {
    let lists = with_descendants(dir).into_iter().filter_map(|d| fs::read_to_string(d.join("cgroup.procs")).ok());
    let pids: Vec<Pid> = lists.flat_map(|list| parse(&list)).collect();
    pids.into_iter().filter(|pid| *pid != Pid::this()).collect()
}

fn parse(list: &str) -> Vec<Pid> {
    list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

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
        kill_all(dir.path());
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
