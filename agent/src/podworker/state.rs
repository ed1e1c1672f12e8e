//! Where a pod is in its life on this node. It only moves forward.

/// Why a pod is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The API server wants it deleted, or its file is gone.
    Deleted,
    /// Its containers are done, or it failed as a whole.
    Finished,
    /// The runtime has it, but nobody wants it.
    Orphaned,
}

/// How far the tear-down has come; a retry resumes at this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TeardownStep {
    Containers,
    Volumes,
    Cgroups,
}

/// The state of one pod worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// The pod runs, or is made to run.
    Syncing,
    /// Its containers are being stopped, then what they used.
    Terminating { reason: EndReason, step: TeardownStep },
    /// Nothing of it runs; `cleaned` once its remains are gone as well.
    Terminated { cleaned: bool },
}

impl WorkerState {
    /// The beginning of the end; a pod that ends already goes on ending.
    pub fn terminate(self, reason: EndReason) -> Self {
        match self {
            Self::Syncing => Self::Terminating { reason, step: TeardownStep::Containers },
            other => other,
        }
    }

    /// Whether `next` is a legal successor.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Syncing, _) => true,
            (Self::Terminating { step: a, .. }, Self::Terminating { step: b, .. }) => a <= b,
            (Self::Terminating { .. }, Self::Terminated { .. }) => true,
            (Self::Terminated { cleaned: a }, Self::Terminated { cleaned: b }) => a <= b,
            (Self::Terminating { .. } | Self::Terminated { .. }, Self::Syncing)
            | (Self::Terminated { .. }, Self::Terminating { .. }) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forward() {
        let ending = WorkerState::Syncing.terminate(EndReason::Deleted);
        assert_eq!(ending.terminate(EndReason::Finished), ending);
        assert!(WorkerState::Syncing.may_become(ending));
        assert!(!ending.may_become(WorkerState::Syncing));
        let over = WorkerState::Terminated { cleaned: true };
        assert!(ending.may_become(over) && !over.may_become(ending));
        assert!(!over.may_become(WorkerState::Terminated { cleaned: false }));
    }
}
