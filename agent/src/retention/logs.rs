//! Keeps logs small, by renaming, having the runtime reopen, compressing and forgetting; and removes those of a
//! container with it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri::{ContainerId, CriError, RuntimeService};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub use super::plan::logs::RotationPolicy;
use super::plan::logs::{Step, before_rotation, is_of};
use crate::logs::open;
use crate::podcache::PodCache;

/// Removes a log and what was rotated of it, one whether or not another one can be. Absent is success; so is a link in
/// place of the container's directory: what is behind it was never the runtime's.
pub fn remove(log: &Path) -> io::Result<()> {
    let name = log.file_name().ok_or_else(|| io::Error::other("not a file in a directory"))?;
    let Some(directory) = open::directory_of(log)? else { return Ok(()) };
    let mut removed = Ok(());
    for found in entries(&directory)? {
        if is_of(name.as_encoded_bytes(), found.as_encoded_bytes()) {
            removed = removed.and(cri::dirtree::remove_in(&directory, &found));
        }
    }
    removed
}

fn entries(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut found = Vec::new();
    for entry in Dir::openat(directory, ".", flags, Mode::empty())?.iter() {
        found.push(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned());
    }
    Ok(found)
}

/// A rotation that failed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("prepare rotated files of {path:?}")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("rename log {path:?}")]
    Rename { path: PathBuf, source: io::Error },
    #[error("reopen log of container {id}")]
    Reopen { id: ContainerId, source: CriError },
}

/// Looks at the logs of running containers now and then.
#[derive(Debug)]
pub struct LogRotator {
    runtime: Arc<dyn RuntimeService>,
    cache: Arc<PodCache>,
    policy: RotationPolicy,
}

impl LogRotator {
    /// A rotator for the running containers of `cache`.
    pub fn new(runtime: Arc<dyn RuntimeService>, cache: Arc<PodCache>, policy: RotationPolicy) -> Self {
        Self { runtime, cache, policy }
    }

    /// Runs until cancelled.
    pub async fn run(&self, token: CancellationToken) {
        let mut ticks = tokio::time::interval(self.policy.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                // Cancel-safe: a tick that was not taken comes again.
                _ = ticks.tick() => self.check_all().await,
            }
        }
    }

    async fn check_all(&self) {
        for pod in self.cache.all() {
            for container in pod.containers.iter().filter(|c| c.is_running()) {
                let path = Path::new(&container.status.log_path);
                let result = match open::log(path).and_then(|log| log.metadata()) {
                    Ok(meta) if meta.len() < self.policy.max_size => continue,
                    Ok(_) => self.rotate(container.id(), path).await,
                    // A rotation ended between its rename and the reopening, or
                    // somebody removed the file: the runtime writes where nobody looks.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => self.reopen(container.id()).await,
                    Err(_) => continue,
                };
                if let Err(error) = result {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(container.id = %container.id(), %error, source, "log not rotated");
                }
            }
        }
    }

    async fn reopen(&self, id: &ContainerId) -> Result<(), RotateError> {
        let reopened = self.runtime.reopen_container_log(id).await;
        reopened.map_err(|source| RotateError::Reopen { id: id.clone(), source })
    }

    /// Rotates one log. Dying between rename and reopen loses nothing: the
    /// runtime goes on in the renamed file until the next look, which finds no
    /// file and has it reopened.
    pub async fn rotate(&self, id: &ContainerId, path: &Path) -> Result<(), RotateError> {
        let (log, max_files) = (path.to_owned(), self.policy.max_files);
        let prepared = tokio::task::spawn_blocking(move || prepare(&log, max_files)).await;
        let prepared = prepared
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| RotateError::Prepare { path: path.to_owned(), source });
        // What could not be done to older files is no reason for this one to grow on.
        self.rename(id, path).await?;
        prepared
    }

    async fn rename(&self, id: &ContainerId, path: &Path) -> Result<(), RotateError> {
        let mut rotated = path.as_os_str().to_owned();
        rotated.push(Timestamp::now().strftime(".%Y%m%d-%H%M%S").to_string());
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|source| RotateError::Rename { path: from.to_owned(), source })
        };
        rename(path, Path::new(&rotated))?;
        let reopened = self.reopen(id).await;
        // Without a new file the runtime still writes to the old one: give that
        // its name back.
        if reopened.is_err() && !path.exists() {
            rename(Path::new(&rotated), path)?;
        }
        reopened
    }
}

/// Makes room among the rotated files, one whether or not another one can be removed or compressed.
fn prepare(log: &Path, max_files: usize) -> io::Result<()> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Err(io::Error::other("not a file in a directory"));
    };
    let beside: Vec<String> =
        fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let steps = before_rotation(name, &beside, max_files);
    let done = steps.into_iter().map(|step| match step {
        Step::Remove(name) => cri::dirtree::remove(&dir.join(name)),
        Step::Compress(name) => compress(&dir.join(name)),
    });
    done.fold(Ok(()), Result::and)
}

