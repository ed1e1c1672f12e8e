//! Where a pod is in its life on this node. It only moves forward, as
//! upstream's pod worker does (pkg/kubelet/pod_workers.go: `PodWorkerState`).

/// How far the pod is, as far as its status is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It runs or is to run.
    Syncing,
    /// It is being stopped.
    Terminating,
    /// Nothing of it runs any more, nor ever will.
    Terminated,
}

/// How far the tear-down has come; a retry resumes at this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TeardownStep {
    Containers,
    Volumes,
    Cgroups,
}

/// The state of one pod worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerStage {
    /// The pod runs, or is made to run.
    #[default]
    Syncing,
    /// Its containers are being stopped, then what they used goes.
    Terminating(TeardownStep),
    /// Nothing of it runs; its remains stay as long as somebody wants the pod.
    Terminated,
    /// Nothing of it is left.
    Removed,
}

impl WorkerStage {
    /// Whether what is done in this stage may be given up half-way, so that the
    /// pod ends, or ends sooner. The rest of a tear-down waits for no program of
    /// the pod.
    pub fn is_interruptible(self) -> bool {
        self <= Self::Terminating(TeardownStep::Containers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_forward() {
        let all = [
            WorkerStage::Syncing,
            WorkerStage::Terminating(TeardownStep::Containers),
            WorkerStage::Terminating(TeardownStep::Volumes),
            WorkerStage::Terminating(TeardownStep::Cgroups),
            WorkerStage::Terminated,
            WorkerStage::Removed,
        ];
        assert!(all.is_sorted());
        assert_eq!(all.map(WorkerStage::is_interruptible), [true, true, false, false, false, false]);
    }
}
