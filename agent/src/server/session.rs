//! Exec, attach and port-forward: from a request to a session of the runtime.

use std::sync::Arc;

use cri::types::{AttachRequest, ExecRequest};
use cri::{ContainerId, CriError};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;

use super::bridge::{self, Bridge, ChannelProtocol, ExecStreams};
use super::reply::{self, Body, ErrorResponse};
use super::route::{Target, query};
use super::tunnel::{self, DialResult, RuntimeIo, SPDY, STREAM_PROTOCOL};
use super::{IDLE, Shared, websocket};
use crate::ids::PodUid;
use crate::podcache::RuntimePod;

/// The protocol spoken to the runtime when the client speaks channels.
const EXEC_PROTOCOL: &str = "v4.channel.k8s.io";
const PORT_FORWARD_PROTOCOL: &str = "portforward.k8s.io";
/// Before the name of a protocol that is carried inside WebSocket messages.
const TUNNEL_PREFIX: &str = "SPDY/3.1+";

/// The pod a request is about, as the API and as the runtime know it.
pub(super) fn find_pod(shared: &Shared, target: &Target) -> Result<(Arc<Pod>, Option<Arc<RuntimePod>>), ErrorResponse> {
    let missing = || ErrorResponse::new(StatusCode::NOT_FOUND, "pod does not exist");
    let pod = shared.state.view.pod(&target.pod).ok_or_else(missing)?;
    let uid = PodUid::of(&pod);
    if target.uid.as_deref().is_some_and(|wanted| wanted != uid.as_str()) {
        return Err(missing());
    }
    let runtime = shared.state.cache.get(&uid);
    Ok((pod, runtime))
}

