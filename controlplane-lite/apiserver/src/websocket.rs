//! WebSockets that the server itself speaks: a stream of messages to a client that only listens (watches, logs). Tunnels
//! to kubelets are carried byte by byte elsewhere.

use futures::SinkExt as _;
use futures::stream::{BoxStream, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

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

/// Upgrades to a WebSocket that carries the messages and then closes; what the client sends is ignored.
pub fn answer(
    request: &mut Request<Body>,
    protocol: &str,
    mut messages: BoxStream<'static, Message>,
) -> Response<Body> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return body::failure(&ApiError::bad_request("a WebSocket request needs Sec-WebSocket-Key"));
    };
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        let (mut sink, mut source) = socket.split();
        loop {
            // Cancel-safe: a message not taken stays in the stream, one not read stays in the socket.
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { break };
                    if sink.send(message).await.is_err() {
                        return;
                    }
                }
                message = source.next() => match message {
                    None | Some(Err(_) | Ok(Message::Close(_))) => break,
                    Some(Ok(_)) => {}
                },
            }
        }
        // The peer may be gone already.
        let _ = sink.close().await;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
