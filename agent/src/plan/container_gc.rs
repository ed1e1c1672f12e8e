//! Which dead containers and sandboxes to remove.

use cri::types::{ContainerState, SandboxState};
use cri::{ContainerId, SandboxId};

use crate::podcache::{RuntimePod, by_name};

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    pub containers: Vec<ContainerId>,
    pub sandboxes: Vec<SandboxId>,
}

/// Dead instances beyond `keep` per container, and sandboxes that are stopped,
/// hold no kept container and are not the newest. With `all`, everything dead.
pub fn garbage(pod: &RuntimePod, keep: usize, all: bool) -> Garbage {
    let keep = if all { 0 } else { keep };
    let mut out = Garbage::default();
    for instances in by_name(pod).values() {
        let dead = instances.iter().filter(|c| c.status.state == ContainerState::Exited);
        // A running instance is the newest; the dead one before it is lastState.
        out.containers.extend(dead.skip(keep).map(|c| c.id().clone()));
    }
    for (index, sandbox) in pod.sandboxes.iter().enumerate() {
        let id = &sandbox.summary.id;
        let used = pod.containers.iter().any(|c| c.sandbox == *id && !out.containers.contains(c.id()));
        if sandbox.summary.state == SandboxState::NotReady && !used && (all || index > 0) {
            out.sandboxes.push(id.clone());
        }
    }
    out
}
