//! The service proxy's face to the rest of the program: its configuration, [`run`] and
//! [`cleanup`]. The work is in `snapshot` → `ruleset` → `nft` → `backend`, driven by `sync`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backend::cli::CliBackend;
use crate::backend::netlink::NetlinkBackend;
use crate::backend::{NftBackend as _, NftError};
use crate::cidr::Cidr4;
use crate::conntrack::ctnetlink::CtNetlink;
use crate::healthz::{self, Health};
use crate::metrics::Metrics;
use crate::nft::TABLE;
use crate::nft::diff::diff;
use crate::nft::transaction::Transaction;
use crate::ruleset::{NodeView, probe};
use crate::sync::{Parts, Proxy, ipv4_only, watch};

/// Changes that may wait while a transaction runs; then the watches wait.
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

/// Who writes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BackendKind {
    /// Raw netlink transactions (the hot path).
    #[default]
    Netlink,
    /// The `nft` program: slower, for checking.
    Nft,
}

/// What [`run`] needs to know about this node and cluster.
#[derive(Clone, Debug)]
pub struct ServiceProxyConfig {
    /// The Node object's name: endpoints with this `nodeName` are local.
    pub node_name: String,
    /// The node's own addresses.
    pub node_ips: Vec<IpAddr>,
    /// Where pods live in the whole cluster. ClusterIP traffic from elsewhere is masqueraded. Empty: none is.
    pub cluster_cidrs: Vec<Cidr4>,
    /// Where ClusterIPs live: traffic to addresses no Service has is dropped. Empty: it is left alone.
    pub service_cidrs: Vec<Cidr4>,
    /// Which local addresses accept NodePort traffic.
    pub node_port_addresses: NodePortAddresses,
    /// Masquerade all ClusterIP traffic (`masqueradeAll`).
    pub masquerade_all: bool,
    /// Masquerade what pods send beyond the cluster; for pod networks that leave this to us.
    pub masquerade_outbound: bool,
    /// The packet mark bit that asks for masquerade, 0 to 31 (`masqueradeBit`, 14 upstream).
    pub masquerade_bit: u8,
    /// Where `/healthz` and `/livez` answer; `None` for nowhere. Upstream: 0.0.0.0:10256.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Who writes the rules.
    pub backend: BackendKind,
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
            masquerade_outbound: false,
            masquerade_bit: 14,
            healthz_bind_address: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 10256))),
            backend: BackendKind::default(),
            metrics: Metrics::default(),
        }
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
    client: kube::Client,
    token: CancellationToken,
) -> Result<(), ServiceProxyError> {
    let node = node_view(&config)?;
    probe(&node)?;
    let conntrack = CtNetlink::new().map_err(ServiceProxyError::Unavailable)?;
    let health = Health::new(Timestamp::now());
    let tasks = token.child_token();
    let _stop = tasks.clone().drop_guard();
    if let Some(address) = config.healthz_bind_address {
        tokio::spawn(healthz::serve(address, health.clone(), tasks.clone()));
    }
    let (sender, changes) = mpsc::channel(WATCH_QUEUE);
    watch::spawn(&client, &config.node_name, sender, &tasks);
    let (node_name, metrics) = (config.node_name, config.metrics);
    match config.backend {
        BackendKind::Netlink => {
            let backend = NetlinkBackend::new().map_err(ServiceProxyError::Unavailable)?;
            let parts = Parts { backend, conntrack, node_name, node, health, metrics };
            Proxy::new(parts).run(changes, tasks).await;
        }
        BackendKind::Nft => {
            let backend = CliBackend::default();
            let parts = Parts { backend, conntrack, node_name, node, health, metrics };
            Proxy::new(parts).run(changes, tasks).await;
        }
    }
    Ok(())
}

/// Asks the kernel whether it takes what rulesets use. When our table is there already it does.
fn probe(node: &NodeView) -> Result<(), ServiceProxyError> {
    let mut backend = NetlinkBackend::new().map_err(ServiceProxyError::Unavailable)?;
    let table = backend.list().map_err(ServiceProxyError::Unavailable)?.table;
    if table.is_some() {
        return Ok(());
    }
    backend.check(&diff(None, &probe::table(node))).map_err(ServiceProxyError::Unavailable)
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
    let masquerade_mark = 1u32.checked_shl(u32::from(config.masquerade_bit)).ok_or_else(|| {
        ServiceProxyError::Config(format!("masquerade_bit is {}, not within 0 to 31", config.masquerade_bit))
    })?;
    // A cluster of all addresses leaves nothing outside it: the same as no masquerade.
    let cluster_cidrs = if config.cluster_cidrs.iter().any(|net| net.prefix_len() == 0) {
        Vec::new()
    } else {
        config.cluster_cidrs.clone()
    };
    Ok(NodeView {
        node_ips: ipv4_only(&config.node_ips),
        cluster_cidrs,
        service_cidrs: config.service_cidrs.clone(),
        node_port_addresses: config.node_port_addresses.clone(),
        masquerade_all: config.masquerade_all,
        masquerade_outbound: config.masquerade_outbound,
        masquerade_mark,
    })
}

/// Removes our nftables table from the calling thread's network namespace; fine when there is none.
///
/// # Errors
/// [`ServiceProxyError`] when the kernel refuses.
pub fn cleanup() -> Result<(), ServiceProxyError> {
    let mut backend = NetlinkBackend::new().map_err(ServiceProxyError::Unavailable)?;
    backend.run(&Transaction::delete_table(), None).map_err(ServiceProxyError::Cleanup)
}
