//! The kernel's log, asked for one thing: which containers it killed for memory.
//!
//! A container's own cgroup, with its counters, is gone when its end is seen; the
//! log still has the cgroup's path, which ends in the container's id. Nothing is
//! read before somebody asks, and nothing twice.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Victims that are remembered; their containers' ends are seen within seconds.
const REMEMBERED: usize = 1024;
/// More than a record of the kernel's can be.
const RECORD: usize = 16 * 1024;

/// The log, and what was read of it.
#[derive(Debug, Default)]
pub struct KernelLog(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// `None` where it cannot be read: then nobody was killed as far as we know.
    file: Option<File>,
    /// cgroups of which processes were killed for memory, oldest first.
    victims: VecDeque<String>,
}

impl KernelLog {
    /// The log at `path`, usually `/dev/kmsg`, from its beginning.
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.inspect_err(|error| tracing::info!(%error, "the kernel's log cannot be read")).ok();
        Self(Mutex::new(Inner { file, victims: VecDeque::new() }))
    }

    /// Whether the kernel killed processes of that container for memory. Blocks
    /// for as long as reading new records takes.
    pub fn was_killed_for_memory(&self, container: &str) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.read_on();
        inner.victims.iter().any(|cgroup| cgroup.contains(container))
    }
}

impl Inner {
    fn read_on(&mut self) {
        let Some(file) = self.file.as_mut() else { return };
        let mut record = vec![0; RECORD];
        loop {
            let text = match file.read(&mut record) {
                Ok(0) => return,
                Ok(n) => String::from_utf8_lossy(&record[..n]).into_owned(),
                // Records were overwritten before they were read: the next one follows.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            self.victims.extend(text.lines().filter_map(victim).map(str::to_owned));
            while self.victims.len() > REMEMBERED {
                self.victims.pop_front();
            }
        }
    }
}

/// The cgroup of which a line of the log says that it was killed for memory. Pure.
pub(crate) fn victim(line: &str) -> Option<&str> {
    if line.contains("oom-kill:") {
        let after = line.split_once("task_memcg=")?.1;
        return after.split(',').next();
    }
    let after = line.split_once("Tasks in ")?.1;
    after.split_once(" are going to be killed due to memory.oom.group set").map(|(cgroup, _)| cgroup)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write as _;

    #[test]
    fn lines_of_the_kernel() {
        let kill = "6,999,123456,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c,mems_allowed=0,\
            oom_memcg=/kubepods/burstable/podu,task_memcg=/kubepods/burstable/podu/abc,task=demo,pid=42,uid=0";
        assert_eq!(victim(kill), Some("/kubepods/burstable/podu/abc"));
        let group = "3,1,1,-;Tasks in /kubepods/podu/abc are going to be killed due to memory.oom.group set";
        assert_eq!(victim(group), Some("/kubepods/podu/abc"));
        for other in
            ["", "oom-kill:", "Tasks in x", "6,1,1,-;task_memcg=/x", "Memory cgroup out of memory: Killed process 1"]
        {
            assert_eq!(victim(other), None, "{other}");
        }
    }

    #[test]
    fn what_comes_later_is_read_later() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = KernelLog::open(file.path());
        assert!(!log.was_killed_for_memory("abc"));
        writeln!(file.as_file(), "1;oom-kill:task_memcg=/p/abc,task=x").unwrap();
        assert!(log.was_killed_for_memory("abc") && !log.was_killed_for_memory("abd"));
        for n in 0..2 * REMEMBERED {
            writeln!(file.as_file(), "1;oom-kill:task_memcg=/p/{n},task=x").unwrap();
        }
        assert!(!log.was_killed_for_memory("abc"), "memory is bounded");
        assert!(!KernelLog::open(Path::new("/no/such/log")).was_killed_for_memory("abc"));
    }
}
