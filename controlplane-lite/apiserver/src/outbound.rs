//! HTTPS to servers that the cluster's objects name: webhooks, by address or by their Service. One [`Peer`] is one such
//! server; it keeps its connections, and what one call may take of this server is bounded: its time, the length of the
//! answer, and how many there are at once.
//!
//! As upstream's clients of webhooks (k8s.io/apiserver/pkg/util/webhook/client.go), but for what an API server has no
//! use for: no proxies, and no redirect is followed. Names of Services are never looked up: the [`Resolve`]r says where
//! an endpoint is. Knows nothing of what is asked and answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Uri;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use scheme::access::{at, int_at, is_empty, str_at};

mod body;
mod pool;
mod tls;
mod words;

use pool::Pool;
pub use tls::Roots;

/// Bytes of an answer: a patch as large as a request may be, in base64, and what is around it.
pub const MAX_ANSWER: usize = super::body::MAX_BODY / 3 * 4 + 64 * 1024;
/// Answers beyond this many bytes wait for room.
const LARGE_ANSWER: usize = 256 * 1024;
/// Large answers that are read at once.
const LARGE_ANSWERS: usize = 8;
/// Calls of one peer at once. More wait, and their time runs.
const CALLS: usize = 100;

/// The endpoint of a Service.
pub trait Resolve: Send + Sync {
    /// Where a ready endpoint of the Service's port is, one of all; each call may give another.
    ///
    /// # Errors
    /// Why there is none, in upstream's words (`ResolveEndpoint` in k8s.io/apiserver/pkg/util/proxy/proxy.go).
    fn endpoint(&self, service: &ServicePort) -> Result<SocketAddr, String>;
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Number.
    pub port: u16,
}

/// Why a configuration names no server that could be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Neither address nor Service.
    #[error("webhook configuration must have either service or URL")]
    NoPlace,
    /// An address that is none.
    #[error("Unparsable URL: {0}")]
    Address(String),
    /// Certificates that are none.
    #[error("unable to load root certificates: {0}")]
    Roots(String),
}

/// Why a call has no answer. Displays as Go's client says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Post {url:?}: {why}")]
pub struct CallError {
    url: String,
    why: String,
}

/// What a peer answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP's code.
    pub code: u16,
    /// Whether the body is text, for people.
    pub text: bool,
    /// At most [`MAX_ANSWER`] bytes.
    pub body: Bytes,
}

#[derive(Debug)]
enum Place {
    Address { host: String, port: u16 },
    Service(ServicePort),
}

/// What all peers share.
#[derive(Debug)]
pub struct Outbound {
    large: Semaphore,
    roots: Roots,
}

impl Default for Outbound {
    fn default() -> Self {
        Self { large: Semaphore::new(LARGE_ANSWERS), roots: Roots::default() }
    }
}

/// A server that an object names.
#[derive(Debug)]
pub struct Peer {
    place: Place,
    /// Host, and port where it is not HTTPS's own.
    authority: String,
    path: String,
    name: ServerName<'static>,
    tls: Arc<rustls::ClientConfig>,
    pool: Pool,
    calls: Semaphore,
    shared: Arc<Outbound>,
}

impl Peer {
    /// The server of a `WebhookClientConfig`, as admission and definitions of custom resources have it: `url`, or
    /// `service` with `namespace`, `name`, `path` and `port`; and `caBundle`, without which the system's roots are
    /// trusted.
    ///
    /// # Errors
    /// When it names none.
    pub fn new(config: &Value, shared: &Arc<Outbound>) -> Result<Self, Unusable> {
        let service = at(config, &["service"]);
        let bundle = match at(config, &["caBundle"]) {
            held if is_empty(held) => None,
            held => Some(STANDARD.decode(held.as_str().unwrap_or("")).unwrap_or_default()),
        };
        if service.is_null() {
            return Self::at_address(str_at(config, &["url"]), bundle.as_deref(), shared);
        }
        let port = int_at(service, &["port"]).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let place = ServicePort {
            namespace: str_at(service, &["namespace"]).to_owned(),
            name: str_at(service, &["name"]).to_owned(),
            port: port.unwrap_or(443),
        };
        Self::of_service(place, str_at(service, &["path"]), bundle.as_deref(), shared)
    }

    /// A Service, which has to show a certificate for `NAME.NAMESPACE.svc`.
    ///
    /// # Errors
    /// When names or certificates are none.
    pub fn of_service(
        service: ServicePort,
        path: &str,
        bundle: Option<&[u8]>,
        shared: &Arc<Outbound>,
    ) -> Result<Self, Unusable> {
        let host = format!("{}.{}.svc", service.name, service.namespace);
        let authority = format!("{host}:{}", service.port);
        // Several endpoints share the work by HTTP/1, as upstream: HTTP/2 would put all of it on one connection.
        Self::made(Place::Service(service), (&host, authority, path), bundle, false, shared)
    }

