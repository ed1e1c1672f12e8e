//! Cluster DNS, answered on every node from that node's own watches.
//!
//! Names of Services and their endpoints follow the Kubernetes DNS-based
//! service discovery specification, version 1.1.0. Everything else goes to the
//! node's own resolvers.
//!
//! `zone` knows the names (purely), `watch` keeps it current, `handler` answers
//! packets, `forward` asks others, `address` brings the cluster DNS's address
//! to this node.

mod address;
mod forward;
mod handler;
mod read;
#[cfg(test)]
mod tests;
mod watch;
mod zone;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use kube::Client;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::cidr::Cidr4;
use forward::Forwarder;
use handler::Handler;
use watch::SharedZone;
use zone::Zone;

/// The port of the domain name system.
const PORT: u16 = 53;
/// How long an idle TCP connection is kept.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait for one slow TCP client.
const TCP_BACKLOG: usize = 32;

/// How cluster DNS works on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// The cluster IP that pods ask.
    pub address: Ipv4Addr,
    /// `cluster.local`, for instance.
    pub domain: String,
    /// Networks whose reverse names are ours to answer.
    pub cluster_cidr: Cidr4,
    pub service_cidr: Cidr4,
    /// The link that carries `address`; it must exist, or be made meanwhile.
    pub link: String,
    /// Resolvers for other names; `None` refuses those.
    pub resolv_conf: Option<PathBuf>,
}

/// Why cluster DNS could not run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is no domain name.
    #[error("{0:?} is not a domain name")]
    Domain(String),
    /// The address cannot be brought to this node.
    #[error("bring {address} to {link}")]
    Address {
        address: Ipv4Addr,
        link: String,
        #[source]
        source: rtnetlink::Error,
    },
    /// No netlink socket.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// Port 53 cannot be had.
    #[error("listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Answers names until `token` is cancelled. Until the first lists of Services
/// and EndpointSlices are complete, names of the cluster get SERVFAIL: an
/// answer out of half a picture would be cached.
///
/// # Errors
/// When the address or the port cannot be had.
pub async fn run(config: DnsConfig, client: Client, token: CancellationToken) -> Result<(), DnsError> {
    let zone = Zone::new(&config.domain, vec![config.service_cidr, config.cluster_cidr])
        .ok_or_else(|| DnsError::Domain(config.domain.clone()))?;
    address::bring(config.address, &config.link, &token).await?;
    if token.is_cancelled() {
        return Ok(());
    }
    let listen = SocketAddr::from((config.address, PORT));
    let in_listening = |source| DnsError::Listen { address: listen, source };
    let udp = UdpSocket::bind(listen).await.map_err(in_listening)?;
    let tcp = TcpListener::bind(listen).await.map_err(in_listening)?;
    let shared = Arc::new(SharedZone::new(zone));
    let forwarder = Forwarder::from_file(config.resolv_conf.as_deref(), IpAddr::V4(config.address));
    let mut server = Server::new(Handler::new(shared.clone(), forwarder));
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_BACKLOG);
    watch::keep_current(&shared, client, &token).await;
    if let Err(error) = server.shutdown_gracefully().await {
        tracing::debug!(%error, "the DNS server ended uncleanly");
    }
    Ok(())
}
