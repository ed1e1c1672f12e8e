//! WebSockets that the server itself speaks: a stream of messages to a client that only listens (watches, logs). Tunnels
//! to kubelets are carried byte by byte elsewhere.

use std::time::Duration;

use futures::SinkExt as _;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

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
    messages: BoxStream<'static, Message>,
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
async fn speak<S>(socket: WebSocketStream<S>, mut messages: BoxStream<'static, Message>, timeouts: Timeouts)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Timeouts { unread, mut end } = timeouts;
    let (mut sink, mut source) = socket.split();
    loop {
        // Cancel-safe: a message not taken stays in the stream, one not read stays in the socket, the end stays.
        let message = tokio::select! {
            message = messages.next() => message,
            () = &mut end => None,
            message = source.next() => match message {
                None | Some(Err(_) | Ok(Message::Close(_))) => None,
                Some(Ok(_)) => continue,
            },
        };
        let Some(message) = message else { break };
        // What is cut off here is never sent again: the connection ends.
        tokio::select! {
            sent = timeout(unread, sink.send(message)) => if !matches!(sent, Ok(Ok(()))) { return },
            () = &mut end => return,
        }
    }
    // The peer may be gone already.
    let _ = timeout(unread, sink.close()).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt as _;
    use std::sync::Arc;
    use tokio::io::DuplexStream;
    use tokio::time::Instant;

    /// Both ends of a connection that holds little, and messages that keep something alive.
    async fn unread(held: &Arc<()>) -> (WebSocketStream<DuplexStream>, DuplexStream, BoxStream<'static, Message>) {
        let (near, far) = tokio::io::duplex(1024);
        let socket = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let held = held.clone();
        let messages = futures::stream::repeat_with(move || {
            let _alive = &held;
            Message::text("x".repeat(4096))
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

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_gets_everything() {
        let (near, far) = tokio::io::duplex(1024);
        let server = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let messages = futures::stream::iter((0..10).map(|n| Message::text(n.to_string()))).boxed();
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
