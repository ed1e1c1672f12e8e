//! What a pod worker can have to do, and what it learns from doing it. Data
//! only: [`crate::podworker`] performs effects, [`super::memory`] keeps outcomes.

use std::collections::BTreeSet;
use std::time::Duration;

use cri::{ContainerId, SandboxId};
use jiff::Timestamp;

use super::admit::Refusal;
use super::pod_actions::KillContainer;
use crate::convert::spec::ContainerKind;
use crate::ids::PodUid;

/// Why a container waits, in the words of `state.waiting`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitReason {
    pub reason: String,
    pub message: String,
}

/// Why a pod as a whole has failed: a deadline, a refusal, an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFailure {
    pub reason: String,
    pub message: String,
    /// The node ended the pod for its own sake.
    pub evicted: bool,
}

/// An event to record about the pod or one of its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// `None`: the whole pod.
    pub container: Option<String>,
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

/// The sandbox that containers are to start in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxChoice {
    Existing {
        id: SandboxId,
        attempt: u32,
    },
    /// One to be made, with this attempt.
    Create(u32),
}

impl SandboxChoice {
    /// The sandbox's number.
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Existing { attempt, .. } | Self::Create(attempt) => *attempt,
        }
    }
}

/// A container to create and start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStart {
    pub kind: ContainerKind,
    pub name: String,
    pub restart_count: u32,
    /// Distinguishes tries with the same restart count.
    pub attempt: u32,
    /// A leftover instance that was created and never started.
    pub leftover: Option<ContainerId>,
    /// When the instance before it ended, and the hash of the container's spec:
    /// from then on its back-off counts.
    pub ended: Option<(u64, Timestamp)>,
    /// As the spec names it.
    pub image: String,
    /// What the last pull failed of, while the next one has to wait. An image that
    /// is there needs none.
    pub pull_back_off: Option<String>,
}

/// What kept a container from starting; decides when that is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// A try like this one may succeed.
    Other,
    /// The name of this attempt is taken.
    NameTaken,
    Image(ImageFailure),
}

/// Why an image is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFailure {
    /// A pull failed, of this.
    Pull(String),
    /// A pull has to wait.
    BackOff,
    /// The runtime did not say whether it is there.
    Inspect,
    /// No pull would help.
    Never,
}

/// A sandbox and the containers to start in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodStart {
    pub sandbox: SandboxChoice,
    pub containers: Vec<ContainerStart>,
    /// Each container waits until the one before it has started.
    pub in_order: bool,
}

/// One thing to do. The next one is begun only when it succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Learn how ended containers ended; with `list`, read the runtime's view first.
    Read {
        list: bool,
    },
    /// Ask for the node's room; pods of `asked` are ending for this one already.
    Admit {
        runs_already: bool,
        asked: BTreeSet<PodUid>,
    },
    /// Keep volumes current and remove garbage: nothing is to be started.
    Keep,
    /// Stop all containers and sandboxes, because everything starts anew.
    StopForRestart,
    /// Stop some containers while the pod goes on.
    Kill(Vec<KillContainer>),
    Start(PodStart),
    /// Stop everything for good, within `grace`.
    Stop {
        grace: Duration,
    },
    TearDownVolumes,
    RemoveCgroup,
    /// Nothing runs any more, yet the pod is still wanted: only its logs stay.
    Rest,
    /// Remove everything that is left.
    Remove,
}

/// What a worker learns from an effect, the moment it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Admitted,
    Refused(Refusal),
    /// There will be room when these have ended.
    Preempting(BTreeSet<PodUid>),
    /// Nothing is left to do before the next wake-up.
    Rested,
    /// Volumes could not be kept.
    NotKept,
    /// A preStop hook has come to its end.
    HookEnded(ContainerId),
    /// The name of a sandbox with this attempt is taken.
    SandboxNameTaken(u32),
    /// A container is about to be created: from now on its back-off grows.
    Starting(ContainerStart),
    Started {
        name: String,
    },
    StartFailed {
        start: ContainerStart,
        why: WaitReason,
        cause: StartFailure,
    },
    /// A step of the tear-down is done.
    Stopped,
    VolumesGone,
    CgroupGone,
    Removed,
    /// It did not work; worth another try.
    Failed,
}
