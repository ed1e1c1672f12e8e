//! cgroups of pods: the QoS tree `kubepods/{burstable,besteffort}/pod<uid>`.
//!
//! v1, hybrid and v2 are told apart by what is mounted ([`mounts`]); names follow the driver
//! ([`layout`]); [`tree`] says which cgroups there are and what they are held to. A
//! [`hierarchy`] makes, limits, reads, kills and removes them: [`v1`] and [`v2`] by files, [`systemd`]
//! through what it would undo otherwise. The containers' own cgroups are the runtime's business.
//! Why no crate does this for us is written down in ADR 23.

mod hierarchy;
pub(crate) mod kill;
mod layout;
mod limits;
pub mod mounts;
pub mod systemd;
mod tree;
mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};

pub use kill::{is_occupied, remove_tree};
pub use layout::Layout;
pub use mounts::Hierarchies;
pub use tree::{CgroupTree, Weighing};

/// Why a cgroup cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup hierarchy is mounted: mount cgroup2 at /sys/fs/cgroup")]
    NotMounted,
    #[error("cgroup controllers missing: {0}; enable them on the kernel command line")]
    MissingControllers(String),
    #[error("create cgroup {path}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write {value} to {path}")]
    Write {
        path: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },
    #[error("remove cgroup {path}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("this machine has cgroups v1, which failCgroupV1 refuses")]
    V1,
    #[error("singleProcessOOMKill must not be false: cgroup v1 cannot kill a container as a whole")]
    NoGroupKill,
    #[error("systemd slice {slice}: {message}")]
    Systemd { slice: String, message: String },
}

/// Controllers whose files we write.
const WANTED: &[&str] = &["cpu", "memory", "pids"];

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::write(path, value).map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}
