//! The runtime's view of every pod on this node, by UID.
//!
//! Pod workers refresh their own pod's entry; everybody else reads. The cache
//! holds what the runtime said last, and what it answered a worker since: that a
//! sandbox or container was made, or that a sandbox was stopped.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use cri::types::{ContainerState, ContainerStatus, SandboxState, SandboxStatus};
use cri::{ContainerId, SandboxId};

use crate::convert::labels;
use crate::ids::{ObjectName, PodUid};

/// One container as the runtime knows it, with the parsed labels of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeContainer {
    pub status: ContainerStatus,
    pub sandbox: SandboxId,
    /// Hash of the container's spec at creation.
    pub hash: u64,
    /// How often the container had been restarted when it was created.
    pub restart_count: u32,
}

impl RuntimeContainer {
    /// The runtime's id.
    pub fn id(&self) -> &ContainerId {
        &self.status.id
    }

    /// The container's name in the pod spec.
    pub fn name(&self) -> &str {
        &self.status.metadata.name
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        self.status.state == ContainerState::Running
    }
}

/// A pod as the runtime knows it. Sandboxes and containers stand newest first: by their attempts, which only grow, and
/// not by when they were created, since the machine's clock may have been set back meanwhile
/// (pkg/kubelet/kuberuntime/kuberuntime_gc.go: `byAttempt`). A container that runs stands before dead ones, whatever
/// their attempts: it needs no second instance. Those of containers with different names do not compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimePod {
    pub uid: PodUid,
    pub name: ObjectName,
    pub sandboxes: Vec<SandboxStatus>,
    pub containers: Vec<RuntimeContainer>,
}

impl RuntimePod {
    /// A pod the runtime knows nothing of.
    pub fn empty(uid: PodUid, name: ObjectName) -> Self {
        Self { uid, name, sandboxes: Vec::new(), containers: Vec::new() }
    }

    /// The newest sandbox when it is ready.
    pub fn ready_sandbox(&self) -> Option<&SandboxStatus> {
        self.sandboxes.first().filter(|s| s.summary.state == SandboxState::Ready)
    }

    /// Addresses of the newest ready sandbox; empty with the node's network.
    pub fn ips(&self) -> &[String] {
        self.ready_sandbox().map(|s| s.ips.as_slice()).unwrap_or_default()
    }

    /// The newest container of that name.
    pub fn container(&self, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|c| c.name() == name)
    }

    /// The sandbox the pod lives in now: its newest one, ready or not.
    pub fn present_sandbox(&self) -> Option<&SandboxId> {
        self.sandboxes.first().map(|s| &s.summary.id).or_else(|| self.last_forgotten_sandbox())
    }

    /// The sandbox that the pod lived in last, where the runtime has none of them any more: no container of it was made
    /// anew in another one.
    fn last_forgotten_sandbox(&self) -> Option<&SandboxId> {
        let left = |c: &&RuntimeContainer| self.container(c.name()).is_some_and(|newest| newest.sandbox != c.sandbox);
        let left: HashSet<&SandboxId> = self.containers.iter().filter(left).map(|c| &c.sandbox).collect();
        let candidates = self.containers.iter().filter(|c| !left.contains(&c.sandbox));
        candidates.max_by_key(|c| c.status.created_at).map(|c| &c.sandbox)
    }

    /// The newest container of that name in the pod's present sandbox. What ran
    /// in an earlier one says nothing of how far this one has come.
    pub fn present_container(&self, name: &str) -> Option<&RuntimeContainer> {
        let sandbox = self.present_sandbox()?;
        self.containers.iter().find(|c| c.sandbox == *sandbox && c.name() == name)
    }

    /// All containers of that name, newest first.
    pub fn containers_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a RuntimeContainer> {
        self.containers.iter().filter(move |c| c.name() == name)
    }

    /// Whether the runtime knows anything of the pod.
    pub fn exists(&self) -> bool {
        !self.sandboxes.is_empty() || !self.containers.is_empty()
    }

    /// Whether anything of the pod still runs.
    pub fn is_running(&self) -> bool {
        self.sandboxes.iter().any(|s| s.summary.state == SandboxState::Ready)
            || self.containers.iter().any(RuntimeContainer::is_running)
    }

    /// Builds the view from what the runtime listed, in its stable order.
    pub fn assemble(
        uid: PodUid,
        name: ObjectName,
        mut sandboxes: Vec<SandboxStatus>,
        containers: Vec<(SandboxId, ContainerStatus)>,
    ) -> Self {
        sandboxes.sort_by(|a, b| {
            let key = |s: &SandboxStatus| (s.summary.metadata.attempt, s.summary.created_at);
            key(b).cmp(&key(a))
        });
        let mut containers: Vec<RuntimeContainer> = containers
            .into_iter()
            .map(|(sandbox, status)| RuntimeContainer {
                hash: labels::container_hash(&status.annotations),
                restart_count: labels::restart_count(&status.annotations, status.metadata.attempt),
                sandbox,
                status,
            })
            .collect();
        containers.sort_by(|a, b| {
            let key = |c: &RuntimeContainer| (c.is_running(), c.status.metadata.attempt, c.status.created_at);
            key(b).cmp(&key(a))
        });
        Self { uid, name, sandboxes, containers }
    }
}

