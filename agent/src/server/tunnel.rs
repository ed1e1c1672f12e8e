//! To the runtime's streaming server and back: dialing, and carrying bytes.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(super) const SPDY: &str = "SPDY/3.1";
pub(super) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

const DIAL: Duration = Duration::from_secs(30);
/// How long a peer may take to notice that a session is over.
const LINGER: Duration = Duration::from_secs(5);
const MAX_REFUSAL: usize = 64 * 1024;
const BUFFER: usize = 32 * 1024;

/// The connection to a streaming session of the runtime.
pub(super) type RuntimeIo = TokioIo<Upgraded>;

/// What the runtime's streaming server said.
#[derive(Debug)]
pub(super) enum DialResult {
    /// The session is open; the stream protocol it chose.
    Open {
        io: RuntimeIo,
        protocol: Option<HeaderValue>,
    },
    Refused {
        status: StatusCode,
        body: Bytes,
    },
}

/// Why the runtime's streaming server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("streaming URL {url:?} of the runtime is not of the form http://host:port/path")]
    Url { url: String },
    #[error("connect to the runtime's streaming server {address}: {message}")]
    Connect { address: String, message: String },
    #[error("upgrade at the runtime's streaming server: {message}")]
    Upgrade { message: String },
}

fn upgrade_error(error: impl std::fmt::Display) -> DialError {
    DialError::Upgrade { message: error.to_string() }
}

/// Opens a session at the URL that the runtime gave out.
pub(super) async fn dial(url: &str, protocols: &[HeaderValue]) -> Result<DialResult, DialError> {
    tokio::time::timeout(DIAL, dial_unbounded(url, protocols)).await.map_err(|_| upgrade_error("no answer in time"))?
}

async fn dial_unbounded(url: &str, protocols: &[HeaderValue]) -> Result<DialResult, DialError> {
    let bad = || DialError::Url { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(bad)?;
    let address = match authority.port_u16() {
        Some(_) => authority.as_str().to_owned(),
        None => format!("{authority}:80"),
    };
    let connect = |message: String| DialError::Connect { address: address.clone(), message };
    let stream = TcpStream::connect(&address).await.map_err(|e| connect(e.to_string()))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(upgrade_error)?;
    // Ends by itself when the session ends or the request is dropped.
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::post(path).body(Empty::<Bytes>::new()).map_err(upgrade_error)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(upgrade_error)?);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    for protocol in protocols {
        headers.append(STREAM_PROTOCOL, protocol.clone());
    }
    let response = sender.send_request(request).await.map_err(upgrade_error)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Ok(DialResult::Refused { status, body });
    }
    let protocol = response.headers().get(STREAM_PROTOCOL).cloned();
    let upgraded = hyper::upgrade::on(response).await.map_err(upgrade_error)?;
    Ok(DialResult::Open { io: TokioIo::new(upgraded), protocol })
}

/// Headers of a 101 answer.
pub(super) fn switching_headers(upgrade: &'static str, protocol: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
    if let Some(protocol) = protocol {
        headers.insert(STREAM_PROTOCOL, protocol.clone());
    }
    headers
}

/// When a session last carried anything.
#[derive(Debug)]
pub(super) struct Activity {
    last: Mutex<Instant>,
    limit: Duration,
}

impl Activity {
    /// A session that begins now and may be silent for `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { last: Mutex::new(Instant::now()), limit }
    }

    /// Something was carried.
    pub fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends when the session has been silent for too long. Cancel-safe.
    pub async fn expired(&self) {
        loop {
            let end = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.limit;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// Copies until the source ends or either side fails.
async fn copy<R, W>(from: &mut R, to: &mut W, activity: &Activity)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
        activity.touch();
    }
}

/// Carries bytes between client and runtime until one of them is done. What the
/// runtime sent before its end reaches the client.
pub(super) async fn carry<C, R>(client: C, runtime: R, idle: Duration)
where
    C: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Activity::new(idle);
    let (mut client_in, mut client_out) = tokio::io::split(client);
    let (mut runtime_in, mut runtime_out) = tokio::io::split(runtime);
    let runtime_ended = tokio::select! {
        () = copy(&mut client_in, &mut runtime_out, &activity) => false,
        () = copy(&mut runtime_in, &mut client_out, &activity) => true,
        () = activity.expired() => false,
    };
    if runtime_ended {
        let _ = client_out.shutdown().await;
        // Closing with unread input would reset the connection and could take
        // the last output with it.
        let mut nowhere = tokio::io::sink();
        let drain = tokio::io::copy(&mut client_in, &mut nowhere);
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn the_runtimes_last_words_arrive() {
        let (client, near) = duplex(64);
        let (far, mut runtime) = duplex(64);
        let carried = tokio::spawn(carry(near, far, Duration::from_secs(60)));
        let (mut read, mut write) = tokio::io::split(client);
        write.write_all(b"unread input").await.unwrap();
        let long = vec![7u8; 100_000];
        let sent = long.clone();
        let speaker = tokio::spawn(async move {
            runtime.write_all(&sent).await.unwrap();
            drop(runtime);
        });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, long);
        speaker.await.unwrap();
        drop((read, write));
        carried.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_session() {
        let (client, near) = duplex(64);
        let (far, mut runtime) = duplex(64);
        let carried = tokio::spawn(carry(near, far, Duration::from_secs(60)));
        drop(client);
        carried.await.unwrap();
        assert_eq!(runtime.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_session_and_talk_prolongs_it() {
        let (mut client, near) = duplex(64);
        let (far, mut runtime) = duplex(64);
        let started = Instant::now();
        let carried = tokio::spawn(carry(near, far, Duration::from_secs(100)));
        tokio::time::sleep(Duration::from_secs(90)).await;
        client.write_all(b"x").await.unwrap();
        runtime.read_exact(&mut [0]).await.unwrap();
        carried.await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 190);
    }

    #[tokio::test]
    async fn bad_urls_are_named() {
        for url in ["", "https://127.0.0.1:1/x", "unix:///x", "http:///x", "garbage \0"] {
            assert!(matches!(dial(url, &[]).await, Err(DialError::Url { .. })), "{url}");
        }
    }
}