    fn at_address(url: &str, bundle: Option<&[u8]>, shared: &Arc<Outbound>) -> Result<Self, Unusable> {
        if url.is_empty() {
            return Err(Unusable::NoPlace);
        }
        let uri: Uri = url.parse().map_err(|why| Unusable::Address(format!("{why}")))?;
        let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else {
            return Err(Unusable::Address("it has no host".to_owned()));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let local = bare.eq_ignore_ascii_case("localhost")
            || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| pki::canonical(ip).is_loopback());
        let place = Place::Address { host: bare.to_owned(), port: uri.port_u16().unwrap_or(443) };
        Self::made(place, (bare, authority.to_string(), uri.path()), bundle, local, shared)
    }

    fn made(
        place: Place,
        (host, authority, path): (&str, String, &str),
        bundle: Option<&[u8]>,
        second: bool,
        shared: &Arc<Outbound>,
    ) -> Result<Self, Unusable> {
        let name = ServerName::try_from(host.to_owned()).map_err(|why| Unusable::Address(why.to_string()))?;
        let tls = tls::client(bundle, &shared.roots, second).map_err(Unusable::Roots)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self {
            place,
            authority,
            path,
            name,
            tls,
            pool: Pool::default(),
            calls: Semaphore::new(CALLS),
            shared: shared.clone(),
        })
    }

    /// Posts JSON, given in parts, and reads the whole answer; all of it takes at most `timeout`. The peer is told
    /// `left`, which is less where whoever waits does not wait that long.
    ///
    /// # Errors
    /// When it is not there, shows the wrong certificate, does not answer in time, or too much.
    pub async fn post(
        &self,
        parts: &[Bytes],
        (timeout, left): (Duration, Duration),
        resolve: &dyn Resolve,
    ) -> Result<Answer, CallError> {
        let query = format!("{}?timeout={}", self.path, words::seconds(left));
        let failed = |why: String| CallError { url: format!("https://{}{query}", self.authority), why };
        let work = async {
            let _one = self.calls.acquire().await.map_err(|_| "closed".to_owned())?;
            self.exchange(&query, parts, resolve).await
        };
        match tokio::time::timeout_at(Instant::now() + timeout, work).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(words::DEADLINE.to_owned())),
        }
    }

    /// One request over a connection that is there, or a new one.
    async fn exchange(&self, query: &str, parts: &[Bytes], resolve: &dyn Resolve) -> Result<Answer, String> {
        let at = match &self.place {
            Place::Service(service) => Some(resolve.endpoint(service)?),
            Place::Address { .. } => None,
        };
        while let Some(mut idle) = self.pool.take(at) {
            // What broke before anything was sent says nothing of the peer: it ends connections that rest.
            match idle.send(self, query, parts).await {
                Ok(response) => return self.answer(idle, response).await,
                Err(pool::Failed::Unsent) => {}
                Err(pool::Failed::Sent(why)) => return Err(why),
            }
        }
        let mut fresh = self.connect(at).await?;
        match fresh.send(self, query, parts).await {
            Ok(response) => self.answer(fresh, response).await,
            Err(pool::Failed::Sent(why)) => Err(why),
            Err(pool::Failed::Unsent) => Err("EOF".to_owned()),
        }
    }

    async fn answer(
        &self,
        connection: pool::Connection,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Answer, String> {
        let code = response.status().as_u16();
        let media = response.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let text = media.is_some_and(|media| media.trim_start().starts_with("text/"));
        let body = body::read(response.into_body(), &self.shared.large).await?;
        self.pool.put(connection);
        Ok(Answer { code, text, body })
    }

    /// A new connection to an address, or to the first that answers of those that the host's name has.
    async fn connect(&self, at: Option<SocketAddr>) -> Result<pool::Connection, String> {
        let addresses = match (&self.place, at) {
            (_, Some(address)) => vec![address],
            (Place::Address { host, port }, None) => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                found.map_err(|_| format!("dial tcp: lookup {host}: no such host"))?.collect()
            }
            (Place::Service(_), None) => Vec::new(),
        };
        let mut last = "dial tcp: no addresses".to_owned();
        for address in addresses {
            match pool::open(address, &self.name, &self.tls).await {
                Ok(connection) => return Ok(connection),
                Err(why) => last = why,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests;