/// The running container of the target's name: an ended one takes no session.
pub(super) fn find_container(shared: &Shared, target: &Target) -> Result<(Arc<Pod>, ContainerId), ErrorResponse> {
    let (pod, runtime) = find_pod(shared, target)?;
    let id = runtime.as_deref().and_then(|runtime| running_container(runtime, &target.container));
    let missing = || {
        ErrorResponse::new(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({:?})", target.container))
    };
    Ok((pod, id.ok_or_else(missing)?))
}

fn running_container(runtime: &RuntimePod, name: &str) -> Option<ContainerId> {
    runtime.containers_named(name).find(|c| c.is_running()).map(|c| c.id().clone())
}

fn runtime_failed(error: &CriError) -> ErrorResponse {
    let status = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
    ErrorResponse::new(status, error)
}

/// Streams and command of a query; the kubelet's names and the API's both count.
fn exec_options(text: &str) -> (ExecStreams, Vec<String>) {
    let (mut streams, mut command) = (ExecStreams::default(), Vec::new());
    for (name, value) in query(text) {
        let on = matches!(value.as_str(), "1" | "true");
        match name.as_str() {
            "input" | "stdin" => streams.stdin |= on,
            "output" | "stdout" => streams.stdout |= on,
            "error" | "stderr" => streams.stderr |= on,
            "tty" => streams.tty |= on,
            "command" => command.push(value),
            _ => {}
        }
    }
    (streams, command)
}

fn checked_streams(mut streams: ExecStreams) -> Result<ExecStreams, ErrorResponse> {
    if streams.tty {
        // A terminal has one output.
        streams.stderr = false;
    }
    if streams.stdin || streams.stdout || streams.stderr {
        Ok(streams)
    } else {
        Err(ErrorResponse::new(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"))
    }
}

/// `/exec`.
pub(super) async fn exec(shared: Arc<Shared>, target: Target, request: Request<Incoming>) -> Response<Body> {
    let session = async {
        let upgrade = Upgrade::of(request.headers(), bridge::EXEC_PROTOCOLS)?;
        let (_, container) = find_container(&shared, &target)?;
        let (streams, command) = exec_options(request.uri().query().unwrap_or_default());
        let streams = checked_streams(streams)?;
        let ExecStreams { stdin, stdout, stderr, tty } = streams;
        let asked = ExecRequest { container, command, tty, stdin, stdout, stderr };
        let url = shared.state.runtime.exec(&asked).await.map_err(|e| runtime_failed(&e))?;
        let bridge = |protocol: ChannelProtocol| Bridge::exec(protocol.version, streams);
        open(&shared, request, upgrade, &url, EXEC_PROTOCOL, bridge).await
    };
    session.await.unwrap_or_else(Response::from)
}

/// `/attach`. Whether there is a terminal is the container's matter.
pub(super) async fn attach(shared: Arc<Shared>, target: Target, request: Request<Incoming>) -> Response<Body> {
    let session = async {
        let upgrade = Upgrade::of(request.headers(), bridge::EXEC_PROTOCOLS)?;
        let (pod, container) = find_container(&shared, &target)?;
        let (mut streams, _) = exec_options(request.uri().query().unwrap_or_default());
        let spec = crate::convert::container::find(&pod, &target.container);
        streams.tty = spec.is_some_and(|(_, container)| container.tty == Some(true));
        let streams = checked_streams(streams)?;
        let ExecStreams { stdin, stdout, stderr, tty } = streams;
        let asked = AttachRequest { container, tty, stdin, stdout, stderr };
        let url = shared.state.runtime.attach(&asked).await.map_err(|e| runtime_failed(&e))?;
        let bridge = |protocol: ChannelProtocol| Bridge::exec(protocol.version, streams);
        open(&shared, request, upgrade, &url, EXEC_PROTOCOL, bridge).await
    };
    session.await.unwrap_or_else(Response::from)
}

/// `/portForward`.
pub(super) async fn port_forward(shared: Arc<Shared>, target: Target, request: Request<Incoming>) -> Response<Body> {
    let session = async {
        let upgrade = Upgrade::of(request.headers(), bridge::PORT_FORWARD_PROTOCOLS)?;
        let (_, runtime) = find_pod(&shared, &target)?;
        let sandbox = runtime.and_then(|runtime| runtime.ready_sandbox().map(|s| s.summary.id.clone()));
        let not_running = || ErrorResponse::new(StatusCode::INTERNAL_SERVER_ERROR, "pod is not running");
        let sandbox = sandbox.ok_or_else(not_running)?;
        let ports = ports(request.uri().query().unwrap_or_default())?;
        if ports.is_empty() && matches!(upgrade, Upgrade::Channels(_)) {
            return Err(ErrorResponse::new(StatusCode::BAD_REQUEST, "query parameter \"port\" is required"));
        }
        let url = shared.state.runtime.port_forward(&sandbox, &ports).await.map_err(|e| runtime_failed(&e))?;
        open(&shared, request, upgrade, &url, PORT_FORWARD_PROTOCOL, |_| Bridge::port_forward(&ports)).await
    };
    session.await.unwrap_or_else(Response::from)
}

pub(crate) fn ports(text: &str) -> Result<Vec<u16>, ErrorResponse> {
    let values: Vec<String> =
        query(text).into_iter().filter(|(n, _)| n == "port" || n == "ports").map(|(_, v)| v).collect();
    let numbers = values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|text| !text.is_empty());
    let ports: Result<Vec<u16>, _> = numbers
        .map(|text| {
            // Digits alone: a number may have a sign, and a port has none.
            let port = text.parse().ok().filter(|port: &u16| *port > 0 && !text.starts_with('+'));
            port.ok_or_else(|| {
                ErrorResponse::new(StatusCode::BAD_REQUEST, format!("unable to parse {text:?} as a port"))
            })
        })
        .collect();
    // Channels are numbered in one byte, two per port.
    ports.and_then(|ports| {
        let few = ports.len() <= 100;
        if few { Ok(ports) } else { Err(ErrorResponse::new(StatusCode::BAD_REQUEST, "too many ports")) }
    })
}

/// How the client wants to speak.
#[derive(Debug)]
enum Upgrade {
    /// SPDY itself: bytes are passed through. Values of X-Stream-Protocol-Version.
    Spdy(Vec<HeaderValue>),
    /// WebSocket channels.
    Channels(ChannelProtocol),
    /// SPDY inside of WebSocket messages: the client's name for it, and SPDY's own.
    Tunnel { subprotocol: String, stream_protocol: String },
}

impl Upgrade {
    fn of(headers: &HeaderMap, known: &'static [ChannelProtocol]) -> Result<Self, ErrorResponse> {
        let bad = |message: &str| ErrorResponse::new(StatusCode::BAD_REQUEST, message);
        let has = |name, word: &str| {
            let values = headers.get_all(name).iter().filter_map(|v: &HeaderValue| v.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
        };
        if !has(CONNECTION, "upgrade") {
            return Err(bad("Upgrade request required"));
        }
        if has(UPGRADE, SPDY) {
            return Ok(Self::Spdy(headers.get_all(STREAM_PROTOCOL).iter().cloned().collect()));
        }
        if !has(UPGRADE, "websocket") {
            return Err(bad("unable to upgrade: SPDY/3.1 or websocket is wanted"));
        }
        let offered = websocket::offered(headers);
        if let Some(name) = offered.iter().find(|name| name.starts_with(TUNNEL_PREFIX)) {
            let stream_protocol = name[TUNNEL_PREFIX.len()..].to_owned();
            return Ok(Self::Tunnel { subprotocol: (*name).to_owned(), stream_protocol });
        }
        let chosen = bridge::choose(known, &offered);
        chosen.map(Self::Channels).ok_or_else(|| bad("no common WebSocket subprotocol"))
    }
}

/// Opens the runtime's session, answers 101, and carries on in a task of its own.
async fn open(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
    upgrade: Upgrade,
    url: &str,
    default_protocol: &'static str,
    bridge: impl FnOnce(ChannelProtocol) -> Bridge,
) -> Result<Response<Body>, ErrorResponse> {
    let bad = |message: &str| ErrorResponse::new(StatusCode::BAD_REQUEST, message);
    let default = HeaderValue::from_static(default_protocol);
    let protocols = match &upgrade {
        Upgrade::Spdy(protocols) => protocols.clone(),
        Upgrade::Channels(_) => vec![default],
        Upgrade::Tunnel { stream_protocol, .. } => {
            vec![HeaderValue::try_from(stream_protocol.as_str()).map_err(|_| bad("bad subprotocol"))?]
        }
    };
    let headers = match &upgrade {
        Upgrade::Spdy(_) => None,
        Upgrade::Channels(protocol) => Some(websocket::accept(request.headers(), protocol.name).map_err(bad)?),
        Upgrade::Tunnel { subprotocol, .. } => Some(websocket::accept(request.headers(), subprotocol).map_err(bad)?),
    };
    let (runtime, chosen) = match tunnel::dial(url, &protocols).await {
        Ok(DialResult::Open { io, protocol }) => (io, protocol),
        Ok(DialResult::Refused { status, body }) => return Err(ErrorResponse { status, body }),
        Err(error) => return Err(ErrorResponse::new(StatusCode::INTERNAL_SERVER_ERROR, error)),
    };
    let headers = headers.unwrap_or_else(|| tunnel::switching_headers(SPDY, chosen.as_ref()));
    let session = match upgrade {
        Upgrade::Spdy(_) => Session::Bytes,
        Upgrade::Tunnel { .. } => Session::Tunnel,
        Upgrade::Channels(protocol) => Session::Channels(protocol, Box::new(bridge(protocol))),
    };
    let client = hyper::upgrade::on(&mut request);
    let token = shared.token.clone();
    shared.sessions.spawn(async move {
        // Ending a session drops both connections; the runtime sees the client go.
        tokio::select! {
            () = token.cancelled() => {}
            () = run(client, runtime, session) => {}
        }
    });
    let mut response = Response::new(reply::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    Ok(response)
}

enum Session {
    Bytes,
    Tunnel,
    Channels(ChannelProtocol, Box<Bridge>),
}

async fn run(client: hyper::upgrade::OnUpgrade, runtime: RuntimeIo, session: Session) {
    let client = match client.await {
        Ok(client) => TokioIo::new(client),
        Err(error) => {
            tracing::debug!(%error, "client did not take the upgrade");
            return;
        }
    };
    match session {
        Session::Bytes => tunnel::carry(client, runtime, IDLE).await,
        Session::Tunnel => websocket::carry_tunnel(client, runtime, IDLE).await,
        Session::Channels(protocol, bridge) => {
            websocket::carry_channels(client, runtime, protocol, *bridge, IDLE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn options_by_either_name() {
        let all = ExecStreams { stdin: true, stdout: true, stderr: true, tty: true };
        let (streams, command) = exec_options("input=1&output=1&error=1&tty=1&command=sh&command=-c&command=a%20b");
        assert_eq!((streams, command), (all, vec!["sh".to_owned(), "-c".into(), "a b".into()]));
        let (streams, _) = exec_options("stdin=true&stdout=true&stderr=true&tty=true&container=c");
        assert_eq!(streams, all);
        assert!(!checked_streams(all).unwrap().stderr);
        assert!(checked_streams(exec_options("output=0").0).is_err());
    }

    #[test]
    fn port_lists() {
        assert_eq!(ports("port=80&port=81,82").unwrap(), [80, 81, 82]);
        assert_eq!(ports("").unwrap(), [0u16; 0]);
        for bad in ["port=0", "port=x", "port=%2b80", "port=70000"] {
            assert_eq!(ports(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn sessions_are_of_running_containers_only() {
        use crate::testutil::{instance, pod, runtime};
        use cri::types::ContainerState::{Exited, Running};
        let pod = pod("  containers: [{name: a}, {name: b}]");
        let all = vec![
            instance(&pod, "a", 0, Exited, 1),
            instance(&pod, "a", 1, Running, 0),
            instance(&pod, "b", 0, Exited, 1),
        ];
        let runtime = runtime(vec![], all);
        assert_eq!(running_container(&runtime, "a"), Some(ContainerId::new("a-1")));
        assert_eq!(running_container(&runtime, "b"), None);
        assert_eq!(running_container(&runtime, "c"), None);
    }
}
