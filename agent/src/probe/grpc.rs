//! `grpc.health.v1.Health/Check` over plain HTTP/2.
//!
//! One unary call with a string in and an enum out: encoded by hand rather than
//! through generated code.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::http::connect;
use super::worker::ProbeResult;

const MAX_ANSWER: usize = 64 * 1024;
const SERVING: u64 = 1;
const UNIMPLEMENTED: &str = "12";
const NOT_FOUND: &str = "5";

/// Asks the service for its health.
pub async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> ProbeResult {
    match tokio::time::timeout(timeout, check(host, port, service)).await {
        Ok(Ok(())) => ProbeResult::Success,
        Ok(Err(message)) => ProbeResult::Failure(message),
        Err(_) => ProbeResult::Failure(format!(
            "timeout: failed to connect service \"{host}:{port}\" within {timeout:?}: context deadline exceeded"
        )),
    }
}

async fn check(host: &str, port: u16, service: &str) -> Result<(), String> {
    let stream = connect(host, port).await?;
    let failed = |error: hyper::Error| format!("error: health rpc probe failed: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(request_body(service)))
        .map_err(|error| format!("error: health rpc probe failed: {error}"))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let headers = answer.headers().clone();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("error: health rpc probe failed: {error}"))?;
        let trailers = body.trailers().cloned().unwrap_or(headers);
        judge(&trailers, &body.to_bytes())
    };
    let mut connection = Box::pin(connection);
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(failed(error)),
        },
    }
}

/// A length-prefixed `HealthCheckRequest { service = 1 }`.
fn request_body(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut body = BytesMut::with_capacity(message.len() + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.extend_from_slice(&message);
    body.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The status of a length-prefixed `HealthCheckResponse { status = 1 }`; other
/// fields are passed over.
pub(crate) fn response_status(body: &[u8]) -> Option<u64> {
    let length = u32::from_be_bytes(body.get(1..5)?.try_into().ok()?);
    let mut message = body.get(5..5 + usize::try_from(length).ok()?).filter(|_| body[0] == 0)?;
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn judge(trailers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let text = |name: &str| trailers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "0" => {}
        UNIMPLEMENTED => {
            return Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into());
        }
        NOT_FOUND => return Err(format!("error: health rpc probe failed: unknown service {}", text("grpc-message"))),
        other => return Err(format!("error: health rpc probe failed: status {other}: {}", text("grpc-message"))),
    }
    match response_status(body) {
        Some(SERVING) => Ok(()),
        Some(status) => {
            let name = match status {
                0 => "UNKNOWN".to_owned(),
                2 => "NOT_SERVING".to_owned(),
                3 => "SERVICE_UNKNOWN".to_owned(),
                other => other.to_string(),
            };
            Err(format!("service unhealthy (responded with {name:?})"))
        }
        None => Err("error: health rpc probe failed: malformed answer".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::service::service_fn;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    #[test]
    fn messages() {
        assert_eq!(&request_body("")[..], b"\0\0\0\0\0");
        assert_eq!(&request_body("ab")[..], b"\0\0\0\0\x04\x0a\x02ab");
        assert_eq!(response_status(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(response_status(b"\0\0\0\0\0"), Some(0));
        assert_eq!(response_status(b"\0\0\0\0\x06\x12\x02zz\x08\x02"), Some(2));
        assert_eq!(response_status(b"\0\0\0\0\x05\x08"), None);
        let check = |headers: &[(&'static str, &str)], body: &[u8], expect: &str| {
            let headers = headers.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap()));
            assert_eq!(judge(&headers.collect(), body).unwrap_err(), expect);
        };
        check(&[("grpc-status", "0")], b"\0\0\0\0\x02\x08\x02", "service unhealthy (responded with \"NOT_SERVING\")");
        check(&[("grpc-status", "14"), ("grpc-message", "m")], b"", "error: health rpc probe failed: status 14: m");
        check(&[], b"", "error: health rpc probe failed: status : ");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = response_status(&bytes);
        }
    }

    #[tokio::test]
    async fn asks_a_real_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(|request: Request<hyper::body::Incoming>| async {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let status = if body.ends_with(b"good") { 1u8 } else { 2 };
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    let frames: Vec<Result<Frame<Bytes>, std::convert::Infallible>> = vec![
                        Ok(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]))),
                        Ok(Frame::trailers(trailers)),
                    ];
                    let body = StreamBody::new(futures::stream::iter(frames));
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        let timeout = Duration::from_secs(10);
        assert_eq!(probe("127.0.0.1", port, "good", timeout).await, ProbeResult::Success);
        let expect = ProbeResult::Failure("service unhealthy (responded with \"NOT_SERVING\")".into());
        assert_eq!(probe("127.0.0.1", port, "bad", timeout).await, expect);
        server.abort();
        let _ = server.await;
        assert!(matches!(probe("127.0.0.1", port, "", timeout).await, ProbeResult::Failure(_)));
    }
}
