//! Which dead containers and sandboxes to remove.

use cri::types::{ContainerState, SandboxState};
use cri::{ContainerId, SandboxId};

use crate::podcache::{RuntimeContainer, RuntimePod, by_name};

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    pub containers: Vec<ContainerId>,
    pub sandboxes: Vec<SandboxId>,
}

/// What stays of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// One dead instance per container, for its logs and its last state, and the newest sandbox.
    Last,
    /// Nothing that is dead.
    Nothing,
}

/// Dead instances beyond what is kept per container, and sandboxes that are stopped,
/// hold no kept container and are not the newest. As upstream
/// (pkg/kubelet/kuberuntime/kuberuntime_gc.go: `evictableContainers`) all is dead that does not run.
pub fn garbage(pod: &RuntimePod, keep: Keep) -> Garbage {
    let mut out = Garbage::default();
    for instances in by_name(pod).values() {
        out.containers.extend(dead(instances, keep).into_iter().map(|c| c.id().clone()));
    }
    for (index, sandbox) in pod.sandboxes.iter().enumerate() {
        let id = &sandbox.summary.id;
        let used = pod.containers.iter().any(|c| c.sandbox == *id && !out.containers.contains(c.id()));
        if sandbox.summary.state == SandboxState::NotReady && !used && (keep == Keep::Nothing || index > 0) {
            out.sandboxes.push(id.clone());
        }
    }
    out
}

/// The instances of one container, newest first, that may go.
fn dead<'a>(instances: &[&'a RuntimeContainer], keep: Keep) -> Vec<&'a RuntimeContainer> {
    let mut kept = match keep {
        Keep::Last => 1,
        Keep::Nothing => 0,
    };
    let may_go = |(place, container): &(usize, &&'a RuntimeContainer)| match container.status.state {
        ContainerState::Running => false,
        // It never ran: it has neither logs nor a last state. The newest may be about to start.
        ContainerState::Created => *place > 0 || keep == Keep::Nothing,
        // A running instance is the newest; the dead one before it is lastState.
        ContainerState::Exited | ContainerState::Unknown if kept > 0 => {
            kept -= 1;
            false
        }
        ContainerState::Exited | ContainerState::Unknown => true,
    };
    instances.iter().enumerate().filter(may_go).map(|(_, c)| *c).collect()
}

#[cfg(test)]
mod tests {
    use cri::types::ContainerState::{Created, Exited, Running, Unknown};

    use super::*;
    use crate::testutil::{instance, pod, runtime, sandbox};

    /// Instances of a container by attempt; what goes of them with either rule.
    fn check(states: &[ContainerState], last: &[&str], nothing: &[&str]) {
        let spec = pod("  containers: [{name: a}]");
        let attempts = states.iter().zip(0..);
        let containers = attempts.map(|(state, attempt)| instance(&spec, "a", attempt, *state, 1)).collect();
        let view = runtime(vec![sandbox(0, true, false)], containers);
        for (keep, expect) in [(Keep::Last, last), (Keep::Nothing, nothing)] {
            let gone = garbage(&view, keep);
            let ids: Vec<&str> = gone.containers.iter().map(ContainerId::as_str).collect();
            assert_eq!((ids.as_slice(), gone.sandboxes.len()), (expect, 0), "{states:?} {keep:?}");
        }
    }

    #[test]
    fn one_dead_instance_stays() {
        check(&[Running], &[], &[]);
        check(&[Exited], &[], &["a-0"]);
        check(&[Exited, Exited, Running], &["a-0"], &["a-1", "a-0"]);
        check(&[Exited, Exited, Exited], &["a-1", "a-0"], &["a-2", "a-1", "a-0"]);
    }

    #[test]
    fn what_never_ran_and_what_nobody_knows_the_state_of_is_dead_too() {
        // The newest is started, or made anew, by the pod's worker.
        check(&[Exited, Exited, Created], &["a-0"], &["a-2", "a-1", "a-0"]);
        check(&[Exited, Created, Running], &["a-1"], &["a-1", "a-0"]);
        check(&[Exited, Unknown, Running], &["a-0"], &["a-1", "a-0"]);
        check(&[Unknown, Exited, Running], &["a-0"], &["a-1", "a-0"]);
    }

    #[test]
    fn sandboxes_go_when_nothing_that_is_kept_is_in_them() {
        let spec = pod("  containers: [{name: a}]");
        let within = |id: &str, attempt, state| {
            let (_, status) = instance(&spec, "a", attempt, state, 1);
            (SandboxId::new(id), status)
        };
        let gone = |sandboxes, containers, keep| garbage(&runtime(sandboxes, containers), keep).sandboxes;
        let both = || vec![sandbox(0, false, false), sandbox(1, true, false)];
        let old = [SandboxId::new("s0")];
        let kept = vec![within("s0", 0, Exited), within("s1", 1, Running)];
        assert!(gone(both(), kept, Keep::Last).is_empty(), "the last instance is in it");
        let beyond = vec![within("s0", 0, Exited), within("s1", 1, Exited), within("s1", 2, Running)];
        assert_eq!(gone(both(), beyond.clone(), Keep::Last), old);
        let ready = vec![sandbox(0, true, false), sandbox(1, true, false)];
        assert!(gone(ready, beyond, Keep::Last).is_empty(), "it is ready");
        assert!(gone(vec![sandbox(0, false, false)], vec![], Keep::Last).is_empty(), "the newest");
        assert_eq!(gone(vec![sandbox(0, false, false)], vec![within("s0", 0, Created)], Keep::Nothing), old);
    }
}