#[derive(Debug, Default)]
struct Entries {
    pods: HashMap<PodUid, Arc<RuntimePod>>,
    /// Sandbox and container ids → the pod they belong to.
    owners: HashMap<Arc<str>, PodUid>,
    /// Pods whose entry, or lack of one, is not what the runtime has.
    unread: HashSet<PodUid>,
}

/// Latest runtime view per pod. Readers never wait for the runtime.
#[derive(Debug, Default)]
pub struct PodCache {
    entries: RwLock<Entries>,
}

impl Entries {
    fn insert(&mut self, pod: &Arc<RuntimePod>) {
        self.remove(&pod.uid);
        self.pods.insert(pod.uid.clone(), pod.clone());
        for id in ids_of(pod) {
            self.owners.insert(Arc::from(id), pod.uid.clone());
        }
    }

    fn remove(&mut self, uid: &PodUid) {
        self.unread.remove(uid);
        if let Some(old) = self.pods.remove(uid) {
            for id in ids_of(&old) {
                self.owners.remove(id);
            }
        }
    }
}

impl PodCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pod's latest view.
    pub fn get(&self, uid: &PodUid) -> Option<Arc<RuntimePod>> {
        self.read(|e| e.pods.get(uid).cloned())
    }

    /// Whether the runtime has or may have something of the pod.
    pub fn knows(&self, uid: &PodUid) -> bool {
        self.read(|e| e.pods.contains_key(uid) || e.unread.contains(uid))
    }

    /// Whether the pod has to be read from the runtime before anybody acts on it.
    pub fn is_unread(&self, uid: &PodUid) -> bool {
        self.read(|e| e.unread.contains(uid))
    }

    /// The runtime has the pod, or may have, but what of it is not known.
    pub fn mark_unread(&self, uid: &PodUid) {
        self.write(|e| e.unread.insert(uid.clone()));
    }

    /// The pods that have to be read from the runtime before anybody acts on them.
    pub fn unread(&self) -> Vec<PodUid> {
        self.read(|e| e.unread.iter().cloned().collect())
    }

    /// Every pod the runtime was seen to have.
    pub fn all(&self) -> Vec<Arc<RuntimePod>> {
        self.read(|e| e.pods.values().cloned().collect())
    }

    /// The pod that owns a sandbox or container id.
    pub fn owner(&self, id: &str) -> Option<PodUid> {
        self.read(|e| e.owners.get(id).cloned())
    }

    /// Replaces the pod's view and returns the shared new one.
    pub fn put(&self, pod: RuntimePod) -> Arc<RuntimePod> {
        let pod = Arc::new(pod);
        self.write(|e| e.insert(&pod));
        pod
    }

    /// The same for who has made the new view from `old` and is not the pod's worker: where another one has taken its
    /// place meanwhile, or the pod was forgotten, that counts. A pod of which nothing is left is forgotten.
    pub fn replace(&self, old: &Arc<RuntimePod>, new: RuntimePod) {
        self.write(|e| match e.pods.get(&old.uid) {
            Some(present) if Arc::ptr_eq(present, old) && new.exists() => e.insert(&Arc::new(new)),
            Some(present) if Arc::ptr_eq(present, old) => e.remove(&old.uid),
            _ => {}
        });
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &PodUid) {
        self.write(|e| e.remove(uid));
    }

    fn write<T>(&self, f: impl FnOnce(&mut Entries) -> T) -> T {
        f(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn read<T>(&self, f: impl FnOnce(&Entries) -> T) -> T {
        f(&self.entries.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn ids_of(pod: &RuntimePod) -> impl Iterator<Item = &str> {
    let sandboxes = pod.sandboxes.iter().map(|s| s.summary.id.as_str());
    sandboxes.chain(pod.containers.iter().map(|c| c.status.id.as_str()))
}

/// Containers by name, newest first: for callers that visit all of them.
pub fn by_name(pod: &RuntimePod) -> BTreeMap<&str, Vec<&RuntimeContainer>> {
    let mut names: BTreeMap<&str, Vec<&RuntimeContainer>> = BTreeMap::new();
    for container in &pod.containers {
        names.entry(container.name()).or_default().push(container);
    }
    names
}

#[cfg(test)]
mod tests {
    use cri::types::ContainerState::{self, Exited, Running};

    use super::*;
    use crate::testutil::{at, instance, pod, runtime, sandbox};

    /// A container of a pod: its name and attempt, the sandbox it is in, and when it was created.
    fn made(
        name: &str,
        attempt: u32,
        within: &str,
        seconds: i64,
        state: ContainerState,
    ) -> (SandboxId, ContainerStatus) {
        let (_, status) = instance(&pod("  containers: [{name: a}, {name: b}]"), name, attempt, state, 1);
        (SandboxId::new(within), ContainerStatus { created_at: Some(at(seconds)), ..status })
    }

    #[test]
    fn attempts_say_what_is_newest_whatever_the_clock_showed() {
        // The first instances are from a time that has not come yet.
        for (first, second) in [(0, 100), (100, 100), (3600, 100)] {
            let sandboxes = [(0, first), (1, second)].map(|(attempt, seconds)| {
                let mut sandbox = sandbox(attempt, attempt == 1, false);
                sandbox.summary.created_at = Some(at(seconds));
                sandbox
            });
            let containers = [made("a", 0, "s0", first, Exited), made("a", 1, "s1", second, Running)];
            for turn in [0, 1] {
                let (mut sandboxes, mut containers) = (sandboxes.to_vec(), containers.to_vec());
                sandboxes.rotate_left(turn);
                containers.rotate_left(turn);
                let pod = runtime(sandboxes, containers);
                assert_eq!(pod.ready_sandbox().map(|s| s.summary.id.as_str()), Some("s1"), "{first}");
                let newest = [pod.container("a"), pod.present_container("a"), by_name(&pod)["a"].first().copied()];
                assert!(newest.iter().all(|c| c.is_some_and(RuntimeContainer::is_running)), "{first}: {newest:?}");
                let attempts: Vec<u32> = pod.containers_named("a").map(|c| c.status.metadata.attempt).collect();
                assert_eq!(attempts, [1, 0], "{first}");
            }
        }
    }

    #[test]
    fn only_what_was_read_is_replaced() {
        let cache = PodCache::new();
        let view = |instances: u32| {
            let containers = (0..instances).map(|attempt| made("a", attempt, "s0", 1, Exited)).collect();
            runtime(vec![sandbox(0, false, false)], containers)
        };
        let uid = view(0).uid;
        let first = cache.put(view(2));
        cache.replace(&first, view(1));
        assert_eq!(cache.get(&uid).as_deref(), Some(&view(1)));
        assert_eq!((cache.owner("a-0"), cache.owner("a-1")), (Some(uid.clone()), None));
        cache.replace(&first, view(0));
        assert_eq!(cache.get(&uid).as_deref(), Some(&view(1)), "another one was there already");
        let last = cache.get(&uid).expect("it is there");
        cache.replace(&last, runtime(vec![], vec![]));
        assert!(!cache.knows(&uid), "nothing was left of it");
        cache.replace(&last, view(1));
        assert!(!cache.knows(&uid), "it was forgotten");
    }

    #[test]
    fn what_runs_counts_before_what_is_dead() {
        let pod = runtime(vec![], vec![made("a", 3, "s0", 9, Exited), made("a", 1, "s0", 1, Running)]);
        let attempts: Vec<u32> = pod.containers_named("a").map(|c| c.status.metadata.attempt).collect();
        assert_eq!(attempts, [1, 3]);
    }

    #[test]
    fn the_same_attempt_twice_is_told_by_its_time() {
        let twice = vec![made("a", 1, "s0", 5, Exited), made("a", 1, "s1", 6, Running)];
        assert!(runtime(vec![], twice).container("a").is_some_and(RuntimeContainer::is_running));
    }

    #[test]
    fn where_no_sandbox_is_known_the_last_one_is_told_by_its_containers() {
        let check = |containers: Vec<_>, expect: Option<&str>| {
            let pod = runtime(vec![], containers);
            assert_eq!(pod.present_sandbox().map(SandboxId::as_str), expect, "{pod:?}");
        };
        check(vec![], None);
        check(vec![made("a", 0, "s0", 9, Exited)], Some("s0"));
        // `a` was restarted often in the first one, and had no turn yet in the second.
        check(
            vec![made("a", 5, "s0", 5, Exited), made("b", 0, "s0", 1, Exited), made("b", 1, "s1", 9, Running)],
            Some("s1"),
        );
        let set_back = made("b", 1, "s1", -9, Running);
        check(vec![made("a", 5, "s0", 5, Exited), made("b", 0, "s0", 1, Exited), set_back], Some("s1"));
        // Nothing but the time tells these apart.
        check(vec![made("a", 5, "s0", 5, Exited), made("b", 0, "s1", 9, Exited)], Some("s1"));
    }
}
