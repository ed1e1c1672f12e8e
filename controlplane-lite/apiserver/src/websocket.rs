//! WebSockets that the server itself speaks: a stream of messages to a client that only listens (watches, logs).
//! Tunnels to kubelets are carried byte by byte elsewhere.

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, tungstenite};

use super::body::{self, Body};
use super::status::ApiError;

/// Whether a client asks for a WebSocket.
pub fn is_request(headers: &HeaderMap) -> bool {
    let has = |name: header::HeaderName, word: &str| {
        headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.to_ascii_lowercase().contains(word))
    };
    has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade")
}

/// The first of the client's subprotocols that is known; empty when it names none.
///
/// # Errors
/// 403, as upstream, when it names only others.
pub fn subprotocol<'k>(headers: &HeaderMap, known: &[&'k str]) -> Result<&'k str, ApiError> {
    let asked: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if asked.is_empty() {
        return Ok("");
    }
    let found = asked.iter().find_map(|name| known.iter().find(|k| *k == name));
    found.copied().ok_or_else(|| ApiError::upstream(403, "none of the requested subprotocols is supported"))
}

/// A message to the client.
#[derive(Debug)]
pub struct Outgoing {
    opcode: u8,
    parts: Vec<Bytes>,
}

impl Outgoing {
    /// UTF-8, in parts as they are.
    pub fn text(parts: impl IntoIterator<Item = Bytes>) -> Self {
        Self { opcode: 1, parts: parts.into_iter().collect() }
    }

    /// Any bytes.
    pub fn binary(bytes: Bytes) -> Self {
        Self { opcode: 2, parts: vec![bytes] }
    }

    /// What stands before it, as RFC 6455 5.2 has it for a message of one frame from a server. More frames would share
    /// as well, but there are clients that take each for a message.
    fn head(&self) -> Vec<u8> {
        let length: usize = self.parts.iter().map(Bytes::len).sum();
        let mut head = vec![0x80 | self.opcode];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..126), _) => head.push(short),
            (_, Ok(short)) => {
                head.push(126);
                head.extend_from_slice(&short.to_be_bytes());
            }
            _ => {
                head.push(127);
                head.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        head
    }

    /// Writes it from where it is: what is long may be on its way to many, and nobody has a copy. What is short is one
    /// write.
    async fn write<S: AsyncWrite + Unpin>(self, to: &mut S) -> std::io::Result<()> {
        let mut written = self.head();
        // Each part is dropped when it is written, not before and not later: that is how far the client has come.
        let mut copied = Vec::new();
        for part in self.parts {
            if written.len() + part.len() <= ONE_WRITE {
                written.extend_from_slice(&part);
                copied.push(part);
                continue;
            }
            to.write_all(&written).await?;
            written.clear();
            copied.clear();
            to.write_all(&part).await?;
        }
        to.write_all(&written).await?;
        to.flush().await
    }
}

/// Bytes that are copied together, rather than written part by part.
const ONE_WRITE: usize = 4096;

/// How long a connection lasts on which the server speaks.
pub struct Timeouts {
    /// A message that the client does not take for so long is the last one.
    pub unread: Duration,
    /// When it ends in any case, whether or not a message is on its way.
    pub end: BoxFuture<'static, ()>,
}

/// A client that only listens says little: pings, and its leave.
const LARGEST_MESSAGE: usize = 64 * 1024;

/// Upgrades to a WebSocket that carries the messages and then closes; what the client sends is ignored.
pub fn answer(
    request: &mut Request<Body>,
    protocol: &str,
    messages: BoxStream<'static, Outgoing>,
    timeouts: Timeouts,
) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return body::failure(&ApiError::bad_request("a WebSocket request needs Sec-WebSocket-Key"));
    };
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let small =
            WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE)).max_frame_size(Some(LARGEST_MESSAGE));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(small)).await;
        speak(socket, messages, timeouts).await;
    });
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    for (name, value) in [(header::SEC_WEBSOCKET_ACCEPT, accept.as_str()), (header::SEC_WEBSOCKET_PROTOCOL, protocol)] {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    response
}

