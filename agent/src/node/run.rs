//! The task that keeps the node object true.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri::types::{Image, Version};
use cri::{CriError, ImageService, RuntimeService};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::NodeView;
use super::conditions::{RuntimeView, network_problem, problems};
use super::facts::{MachineInfo, MachineUsage};
use super::register::{labels_patch, register};
use super::status::{NodeInput, differs, node_status, status_patch};
use super::{address, lease};
use crate::clock::Clock;
use crate::config::{EvictionSettings, NodeSettings};
use crate::events::{EventRecorder, EventType};
use crate::ids::selector_of;
use crate::plan::eviction::Pressures;
use crate::pleg::RelistHealth;
use crate::watch::{Item, Skipped};

/// How soon to look again while the node is not ready: its network becomes
/// ready without telling anybody.
const UNREADY_LOOK: Duration = Duration::from_millis(250);
/// How long to look that often.
const UNREADY_HASTE: Duration = Duration::from_secs(60);
/// How long after the start a node that was ready may be found unready unsaid.
const RESTART_PATIENCE: Duration = Duration::from_secs(15);
/// How long the runtime may be silent before the node is not ready, as upstream.
const RUNTIME_SILENT: Duration = Duration::from_secs(30);
/// How often images are listed.
const IMAGES_EVERY: Duration = Duration::from_secs(60);

/// Registers the node and keeps its status.
#[derive(Debug)]
pub struct NodeStatusSync {
    pub settings: NodeSettings,
    pub eviction: EvictionSettings,
    /// What the node runs short of.
    pub pressures: watch::Receiver<Pressures>,
    /// A directory on the file system pods use.
    pub root: PathBuf,
    pub runtime: Arc<dyn RuntimeService>,
    /// Whether the runtime can be listed.
    pub pleg: RelistHealth,
    pub images: Arc<dyn ImageService>,
    /// Port of the kubelet's server; 0 when there is none.
    pub port: u16,
    pub events: EventRecorder,
    pub clock: Clock,
}

struct Observed {
    machine: MachineInfo,
    ips: Vec<IpAddr>,
    version: Option<Version>,
    images: Vec<Image>,
    images_at: Option<Instant>,
    /// There is an API server that has, or will have, the Node.
    has_api: bool,
}

impl NodeStatusSync {
    async fn observe(&self, seen: &mut Observed) -> (MachineUsage, RuntimeView) {
        let usage = MachineUsage::read(&self.root);
        let runtime = in_time(self.runtime.status()).await;
        if runtime.is_err() {
            return (usage, runtime);
        }
        if seen.version.is_none() {
            seen.version = in_time(self.runtime.version()).await.ok();
        }
        if seen.images_at.is_none_or(|at| at.elapsed() >= IMAGES_EVERY)
            && let Ok(images) = in_time(self.images.list_images()).await
        {
            seen.images = images;
            seen.images_at = Some(Instant::now());
        }
        (usage, runtime)
    }

    fn status(
        &self,
        seen: &Observed,
        usage: &MachineUsage,
        runtime: &RuntimeView,
        previous: Option<&NodeStatus>,
    ) -> NodeStatus {
        let conditions = previous.and_then(|p| p.conditions.as_deref()).unwrap_or_default();
        node_status(&NodeInput {
            settings: &self.settings,
            eviction: &self.eviction,
            pressures: &self.pressures.borrow(),
            machine: &seen.machine,
            usage,
            runtime,
            pleg: self.pleg.problem().as_deref(),
            version: seen.version.as_ref(),
            images: &seen.images,
            ips: &seen.ips,
            port: self.port,
            previous: conditions,
            now: self.clock.now(),
        })
    }

    /// Runs until cancelled. `view` is kept at what pods need to know. Without
    /// a client only that is done.
    pub async fn run(
        &self,
        client: Option<kube::Client>,
        view: watch::Sender<Arc<NodeView>>,
        token: CancellationToken,
    ) {
        let work = self.keep(client, &view, &token);
        token.run_until_cancelled(work).await;
    }

