//! The service proxy's face to the rest of the program: its configuration, [`run`] and
//! [`cleanup`]. The work is in `snapshot` → `ruleset` → `nft` → `backend`, driven by `sync`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backend::netlink::NetlinkBackend;
use crate::backend::{NftBackend, NftError};
use crate::cidr::Cidr4;
use crate::cluster::Subscription;
use crate::conntrack::ctnetlink::CtNetlink;
use crate::conntrack::tuning::{self, ConntrackSettings};
use crate::healthz::{self, Health};
use crate::http::{self, Listening};
use crate::links::Owner;
use crate::metrics::Metrics;
use crate::nft::TABLE;
use crate::nft::diff::diff;
use crate::ruleset::{LocalTraffic, NodeView, probe};
use crate::sync::{PodCidr, Proxy, ProxyInputs, SyncPeriods, events, ipv4_only};

/// Changes that may wait while a transaction runs; others wait in the subscription.
const WATCH_QUEUE: usize = 1024;

/// Which local addresses accept NodePort traffic.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// Every local address except loopback (the default). Upstream's nftables mode defaults to the
    /// node's primary address; use [`NodePortAddresses::Within`] for that.
    #[default]
    AllLocal,
    /// Local addresses inside these prefixes. Loopback is never served, as in upstream's nftables mode.
    Within(Vec<Cidr4>),
}

/// How traffic of pods is told from that of clients elsewhere (`detectLocalMode`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum DetectLocal {
    /// Its source is in [`ServiceProxyConfig::cluster_cidrs`].
    #[default]
    ClusterCidr,
    /// Its source is in this node's part of the pod network, as its Node object says. Nothing is
    /// written before that is known.
    NodeCidr,
    /// It comes in through this bridge.
    BridgeInterface(String),
    /// It comes in through a link whose name begins so.
    InterfaceNamePrefix(String),
}

/// What [`run`] needs to know about this node and cluster.
#[derive(Clone, Debug)]
pub struct ServiceProxyConfig {
    /// The Node object's name: endpoints with this `nodeName` are local.
    pub node_name: String,
    /// The node's own addresses.
    pub node_ips: Vec<IpAddr>,
    /// Where pods live in the whole cluster (`clusterCIDR`), for [`DetectLocal::ClusterCidr`]. Empty:
    /// traffic of pods is not told from other traffic.
    pub cluster_cidrs: Vec<Cidr4>,
    /// How traffic of pods is recognised. ClusterIP traffic from elsewhere is masqueraded.
    pub detect_local: DetectLocal,
    /// Where ClusterIPs live: traffic to addresses no Service has is dropped. Empty: it is left alone.
    pub service_cidrs: Vec<Cidr4>,
    /// Which local addresses accept NodePort traffic.
    pub node_port_addresses: NodePortAddresses,
    /// Masquerade all ClusterIP traffic (`masqueradeAll`).
    pub masquerade_all: bool,
    /// Networks of pods whose packets to elsewhere are masqueraded; for pod networks that leave
    /// this to us.
    pub masquerade_outbound: Vec<Cidr4>,
    /// Where cluster DNS answers on this node.
    pub dns_address: Option<Ipv4Addr>,
    /// The packet mark bit that asks for masquerade, 0 to 31 (`masqueradeBit`, 14 upstream).
    pub masquerade_bit: u8,
    /// Where `/healthz` and `/livez` answer; `None` for nowhere. Upstream: 0.0.0.0:10256.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Where `/metrics`, `/configz` and `/proxyMode` answer; `None` for nowhere. Upstream: 127.0.0.1:10249.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Whether either address being taken is an error; else it is waited for.
    pub bind_address_hard_fail: bool,
    /// How often to see whether the rules are still there (30 s upstream); a change that waits twice
    /// as long makes the proxy unhealthy.
    pub sync_period: Duration,
    /// How long to wait between two transactions; 0 for not at all.
    pub min_sync_period: Duration,
    /// Settings of connection tracking to make.
    pub conntrack: ConntrackSettings,
    /// The file that tells what settings of connection tracking were before; `None` notes nothing, and nothing can be
    /// restored.
    pub conntrack_note: Option<PathBuf>,
    /// Whose rules these are.
    pub owner: Option<Owner>,
    /// Collectors to count in; register them with [`Metrics::register`].
    pub metrics: Metrics,
}

