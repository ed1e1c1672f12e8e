//! The kubelet's own HTTPS server on :10250: logs, exec, attach, port-forward,
//! pods and stats.
//!
//! [`bind`] makes the listener (so that the port is known early), then
//! [`BoundServer::serve`] answers until cancelled. Who may ask is [`auth`]'s
//! business, what is asked is [`route`]'s (pure), and every streaming session is
//! carried to the runtime's own streaming server ([`session`]). Nothing here
//! changes a pod.

pub mod auth;
pub mod bridge;
mod handle;
mod logs;
pub mod metrics;
mod reply;
pub mod route;
pub(crate) mod session;
pub mod spdy;
pub mod stats;
pub mod tls;
mod tunnel;
mod websocket;

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri::RuntimeService;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Pod;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ServerSettings;
use crate::ids::ObjectName;
use crate::logs::LogWatcher;
use crate::podcache::PodCache;
use crate::podworker::PodWorkers;
use crate::probe::ProbeManager;
use crate::tasks::TaskRestarts;
use auth::Authenticator;

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long a connection may wait for its next request, as upstream.
const KEEP_ALIVE: Duration = Duration::from_secs(90);
/// How often a port that somebody else has is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(1);
/// Streaming sessions without a byte end after this, as upstream.
pub const IDLE: Duration = Duration::from_secs(4 * 3600);

/// What the server shows of this node's pods.
pub trait PodView: Send + Sync + Debug {
    /// Every pod of the node, static ones included, with its latest status.
    fn pods(&self) -> Vec<Arc<Pod>>;
    /// One pod, with its latest status.
    fn pod(&self, name: &ObjectName) -> Option<Arc<Pod>>;
}

/// Everything the handlers need.
#[derive(Clone)]
pub struct ServerState {
    pub node_name: String,
    pub view: Arc<dyn PodView>,
    pub cache: Arc<PodCache>,
    pub runtime: Arc<dyn RuntimeService>,
    /// Asked for TokenReviews and SubjectAccessReviews; `None` refuses all that
    /// would need it.
    pub client: Option<kube::Client>,
    pub probes: Arc<ProbeManager>,
    pub workers: PodWorkers,
    /// What `/logs/` shows, usually `/var/log`.
    pub log_dir: PathBuf,
    /// File systems of `/stats/summary`: the kubelet's root.
    pub root_dir: PathBuf,
    /// The answer of `/configz`.
    pub configz: Arc<serde_json::Value>,
    /// How often parts of the agent were started again.
    pub restarts: TaskRestarts,
}

impl Debug for ServerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerState").field("node_name", &self.node_name).finish_non_exhaustive()
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// A server that listens but does not answer yet.
#[derive(Debug)]
pub struct BoundServer {
    socket: Socket,
    tls: Arc<rustls::ServerConfig>,
    settings: ServerSettings,
    port: u16,
}

/// A socket that listens, or an address that somebody else has: pods run without the server, so it is
/// waited for.
#[derive(Debug)]
enum Socket {
    Listening(TcpListener),
    Taken(SocketAddr),
}

impl Socket {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() != 0 => {
                tracing::warn!(%address, "the kubelet server's port is taken: logs and exec wait until it is free");
                Ok(Self::Taken(address))
            }
            bound => bound.map(Self::Listening),
        }
    }

    /// The listener, as soon as there is one; `None` when cancelled before.
    async fn listener(self, token: &CancellationToken) -> Option<TcpListener> {
        let address = match self {
            Self::Listening(listener) => return Some(listener),
            Self::Taken(address) => address,
        };
        loop {
            token.run_until_cancelled(tokio::time::sleep(LISTEN_RETRY)).await?;
            if let Ok(listener) = TcpListener::bind(address).await {
                tracing::info!(%address, "the kubelet server listens");
                return Some(listener);
            }
        }
    }
}

/// Takes the port and prepares TLS. `names` are the host names and addresses a
/// self-made certificate is for.
pub async fn bind(settings: &ServerSettings, names: &[String]) -> Result<BoundServer, ServerError> {
    let tls = Arc::new(tls::server_config(settings, names)?);
    let address = SocketAddr::new(settings.address, settings.port);
    let listen = |source| ServerError::Listen { address, source };
    let socket = Socket::open(address).await.map_err(listen)?;
    let port = match &socket {
        Socket::Listening(listener) => listener.local_addr().map_err(listen)?.port(),
        Socket::Taken(address) => address.port(),
    };
    Ok(BoundServer { socket, tls, settings: settings.clone(), port })
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    state: ServerState,
    auth: Authenticator,
    watcher: LogWatcher,
    stats: stats::Sampler,
    token: CancellationToken,
    /// Sessions that outlive their request.
    sessions: TaskTracker,
}

impl BoundServer {
    /// The port in use, for the node's `daemonEndpoints`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers until cancelled; then ends every session.
    pub async fn serve(self, state: ServerState, token: CancellationToken) {
        let shared = Arc::new(Shared {
            auth: Authenticator::new(&self.settings, state.client.clone(), &state.node_name),
            state,
            watcher: LogWatcher::default(),
            stats: stats::Sampler::default(),
            token: token.clone(),
            sessions: TaskTracker::new(),
        });
        let acceptor = TlsAcceptor::from(self.tls);
        let Some(listener) = self.socket.listener(&token).await else { return };
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => break,
                // Cancel-safe: a connection that was not taken waits in the kernel.
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let work = connection(stream, acceptor.clone(), shared.clone());
                    shared.sessions.spawn(async move {
                        if let Err(error) = work.await {
                            tracing::debug!(%peer, %error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: let some be freed.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        shared.sessions.close();
        shared.sessions.wait().await;
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    let stream = tokio::select! {
        () = shared.token.cancelled() => return Ok(()),
        done = handshake => done.map_err(|_| "TLS handshake took too long")?.map_err(|e| e.to_string())?,
    };
    let peer = stream.get_ref().1.peer_certificates().and_then(|certs| auth::Peer::of(certs.first()?));
    let service = {
        let shared = shared.clone();
        hyper::service::service_fn(move |request| {
            let (shared, peer) = (shared.clone(), peer.clone());
            async move { Ok::<_, std::convert::Infallible>(handle::handle(shared, peer, request).await) }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        () = shared.token.cancelled() => Ok(()),
        done = connection => done.map_err(|e| e.to_string()),
    }
}

#[cfg(test)]
mod tests;
