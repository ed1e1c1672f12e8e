//! Which pods look different from what is known. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cri::types::{ContainerState, ContainerSummary, SandboxState, SandboxSummary};

use crate::convert::labels;
use crate::ids::{ObjectName, PodUid};
use crate::podcache::RuntimePod;

/// The state of one sandbox or container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Sandbox(SandboxState),
    Container(ContainerState),
}

/// What a relist says of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub name: ObjectName,
    /// Sandboxes and containers by id.
    pub states: BTreeMap<String, State>,
}

/// Groups a relist by pod. What carries no pod UID is not ours.
pub(super) fn group(sandboxes: &[SandboxSummary], containers: &[ContainerSummary]) -> HashMap<PodUid, Listed> {
    let mut out: HashMap<PodUid, Listed> = HashMap::new();
    let label = |map: &BTreeMap<String, String>, key: &str| map.get(key).cloned().unwrap_or_default();
    let boxes = sandboxes.iter().map(|s| (&s.labels, s.id.as_str(), State::Sandbox(s.state)));
    let all = boxes.chain(containers.iter().map(|c| (&c.labels, c.id.as_str(), State::Container(c.state))));
    for (labels, id, state) in all {
        let uid = label(labels, labels::POD_UID);
        if uid.is_empty() {
            continue;
        }
        let name = || ObjectName::new(label(labels, labels::POD_NAMESPACE), label(labels, labels::POD_NAME));
        let entry = out.entry(PodUid::new(uid)).or_insert_with(|| Listed { name: name(), states: BTreeMap::new() });
        entry.states.insert(id.to_owned(), state);
    }
    out
}

fn states_of(pod: &RuntimePod) -> BTreeMap<String, State> {
    let boxes = pod.sandboxes.iter().map(|s| (s.summary.id.to_string(), State::Sandbox(s.summary.state)));
    let containers = pod.containers.iter().map(|c| (c.id().to_string(), State::Container(c.status.state)));
    boxes.chain(containers).collect()
}

/// Pods of which a sandbox or container, or its state, differs between `known` and `listed`.
pub(super) fn changed<'a>(
    known: impl Iterator<Item = &'a RuntimePod>,
    listed: &HashMap<PodUid, Listed>,
) -> BTreeSet<PodUid> {
    let mut out: BTreeSet<PodUid> = listed.keys().cloned().collect();
    for pod in known {
        let before = states_of(pod);
        match listed.get(&pod.uid) {
            Some(now) if now.states == before => {
                out.remove(&pod.uid);
            }
            None if before.is_empty() => {}
            _ => {
                out.insert(pod.uid.clone());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testutil::{instance, pod, runtime, sandbox};
    use cri::types::{ContainerMetadata, StringMap};
    use cri::{ContainerId, SandboxId};

    fn labels() -> StringMap {
        [(labels::POD_UID.to_owned(), "u".to_owned()), (labels::POD_NAME.to_owned(), "p".to_owned())].into()
    }

    fn listed(state: ContainerState) -> HashMap<PodUid, Listed> {
        let mut s = sandbox(0, true, false).summary;
        s.labels = labels();
        let c = ContainerSummary {
            id: ContainerId::new("a-0"),
            sandbox: SandboxId::new("s0"),
            metadata: ContainerMetadata::default(),
            image: String::new(),
            image_ref: String::new(),
            state,
            created_at: None,
            labels: labels(),
            annotations: StringMap::new(),
        };
        let foreign = ContainerSummary { labels: StringMap::new(), id: ContainerId::new("x"), ..c.clone() };
        group(&[s], &[c, foreign])
    }

    #[test]
    fn only_differences_count() {
        let p = pod("  containers: [{name: a}]");
        let known = runtime(vec![sandbox(0, true, false)], vec![instance(&p, "a", 0, ContainerState::Running, 0)]);
        let uid = PodUid::new("u");
        assert!(changed([&known].into_iter(), &listed(ContainerState::Running)).is_empty());
        assert_eq!(changed([&known].into_iter(), &listed(ContainerState::Exited)), [uid.clone()].into());
        assert_eq!(changed([&known].into_iter(), &HashMap::new()), [uid.clone()].into());
        assert_eq!(changed(std::iter::empty(), &listed(ContainerState::Running)), [uid].into());
        assert!(changed([&runtime(vec![], vec![])].into_iter(), &HashMap::new()).is_empty());
    }
}