/// Writes `<path>.gz` under a temporary name, then removes the original: dying
/// between leaves what [`before_rotation`] cleans up.
fn compress(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let (unfinished, finished) = (with(".gz.tmp"), with(".gz"));
    let mut log = open::log(path)?;
    // What is left of an earlier try goes; nothing that somebody put in its place is written through.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut encoder = GzEncoder::new(File::create_new(&unfinished)?, Compression::fast());
    io::copy(&mut log, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&unfinished, &finished)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cri::fake::{FakeRuntime, Op};
    use cri::types::{ContainerConfig, SandboxConfig};

    fn left(dir: &Path) -> Vec<String> {
        let mut left: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        left
    }

    #[test]
    fn only_the_log_itself_and_its_rotated_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let all = ["1.log", "1.log.20260101-000000", "1.log.20260101-000000.gz", "10.log", "11.log", "1.logs"];
        for name in all {
            fs::write(dir.path().join(name), "").unwrap();
        }
        // Whoever put that there.
        fs::create_dir_all(dir.path().join("1.log.d/e")).unwrap();
        remove(&dir.path().join("1.log")).unwrap();
        remove(&dir.path().join("1.log")).unwrap();
        remove(&dir.path().join("none/1.log")).unwrap();
        assert_eq!(left(dir.path()), ["1.logs", "10.log", "11.log"]);
    }

    #[test]
    fn logs_behind_a_link_are_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let [own, others] = ["pods/ns_p_u/c", "pods/ns_q_v/c"].map(|name| dir.path().join(name));
        fs::create_dir_all(&others).unwrap();
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        fs::write(others.join("1.log"), "").unwrap();
        std::os::unix::fs::symlink(&others, &own).unwrap();
        remove(&own.join("1.log")).unwrap();
        assert_eq!(left(&others), ["1.log"]);
    }

    /// A file that cannot be compressed, or is not one, lets no log grow for ever.
    #[tokio::test]
    async fn what_is_in_the_way_of_a_rotation_is_passed_by() {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, container) = running(dir.path()).await;
        fs::write(dir.path().join("0.log"), "new").unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("0.log.20200101-000000")).unwrap();
        fs::write(dir.path().join("0.log.20200102-000000"), "old").unwrap();
        let rotator = LogRotator::new(runtime.clone(), Arc::default(), RotationPolicy::default());
        let error = rotator.rotate(&container, &dir.path().join("0.log")).await.unwrap_err();
        assert!(matches!(error, RotateError::Prepare { .. }), "{error}");
        assert_eq!(runtime.count(Op::ReopenContainerLog), 1);
        assert!(!dir.path().join("0.log").exists(), "it was rotated");
        assert_eq!(left(dir.path())[1], "0.log.20200102-000000.gz");
    }

    /// A container that logs into a directory.
    async fn running(dir: &Path) -> (Arc<FakeRuntime>, ContainerId) {
        let runtime = FakeRuntime::new();
        runtime.add_image("img:1");
        let sandbox = SandboxConfig { log_directory: dir.to_str().unwrap().into(), ..SandboxConfig::default() };
        let id = runtime.run_pod_sandbox(&sandbox, "").await.unwrap();
        let config = ContainerConfig { image: "img:1".into(), log_path: "0.log".into(), ..ContainerConfig::default() };
        let container = runtime.create_container(&id, &config, &sandbox).await.unwrap();
        runtime.start_container(&container).await.unwrap();
        (runtime, container)
    }

    /// A running container whose log was renamed and not reopened: the agent died
    /// in between.
    #[tokio::test]
    async fn a_log_that_was_left_renamed_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(dir.path().join("0.log.20260101-000000"), "written to still").unwrap();
        let (runtime, container) = running(dir.path()).await;
        let status = runtime.container_status(&container).await.unwrap();
        let sandbox = runtime.sandboxes()[0].summary.id.clone();
        let cache = Arc::new(PodCache::new());
        cache.put(crate::testutil::runtime(vec![], vec![(sandbox, status)]));
        let rotator = LogRotator::new(runtime.clone(), cache, RotationPolicy::default());
        rotator.check_all().await;
        assert_eq!(runtime.count(Op::ReopenContainerLog), 1);
        assert!(dir.path().join("0.log.20260101-000000").exists(), "nothing is lost");
        fs::write(&log, "small").unwrap();
        rotator.check_all().await;
        assert_eq!(runtime.count(Op::ReopenContainerLog), 1, "it is there");
    }

    #[tokio::test]
    async fn a_runtime_that_does_not_reopen_gets_its_file_back() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, "data").unwrap();
        fs::write(dir.path().join("0.log.20200101-000000"), "old").unwrap();
        let runtime: Arc<dyn RuntimeService> = FakeRuntime::new();
        let rotator = LogRotator::new(runtime, Arc::default(), RotationPolicy::default());
        // The fake knows no such container.
        let error = rotator.rotate(&ContainerId::new("none"), &log).await.unwrap_err();
        assert!(matches!(error, RotateError::Reopen { .. }), "{error}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "data");
        assert!(dir.path().join("0.log.20200101-000000.gz").exists());
        assert!(!dir.path().join("0.log.20200101-000000").exists());
    }
}
