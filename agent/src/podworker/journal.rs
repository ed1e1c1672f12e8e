//! What an effect notes for its worker while it is under way, so that nothing that
//! was done is lost when the rest is given up.

use cri::SandboxId;
use cri::types::{ContainerStatus, SandboxStatus};
use tokio::sync::mpsc;

use crate::plan::effect::Outcome;
use crate::podcache::RuntimePod;
use crate::status::containers::TerminationMessages;

/// One thing learnt.
#[derive(Debug)]
pub(super) enum Record {
    /// The runtime's view, as read now, and what its ended containers left.
    View(RuntimePod, TerminationMessages),
    /// What ended containers left; the view is the known one.
    Messages(TerminationMessages),
    /// The view without what was removed or stopped.
    Changed(RuntimePod),
    /// A sandbox was made.
    Sandbox(SandboxStatus),
    /// A container was started in that sandbox.
    Container(SandboxId, ContainerStatus),
    /// The view may be out of date.
    Stale,
    Outcome(Outcome),
}

/// Where effects write.
#[derive(Clone, Debug)]
pub(super) struct Journal(mpsc::UnboundedSender<Record>);

impl Journal {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Record>) {
        let (sender, records) = mpsc::unbounded_channel();
        (Self(sender), records)
    }

    pub(super) fn write(&self, record: Record) {
        // The worker keeps the other end for as long as the effect is polled.
        let _ = self.0.send(record);
    }

    pub(super) fn outcome(&self, outcome: Outcome) {
        self.write(Record::Outcome(outcome));
    }
}