impl ServiceProxyConfig {
    /// Upstream's defaults for everything but the node itself.
    #[must_use]
    pub fn new(node_name: impl Into<String>, node_ips: Vec<IpAddr>) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips,
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_port_addresses: NodePortAddresses::default(),
            masquerade_all: false,
            masquerade_outbound: Vec::new(),
            dns_address: None,
            detect_local: DetectLocal::default(),
            masquerade_bit: 14,
            healthz_bind_address: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 10256))),
            metrics_bind_address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 10249))),
            bind_address_hard_fail: false,
            sync_period: Duration::from_secs(30),
            min_sync_period: Duration::ZERO,
            conntrack: ConntrackSettings::default(),
            conntrack_note: None,
            owner: None,
            metrics: Metrics::default(),
        }
    }
}

impl ServiceProxyConfig {
    /// The packet mark that asks for masquerade.
    ///
    /// # Errors
    /// When [`ServiceProxyConfig::masquerade_bit`] is none.
    pub fn masquerade_mark(&self) -> Result<u32, ServiceProxyError> {
        let mark = 1u32.checked_shl(u32::from(self.masquerade_bit));
        let bad = || format!("masquerade_bit is {}, not within 0 to 31", self.masquerade_bit);
        mark.ok_or_else(|| ServiceProxyError::Config(bad()))
    }
}

