//! Routes between nodes, and the node's own way to Services.
//!
//! Every other node's pod network is routed to that node's address, as long as
//! both share a link. The service network is routed to the pods' bridge: a
//! `connect` to a cluster IP needs some route before the output hook can
//! translate it, and what is not translated must not wander to a default route.
//!
//! Routes carry a protocol number of our own; nobody else's are touched.
//! `plan` decides, `kernel` looks and acts.

mod kernel;
mod plan;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::cidr::Cidr4;
use kernel::Kernel;
use plan::Peer;

/// What the routes of a node follow from, beside the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesConfig {
    /// The Node object of this node.
    pub node_name: String,
    /// This node's own address, the source of its connections to Services.
    pub node_ip: Ipv4Addr,
    /// The pods' bridge; made when missing.
    pub bridge: String,
    pub service_cidr: Cidr4,
    pub cluster_cidr: Cidr4,
}

/// Why routes could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// No socket to the kernel.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{step}")]
    Kernel {
        step: String,
        #[source]
        source: rtnetlink::Error,
    },
}

/// Keeps the node's routes in line with the cluster's nodes until `token` is
/// cancelled. Routes stay when it returns; [`cleanup`] removes them.
///
/// # Errors
/// When the kernel cannot be reached or refuses the bridge.
pub async fn run(config: RoutesConfig, client: Client, token: CancellationToken) -> Result<(), RoutesError> {
    let kernel = Kernel::open()?;
    let bridge = kernel.ensure_bridge(&config.bridge).await?;
    kernel.route_services(config.service_cidr, bridge, config.node_ip).await?;
    let mut peers = BTreeMap::new();
    let mut building = None;
    let mut changes =
        watcher(Api::<Node>::all(client), watcher::Config::default()).default_backoff().modify(slim).boxed();
    loop {
        let change = tokio::select! {
            () = token.cancelled() => return Ok(()),
            // Dropping the future of the next event loses no event.
            change = changes.try_next() => change,
        };
        let event = match change {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::debug!(%error, "nodes cannot be watched");
                continue;
            }
        };
        if !fold(&mut peers, &mut building, event) {
            continue;
        }
        if let Err(error) = apply(&kernel, &config, &peers).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "routes between nodes are incomplete");
        }
    }
}

/// Keeps of a node what routes follow from.
fn slim(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.images = None;
        status.conditions = None;
    }
}

/// Folds an event into the picture; tells whether the picture is whole.
fn fold(
    peers: &mut BTreeMap<String, Peer>,
    building: &mut Option<BTreeMap<String, Peer>>,
    event: watcher::Event<Node>,
) -> bool {
    match event {
        watcher::Event::Init => *building = Some(BTreeMap::new()),
        watcher::Event::InitApply(node) => {
            let target = building.get_or_insert_with(BTreeMap::new);
            target.extend(Peer::read(&node).map(|peer| (node.name_any(), peer)));
        }
        watcher::Event::InitDone => *peers = building.take().unwrap_or_default(),
        watcher::Event::Apply(node) => {
            match Peer::read(&node) {
                Some(peer) => peers.insert(node.name_any(), peer),
                None => peers.remove(&node.name_any()),
            };
        }
        watcher::Event::Delete(node) => {
            peers.remove(&node.name_any());
        }
    }
    building.is_none()
}

async fn apply(kernel: &Kernel, config: &RoutesConfig, peers: &BTreeMap<String, Peer>) -> Result<(), RoutesError> {
    let others = peers.iter().filter(|(name, _)| **name != config.node_name).map(|(_, peer)| *peer);
    let links = kernel.networks().await?;
    let observed = kernel.pod_routes(config.service_cidr).await?;
    let plan = plan::plan(others, &links, &observed);
    for peer in &plan.unreachable {
        tracing::warn!(node.ip = %peer.ip, pod_cidr = %peer.pod_cidr, "no common link with this node: its pods are out of reach");
    }
    for route in plan.remove {
        kernel.remove(route).await?;
    }
    for route in plan.add {
        kernel.add(route).await?;
        tracing::info!(pod_cidr = %route.pod_cidr, via = %route.ip, "route to a node's pods");
    }
    Ok(())
}

/// Removes every route of ours; none is fine.
///
/// # Errors
/// When the kernel refuses.
pub async fn cleanup() -> Result<(), RoutesError> {
    Kernel::open()?.remove_all().await
}
