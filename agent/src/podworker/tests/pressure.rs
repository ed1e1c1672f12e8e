//! A node that runs short of something, and whom it ends for that.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cri::fake::{Behavior, FakeRuntime, Op};
use cri::types::ContainerState;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::harness::{Node, deleted, pod};
use crate::config::{EvictionSettings, Signal, ThresholdValue};
use crate::eviction::{EvictionManager, NodeSignals};
use crate::ids::{ObjectName, PodUid};
use crate::plan::eviction::rank::{ContainerUsage, PodUsage, Space};
use crate::plan::eviction::{Observation, Observations, Pressure, Pressures};
use crate::retention::containers;
use crate::status::manager::{StatusWriter, WriteOutcome};

const CAPACITY: u64 = 1000;

/// An API server that may refuse statuses.
#[derive(Debug, Default)]
struct Writer {
    refuses: AtomicBool,
}

#[async_trait]
impl StatusWriter for Writer {
    async fn patch(&self, _: &ObjectName, _: &serde_json::Value) -> WriteOutcome {
        if self.refuses.load(Ordering::Relaxed) {
            return WriteOutcome::Failed("not now".to_owned());
        }
        WriteOutcome::Written
    }

    async fn delete(&self, _: &ObjectName, _: &str) -> WriteOutcome {
        WriteOutcome::Gone
    }
}

/// A node of which running containers use fixed amounts.
#[derive(Debug)]
struct Shares {
    signal: Signal,
    runtime: Arc<FakeRuntime>,
    /// By the name of the container.
    used: HashMap<&'static str, u64>,
    /// What unused images take.
    images: Mutex<u64>,
    /// Whether containers cannot be measured.
    blind: AtomicBool,
    /// What takes long to walk, by name, once that is known.
    large: Mutex<Option<HashSet<PodUid>>>,
    reclaimed: AtomicUsize,
}

#[async_trait]
impl NodeSignals for Shares {
    async fn observe(&self) -> Observations {
        let running: u64 =
            self.runtime.running().iter().map(|name| self.used.get(name.as_str()).copied().unwrap_or(0)).sum();
        let dead = self.runtime.containers().iter().filter(|c| c.state == ContainerState::Exited).count();
        let dead = if self.signal == Signal::ImagefsAvailable { 400 * u64::try_from(dead).unwrap() } else { 0 };
        let available = CAPACITY.saturating_sub(running + dead + *self.images.lock().unwrap());
        [(self.signal, Observation { available, capacity: CAPACITY })].into()
    }

    async fn usage(&self, pods: &[Arc<Pod>], _: Signal) -> Option<HashMap<PodUid, PodUsage>> {
        if self.blind.load(Ordering::Relaxed) {
            return None;
        }
        let of = |pod: &Arc<Pod>| {
            let name = pod.spec.as_ref().unwrap().containers[0].name.clone();
            let used = self.used.get(name.as_str()).copied().unwrap_or(0);
            let layers = Space { bytes: used, inodes: used };
            let container = ContainerUsage { name, memory: used, disk: used, log: 0 };
            (PodUid::of(pod), PodUsage { containers: vec![container], layers, ..PodUsage::default() })
        };
        Some(pods.iter().map(of).collect())
    }

    async fn measure_disk(&self, _: &[Arc<Pod>], _: Duration) -> Option<HashSet<PodUid>> {
        self.large.lock().unwrap().clone()
    }

    async fn reclaim(&self) {
        self.reclaimed.fetch_add(1, Ordering::Relaxed);
        *self.images.lock().unwrap() = 0;
    }

    fn own_imagefs(&self) -> bool {
        false
    }
}

