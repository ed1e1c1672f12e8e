//! A private containerd: configured, started, adopted, watched over, stopped.
//!
//! Owns one containerd with a root, state and socket of its own, made from the
//! `containerd` and `runc` (or `crun`) found on PATH. It outlives this process
//! in a session of its own; the next start adopts it when its socket answers
//! and neither its version nor its configuration changed, and otherwise
//! replaces the daemon without touching the containers, whose shims are
//! processes of their own.

pub(crate) mod config;
mod detect;
mod process;
mod purge;
mod supervise;
mod sys;
mod version;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::CriClient;
use crate::error::CriError;
pub use crate::types::CgroupDriver;
pub use purge::{Keep, SHARED_DIRECTORIES, purge, remove_unused};
use supervise::Supervisor;

/// The program that starts processes inside containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OciRuntime {
    /// `runc`, which every containerd release works with. crun before 1.20
    /// refuses the OCI versions of containerd 1.7 and later, and any crun
    /// refuses hybrid cgroups, so it is a choice and not a default.
    #[default]
    Runc,
    /// A program by path, or by name on PATH.
    Program(String),
}

/// Where container file systems are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshotter {
    Overlayfs,
    /// Plain copies, for where overlays cannot be stacked.
    Native,
}

/// What a private containerd is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Images and container file systems; survives reboots.
    pub root: PathBuf,
    /// Sockets, configuration and mounts; may be a tmpfs.
    pub state: PathBuf,
    /// Directory with the CNI plugins, `loopback` among them (before 2.0).
    pub cni_bin_dir: PathBuf,
    /// Directory with the CNI network configuration.
    pub cni_conf_dir: PathBuf,
    pub cgroup_driver: CgroupDriver,
    pub oci_runtime: OciRuntime,
    /// Further runtime handlers, for RuntimeClasses: programs by the handler's
    /// name. One whose program is not found is left out.
    pub handlers: BTreeMap<String, String>,
    /// `None` finds out what the file system of `root` can do.
    pub snapshotter: Option<Snapshotter>,
    /// `None` takes the one on PATH.
    pub containerd: Option<PathBuf>,
    /// The image of every sandbox's own process.
    pub sandbox_image: String,
    /// Layers downloaded at once for one image.
    pub max_concurrent_downloads: u32,
    /// How long it may take to answer after its start.
    pub start_timeout: Duration,
    /// Soft and hard limit on open files that it starts with, and so every
    /// container; `None` for those of this process.
    pub open_files: Option<(u64, u64)>,
    /// Those of [`SHARED_DIRECTORIES`] that were there before: a purge leaves them, empty or not.
    pub directories_of_others: Vec<PathBuf>,
}

impl Options {
    /// The usual choices, for a node's data and run directories.
    pub fn new(data_dir: &Path, run_dir: &Path) -> Self {
        Self {
            root: data_dir.join("containerd"),
            state: run_dir.join("containerd"),
            cni_bin_dir: data_dir.join("cni/bin"),
            cni_conf_dir: data_dir.join("cni/net.d"),
            cgroup_driver: CgroupDriver::default(),
            oci_runtime: OciRuntime::default(),
            handlers: BTreeMap::from([("crun".to_owned(), "crun".to_owned())]),
            snapshotter: None,
            containerd: None,
            sandbox_image: crate::images::PAUSE.to_owned(),
            max_concurrent_downloads: 3,
            start_timeout: Duration::from_secs(60),
            open_files: None,
            directories_of_others: Vec::new(),
        }
    }

    /// Path of the socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    /// Path of the generated configuration.
    pub fn config_file(&self) -> PathBuf {
        self.state.join("config.toml")
    }

    /// Path of containerd's log.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("containerd.log")
    }
}

/// Why there is no containerd.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// A program is not installed.
    #[error("{program} is not on PATH: install it (on Debian: apt-get install {package})")]
    Missing { program: String, package: &'static str },
    /// A program is there but does not work.
    #[error("{program} does not tell its version: {problem}")]
    Version { program: String, problem: String },
    /// A release we cannot configure.
    #[error("containerd {version} is too old: 1.6 or later is needed")]
    TooOld { version: String },
    /// A file or directory cannot be made, read or removed.
    #[error("{what} {path}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    /// The process did not start.
    #[error("start {program}")]
    Spawn { program: PathBuf, source: io::Error },
    /// It ended, or did not answer in time.
    #[error("containerd {problem}; its log {log} ends with: {last}")]
    NotReady { problem: String, log: PathBuf, last: String },
    /// A process that should end does not.
    #[error("process {pid} of containerd does not end within {within:?}")]
    Stuck { pid: u32, within: Duration },
    /// The runtime refused to remove its pods.
    #[error("remove the pods of containerd")]
    Pods { source: CriError },
    /// The path of the socket is longer than the kernel takes.
    #[error("{path} is too long for a socket: choose a shorter run directory")]
    SocketPath { path: PathBuf },
}

/// Whether the runtime answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// It ended and is being started again.
    Down,
}

/// What happens to containerd when its owner goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// It runs on, and the next start adopts it.
    LeaveRunning,
    /// The daemon ends; containers run on.
    StopDaemon,
}

/// A running containerd and the task that watches over it. Dropping it leaves
/// containerd running, without supervision.
#[derive(Debug)]
pub struct Containerd {
    options: Options,
    supervisor: Supervisor,
}

impl Containerd {
    /// Adopts the containerd of `options`, or starts one, and returns when it
    /// answers CRI calls. From then on it is started again whenever it ends,
    /// until `cancel` or [`Containerd::shutdown`].
    pub async fn start(options: Options, cancel: CancellationToken) -> Result<Self, ContainerdError> {
        let mut plan = process::prepare(&options).await?;
        let process = match process::adopt_or_start(&options, &plan).await {
            // It may not be what it was, and configured for that.
            Err(problem) => match process::ask_again(&options, &plan).await {
                Some(another) => {
                    plan = another;
                    process::adopt_or_start(&options, &plan).await?
                }
                None => return Err(problem),
            },
            started => started?,
        };
        let supervisor = Supervisor::spawn(options.clone(), plan, process, cancel);
        Ok(Self { options, supervisor })
    }

    /// Path of the socket.
    pub fn socket(&self) -> PathBuf {
        self.options.socket()
    }

    /// A client of it.
    pub fn client(&self) -> CriClient {
        CriClient::connect(self.socket())
    }

    /// Process id of the daemon, or of the last one while it is down.
    pub fn pid(&self) -> u32 {
        self.supervisor.pid()
    }

    /// Follows whether it answers.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.supervisor.health()
    }

    /// Ends the supervision, and the daemon too if `how` says so.
    pub async fn shutdown(self, how: Shutdown) -> Result<(), ContainerdError> {
        self.supervisor.shutdown(how).await
    }
}
