//! Cluster DNS, answered on every node from what that node watches.
//!
//! Names of Services and their endpoints follow the Kubernetes DNS-based service discovery
//! specification, version 1.1.0, and upstream's server where that leaves a choice. Everything else
//! goes to the node's own resolvers, whether or not the API can be reached.
//!
//! `zone` knows the names (purely), `watch` keeps it current, `message` reads and fits packets
//! (purely), `resolve` makes replies, `server` has the sockets, `forward` asks others.
//! [`crate::network`] brings the cluster DNS's address to this node.

mod forward;
pub(crate) mod message;
mod metrics;
pub(crate) mod read;
pub(crate) mod resolv_conf;
mod resolve;
mod server;
#[cfg(test)]
mod tests;
mod watch;
mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::cidr::Cidr4;
use crate::cluster::Subscription;
use forward::{Forwarder, Upstream};
use message::Transport;
pub use metrics::Metrics;
use resolve::NameResolver;
use server::Server;
use watch::SharedZone;
use zone::Zone;

/// The port of the domain name system.
const PORT: u16 = 53;
/// How long to wait before trying again to have a port.
const RETRY: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const TCP_BACKLOG: u32 = 1024;

/// How cluster DNS works on this node.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The cluster IP that pods ask.
    pub address: Ipv4Addr,
    /// `cluster.local`, for instance.
    pub domain: String,
    /// Networks whose reverse names are ours to answer.
    pub cluster_cidr: Cidr4,
    pub service_cidr: Cidr4,
    /// Names the resolvers for other names, at any time; `None` refuses those.
    pub resolv_conf: Option<PathBuf>,
    /// Collectors to count in; register them with [`Metrics::register`].
    pub metrics: Metrics,
}

/// Why cluster DNS could not run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is no domain name.
    #[error("{0:?} is not a domain name")]
    Domain(String),
}

/// Answers names until `token` is cancelled. Until the first lists of Services and EndpointSlices
/// are complete, names of the cluster get SERVFAIL: an answer out of half a picture would be
/// cached. A port that cannot be had is waited for; the address may come and go meanwhile.
///
/// # Errors
/// When the configuration makes no sense.
pub async fn run(config: DnsConfig, subscription: Subscription, token: CancellationToken) -> Result<(), DnsError> {
    let zone = Zone::new(&config.domain, config.address, vec![config.service_cidr, config.cluster_cidr])
        .ok_or_else(|| DnsError::Domain(config.domain.clone()))?;
    let origin = zone.origin().to_string();
    let shared = Arc::new(SharedZone::new(zone));
    let forwarder = Forwarder::new(config.resolv_conf, IpAddr::V4(config.address));
    let names = NameResolver::new(Arc::clone(&shared), forwarder);
    let server = Server::new(names, origin, config.metrics.clone(), token.clone());
    tokio::select! {
        () = watch::keep_current(&shared, &subscription, &token) => {}
        () = listen(&server, SocketAddrV4::new(config.address, PORT), &config.metrics) => {}
    }
    server.drained().await;
    Ok(())
}

/// Has both sockets served for ever.
async fn listen<U: Upstream>(server: &Arc<Server<U>>, address: SocketAddrV4, metrics: &Metrics) {
    let udp = || {
        let server = Arc::clone(server);
        async move { Ok(server.serve_udp(bind_udp(address)?).await) }
    };
    let tcp = || {
        let server = Arc::clone(server);
        async move { Ok(server.serve_tcp(bind_tcp(address)?).await) }
    };
    tokio::join!(keep(Transport::Udp, address, metrics, udp), keep(Transport::Tcp, address, metrics, tcp));
}

/// A socket for datagrams to an address that this node need not have yet.
fn bind_udp(address: SocketAddrV4) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    socket::setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    UdpSocket::from_std(socket.into())
}

/// The same for connections.
fn bind_tcp(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket::setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket.bind(address.into())?;
    socket.listen(TCP_BACKLOG)
}

/// Runs one listener, and again whenever it ends. `serve` fails when it cannot listen, else it
/// returns why it ended.
async fn keep<F>(transport: Transport, address: SocketAddrV4, metrics: &Metrics, serve: impl Fn() -> F)
where
    F: Future<Output = io::Result<io::Error>>,
{
    let mut told = None;
    loop {
        metrics.set_listening(transport, true);
        let ended = serve().await;
        metrics.set_listening(transport, false);
        match ended {
            Ok(error) => {
                told = None;
                tracing::warn!(%address, ?transport, %error, "cluster DNS lost its socket and takes another");
            }
            Err(error) => {
                if told != Some(error.kind()) {
                    tracing::warn!(
                        %address, ?transport, %error,
                        "cluster DNS cannot listen and tries again; another DNS server on all addresses may have the port"
                    );
                }
                told = Some(error.kind());
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
