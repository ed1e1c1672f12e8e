//! The client against servers that misbehave.

#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_cri::v1;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};
use prost::Message;
use prost::bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;
use crate::error::CriError;
use crate::id::{ContainerId, ImageRef, SandboxId};
use crate::service::{ImageService, RuntimeService};
use crate::types::{ContainerFilter, SandboxConfig};

/// What the server answers to a method.
#[derive(Clone)]
enum Reply {
    Message(Vec<u8>),
    Status(u32, &'static str),
    Never,
}

type Script = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

struct Server {
    directory: TempDir,
}

impl Server {
    fn socket(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    fn bind() -> (Self, UnixListener) {
        let server = Self { directory: tempfile::tempdir().unwrap() };
        let listener = UnixListener::bind(server.socket()).unwrap();
        (server, listener)
    }

    /// gRPC with answers from a script, by method name.
    fn scripted(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let (server, listener) = Self::bind();
        let script: Script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                    answer(script(&method))
                });
                let serving = async move {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.serve_connection(TokioIo::new(stream), service).await
                };
                tokio::spawn(serving);
            }
        });
        server
    }

    /// Bytes that are no HTTP, to whoever connects.
    fn raw(bytes: &'static [u8]) -> Self {
        let (server, listener) = Self::bind();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(bytes).await;
                let mut rest = [0; 64];
                while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
            }
        });
        server
    }

    fn client(&self) -> CriClient {
        CriClient::connect(self.socket())
    }

    /// One that gives up soon.
    fn impatient(&self) -> CriClient {
        let request = Duration::from_millis(300);
        CriClient::with_deadlines(self.socket(), Deadlines { request, run_pod_sandbox: request, pull_image: request })
    }
}

type Body = StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