/// A node with these pods and a manager of that signal, of which 100 must stay
/// free; a soft threshold gives pods 7 s.
struct Scene {
    node: Node,
    pods: HashMap<&'static str, Pod>,
    signals: Arc<Shares>,
    pressures: watch::Receiver<Pressures>,
    token: CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Scene {
    /// Pods by the name of their one container, with its use and their priority.
    async fn start(signal: Signal, soft: bool, images: u64, pods: &[(&'static str, u64, i32)]) -> Self {
        Self::with_disk_limits(signal, soft, images, pods, &[]).await
    }

    /// The same with limits of ephemeral storage by name.
    async fn with_disk_limits(
        signal: Signal,
        soft: bool,
        images: u64,
        pods: &[(&'static str, u64, i32)],
        limits: &[(&str, u64)],
    ) -> Self {
        let node = Node::start().await;
        let named = |(name, _, priority): &(&'static str, u64, i32)| {
            let limit = limits.iter().find(|(of, _)| of == name).map_or(0, |(_, limit)| *limit);
            let text = format!(
                "  priority: {priority}
  terminationGracePeriodSeconds: 600
  containers: [{{name: {name}, resources: {{limits: {{ephemeral-storage: {limit}}}}}}}]"
            );
            let mut p = pod(&text);
            (p.metadata.name, p.metadata.uid) = (Some((*name).to_owned()), Some((*name).to_owned()));
            (*name, p)
        };
        let wanted: HashMap<&'static str, Pod> = pods.iter().map(named).collect();
        for (name, ..) in pods {
            node.runtime.set_behavior(name, Behavior::IgnoresStopSignal);
        }
        node.want(&wanted.values().cloned().collect::<Vec<_>>());
        node.until("all ready", |n| wanted.values().all(|p| n.is_ready(p))).await;
        let signals = Arc::new(Shares {
            signal,
            runtime: node.runtime.clone(),
            used: pods.iter().map(|(name, used, _)| (*name, *used)).collect(),
            images: Mutex::new(images),
            blind: AtomicBool::new(false),
            large: Mutex::new(Some(HashSet::new())),
            reclaimed: AtomicUsize::new(0),
        });
        let minimum = [(signal, Some(ThresholdValue::Amount(100)))];
        let settings = EvictionSettings {
            hard: Some(if soft { [].into() } else { minimum.into() }),
            soft: if soft { minimum.into() } else { [].into() },
            soft_grace: [(signal, Duration::from_secs(60))].into(),
            max_pod_grace: Duration::from_secs(7),
            ..EvictionSettings::default()
        };
        let (tx, pressures) = watch::channel(Pressures::new());
        let manager = EvictionManager::new(node.deps.clone(), node.workers.clone(), signals.clone(), &settings, tx);
        let token = CancellationToken::new();
        tokio::spawn(manager.run(token.clone()));
        Self { node, pods: wanted, signals, pressures, token }
    }

    /// Writes the statuses of the node's pods, once that is not refused.
    fn write_statuses(&self, refuses: bool) -> Arc<Writer> {
        let writer = Arc::new(Writer { refuses: AtomicBool::new(refuses) });
        let (status, desired) = (self.node.deps.status.clone(), self.node.desired());
        let (through, token) = (writer.clone(), self.token.clone());
        tokio::spawn(async move { status.run(through, desired, token).await });
        writer
    }

    fn reason(&self, name: &str) -> Option<String> {
        self.node.status(&self.pods[name]).reason
    }

    fn told(&self, reason: &str) -> usize {
        self.node.reasons().iter().filter(|r| **r == reason).count()
    }
}

#[tokio::test(start_paused = true)]
async fn the_greediest_pod_goes_and_the_others_stay() {
    let pods = [("greedy", 600, 0), ("modest", 100, 0), ("critical", 250, 2_000_000_000)];
    let scene = Scene::start(Signal::MemoryAvailable, false, 0, &pods).await;
    let began = tokio::time::Instant::now();
    scene.node.until("evicted", |n| !n.runtime.running().contains(&"greedy".to_owned())).await;
    // Not the ten minutes that the pod asks for.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let status = scene.node.status(&scene.pods["greedy"]);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    let message = status.message.unwrap();
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 100, available: 50. "),
        "{message}"
    );
    assert!(status.conditions.unwrap().iter().any(|c| c.type_ == "DisruptionTarget" && c.status == "True"));
    assert!(scene.node.said("Evicted", &message));
    assert!(scene.node.said("EvictionThresholdMet", "Attempting to reclaim memory"));
    assert_eq!(*scene.pressures.borrow(), [Pressure::Memory].into());
    scene.node.settle(Duration::from_secs(280)).await;
    assert_eq!(*scene.pressures.borrow(), [Pressure::Memory].into(), "the transition period is not over");
    scene.node.settle(Duration::from_secs(60)).await;
    assert!(scene.pressures.borrow().is_empty());
    assert_eq!(scene.told("Evicted"), 1);
    assert!(["modest", "critical"].iter().all(|name| scene.node.is_ready(&scene.pods[name])));
}

#[tokio::test(start_paused = true)]
async fn pods_go_one_after_the_other_until_it_is_enough() {
    let pods = [("a", 300, 0), ("b", 250, 0), ("c", 200, 0), ("d", 600, 5)];
    let scene = Scene::start(Signal::MemoryAvailable, false, 0, &pods).await;
    scene
        .node
        .until("enough", |n| n.runtime.running().iter().map(|c| scene.signals.used[c.as_str()]).sum::<u64>() <= 900)
        .await;
    scene.node.settle(Duration::from_secs(120)).await;
    let evicted = |name| scene.reason(name).as_deref() == Some("Evicted");
    assert_eq!(["a", "b", "c", "d"].map(evicted), [true, true, false, false]);
}

/// One that ends already, that nobody can make faster and that was waited for is no answer to a shortage: others go.
#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_already_keeps_no_other_from_being_evicted() {
    let scene = Scene::start(Signal::MemoryAvailable, false, 0, &[("ending", 500, 0), ("other", 350, 0)]).await;
    // The runtime is stuck.
    scene.node.runtime.delay(Op::StopContainer, 1, Duration::from_secs(3600));
    scene.node.want(&[deleted(&scene.pods["ending"], 1), scene.pods["other"].clone()]);
    scene.node.settle(Duration::from_secs(30)).await;
    assert_eq!(scene.told("Evicted"), 0);
    // The node itself takes more.
    *scene.signals.images.lock().unwrap() = 60;
    scene.node.until("the other is evicted", |_| scene.reason("other").as_deref() == Some("Evicted")).await;
    scene.node.settle(Duration::from_secs(120)).await;
    assert_eq!((scene.told("Evicted"), scene.node.runtime.running()), (1, vec!["ending".to_owned()]));
}

/// What it holds is free soon.
#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_already_is_waited_for_before_another_one_goes() {
    let scene = Scene::start(Signal::MemoryAvailable, false, 0, &[("ending", 500, 0), ("other", 350, 0)]).await;
    scene.node.runtime.delay(Op::StopContainer, 1, Duration::from_secs(25));
    scene.node.want(&[deleted(&scene.pods["ending"], 1), scene.pods["other"].clone()]);
    scene.node.settle(Duration::from_secs(1)).await;
    *scene.signals.images.lock().unwrap() = 60;
    scene.node.until("short", |_| scene.told("EvictionThresholdMet") > 0).await;
    scene.node.until("it has ended", |n| n.runtime.running() == ["other"]).await;
    scene.node.settle(Duration::from_secs(120)).await;
    assert_eq!((scene.told("Evicted"), scene.node.is_ready(&scene.pods["other"])), (0, true));
}

/// Upstream's eviction manager takes pods that end for active ones, too (pkg/kubelet/kubelet_pods.go: `GetActivePods`).
#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_at_leisure_has_to_hurry_before_others_go() {
    let scene = Scene::start(Signal::MemoryAvailable, false, 0, &[("ending", 500, 0), ("other", 350, 0)]).await;
    scene.node.want(&[deleted(&scene.pods["ending"], 3600), scene.pods["other"].clone()]);
    scene.node.settle(Duration::from_secs(30)).await;
    *scene.signals.images.lock().unwrap() = 60;
    scene.node.until("it has ended", |n| n.runtime.running() == ["other"]).await;
    assert_eq!(scene.reason("ending").as_deref(), Some("Evicted"));
    scene.node.settle(Duration::from_secs(120)).await;
    assert_eq!((scene.told("Evicted"), scene.node.is_ready(&scene.pods["other"])), (1, true));
}

#[tokio::test(start_paused = true)]
async fn unused_images_go_before_pods() {
    let pods = [("a", 500, 0)];
    let scene = Scene::start(Signal::ImagefsAvailable, false, 450, &pods).await;
    scene.node.until("reclaimed", |_| scene.signals.reclaimed.load(Ordering::Relaxed) > 0).await;
    scene.node.settle(Duration::from_secs(60)).await;
    assert!(scene.node.is_ready(&scene.pods["a"]));
    assert_eq!(scene.told("Evicted"), 0);
    assert_eq!(*scene.pressures.borrow(), [Pressure::Disk].into());
}

/// A pod whose container runs once.
fn job() -> Pod {
    let mut done = pod("  restartPolicy: Never\n  containers: [{name: done}]");
    (done.metadata.name, done.metadata.uid) = (Some("done".to_owned()), Some("done".to_owned()));
    done
}

/// Until the API server knows of its end, a pod's containers alone say that it is not to run again.
#[tokio::test(start_paused = true)]
async fn containers_stay_until_the_end_of_their_pod_is_written() {
    let scene = Scene::start(Signal::ImagefsAvailable, false, 0, &[("a", 550, 0)]).await;
    let writer = scene.write_statuses(true);
    // Nobody is evicted meanwhile.
    scene.signals.blind.store(true, Ordering::Relaxed);
    let done = job();
    scene.node.runtime.set_behavior("done", Behavior::ExitsWith(0));
    scene.node.want(&[scene.pods["a"].clone(), done.clone()]);
    scene.node.until("done", |n| n.status(&done).phase.as_deref() == Some("Succeeded")).await;
    scene.node.settle(Duration::from_secs(120)).await;
    assert!(scene.told("EvictionThresholdMet") > 3);
    assert!(scene.node.runtime.container_named("done").is_some(), "an agent that dies now would run it again");
    writer.refuses.store(false, Ordering::Relaxed);
    scene.node.until("its container is gone", |n| n.runtime.container_named("done").is_none()).await;
}

/// A finished pod may be deleted while its containers are being removed.
#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_while_it_is_reclaimed_is_forgotten() {
    let scene = Scene::start(Signal::ImagefsAvailable, false, 0, &[]).await;
    scene.write_statuses(false);
    let done = job();
    scene.node.runtime.set_behavior("done", Behavior::ExitsWith(0));
    scene.node.want(std::slice::from_ref(&done));
    scene.node.until("done", |n| n.status(&done).phase.as_deref() == Some("Succeeded")).await;
    scene.node.settle(Duration::from_secs(5)).await;
    scene.node.runtime.delay(Op::RemoveContainer, 1, Duration::from_secs(10));
    let deps = scene.node.deps.clone();
    let reclaiming = tokio::spawn(async move { containers::reclaim(&deps).await });
    scene.node.until("being removed", |n| n.runtime.count(Op::RemoveContainer) > 0).await;
    scene.node.want(&[]);
    scene.node.until("gone", |n| n.workers.is_empty()).await;
    assert!(!scene.node.deps.cache.knows(&PodUid::of(&done)));
    reclaiming.await.unwrap();
    assert!(!scene.node.deps.cache.knows(&PodUid::of(&done)));
}

