//! Connections of one peer: those that rest until the next call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::body::Parts;
use super::{Peer, words};

/// Connections that rest.
const IDLE: usize = 16;
/// One that rested this long is not used again (Go's `IdleConnTimeout`).
const REST: Duration = Duration::from_secs(90);
/// To one address a connection comes to be in this time, or another is tried.
const DIAL: Duration = Duration::from_secs(10);
/// Bytes of the head of an answer.
const HEAD: u32 = 64 * 1024;
const AGENT: &str = "kube-apiserver-admission";

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nothing of it was sent: another connection may do.
    Unsent,
    /// It was sent, and this happened.
    Sent(String),
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Parts>),
    Two(http2::SendRequest<Parts>),
}

/// A connection, for one request at a time.
#[derive(Debug)]
pub(super) struct Connection {
    address: SocketAddr,
    sender: Sender,
}

impl Connection {
    pub(super) async fn send(
        &mut self,
        peer: &Peer,
        path: &str,
        parts: &[Bytes],
    ) -> Result<Response<Incoming>, Failed> {
        let uri = match self.sender {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("https://{}{path}", peer.authority),
        };
        let mut request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, AGENT);
        if matches!(self.sender, Sender::One(_)) {
            request = request.header(header::HOST, &peer.authority);
        }
        let request = request.body(Parts::new(parts)).map_err(|error| Failed::Sent(error.to_string()))?;
        let sent = match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await.map_err(|_| Failed::Unsent)?;
                sender.try_send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await.map_err(|_| Failed::Unsent)?;
                sender.try_send_request(request).await
            }
        };
        sent.map_err(|mut error| match error.take_message() {
            Some(_) => Failed::Unsent,
            None => Failed::Sent(words::broken(error.error())),
        })
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => sender.is_closed(),
            Sender::Two(sender) => sender.is_closed(),
        }
    }
}

/// A new connection.
pub(super) async fn open(
    address: SocketAddr,
    name: &ServerName<'static>,
    tls: &Arc<ClientConfig>,
) -> Result<Connection, String> {
    let dialled = tokio::time::timeout(DIAL, TcpStream::connect(address)).await;
    let stream = match dialled {
        Err(_) => return Err(format!("dial tcp {address}: i/o timeout")),
        Ok(Err(error)) => return Err(format!("dial tcp {address}: {}", words::dial(&error))),
        Ok(Ok(stream)) => stream,
    };
    // Without it a call is slower, and otherwise the same.
    drop(stream.set_nodelay(true));
    let stream = TlsConnector::from(tls.clone()).connect(name.clone(), stream).await;
    let stream = stream.map_err(|error| words::handshake(&error, name))?;
    let second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let broken = |error: hyper::Error| words::broken(&error);
    let sender = if second {
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).max_header_list_size(HEAD).handshake(io).await.map_err(broken)?;
        tokio::spawn(async move { ended(connection.await) });
        Sender::Two(sender)
    } else {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(HEAD as usize).handshake(io).await.map_err(broken)?;
        tokio::spawn(async move { ended(connection.await) });
        Sender::One(sender)
    };
    Ok(Connection { address, sender })
}

fn ended(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        debug!(%error, "connection to a webhook");
    }
}

/// Connections that rest, the one that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<(Instant, Connection)>>);

impl Pool {
    /// One that is open, to an address or to any.
    pub(super) fn take(&self, address: Option<SocketAddr>) -> Option<Connection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, connection)| since.elapsed() < REST && !connection.is_closed());
        let place = idle.iter().rposition(|(_, connection)| address.is_none_or(|at| connection.address == at))?;
        Some(idle.remove(place).1)
    }

    pub(super) fn put(&self, connection: Connection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, connection)| since.elapsed() < REST && !connection.is_closed());
        if idle.len() < IDLE {
            idle.push((Instant::now(), connection));
        }
    }
}
