//! What ended containers leave: a message in the termination file, else in the
//! log's tail, and the kernel's word on whether it killed them for memory.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::types::{ContainerState, ContainerStatus};

use super::kernel_log::KernelLog;
use crate::convert::labels;
use crate::logs;
use crate::podcache::RuntimePod;
use crate::status::containers::{OOM_KILLED, TerminationMessage, TerminationMessages};

/// Bytes kept of one container's message.
const MAX_MESSAGE: u64 = 4096;

/// `known` with the messages of containers that ended since it was filled, and
/// without those of containers that are gone.
pub(super) async fn read_new(
    runtime: &RuntimePod,
    known: &TerminationMessages,
    kernel: &Arc<KernelLog>,
) -> TerminationMessages {
    let mut all = TerminationMessages::new();
    for container in &runtime.containers {
        let status = &container.status;
        if let Some(message) = known.get(&status.id) {
            all.insert(status.id.clone(), message.clone());
        } else if status.state == ContainerState::Exited {
            all.insert(status.id.clone(), read_one(status, kernel).await);
        }
    }
    all
}

async fn read_one(status: &ContainerStatus, kernel: &Arc<KernelLog>) -> TerminationMessage {
    let source = Source::of(status);
    // containerd before 2.0 may learn of the end before it learns of its cause.
    let doubtful = (status.exit_code == 137 && status.reason != OOM_KILLED).then(|| status.id.clone());
    let kernel = kernel.clone();
    let read = move || TerminationMessage {
        text: source.read(),
        oom_killed: doubtful.is_some_and(|id| kernel.was_killed_for_memory(id.as_str())),
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// Where to look, taken from what the container was created with.
struct Source {
    file: Option<PathBuf>,
    log: Option<PathBuf>,
}

impl Source {
    fn of(status: &ContainerStatus) -> Self {
        let inside = status.annotations.get(labels::CONTAINER_TERMINATION_PATH);
        let mount = inside.and_then(|p| status.mounts.iter().rfind(|m| m.container_path == *p));
        let fall_back =
            status.annotations.get(labels::CONTAINER_TERMINATION_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
        let log = (fall_back && status.exit_code != 0 && !status.log_path.is_empty())
            .then(|| PathBuf::from(&status.log_path));
        Self { file: mount.map(|m| PathBuf::from(&m.host_path)), log }
    }

    fn read(&self) -> String {
        let text = self.file.as_deref().and_then(|f| tail(f, MAX_MESSAGE).ok()).unwrap_or_default();
        match &self.log {
            Some(log) if text.is_empty() => logs::termination_text(log).unwrap_or_default(),
            _ => text,
        }
    }
}

/// The last `limit` bytes of a file as text; never more, however large it grew.
fn tail(path: &Path, limit: u64) -> std::io::Result<String> {
    // The pod may have put anything there: a pipe without a writer would never be opened.
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW;
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Ok(String::new());
    }
    let length = about.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testutil::{instance, pod, runtime};
    use cri::types::Mount;

    /// A pod may have a pipe or a link where its message is looked for: neither holds anybody up, nor leads elsewhere.
    #[test]
    fn only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, file, link) = (dir.path().join("p"), dir.path().join("f"), dir.path().join("l"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::fs::write(&file, "bye").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(tail(&pipe, 10).unwrap(), "");
        assert_eq!(tail(&file, 10).unwrap(), "bye");
        assert!(tail(&link, 10).is_err());
    }

    #[tokio::test]
    async fn files_and_logs() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("t"), dir.path().join("0.log"));
        std::fs::write(&log, "2024-01-01T00:00:00Z stderr F boom\n").unwrap();
        let pod = pod("  containers: [{name: a, terminationMessagePolicy: FallbackToLogsOnError}]");
        let (sandbox, mut status) = instance(&pod, "a", 0, ContainerState::Exited, 1);
        status.log_path = log.to_string_lossy().into_owned();
        status.mounts = vec![Mount {
            container_path: "/dev/termination-log".into(),
            host_path: file.to_string_lossy().into_owned(),
            ..Mount::default()
        }];
        let id = status.id.clone();
        let view = runtime(vec![], vec![(sandbox, status)]);
        for (content, expect) in [
            (None, "boom\n".to_owned()),
            (Some(b"bye".to_vec()), "bye".to_owned()),
            (Some(vec![b'x'; 10_000]), "x".repeat(4096)),
            (Some(b"\xffok".to_vec()), "\u{fffd}ok".to_owned()),
        ] {
            if let Some(content) = content {
                std::fs::write(&file, content).unwrap();
            }
            let messages = read_new(&view, &TerminationMessages::new(), &Arc::default()).await;
            assert_eq!(messages[&id], TerminationMessage { text: expect, oom_killed: false });
        }
        let known = TerminationMessages::from([(cri::ContainerId::new("gone"), TerminationMessage::default())]);
        assert!(read_new(&runtime(vec![], vec![]), &known, &Arc::default()).await.is_empty());
    }

    #[tokio::test]
    async fn the_kernel_tells_who_was_killed_for_memory() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("kmsg");
        let line = "6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/p/a-0,task_memcg=/p/a-0,task=x,pid=1,uid=0\n";
        std::fs::write(&log, line).unwrap();
        let kernel = Arc::new(KernelLog::open(&log));
        let pod = pod("  containers: [{name: a}, {name: b}, {name: c}]");
        let all = ["a", "b", "c"].map(|n| instance(&pod, n, 0, ContainerState::Exited, if n == "c" { 1 } else { 137 }));
        let messages = read_new(&runtime(vec![], all.to_vec()), &TerminationMessages::new(), &kernel).await;
        let killed = ["a-0", "b-0", "c-0"].map(|id| messages[&cri::ContainerId::new(id)].oom_killed);
        assert_eq!(killed, [true, false, false]);
    }
}