    async fn keep(&self, client: Option<kube::Client>, view: &watch::Sender<Arc<NodeView>>, token: &CancellationToken) {
        let ips = address::node_ips(&self.settings.ips);
        let mut seen = Observed {
            machine: MachineInfo::read(),
            ips,
            version: None,
            images: Vec::new(),
            images_at: None,
            has_api: client.is_some(),
        };
        let (usage, runtime) = self.observe(&mut seen).await;
        let status = self.status(&seen, &usage, &runtime, None);
        self.publish(view, &seen, &status, &runtime, None);
        let (node_tx, mut nodes) = watch::channel(None);
        // They end with this task.
        let mut subtasks = JoinSet::new();
        if let Some(client) = &client {
            let node = self.register(client, &seen, &status).await;
            seen.has_api = node.is_some();
            node_tx.send_replace(node.map(Arc::new));
            let (name, duration) = (self.settings.name.clone(), self.settings.lease_duration);
            subtasks.spawn(lease::run(client.clone(), name, nodes.clone(), duration, token.clone()));
            subtasks.spawn(follow(client.clone(), self.settings.name.clone(), node_tx, token.clone()));
        }
        let shown = nodes.clone();
        tokio::select! {
            () = self.report(client, view, &mut seen, &mut nodes, Some(runtime)) => {}
            () = show(shown, view) => {}
            // A panic of a subtask is one of the whole; an ordinary end follows the token.
            Some(Err(error)) = subtasks.join_next() => if error.is_panic() {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    /// `None`: there is no Node, and it is somebody else's to make one. Pods do not wait for that, as upstream
    /// (pkg/kubelet/kubelet_getters.go, `getNodeAnyWay`).
    async fn register(&self, client: &kube::Client, seen: &Observed, status: &NodeStatus) -> Option<Node> {
        let api: Api<Node> = Api::all(client.clone());
        let mut pause = Duration::from_millis(100);
        loop {
            let result = if self.settings.register {
                register(&api, &self.settings, &seen.machine, status).await.map(Some)
            } else {
                api.get_opt(&self.settings.name).await
            };
            match result {
                Ok(None) => {
                    tracing::warn!(node = %self.settings.name, "there is no Node, and registerNode is false");
                    return None;
                }
                Ok(Some(node)) => {
                    let text = format!("Node {} event: Registered Node", self.settings.name);
                    tracing::info!(node = %self.settings.name, "node registered");
                    self.events.node(&self.settings.name, EventType::Normal, "Starting", text);
                    return Some(node);
                }
                Err(error) => {
                    tracing::debug!(%error, "node not registered yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(7));
                }
            }
        }
    }

    /// The status loop.
    async fn report(
        &self,
        client: Option<kube::Client>,
        view: &watch::Sender<Arc<NodeView>>,
        seen: &mut Observed,
        nodes: &mut watch::Receiver<Option<Arc<Node>>>,
        mut first: Option<RuntimeView>,
    ) {
        let api: Option<Api<Node>> = client.map(Api::all);
        let mut written: Option<(NodeStatus, Instant)> = None;
        // What the API server answered to the last write, newer than the watch for a moment; and the node as it was,
        // for pods that run on should its object go.
        let (mut answered, mut last): (Option<Arc<Node>>, Option<Arc<Node>>) = (None, None);
        let mut known_cidr: Option<String> = None;
        let began = Instant::now();
        let mut pressures = self.pressures.clone();
        loop {
            let node = newest(nodes.borrow_and_update().clone(), answered.clone());
            pressures.mark_unchanged();
            let (usage, runtime) = match first.take() {
                Some(runtime) => (MachineUsage::read(&self.root), runtime),
                None => self.observe(seen).await,
            };
            let shown = node.as_ref().and_then(|n| n.status.clone());
            let status = self.status(seen, &usage, &runtime, shown.as_ref());
            // It may have changed while the runtime was asked.
            last = newest(nodes.borrow().clone(), answered.clone()).or(last);
            self.publish(view, seen, &status, &runtime, last.as_ref());
            self.update_pod_cidr(node.as_deref(), &mut known_cidr).await;
            let due = written
                .as_ref()
                .is_none_or(|(s, at)| differs(s, &status) || at.elapsed() >= self.settings.status_report);
            // A restart must not look like an outage: give a network that comes back
            // with us a moment before saying otherwise.
            let restarting = began.elapsed() < RESTART_PATIENCE
                && !problems(&runtime, None).is_empty()
                && shown.as_ref().is_some_and(is_ready);
            let overwritten = shown.as_ref().is_some_and(|s| ready_differs(s, &status));
            if let Some(api) = api.as_ref().filter(|_| node.is_some() && !restarting && (due || overwritten)) {
                if let Some(node) = self.write(api, node.as_deref(), seen, shown.as_ref(), &status).await {
                    answered = Some(Arc::new(node));
                    self.record_transition(written.as_ref().map(|(s, _)| s), &status);
                    written = Some((status, Instant::now()));
                } else {
                    written = None;
                }
            }
            let hasty = !problems(&runtime, None).is_empty() && began.elapsed() < UNREADY_HASTE;
            let retry = written.is_none() && node.is_some();
            let pause = match (hasty, retry) {
                (true, _) => UNREADY_LOOK,
                (_, true) => Duration::from_secs(1),
                _ => self.settings.status_update,
            };
            // Cancel-safe: all arms only wait.
            tokio::select! {
                Ok(()) = pressures.changed() => {}
                changed = nodes.changed(), if api.is_some() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn write(
        &self,
        api: &Api<Node>,
        node: Option<&Node>,
        seen: &Observed,
        shown: Option<&NodeStatus>,
        status: &NodeStatus,
    ) -> Option<Node> {
        let params = PatchParams::default();
        if let Some(patch) = node.and_then(|n| labels_patch(n, &self.settings, &seen.machine))
            && self.settings.register
            && let Err(error) = api.patch(&self.settings.name, &params, &Patch::Merge(patch)).await
        {
            tracing::debug!(%error, "labels not written");
        }
        let patch = status_patch(shown, status);
        match api.patch_status(&self.settings.name, &params, &Patch::Strategic(patch)).await {
            Ok(node) => Some(node),
            Err(error) => {
                tracing::debug!(%error, "node status not written");
                None
            }
        }
    }

    async fn update_pod_cidr(&self, node: Option<&Node>, known: &mut Option<String>) {
        let cidr = node.and_then(|n| n.spec.as_ref()).and_then(|s| match &s.pod_cidrs {
            Some(list) if !list.is_empty() => Some(list.join(",")),
            _ => s.pod_cidr.clone(),
        });
        let Some(cidr) = cidr.filter(|c| !c.is_empty() && known.as_ref() != Some(c)) else { return };
        match self.runtime.update_pod_cidr(&cidr).await {
            Ok(()) => *known = Some(cidr),
            Err(error) => tracing::debug!(%error, "pod CIDR not handed to the runtime"),
        }
    }

    fn publish(
        &self,
        view: &watch::Sender<Arc<NodeView>>,
        seen: &Observed,
        status: &NodeStatus,
        runtime: &RuntimeView,
        node: Option<&Arc<Node>>,
    ) {
        let next = NodeView {
            pressures: self.pressures.borrow().clone(),
            own_ports: {
                let all = self.settings.own_ports.iter().copied().chain([("TCP", self.port)]);
                all.filter(|(_, port)| *port != 0).collect()
            },
            host_ips: seen.ips.iter().map(ToString::to_string).collect(),
            allocatable: status.allocatable.clone().unwrap_or_default(),
            memory_capacity: i64::try_from(seen.machine.memory).unwrap_or(i64::MAX),
            network_problem: network_problem(runtime),
            node: node.cloned(),
            awaited: seen.has_api && node.is_none(),
        };
        view.send_if_modified(|old| {
            let same = old.host_ips == next.host_ips
                && old.allocatable == next.allocatable
                && old.network_problem == next.network_problem
                && old.pressures == next.pressures
                && old.awaited == next.awaited
                && version(old.node.as_ref()) == version(next.node.as_ref());
            if !same {
                *old = Arc::new(next);
            }
            !same
        });
    }

    fn record_transition(&self, before: Option<&NodeStatus>, now: &NodeStatus) {
        let was = before.is_some_and(is_ready);
        if was == is_ready(now) {
            return;
        }
        let (reason, word) = if is_ready(now) { ("NodeReady", "NodeReady") } else { ("NodeNotReady", "NodeNotReady") };
        let text = format!("Node {} status is now: {word}", self.settings.name);
        tracing::info!(node = %self.settings.name, status = word, "node changed");
        self.events.node(&self.settings.name, EventType::Normal, reason, text);
    }
}

/// What the runtime answers, unless it is silent for too long.
async fn in_time<T>(call: impl Future<Output = Result<T, CriError>>) -> Result<T, String> {
    match tokio::time::timeout(RUNTIME_SILENT, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", RUNTIME_SILENT.as_secs())),
    }
}

/// Puts each newer Node into the view at once: the status loop may wait for the runtime meanwhile.
async fn show(mut nodes: watch::Receiver<Option<Arc<Node>>>, view: &watch::Sender<Arc<NodeView>>) {
    while nodes.changed().await.is_ok() {
        // A node whose object went stays as it was for pods that run on.
        let Some(watched) = nodes.borrow_and_update().clone() else { continue };
        view.send_if_modified(|old| {
            let node = newest(Some(watched), old.node.clone());
            let same = version(node.as_ref()) == version(old.node.as_ref()) && !old.awaited;
            if !same {
                *old = Arc::new(NodeView { node, awaited: false, ..NodeView::clone(old) });
            }
            !same
        });
    }
    std::future::pending().await
}

fn version(node: Option<&Arc<Node>>) -> Option<&str> {
    node.and_then(|node| node.metadata.resource_version.as_deref())
}

/// The newer of what the watch shows and what a write was answered with. Pure.
fn newest(watched: Option<Arc<Node>>, answered: Option<Arc<Node>>) -> Option<Arc<Node>> {
    let (Some(watched), Some(answered)) = (&watched, answered) else { return watched };
    let version = |node: &Node| node.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
    // One that was made anew is another object.
    let same = watched.metadata.uid == answered.metadata.uid;
    if same && version(&answered) > version(watched) { Some(answered) } else { Some(watched.clone()) }
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn ready_differs(shown: &NodeStatus, ours: &NodeStatus) -> bool {
    let ready = |s: &NodeStatus| s.conditions.iter().flatten().find(|c| c.type_ == "Ready").map(|c| c.status.clone());
    ready(shown) != ready(ours)
}

/// Keeps `out` at the node object. One that somebody deletes is not made again: upstream registers once a start
/// (pkg/kubelet/kubelet_node_status.go, `registrationCompleted`).
async fn follow(client: kube::Client, name: String, out: watch::Sender<Option<Arc<Node>>>, token: CancellationToken) {
    let api: Api<Item<Node>> = Api::all(client);
    let config = watcher::Config::default().fields(&selector_of(&name));
    let mut stream = watcher::watcher(api, config).default_backoff().boxed();
    let mut skipped = Skipped::new("nodes");
    let mut listed = false;
    let work = async {
        while let Some(event) = stream.next().await {
            let gone = match event {
                Ok(Event::Apply(item) | Event::InitApply(item)) => {
                    listed = true;
                    match item.read() {
                        Ok(mut node) => {
                            node.metadata.managed_fields = None;
                            out.send_replace(Some(Arc::new(node)));
                        }
                        Err(object) => _ = skipped.say(&object),
                    }
                    false
                }
                Ok(Event::Delete(_)) => true,
                Ok(Event::Init) => {
                    listed = false;
                    false
                }
                // It went while nobody watched.
                Ok(Event::InitDone) => !listed,
                Err(error) => {
                    tracing::debug!(%error, "node not watched");
                    false
                }
            };
            if gone && out.send_replace(None).is_some() {
                tracing::warn!(node = name, "the Node was deleted: it comes back with the agent's next start");
            }
        }
    };
    token.run_until_cancelled(work).await;
}

#[cfg(test)]
mod tests;