/// Sends the messages until they, the client's timeouts or ours end. What a client does not take holds the messages
/// behind it, so it is not waited for longer than was agreed.
async fn speak<S>(mut socket: WebSocketStream<S>, mut messages: BoxStream<'static, Outgoing>, timeouts: Timeouts)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Timeouts { unread, mut end } = timeouts;
    loop {
        // Cancel-safe: a message not taken stays in the stream, one not read stays in the socket, the end stays.
        let message = tokio::select! {
            message = messages.next() => message,
            () = &mut end => None,
            message = socket.next() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => None,
                Some(Ok(_)) => continue,
            },
        };
        let Some(message) = message else { break };
        // What is cut off here is never sent again: the connection ends.
        tokio::select! {
            sent = timeout(unread, send(&mut socket, message)) => if !matches!(sent, Ok(Ok(()))) { return },
            () = &mut end => return,
        }
    }
    // Nothing more of them is sent, however long the client takes for its leave. What tells their end may keep as much.
    drop((messages, end));
    // The peer may be gone already.
    let _ = timeout(unread, SinkExt::close(&mut socket)).await;
}

/// Sends a message behind the answers to pings that are on their way.
async fn send<S>(socket: &mut WebSocketStream<S>, message: Outgoing) -> Result<(), tungstenite::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    SinkExt::flush(socket).await?;
    Ok(message.write(socket.get_mut()).await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt as _;
    use std::io;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};
    use tokio::io::{AsyncReadExt as _, DuplexStream, ReadBuf};
    use tokio::time::Instant;

    /// Both ends of a connection that holds little, and messages that keep something alive.
    async fn unread(held: &Arc<()>) -> (WebSocketStream<DuplexStream>, DuplexStream, BoxStream<'static, Outgoing>) {
        let (near, far) = tokio::io::duplex(1024);
        let socket = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let held = held.clone();
        let messages = futures::stream::repeat_with(move || {
            let _alive = &held;
            Outgoing::text([Bytes::from("x".repeat(4096))])
        });
        (socket, far, messages.boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_holds_nothing_for_long() {
        let held = Arc::new(());
        let (socket, _far, messages) = unread(&held).await;
        let timeouts = Timeouts { unread: Duration::from_secs(30), end: std::future::pending().boxed() };
        let began = Instant::now();
        speak(socket, messages, timeouts).await;
        assert_eq!((began.elapsed(), Arc::strong_count(&held)), (Duration::from_secs(30), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_while_a_message_is_on_its_way() {
        let held = Arc::new(());
        let (socket, _far, messages) = unread(&held).await;
        let end = tokio::time::sleep(Duration::from_secs(5)).boxed();
        let began = Instant::now();
        speak(socket, messages, Timeouts { unread: Duration::from_secs(30), end }).await;
        assert_eq!((began.elapsed(), Arc::strong_count(&held)), (Duration::from_secs(5), 1));
    }

    /// Bytes that somebody counts.
    struct Counted {
        _kept: Arc<()>,
        bytes: Vec<u8>,
    }

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    #[tokio::test]
    async fn parts_are_kept_until_they_are_written() {
        let (mut near, mut far) = tokio::io::duplex(100);
        let kept = Arc::new(());
        let part = |length| Bytes::from_owner(Counted { _kept: kept.clone(), bytes: vec![b'x'; length] });
        let message = Outgoing::text([part(200), part(2 * ONE_WRITE), part(2 * ONE_WRITE)]);
        let head = message.head().len();
        let mut written = Box::pin(message.write(&mut near));
        for (read, left) in [(0, 3), (head + 200, 2), (2 * ONE_WRITE, 1)] {
            let mut all = vec![0; read];
            tokio::select! {
                biased;
                _ = &mut written => panic!("it is longer"),
                read = far.read_exact(&mut all) => drop(read.unwrap()),
            }
            assert!(futures::poll!(&mut written).is_pending());
            assert_eq!(Arc::strong_count(&kept) - 1, left);
        }
    }

    /// Whichever of them ends, the other may still keep something.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_held_while_the_client_takes_its_leave() {
        for ended in [true, false] {
            let held = Arc::new(());
            let (mut socket, _far, _) = unread(&held).await;
            // As much as the connection takes.
            Outgoing::binary(Bytes::from(vec![0; 1020])).write(socket.get_mut()).await.unwrap();
            let kept = held.clone();
            let keeping = async move {
                std::future::pending::<()>().await;
                drop(kept);
            };
            let (messages, end) = if ended {
                (keeping.map(|()| Outgoing::text([])).into_stream().boxed(), std::future::ready(()).boxed())
            } else {
                (futures::stream::empty().boxed(), keeping.boxed())
            };
            let timeouts = Timeouts { unread: Duration::from_secs(30), end };
            let mut spoken = Box::pin(speak(socket, messages, timeouts));
            assert!(futures::poll!(&mut spoken).is_pending(), "it says its leave");
            assert_eq!(Arc::strong_count(&held), 1, "{ended}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_gets_everything() {
        let (near, far) = tokio::io::duplex(1024);
        let server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let messages = futures::stream::iter((0..10).map(|n| Outgoing::text([n.to_string().into()]))).boxed();
        let timeouts = Timeouts { unread: Duration::from_secs(30), end: std::future::pending().boxed() };
        let spoken = tokio::spawn(speak(server, messages, timeouts));
        // The answer to the server's leave may find it gone.
        let heard: Vec<_> = client
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(|m| std::future::ready(m.ok()))
            .collect()
            .await;
        let texts: Vec<_> = heard.iter().filter(|m| m.is_text()).map(|m| m.to_text().unwrap().to_owned()).collect();
        assert_eq!(texts, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
        spoken.await.unwrap();
    }

    /// What is written there is noted by its address.
    struct Noted {
        inner: DuplexStream,
        written: Arc<Mutex<Vec<(usize, usize)>>>,
    }

    impl AsyncRead for Noted {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
            if let Poll::Ready(Ok(length)) = &polled {
                self.written.lock().unwrap().push((buf.as_ptr().addr(), *length));
            }
            polled
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }

    /// A large event lies in a cache, and is on its way to many.
    #[tokio::test]
    async fn a_large_message_is_written_from_where_it_is() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let noted = Noted { inner: near, written: Arc::default() };
        let written = noted.written.clone();
        let server = WebSocketStream::from_raw_socket(noted, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let large: Bytes = "x".repeat(1 << 20).into();
        let buffer = large.as_ptr_range();
        let sizes = [0, 125, 126, 4000, 65_535, 65_536, 1 << 20];
        let parts = sizes.map(|size| vec![Bytes::from_static(b"<"), large.slice(..size), Bytes::from_static(b">")]);
        let messages = futures::stream::iter(parts.map(Outgoing::text)).boxed();
        let timeouts = Timeouts { unread: Duration::from_secs(30), end: std::future::pending().boxed() };
        let spoken = tokio::spawn(speak(server, messages, timeouts));
        for size in sizes {
            let heard = client.next().await.unwrap().unwrap();
            let expected = format!("<{}>", "x".repeat(size));
            assert!(heard.is_text() && heard.into_text().unwrap() == expected, "{size}");
        }
        drop(client);
        spoken.await.unwrap();
        let copied = |(address, _): &&(usize, usize)| !(buffer.start.addr()..buffer.end.addr()).contains(address);
        let copies: usize = written.lock().unwrap().iter().filter(copied).map(|(_, length)| length).sum();
        assert!(copies < 3 * ONE_WRITE, "{copies}");
    }

    #[test]
    fn the_first_known_subprotocol_is_taken() {
        let known = ["binary.k8s.io", "base64.binary.k8s.io"];
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, text.parse().unwrap());
            subprotocol(&headers, &known).map_err(|e| e.code())
        };
        assert_eq!(subprotocol(&HeaderMap::new(), &known).unwrap(), "");
        assert_eq!(of("x, base64.binary.k8s.io, binary.k8s.io"), Ok("base64.binary.k8s.io"));
        assert_eq!(of("x"), Err(403));
    }
}