#[tokio::test(start_paused = true)]
async fn dead_containers_of_finished_pods_go_before_images_and_pods() {
    let scene = Scene::start(Signal::ImagefsAvailable, false, 0, &[("a", 550, 0)]).await;
    scene.write_statuses(false);
    let done = job();
    scene.node.runtime.set_behavior("done", Behavior::ExitsWith(0));
    scene.node.want(&[scene.pods["a"].clone(), done.clone()]);
    scene.node.until("done", |n| n.status(&done).phase.as_deref() == Some("Succeeded")).await;
    scene.node.until("its container is gone", |n| n.runtime.container_named("done").is_none()).await;
    scene.node.settle(Duration::from_secs(60)).await;
    assert_eq!(scene.signals.reclaimed.load(Ordering::Relaxed), 0, "images stay");
    assert!(scene.node.is_ready(&scene.pods["a"]));
    assert_eq!(scene.told("Evicted"), 0);
    assert_eq!(scene.node.status(&done).phase.as_deref(), Some("Succeeded"));
    let started = scene.node.runtime.calls().iter().filter(|call| call.op == Op::StartContainer).count();
    assert_eq!(started, 2, "nothing runs again");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_evicted_blindly() {
    let pods = [("modest", 100, 0), ("greedy", 850, 0)];
    let scene = Scene::start(Signal::MemoryAvailable, false, 0, &pods).await;
    scene.signals.blind.store(true, Ordering::Relaxed);
    scene.node.settle(Duration::from_secs(60)).await;
    assert!(scene.told("EvictionThresholdMet") > 3);
    assert_eq!(scene.told("Evicted"), 0);
    scene.signals.blind.store(false, Ordering::Relaxed);
    scene.node.until("evicted", |_| scene.reason("greedy").as_deref() == Some("Evicted")).await;
    assert_eq!(scene.reason("modest"), None);
}

/// A tree that nobody has come to the end of is not an empty one.
#[tokio::test(start_paused = true)]
async fn who_is_too_large_to_be_measured_goes_before_the_small() {
    let pods = [("small", 500, 0), ("large", 450, 0)];
    let scene = Scene::start(Signal::NodefsAvailable, false, 0, &pods).await;
    *scene.signals.large.lock().unwrap() = None;
    scene.node.settle(Duration::from_secs(60)).await;
    assert!(scene.told("EvictionThresholdMet") > 3);
    assert_eq!(scene.told("Evicted"), 0, "it may be measured soon");
    *scene.signals.large.lock().unwrap() = Some([PodUid::of(&scene.pods["large"])].into());
    scene.node.until("evicted", |_| scene.reason("large").as_deref() == Some("Evicted")).await;
    assert_eq!(scene.reason("small"), None);
}

#[tokio::test(start_paused = true)]
async fn a_soft_threshold_has_patience_and_gives_time() {
    let scene = Scene::start(Signal::MemoryAvailable, true, 0, &[("a", 950, 0)]).await;
    scene.node.settle(Duration::from_secs(59)).await;
    assert!(scene.node.is_ready(&scene.pods["a"]));
    scene.node.until("ending", |n| n.said("Killing", "Stopping container a")).await;
    let began = tokio::time::Instant::now();
    scene.node.settle(Duration::from_secs(3)).await;
    let status = scene.node.status(&scene.pods["a"]);
    assert_eq!((status.phase.as_deref(), status.reason), (Some("Running"), None), "nobody is to replace it yet");
    scene.node.until("ended", |n| n.runtime.running().is_empty()).await;
    let took = began.elapsed().as_secs();
    assert!((6..=8).contains(&took), "{took} s");
    scene.node.until("told", |_| scene.reason("a").as_deref() == Some("Evicted")).await;
}

#[tokio::test(start_paused = true)]
async fn critical_pods_stay_whatever_happens() {
    let scene = Scene::start(Signal::MemoryAvailable, false, 0, &[("a", 950, 2_000_001_000)]).await;
    scene.node.settle(Duration::from_secs(100)).await;
    assert!(scene.node.is_ready(&scene.pods["a"]));
    assert!(scene.told("EvictionThresholdMet") > 3);
    assert_eq!(*scene.pressures.borrow(), [Pressure::Memory].into());
}

#[tokio::test(start_paused = true)]
async fn pods_over_their_own_limits_go_together_whatever_is_free() {
    let pods = [("over", 300, 0), ("over-too", 200, 5), ("within", 100, 0), ("critical", 100, 2_000_000_000)];
    let limits = [("over", 299), ("over-too", 1), ("within", 100), ("critical", 1)];
    let scene = Scene::with_disk_limits(Signal::PidAvailable, false, 0, &pods, &limits).await;
    let evicted = |n: &Node, name: &str| n.status(&scene.pods[name]).reason.as_deref() == Some("Evicted");
    scene.node.until("both are evicted", |n| evicted(n, "over") && evicted(n, "over-too")).await;
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 299. ";
    let status = scene.node.status(&scene.pods["over"]);
    assert_eq!((status.phase.as_deref(), status.message.as_deref()), (Some("Failed"), Some(message)));
    assert!(scene.node.said("Evicted", message));
    scene.node.settle(Duration::from_secs(60)).await;
    assert!(["within", "critical"].iter().all(|name| scene.node.is_ready(&scene.pods[name])));
    assert_eq!((scene.told("Evicted"), scene.told("EvictionThresholdMet")), (2, 0));
    assert!(scene.pressures.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pods_make_room_for_a_critical_one() {
    let node = Node::start().await;
    let named = |name: &str, text: &str| {
        let mut p = pod(text);
        (p.metadata.name, p.metadata.uid) = (Some(name.to_owned()), Some(name.to_owned()));
        p
    };
    let request = |cpu: &str| format!("resources: {{requests: {{cpu: {cpu}}}}}");
    let small = named("small", &format!("  containers: [{{name: small, {}}}]", request("500m")));
    let large = named(
        "large",
        &format!("  terminationGracePeriodSeconds: 20\n  containers: [{{name: large, {}}}]", request("1500m")),
    );
    node.runtime.set_behavior("large", Behavior::IgnoresStopSignal);
    node.want(&[small.clone(), large.clone()]);
    node.until("both ready", |n| n.is_ready(&small) && n.is_ready(&large)).await;
    let text = format!("  priority: 2000000000\n  containers: [{{name: vital, {}}}]", request("1"));
    let vital = named("vital", &text);
    node.want(&[small.clone(), large.clone(), vital.clone()]);
    node.until("told", |n| n.said("Preempting", "Preempted in order to admit critical pod")).await;
    node.settle(Duration::from_secs(10)).await;
    assert_eq!(
        node.runtime.running(),
        ["large", "small"],
        "it has its grace period, and nothing starts before its end"
    );
    node.until("ready", |n| n.is_ready(&vital)).await;
    let status = node.status(&large);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Preempting")));
    let target = status.conditions.unwrap().into_iter().find(|c| c.type_ == "DisruptionTarget").unwrap();
    assert_eq!(target.message.as_deref(), Some("Pod was preempted by Kubelet to accommodate a critical pod."));
    assert!(node.is_ready(&small));
    assert_eq!(node.reasons().iter().filter(|r| **r == "Preempting").count(), 1);
}

/// Pods that ran before a restart are counted before they have workers.
#[tokio::test(start_paused = true)]
async fn who_could_not_be_told_to_make_room_is_told_later() {
    let node = Node::start().await;
    let named = |name: &str, text: &str| {
        let mut p = pod(&format!("{text}  containers: [{{name: {name}, resources: {{requests: {{cpu: 2}}}}}}]"));
        (p.metadata.name, p.metadata.uid) = (Some(name.to_owned()), Some(name.to_owned()));
        p
    };
    let (modest, vital) = (named("modest", ""), named("vital", "  priority: 2000000000\n"));
    node.deps.admission.adopt(&Arc::new(modest.clone()));
    node.want(std::slice::from_ref(&vital));
    node.settle(Duration::from_secs(10)).await;
    assert!(!node.is_ready(&vital) && node.reasons().iter().all(|r| *r != "Preempting"));
    node.want(&[modest.clone(), vital.clone()]);
    node.until("ready", |n| n.is_ready(&vital)).await;
    assert_eq!(node.status(&modest).reason.as_deref(), Some("Preempting"));
}