/// Why the service proxy could not start or clean up.
#[derive(Debug, Error)]
pub enum ServiceProxyError {
    /// A value in [`ServiceProxyConfig`] makes no sense.
    #[error("service proxy configuration: {0}")]
    Config(String),
    /// The kernel's nf_tables could not be reached, or lacks something.
    #[error("nftables is not usable: it needs CAP_NET_ADMIN and a kernel with nf_tables, nat, fib, numgen and reject")]
    Unavailable(#[source] NftError),
    /// Somebody else has an address we must have (`bindAddressHardFail`).
    #[error("listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// Our table could not be removed.
    #[error("remove nftables table ip {TABLE}")]
    Cleanup(#[source] NftError),
}

/// Programs Services on this node until `token` is cancelled. Rules stay when it returns, so that
/// connections survive a restart; [`cleanup`] removes them.
///
/// Works in the network namespace of the thread that polls it first.
///
/// # Errors
/// [`ServiceProxyError`] when it cannot start; errors while running are logged and retried.
pub async fn run(
    config: ServiceProxyConfig,
    subscription: Subscription,
    token: CancellationToken,
) -> Result<(), ServiceProxyError> {
    let node = node_view(&config)?;
    probe(&node)?;
    let conntrack = CtNetlink::new().map_err(ServiceProxyError::Unavailable)?;
    tune(&config);
    let health = Health::new(tokio::time::Instant::now(), config.sync_period * 2);
    let tasks = token.child_token();
    let _stop = tasks.clone().drop_guard();
    serve(&config, &health, &tasks).await?;
    let (sender, changes) = mpsc::channel(WATCH_QUEUE);
    let passing = events::pass_on(subscription, config.node_name.clone(), sender);
    tokio::spawn(tasks.clone().run_until_cancelled_owned(passing));
    let periods = SyncPeriods { sync_period: config.sync_period, min_sync_period: config.min_sync_period };
    let pod_cidr = match config.detect_local {
        DetectLocal::NodeCidr => PodCidr::IsLocal,
        // Pods' network is ours.
        _ if !config.masquerade_outbound.is_empty() => PodCidr::IsWithin,
        _ => PodCidr::Ignored,
    };
    let (node_name, metrics) = (config.node_name, config.metrics);
    let backend = NetlinkBackend::new().map_err(ServiceProxyError::Unavailable)?.of(config.owner.as_ref());
    let inputs = ProxyInputs { backend, conntrack, node_name, node, health, metrics, periods, pod_cidr };
    Proxy::new(inputs).run(changes, tasks).await;
    Ok(())
}

/// Starts the proxy's two servers.
async fn serve(
    config: &ServiceProxyConfig,
    health: &Health,
    tasks: &CancellationToken,
) -> Result<(), ServiceProxyError> {
    let healthz = healthz::router(health.clone(), config.metrics.clone());
    let metrics = http::metrics_router(&config.metrics, &crate::config::effective(config));
    for (address, router) in [(config.healthz_bind_address, healthz), (config.metrics_bind_address, metrics)] {
        if let Some(address) = address {
            let listening = Listening::on(address, config.bind_address_hard_fail).await;
            let listening = listening.map_err(|error| ServiceProxyError::Listen(address, error))?;
            tokio::spawn(listening.serve(router, tasks.clone()));
        }
    }
    Ok(())
}

/// Makes the settings of connection tracking; what cannot be made is told and lived with, as upstream.
fn tune(config: &ServiceProxyConfig) {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let note = config.conntrack_note.as_deref();
    for (name, error) in tuning::apply(Path::new(tuning::NETFILTER), note, &config.conntrack.sysctls(cores)) {
        tracing::warn!(name, error = %error, "a setting of connection tracking cannot be made");
    }
}

fn probe(node: &NodeView) -> Result<(), ServiceProxyError> {
    NetlinkBackend::new()
        .and_then(|mut backend| takes_rules(&mut backend, node))
        .map_err(ServiceProxyError::Unavailable)
}

/// Asks the kernel whether it takes what rulesets use. When our table is there already it does. What is in it does not
/// matter: reading all of it fails while others keep writing rules of theirs.
fn takes_rules(backend: &mut impl NftBackend, node: &NodeView) -> Result<(), NftError> {
    if backend.exists()? { Ok(()) } else { backend.check(&diff(None, &probe::table(node))) }
}

/// Whether Services can be programmed here, without doing anything; for a check-up.
///
/// # Errors
/// [`ServiceProxyError::Unavailable`] with the kernel's reason.
pub fn check() -> Result<(), ServiceProxyError> {
    probe(&node_view(&ServiceProxyConfig::new("check", Vec::new()))?)
}

fn node_view(config: &ServiceProxyConfig) -> Result<NodeView, ServiceProxyError> {
    if config.node_name.is_empty() {
        return Err(ServiceProxyError::Config("node_name is empty".to_owned()));
    }
    let local = match &config.detect_local {
        // A cluster of all addresses leaves nothing outside it: the same as no masquerade.
        DetectLocal::ClusterCidr => LocalTraffic::from_networks(config.cluster_cidrs.clone()),
        // Until the Node tells.
        DetectLocal::NodeCidr => LocalTraffic::Undetected,
        DetectLocal::BridgeInterface(name) => LocalTraffic::Through(name.as_str().into()),
        DetectLocal::InterfaceNamePrefix(prefix) => LocalTraffic::ThroughAny(prefix.as_str().into()),
    };
    let bounded = |net: &&Cidr4| net.prefix_len() > 0;
    Ok(NodeView {
        node_ips: ipv4_only(&config.node_ips),
        local,
        service_cidrs: config.service_cidrs.clone(),
        node_port_addresses: config.node_port_addresses.clone(),
        masquerade_all: config.masquerade_all,
        masquerade_outbound: config.masquerade_outbound.iter().filter(bounded).copied().collect(),
        dns_address: config.dns_address,
        masquerade_mark: config.masquerade_mark()?,
    })
}

/// Removes the owner's nftables table from the calling thread's network namespace, or one without a mark; fine when
/// there is none.
///
/// # Errors
/// [`ServiceProxyError`] when the kernel refuses.
pub fn cleanup(owner: &Owner) -> Result<(), ServiceProxyError> {
    let backend = NetlinkBackend::new().map_err(ServiceProxyError::Unavailable)?;
    backend.of(Some(owner)).remove().map_err(ServiceProxyError::Cleanup)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fake::FakeNft;
    use crate::nft::object::Table;

    #[test]
    fn the_kernel_is_asked_whatever_others_write_meanwhile() {
        let node = node_view(&ServiceProxyConfig::new("n", Vec::new())).unwrap();
        for table in [None, Some(Table::default())] {
            let mut kernel = FakeNft::default();
            kernel.set_table(table);
            takes_rules(&mut kernel, &node).unwrap();
            assert_eq!((kernel.lists(), kernel.transactions().len()), (0, 0));
        }
    }
}
