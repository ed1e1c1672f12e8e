//! A node's part of the pod network: the pods' bridge with its addresses, routes to other nodes'
//! pods, and the CNI configuration. One loop that follows the cluster's Nodes.
//!
//! What this node needs is folded from Nodes into `cluster`, made with [`crate::links`] and
//! [`crate::routes`], and looked at again now and then: whoever removes a link finds it back. What
//! cannot be made is told once, and tried again; it keeps nothing else from being made.

mod addresses;
mod cluster;
mod problems;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cidr::Cidr4;
use crate::cni::hostports::mapping::ReservedPort;
use crate::cni::{self, CniConfig, ipam, sysctl};
use crate::firewall::{self, AcceptedTraffic};
use crate::informer::{self, Informer};
use crate::links::{self, Address, BRIDGE, Holder, LinkError, Netlink, Observed, Owner};
use crate::routes::kernel::{self, Devices, Present};
use crate::routes::peers::{
    ANNOTATION_VTEP_IP, ANNOTATION_VTEP_MAC, LocalNetworks, Vtep, cluster_range, filtered_range,
};
use crate::routes::plan::{self, NodeNetwork, Plan, Route, Via};
use crate::routes::{DEVICE, tunnel};
use cluster::Cluster;
use problems::{Problems, chain};

/// How long to wait after something was refused.
const RETRY: Duration = Duration::from_secs(5);
/// How often to look whether everything is as it was made.
const LOOK: Duration = Duration::from_secs(30);
/// How long a node waits for its part of the pod network before it says so.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Whose links, routes and rules these are.
    pub owner: Owner,
    /// The Node object of this node.
    pub node_name: String,
    /// This node's own address, the source of its connections to Services.
    pub node_ip: Ipv4Addr,
    /// The cluster DNS's address, brought to this node so that questions never leave it. The kernels
    /// we run on need not have dummy links, so it sits on the bridge, as a /32 that nothing else is
    /// reached through.
    pub dns_address: Option<Ipv4Addr>,
    /// `None` when somebody else gives pods their network.
    pub pods: Option<PodNetworkConfig>,
}

/// The pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetworkConfig {
    /// All Services' addresses.
    pub service_cidr: Cidr4,
    /// All nodes' pod networks.
    pub cluster_cidr: Cidr4,
    /// How packets travel between nodes.
    pub node_network: NodeNetwork,
    /// Where the runtime looks for CNI configurations.
    pub conf_dir: PathBuf,
    /// Where leases are kept.
    pub data_dir: PathBuf,
    /// Ports of the node that no pod may have.
    pub reserved_ports: BTreeSet<ReservedPort>,
    /// What marks packets of Services that are to be masqueraded: filters of others let them pass, too.
    pub masquerade_mark: u32,
    /// Where former settings of the kernel are noted.
    pub sysctls_note: PathBuf,
}

/// Who tells of nodes, and who may change this node's object.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // Clients show nothing of themselves.
pub struct Clients {
    /// Lists and watches nodes.
    pub nodes: Client,
    /// Annotates this node.
    pub own_node: Client,
    /// Counts what cannot be read of nodes.
    pub metrics: informer::Metrics,
}

/// Keeps the node's network in line with the cluster's nodes until `token` is cancelled. Links,
/// routes and rules stay when it returns; [`remove_owned`] removes them.
///
/// # Errors
/// When the kernel cannot be reached, or the network namespace is somebody else's.
pub async fn run(config: NetworkConfig, clients: Clients, token: CancellationToken) -> Result<(), LinkError> {
    let netlink = Netlink::open()?;
    if let Holder::Other(clash) = links::holder(&netlink, &config.owner).await? {
        return Err(clash.into());
    }
    let mut network = Network::new(config, clients, netlink, token.clone());
    // The way to Services and DNS need not wait for the cluster.
    network.apply().await;
    let changed = Arc::new(Notify::new());
    let watching = watch(network.clients.clone(), Arc::clone(&network.cluster), Arc::clone(&changed));
    tokio::pin!(watching);
    let (mut again, mut pause) = (Instant::now() + RETRY, RETRY);
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            // Polled on by reference: it goes on where it was.
            () = watching.as_mut() => return Ok(()),
            // Only waits, and what it is told while nobody waits is kept.
            () = changed.notified() => pause = RETRY,
            // Only waits.
            () = sleep_until(again) => {}
        }
        let done = network.apply().await && !network.waits();
        // What stays wrong is not looked at more often than what is right.
        again = Instant::now() + if done { LOOK } else { pause };
        pause = if done { RETRY } else { (pause * 2).min(LOOK) };
    }
}

