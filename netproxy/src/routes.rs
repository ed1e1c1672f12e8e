//! Routes between nodes, and the node's own way to Services.
//!
//! Every other node's pod network is routed to that node's address where both
//! share a link, and into a VXLAN tunnel to it where not. A node with tunnels
//! says so in annotations of its Node object, and gives its pods less room in a
//! packet. The service network is routed to the pods' bridge: a
//! `connect` to a cluster IP needs some route before the output hook can
//! translate it, and what is not translated must not wander to a default route.
//!
//! Routes carry a protocol number of our own; nobody else's are touched.
//! `plan` decides, `kernel` and `tunnel` look and act.

mod kernel;
mod plan;
mod tunnel;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cidr::Cidr4;
use kernel::Kernel;
pub use plan::NodeNetwork;
use plan::{ANNOTATION_VTEP_IP, ANNOTATION_VTEP_MAC, Mac, Peer, Vtep};
pub use tunnel::DEVICE;

/// How long to wait after the kernel or the API refused something.
const RETRY: Duration = Duration::from_secs(5);

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
    /// How packets travel between nodes.
    pub network: NodeNetwork,
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
    /// Nobody has the address this node is said to have.
    #[error("no link has the node's address {0}")]
    NoAddress(Ipv4Addr),
    /// The API server refused to take this node's end of the tunnels.
    #[error("say where this node's tunnels end")]
    Publish(#[source] kube::Error),
}

/// Who tells of nodes, who may change this node's object, and who wants to know.
#[allow(missing_debug_implementations)] // Clients show nothing of themselves.
pub struct Parties {
    /// Lists and watches nodes.
    pub client: Client,
    /// Annotates this node.
    pub node_client: Client,
    /// Learns the pods' largest packet in bytes (0: the kernel's choice) once it is known.
    pub pod_mtu: watch::Sender<Option<u32>>,
}

/// Keeps the node's routes in line with the cluster's nodes until `token` is
/// cancelled. Routes stay when it returns; [`cleanup`] removes them.
///
/// # Errors
/// When the kernel cannot be reached or refuses the bridge.
pub async fn run(config: RoutesConfig, parties: Parties, token: CancellationToken) -> Result<(), RoutesError> {
    let kernel = Kernel::open()?;
    let bridge = kernel.ensure_bridge(&config.bridge).await?;
    kernel.route_services(config.service_cidr, bridge, config.node_ip).await?;
    let mut peers = BTreeMap::new();
    let mut building = None;
    let mut retry_at: Option<Instant> = None;
    let nodes = Api::<Node>::all(parties.client.clone());
    let mut changes = watcher(nodes, watcher::Config::default()).default_backoff().modify(slim).boxed();
    loop {
        let change = tokio::select! {
            () = token.cancelled() => return Ok(()),
            // Dropping the future of the next event loses no event.
            change = changes.try_next() => match change {
                Ok(Some(event)) => fold(&mut peers, &mut building, event),
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "nodes cannot be watched");
                    false
                }
            },
            // Only waits.
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => building.is_none(),
        };
        if !change {
            continue;
        }
        retry_at = None;
        if let Err(error) = apply(&kernel, &config, &peers, &parties).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "routes between nodes are incomplete");
            retry_at = Some(Instant::now() + RETRY);
        }
    }
}

/// Keeps of a node what routes follow from.
fn slim(node: &mut Node) {
    node.metadata.managed_fields = None;
    if let Some(annotations) = &mut node.metadata.annotations {
        annotations.retain(|name, _| name == ANNOTATION_VTEP_MAC || name == ANNOTATION_VTEP_IP);
    }
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

async fn apply(
    kernel: &Kernel,
    config: &RoutesConfig,
    peers: &BTreeMap<String, Peer>,
    parties: &Parties,
) -> Result<(), RoutesError> {
    let others = || peers.iter().filter(|(name, _)| **name != config.node_name).map(|(_, peer)| peer);
    let links = kernel.networks().await?;
    let needed = plan::needs_tunnel(config.network, others(), &links);
    let link_mtu = kernel.link_mtu(config.node_ip).await?;
    let pod_mtu = Some(link_mtu.map_or(0, |mtu| plan::pod_mtu(needed, mtu)));
    parties.pod_mtu.send_if_modified(|known| std::mem::replace(known, pod_mtu) != pod_mtu);
    // Until this node has its part of the pod network its end of the tunnels has no address.
    let own = peers.get(&config.node_name).filter(|_| needed);
    let vtep = Vtep { mac: Mac::of_node(config.node_ip), ip: config.node_ip };
    // What goes wrong with tunnels keeps no route from being made.
    let (device, mut failure) = match device(kernel, vtep, own, link_mtu).await {
        Ok(device) => (device, None),
        Err(error) => (tunnel::find(&kernel.handle).await?.map(|device| device.index), Some(error)),
    };
    if failure.is_none() && own.is_some_and(|own| own.vtep != Some(vtep)) {
        failure = publish(parties, &config.node_name, vtep).await.err();
    }
    let observed = kernel.observe(config.service_cidr, device).await?;
    let network = match config.network {
        NodeNetwork::Auto if device.is_none() => NodeNetwork::Routes,
        NodeNetwork::Vxlan if device.is_none() => NodeNetwork::None,
        network => network,
    };
    let plan = plan::plan(network, others().copied(), &links, &observed);
    for peer in &plan.unreachable {
        tracing::warn!(node.ip = %peer.ip, pod_cidr = %peer.pod_cidr, "no way to this node so far: its pods are out of reach");
    }
    kernel.perform(&plan, device).await?;
    for route in &plan.add.routes {
        tracing::info!(pod_cidr = %route.pod_cidr, via = %route.gateway, tunnel = route.tunnel, "route to a node's pods");
    }
    failure.map_or(Ok(()), Err)
}

/// The tunnel device: made for `own`, this node where it needs one; else the one there is.
async fn device(
    kernel: &Kernel,
    vtep: Vtep,
    own: Option<&Peer>,
    link_mtu: Option<u32>,
) -> Result<Option<u32>, RoutesError> {
    let Some(own) = own else { return Ok(tunnel::find(&kernel.handle).await?.map(|device| device.index)) };
    let link_mtu = link_mtu.ok_or(RoutesError::NoAddress(vtep.ip))?;
    tunnel::ensure(&kernel.handle, vtep, own.pod_cidr, link_mtu).await.map(Some)
}

/// Lets other nodes know where this node's tunnels end.
async fn publish(parties: &Parties, node: &str, vtep: Vtep) -> Result<(), RoutesError> {
    let annotations = json!({ ANNOTATION_VTEP_MAC: vtep.mac.to_string(), ANNOTATION_VTEP_IP: vtep.ip.to_string() });
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    let nodes = Api::<Node>::all(parties.node_client.clone());
    nodes.patch(node, &PatchParams::default(), &patch).await.map(drop).map_err(RoutesError::Publish)
}

/// Removes every route of ours and the tunnel device; none is fine.
///
/// # Errors
/// When the kernel refuses.
pub async fn cleanup() -> Result<(), RoutesError> {
    Kernel::open()?.remove_all().await
}
