//! Keeps log files small: rename, have the runtime reopen, compress, forget.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::{ContainerId, CriError, RuntimeService};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::open;
use crate::podcache::PodCache;

/// When to rotate and how much to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    /// Bytes from which a file is rotated.
    pub max_size: u64,
    /// Files per container, the current one among them; at least 2.
    pub max_files: usize,
    /// How often sizes are looked at.
    pub period: Duration,
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5, period: Duration::from_secs(10) }
    }
}

/// One thing to do to the files beside a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Remove(String),
    /// Replace by `<name>.gz`.
    Compress(String),
}

/// What to do to the rotated files of `log` (file names) before it is rotated
/// once more. Pure.
pub fn plan(log: &str, beside: &[String], max_files: usize) -> Vec<Step> {
    let prefix = format!("{log}.");
    let mut rotated: Vec<&str> = beside.iter().map(String::as_str).filter(|name| name.starts_with(&prefix)).collect();
    rotated.sort_unstable();
    let mut steps = Vec::new();
    // Leftovers of a rotation that died: half-written archives, and originals
    // whose archive is complete.
    rotated.retain(|name| {
        let archived = rotated_contains(beside, &format!("{name}.gz"));
        let leftover = name.ends_with(".tmp") || archived;
        if leftover {
            steps.push(Step::Remove((*name).to_owned()));
        }
        !leftover
    });
    // The current file and the one about to be made count too.
    let keep = max_files.saturating_sub(2);
    let excess = rotated.len().saturating_sub(keep);
    steps.extend(rotated.drain(..excess).map(|name| Step::Remove(name.to_owned())));
    let plain = rotated.into_iter().filter(|name| !name.ends_with(".gz"));
    steps.extend(plain.map(|name| Step::Compress(name.to_owned())));
    steps
}

fn rotated_contains(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n == name)
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
        prepared
            .map_err(io::Error::other)
            .flatten()
            .map_err(|source| RotateError::Prepare { path: path.to_owned(), source })?;
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

fn prepare(log: &Path, max_files: usize) -> io::Result<()> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Err(io::Error::other("not a file in a directory"));
    };
    let beside: Vec<String> =
        fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    for step in plan(name, &beside, max_files) {
        match step {
            Step::Remove(name) => fs::remove_file(dir.join(name))?,
            Step::Compress(name) => compress(&dir.join(name))?,
        }
    }
    Ok(())
}

/// Writes `<path>.gz` under a temporary name, then removes the original: dying
/// between leaves what [`plan`] cleans up.
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

    #[test]
    fn plans() {
        let check = |beside: &[&str], max_files, expect: &[&str]| {
            let beside: Vec<String> = beside.iter().map(|n| (*n).to_owned()).collect();
            let steps: Vec<String> = plan("0.log", &beside, max_files)
                .into_iter()
                .map(|step| match step {
                    Step::Remove(name) => format!("-{name}"),
                    Step::Compress(name) => format!("z{name}"),
                })
                .collect();
            assert_eq!(steps, expect, "{beside:?}");
        };
        check(&["0.log"], 5, &[]);
        check(&["0.log", "1.log.1", "0.log.2"], 5, &["z0.log.2"]);
        check(&["0.log", "0.log.1.gz", "0.log.2.gz", "0.log.3.gz", "0.log.4"], 5, &["-0.log.1.gz", "z0.log.4"]);
        check(&["0.log", "0.log.1"], 2, &["-0.log.1"]);
        check(&["0.log", "0.log.1.gz.tmp", "0.log.1"], 5, &["-0.log.1.gz.tmp", "z0.log.1"]);
        check(&["0.log", "0.log.1.gz", "0.log.1"], 5, &["-0.log.1"]);
        check(&[], 0, &[]);
    }

    /// A running container whose log was renamed and not reopened: the agent died
    /// in between.
    #[tokio::test]
    async fn a_log_that_was_left_renamed_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(dir.path().join("0.log.20260101-000000"), "written to still").unwrap();
        let runtime = FakeRuntime::new();
        runtime.add_image("img:1");
        let sandbox = SandboxConfig { log_directory: dir.path().to_str().unwrap().into(), ..SandboxConfig::default() };
        let id = runtime.run_pod_sandbox(&sandbox, "").await.unwrap();
        let config = ContainerConfig { image: "img:1".into(), log_path: "0.log".into(), ..ContainerConfig::default() };
        let container = runtime.create_container(&id, &config, &sandbox).await.unwrap();
        runtime.start_container(&container).await.unwrap();
        let status = runtime.container_status(&container).await.unwrap();
        let cache = Arc::new(PodCache::new());
        cache.put(crate::testutil::runtime(vec![], vec![(id, status)]));
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