/// Follows all nodes; never ends by itself. One that cannot be read keeps none of the others from being seen.
async fn watch(clients: Clients, cluster: Arc<Mutex<Cluster>>, changed: Arc<Notify>) {
    let nodes = Informer::<crate::api::Node>::all(clients.nodes, clients.metrics);
    let fold = |change| {
        if cluster.lock().unwrap_or_else(PoisonError::into_inner).fold(change) {
            changed.notify_one();
        }
        true
    };
    nodes.run(fold).await;
}

/// Everything the loop knows.
struct Network {
    config: NetworkConfig,
    clients: Clients,
    netlink: Netlink,
    cluster: Arc<Mutex<Cluster>>,
    problems: Problems,
    started: Instant,
    token: CancellationToken,
    /// The written CNI configuration, and what keeps its host ports: dropping that ends it.
    written: Option<(CniConfig, DropGuard)>,
}

impl Network {
    fn new(config: NetworkConfig, clients: Clients, netlink: Netlink, token: CancellationToken) -> Self {
        let cluster = Arc::new(Mutex::new(Cluster::new(config.node_name.clone())));
        let (problems, started) = (Problems::default(), Instant::now());
        Self { config, clients, netlink, cluster, problems, started, token, written: None }
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything as it should be, as far as it is known; tells whether all of it is.
    async fn apply(&mut self) -> bool {
        let mut problems = BTreeSet::new();
        if let Err(error) = self.apply_links(&mut problems).await {
            problems.insert(chain(&error));
        }
        self.problems.report(problems);
        !self.problems.any()
    }

    async fn apply_links(&mut self, problems: &mut BTreeSet<String>) -> Result<(), LinkError> {
        let observed = self.netlink.links().await?;
        let Some(pods) = self.config.pods.clone() else {
            return self.apply_bridge(self.dns_address(), &observed).await.map(drop);
        };
        let own = self.own_network(&pods, &observed, problems);
        let present = self.ours(&observed, BRIDGE).map(|bridge| bridge.addresses.clone()).unwrap_or_default();
        let gateways = addresses::gateways(own, &present, &addresses::of_pods(&observed, &self.config.owner));
        problems.extend(gateways.former.iter().map(|net| {
            format!("pods have addresses of {net}, which this node has no more: other nodes reach them when made anew")
        }));
        let bridge = self.apply_bridge(gateways.addresses.into_iter().chain(self.dns_address()), &observed).await?;
        configure_link(BRIDGE, problems);
        keep_settings(pods.sysctls_note.clone(), problems).await;
        let pod_mtu = self.apply_routes(&pods, own, (&observed, bridge), problems).await?;
        let accepted = AcceptedTraffic {
            cluster_cidr: filtered_range(pods.cluster_cidr, own),
            masquerade_mark: pods.masquerade_mark,
        };
        self.open_filters(accepted, problems).await;
        if let Some(pod_cidr) = own {
            let config = CniConfig {
                bridge: BRIDGE.to_owned(),
                owner: self.config.owner.clone(),
                pod_cidr,
                mtu: pod_mtu,
                data_dir: pods.data_dir,
                reserved_ports: pods.reserved_ports,
                dns_address: self.config.dns_address,
            };
            self.configure_pods(config, &pods.conf_dir, problems);
        }
        Ok(())
    }

    /// Lets pods' packets pass filters of others, as far as that is ours to do.
    async fn open_filters(&self, accepted: AcceptedTraffic, problems: &mut BTreeSet<String>) {
        let owner = self.config.owner.clone();
        match tokio::task::spawn_blocking(move || firewall::open(&owner, accepted)).await {
            Ok(Ok(lines)) => problems.extend(lines),
            Ok(Err(error)) => {
                problems.insert(format!("look at the filters of forwarded packets: {}", chain(&error)));
            }
            Err(error) => {
                problems.insert(format!("look at the filters of forwarded packets: {error}"));
            }
        }
    }

    /// Makes the bridge; returns its index.
    async fn apply_bridge(
        &self,
        addresses: impl IntoIterator<Item = Address>,
        observed: &[Observed],
    ) -> Result<u32, LinkError> {
        let link = links::bridge(&self.config.owner, None, addresses);
        links::apply(&self.netlink, &[link], &self.config.owner).await?;
        if let Some(bridge) = self.ours(observed, BRIDGE) {
            return Ok(bridge.index);
        }
        Ok(self.netlink.link(BRIDGE).await?.map_or(0, |bridge| bridge.index))
    }

    fn ours<'a>(&self, observed: &'a [Observed], name: &str) -> Option<&'a Observed> {
        observed.iter().find(|link| link.name == name && link.is_of(&self.config.owner))
    }

    /// Whether the cluster has not said yet what this node's part of the pod network is.
    fn waits(&self) -> bool {
        self.config.pods.is_some() && self.cluster().own().pod_cidr.is_none()
    }

    fn dns_address(&self) -> Option<Address> {
        self.config.dns_address.map(|address| (address, 32))
    }

    /// This node's part of the pod network, if it is known and can be used.
    fn own_network(
        &self,
        pods: &PodNetworkConfig,
        observed: &[Observed],
        problems: &mut BTreeSet<String>,
    ) -> Option<Cidr4> {
        let (own, complete) = {
            let cluster = self.cluster();
            (cluster.own(), cluster.is_complete())
        };
        let Some(pod_cidr) = own.pod_cidr else {
            if complete && self.started.elapsed() >= PATIENCE {
                problems.insert(format!(
                    "the Node {} has no IPv4 podCIDR: pods wait for the cluster to give it one",
                    self.config.node_name
                ));
            }
            return None;
        };
        let gateway = ipam::gateway(pod_cidr);
        if gateway.is_none() {
            problems.insert(format!("the podCIDR {pod_cidr} is too small for pods"));
        }
        gateway?;
        let cluster = cluster_range(pods.cluster_cidr, Some(pod_cidr));
        let clashes =
            |ip: Ipv4Addr, net: Cidr4| pod_cidr.contains(ip) || net.overlaps(pod_cidr) && !net.covers(cluster);
        let mut foreign = addresses::of_others(observed, &self.config.owner);
        let foreign = foreign.find(|(_, ip, net)| clashes(*ip, *net));
        if let Some((link, _, net)) = foreign {
            problems.insert(format!(
                "the podCIDR {pod_cidr} overlaps {net}, which the link {link} has and is not copepod's: pods get no \
                 network until it is gone (ip link delete {link}) or has other addresses"
            ));
            return None;
        }
        if !pods.cluster_cidr.covers(pod_cidr) {
            problems.insert(format!(
                "the cluster gave this node the podCIDR {pod_cidr}, which is not within --cluster-cidr {}: \
                 name the cluster's own; until then {} is taken for it",
                pods.cluster_cidr,
                cluster_range(pods.cluster_cidr, Some(pod_cidr))
            ));
        }
        Some(pod_cidr)
    }

    /// Makes the tunnels' device and routes; returns the pods' largest packet.
    async fn apply_routes(
        &self,
        pods: &PodNetworkConfig,
        own: Option<Cidr4>,
        (observed, bridge): (&[Observed], u32),
        problems: &mut BTreeSet<String>,
    ) -> Result<u32, LinkError> {
        let mut devices = Devices { bridge, tunnel: self.ours(observed, DEVICE).map(|device| device.index) };
        let mut present = kernel::observe(&self.netlink, devices).await?;
        let local_networks = self.local_networks(pods, own, observed);
        let services = self.services_route(pods, observed, problems);
        if !self.cluster().is_complete() {
            // Nothing is known of other nodes: what leads to them stays.
            let plan = plan::keep(services, &present.observed);
            self.perform(&plan, &present, devices, problems).await;
            return Ok(0);
        }
        let (believed, refusals) = local_networks.believe(self.cluster().peers(), &present.observed.ours);
        problems.extend(refusals);
        let needed = plan::needs_tunnel(pods.node_network, believed.iter(), &local_networks.links);
        let link_mtu = self.node_link(observed).map(|link| link.mtu);
        // Until this node has its part of the pod network its end of the tunnels has no address. What
        // goes wrong with tunnels keeps no route from being made.
        if let (Some(own), Some(link_mtu)) = (own.filter(|_| needed), link_mtu) {
            let made = self.make_tunnel(own, link_mtu).await;
            configure_link(DEVICE, problems);
            match made {
                Ok(device) if Some(device) != devices.tunnel => {
                    devices.tunnel = Some(device);
                    present = kernel::observe(&self.netlink, devices).await?;
                }
                Ok(_) => {}
                Err(error) => {
                    problems.insert(error);
                }
            }
        }
        let network = match pods.node_network {
            NodeNetwork::Auto if devices.tunnel.is_none() => NodeNetwork::Routes,
            NodeNetwork::Vxlan if devices.tunnel.is_none() => NodeNetwork::None,
            network => network,
        };
        let plan = plan::plan(network, &believed, services, &local_networks.links, &present.observed);
        self.perform(&plan, &present, devices, problems).await;
        Ok(link_mtu.map_or(0, |mtu| plan::pod_mtu(needed, mtu)))
    }

    async fn perform(&self, plan: &Plan, present: &Present, devices: Devices, problems: &mut BTreeSet<String>) {
        problems.extend(plan.problems.iter().cloned());
        let failures = kernel::perform(&self.netlink, plan, present, devices).await;
        problems.extend(failures.iter().map(|error| chain(error)));
    }

    /// The link that has this node's address.
    fn node_link<'a>(&self, observed: &'a [Observed]) -> Option<&'a Observed> {
        observed.iter().find(|link| link.addresses.iter().any(|(ip, _)| *ip == self.config.node_ip))
    }

    fn local_networks(&self, pods: &PodNetworkConfig, own: Option<Cidr4>, observed: &[Observed]) -> LocalNetworks {
        LocalNetworks {
            cluster_cidr: cluster_range(pods.cluster_cidr, own),
            service_cidr: pods.service_cidr,
            own,
            addresses: observed.iter().flat_map(|link| link.addresses.iter().map(|(ip, _)| *ip)).collect(),
            links: addresses::of_others(observed, &self.config.owner).map(|(_, _, net)| net).collect(),
        }
    }

    /// The way to Services; none without this node's address, its source.
    fn services_route(
        &self,
        pods: &PodNetworkConfig,
        observed: &[Observed],
        problems: &mut BTreeSet<String>,
    ) -> Option<Route> {
        let ip = self.config.node_ip;
        if self.node_link(observed).is_some() {
            return Some(Route { to: pods.service_cidr, via: Via::Bridge(ip) });
        }
        problems.insert(format!("no link has the node's address {ip}"));
        None
    }

    /// Makes the tunnels' device, and lets other nodes know of it.
    async fn make_tunnel(&self, own: Cidr4, link_mtu: u32) -> Result<u32, String> {
        let ip = self.config.node_ip;
        let vtep = Vtep { mac: Vtep::mac_of(ip), ip };
        let link = tunnel::link(vtep, own, link_mtu);
        let made = links::apply(&self.netlink, &[link], &self.config.owner).await;
        made.map_err(|error| chain(&error))?;
        let device = self.netlink.link(DEVICE).await.map_err(|error| chain(&error))?;
        let known = self.cluster().own().vtep;
        if known != Some(vtep) {
            self.publish(vtep).await.map_err(|error| format!("say where this node's tunnels end: {error}"))?;
        }
        device.map(|device| device.index).ok_or_else(|| format!("the link {DEVICE} is gone again"))
    }

    async fn publish(&self, vtep: Vtep) -> Result<(), kube::Error> {
        let annotations = json!({ ANNOTATION_VTEP_MAC: vtep.mac.to_string(), ANNOTATION_VTEP_IP: vtep.ip.to_string() });
        let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
        let nodes = Api::<Node>::all(self.clients.own_node.clone());
        nodes.patch(&self.config.node_name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Writes the plugin's configuration where it changed, or somebody removed it.
    fn configure_pods(&mut self, config: CniConfig, conf_dir: &std::path::Path, problems: &mut BTreeSet<String>) {
        if let Err(error) = cni::write_conflist(conf_dir, &config) {
            problems.insert(format!("write the CNI configuration: {error}"));
            return;
        }
        if self.written.as_ref().is_some_and(|(written, _)| *written == config) {
            return;
        }
        let keeping = self.token.child_token();
        tokio::spawn(cni::keep_host_ports(config.clone(), cni::CHECK_PERIOD, keeping.clone()));
        self.written = Some((config, keeping.drop_guard()));
    }
}

/// Makes the settings of a link of ours, again and again: whoever reloads settings of the machine means all links.
fn configure_link(link: &str, problems: &mut BTreeSet<String>) {
    let made = [sysctl::loosen_reverse_path(link), sysctl::pass_on(link), sysctl::learn_nothing(link)];
    problems.extend(made.into_iter().filter_map(|made| Some(made.err()?.to_string())));
}

/// Keeps the settings of the node that pods' packets need. That somebody changed one is told: it will be so again.
async fn keep_settings(note: PathBuf, problems: &mut BTreeSet<String>) {
    // Loading a module may take its time.
    match tokio::task::spawn_blocking(move || sysctl::prepare_node(&note)).await {
        Ok(Ok(changed)) => problems.extend(changed.into_iter().map(|changed| {
            format!("{changed}, which keeps pods' packets from being passed on, and was set again: see /etc/sysctl.d")
        })),
        Ok(Err(error)) => {
            problems.insert(error.to_string());
        }
        Err(error) => {
            problems.insert(format!("look at the settings of the node: {error}"));
        }
    }
}

/// What could not be removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct RemoveError(Vec<String>);

/// Removes everything that this owner's node has made in the network namespace: tables, routes and
/// links; none is fine. Tables and routes of a namespace that another instance holds stay.
///
/// # Errors
/// What the kernel refused; the rest is done.
pub async fn remove_owned(owner: &Owner) -> Result<(), RemoveError> {
    let mut failures = Vec::new();
    let mut note = |what: &str, error: Option<&dyn std::error::Error>| {
        failures.extend(error.map(|error| format!("{what}: {}", chain(error))));
    };
    match Netlink::open() {
        Err(error) => note("links", Some(&error)),
        Ok(netlink) => {
            let holder = links::holder(&netlink, owner).await;
            note("links", holder.as_ref().err().map(|error| error as _));
            if let Ok(Holder::Own | Holder::Nobody) = holder {
                // A table without a mark is of a version before, which the namespace has had: nobody else holds it.
                let removed = crate::services::cleanup(owner);
                note("rules of Services", removed.as_ref().err().map(|error| error as _));
                let removed = cni::hostports::cleanup(owner);
                note("rules of host ports", removed.as_ref().err().map(|error| error as _));
                note("routes", kernel::remove_all(&netlink).await.as_ref().err().map(|error| error as _));
            }
            note("rules in others' chains", firewall::close(owner).as_ref().err().map(|error| error as _));
            note("links", links::remove_owned(&netlink, owner).await.as_ref().err().map(|error| error as _));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(RemoveError(failures)) }
}