async fn answer(reply: Reply) -> Result<Response<Body>, Infallible> {
    let (data, status, text) = match reply {
        Reply::Message(message) => {
            let length = u32::try_from(message.len()).unwrap();
            let framed = [&[0][..], &length.to_be_bytes(), &message].concat();
            (Some(Frame::data(Bytes::from(framed))), 0, "")
        }
        Reply::Status(status, text) => (None, status, text),
        Reply::Never => std::future::pending().await,
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    trailers.insert("grpc-message", text.parse().unwrap());
    let frames = data.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
    let body = StreamBody::new(stream::iter(frames.collect::<Vec<_>>()).boxed());
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

fn id() -> ContainerId {
    ContainerId::new("c1")
}

#[tokio::test]
async fn codes_become_classes() {
    type Check = fn(&CriError) -> bool;
    let table: [(u32, &str, Check); 9] = [
        (5, "gone", |e| matches!(e, CriError::NotFound { .. })),
        (6, "there", |e| matches!(e, CriError::AlreadyExists { .. })),
        (2, "name \"x\" is reserved for \"y\"", |e| e.is_already_exists()),
        (3, "bad", |e| matches!(e, CriError::InvalidArgument { .. }) && !e.is_retryable()),
        (12, "no", |e| matches!(e, CriError::Unimplemented { .. })),
        (4, "late", |e| matches!(e, CriError::DeadlineExceeded { .. })),
        (14, "away", |e| matches!(e, CriError::Unavailable { .. }) && e.is_retryable()),
        (2, "runc failed", |e| matches!(e, CriError::Runtime { message, .. } if message == "runc failed")),
        (99, "odd", |e| matches!(e, CriError::Runtime { .. })),
    ];
    for (code, text, check) in table {
        let server = Server::scripted(move |_| Reply::Status(code, text));
        let error = server.client().start_container(&id()).await.unwrap_err();
        assert!(check(&error), "{code}: {error:?}");
        assert!(error.to_string().starts_with("StartContainer"), "{error}");
    }
}

#[tokio::test]
async fn gone_is_stopped_and_removed() {
    let server = Server::scripted(|_| Reply::Status(5, "not found"));
    let client = server.client();
    client.stop_container(&id(), Duration::ZERO).await.unwrap();
    client.remove_container(&id()).await.unwrap();
    client.stop_pod_sandbox(&SandboxId::new("s")).await.unwrap();
    client.remove_pod_sandbox(&SandboxId::new("s")).await.unwrap();
    client.remove_image(&ImageRef::new("i")).await.unwrap();
    assert_eq!(client.image_status(&ImageRef::new("i")).await.unwrap(), None);
    assert!(client.container_status(&id()).await.unwrap_err().is_not_found());
}

/// A container that ends by itself just when it is to be stopped or removed is no
/// error, but one that cannot be is.
#[tokio::test]
async fn an_end_is_asked_for_again() {
    const CLOSED: &str = "failed to kill container \"c1\": ttrpc: closed";
    const RUNNING: &str =
        "failed to set removing state for container \"c1\": container is still running, to stop first";
    const CLOSED_TO_1_6: &str = "failed to kill container \"c1\": ttrpc: closed: unknown";
    let cases = [(CLOSED, 1, true), (CLOSED_TO_1_6, 1, true), (RUNNING, 3, true), (CLOSED, 99, false)];
    for (words, refusals, succeeds) in cases {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let server = Server::scripted(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            n if n < refusals => Reply::Status(2, words),
            _ => Reply::Message(Vec::new()),
        });
        let result = server.client().remove_container(&id()).await;
        assert_eq!(result.is_ok(), succeeds, "{refusals}: {result:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 8.min(refusals + 1));
    }
    let server = Server::scripted(|_| Reply::Status(2, "failed to kill container \"c1\": permission denied"));
    assert!(server.client().stop_container(&id(), Duration::ZERO).await.is_err());
}

#[tokio::test]
async fn garbage_messages_are_malformed() {
    let server = Server::scripted(|_| Reply::Message(vec![0xff; 9]));
    let error = server.client().container_status(&id()).await.unwrap_err();
    assert!(matches!(error, CriError::Malformed { .. }), "{error:?}");
    // An empty message is a message, without anything that it must have.
    let server = Server::scripted(|_| Reply::Message(Vec::new()));
    let client = server.client();
    for error in [
        client.version().await.unwrap_err(),
        client.container_status(&id()).await.unwrap_err(),
        client.run_pod_sandbox(&SandboxConfig::default(), "").await.unwrap_err(),
    ] {
        assert!(matches!(error, CriError::Malformed { .. }) && !error.is_retryable(), "{error:?}");
    }
    let list = v1::ListContainersResponse { containers: vec![v1::Container::default()] }.encode_to_vec();
    let server = Server::scripted(move |_| Reply::Message(list.clone()));
    let error = server.client().list_containers(&ContainerFilter::default()).await.unwrap_err();
    assert!(matches!(error, CriError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let server = Server::scripted(|_| Reply::Never);
    let client = server.impatient();
    let error = client.start_container(&id()).await.unwrap_err();
    assert!(matches!(error, CriError::DeadlineExceeded { op: "StartContainer", .. }), "{error:?}");
    // The margin comes on top of what the caller grants.
    let begin = std::time::Instant::now();
    client.stop_container(&id(), Duration::from_millis(400)).await.unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(700));
    let error = client.exec_sync(&id(), &[], Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, CriError::DeadlineExceeded { deadline, .. } if deadline.as_millis() == 100), "{error:?}");
}

#[tokio::test]
async fn what_is_no_grpc_is_unavailable() {
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\0\xff\0\xff\0\xff\0\xff\0\xff\0\xff", b""] {
        let server = Server::raw(bytes);
        if bytes.is_empty() {
            let error = server.impatient().version().await.unwrap_err();
            assert!(matches!(error, CriError::DeadlineExceeded { .. }), "{error:?}");
        } else {
            let error = server.client().version().await.unwrap_err();
            assert!(matches!(error, CriError::Unavailable { .. }), "{bytes:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_client_outlives_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let client = CriClient::connect(&socket);
    let error = client.version().await.unwrap_err();
    assert!(matches!(&error, CriError::Unavailable { message, .. } if message.contains("No such file")), "{error}");
    // A socket file that nobody listens on, as a crash leaves it: nobody ever did, so no child of another test can.
    let never = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    nix::sys::socket::bind(never.as_raw_fd(), &UnixAddr::new(&socket).unwrap()).unwrap();
    let error = client.version().await.unwrap_err();
    assert!(matches!(&error, CriError::Unavailable { message, .. } if message.contains("refused")), "{error}");
    std::fs::remove_file(&socket).unwrap();
    let answer = v1::VersionResponse { runtime_name: "r".into(), ..Default::default() }.encode_to_vec();
    let server = Server::scripted(move |_| Reply::Message(answer.clone()));
    std::os::unix::fs::symlink(server.socket(), &socket).unwrap();
    assert_eq!(client.version().await.unwrap().runtime_name, "r");
}

#[tokio::test]
async fn events_of_other_runtimes_come_from_cri() {
    let version = v1::VersionResponse { runtime_name: "cri-o".into(), ..Default::default() }.encode_to_vec();
    let event = v1::ContainerEventResponse { container_id: "c".into(), container_event_type: 2, ..Default::default() };
    let event = event.encode_to_vec();
    let server = Server::scripted(move |method| match method {
        "Version" => Reply::Message(version.clone()),
        "GetContainerEvents" => Reply::Message(event.clone()),
        _ => Reply::Status(12, "no"),
    });
    let mut events = server.client().container_events().await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.id.as_str(), event.kind), ("c", crate::types::ContainerEventKind::Stopped));
    assert!(events.next().await.is_none());
}

#[test]
fn timeouts_are_rounded_up() {
    let cases = [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2)];
    for (ms, expected) in cases {
        assert_eq!(seconds(Duration::from_millis(ms)), expected);
    }
    assert_eq!(seconds(Duration::MAX), i64::MAX);
}
