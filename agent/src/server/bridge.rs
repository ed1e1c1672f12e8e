//! Between WebSocket channels and SPDY streams. Pure.
//!
//! A WebSocket message is one channel byte and payload; a SPDY stream is opened
//! with a `streamType`. [`Bridge`] keeps which belongs to which and says, for
//! each thing that arrives on one side, what goes out on the other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::spdy::{Frame, Headers, StreamId};

/// Channels of exec and attach.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Channel of v5 whose payload names a channel the client has finished.
const CLOSE: u8 = 255;

/// Generations of the channel protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The error channel carries text, and only on failure.
    V1,
    /// The error channel carries a JSON `Status`.
    V4,
    /// As V4, and the client can close its stdin.
    V5,
}

/// A WebSocket subprotocol for channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelProtocol {
    pub name: &'static str,
    pub version: Version,
    /// Messages are text: a digit and base64.
    pub base64: bool,
}

const fn protocol(name: &'static str, version: Version, base64: bool) -> ChannelProtocol {
    ChannelProtocol { name, version, base64 }
}

/// Subprotocols of exec and attach, best first.
pub const EXEC_PROTOCOLS: &[ChannelProtocol] = &[
    protocol("v5.channel.k8s.io", Version::V5, false),
    protocol("v4.channel.k8s.io", Version::V4, false),
    protocol("v4.base64.channel.k8s.io", Version::V4, true),
    protocol("channel.k8s.io", Version::V1, false),
    protocol("base64.channel.k8s.io", Version::V1, true),
    protocol("", Version::V1, false),
];

/// Subprotocols of port-forward by channel pairs.
pub const PORT_FORWARD_PROTOCOLS: &[ChannelProtocol] = &[
    protocol("v4.channel.k8s.io", Version::V4, false),
    protocol("v4.base64.channel.k8s.io", Version::V4, true),
    protocol("", Version::V4, false),
];

/// Picks the first subprotocol of the client that is known. A client that asks
/// for none gets the nameless one.
pub fn choose(known: &'static [ChannelProtocol], offered: &[&str]) -> Option<ChannelProtocol> {
    if offered.is_empty() {
        return known.iter().find(|p| p.name.is_empty()).copied();
    }
    offered.iter().find_map(|name| known.iter().find(|p| !p.name.is_empty() && p.name == *name)).copied()
}

impl ChannelProtocol {
    /// A message as it stands on the wire: (is text, bytes).
    pub fn encode(&self, channel: u8, payload: &[u8]) -> (bool, Vec<u8>) {
        if self.base64 {
            let mut text = String::from(char::from(b'0'.wrapping_add(channel)));
            STANDARD.encode_string(payload, &mut text);
            (true, text.into_bytes())
        } else {
            let mut message = Vec::with_capacity(payload.len() + 1);
            message.push(channel);
            message.extend_from_slice(payload);
            (false, message)
        }
    }

    /// Channel and payload of a message; `None` for an empty or broken one.
    pub fn decode(&self, message: Bytes) -> Option<(u8, Bytes)> {
        let first = *message.first()?;
        let rest = message.slice(1..);
        if !self.base64 {
            return Some((first, rest));
        }
        let channel = first.checked_sub(b'0').filter(|c| *c < 10)?;
        Some((channel, STANDARD.decode(&rest).ok()?.into()))
    }
}

/// Which streams an exec or attach session has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecStreams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Debug)]
struct Route {
    channel: u8,
    id: StreamId,
    headers: Headers,
    to_runtime: bool,
    to_client: bool,
}

/// What a session does with something that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the runtime.
    Frame(Frame),
    /// To the client: channel and payload.
    Message(u8, Bytes),
}

/// The state of one session.
#[derive(Debug)]
pub struct Bridge {
    version: Version,
    routes: Vec<Route>,
    greeting: Vec<(u8, Bytes)>,
    /// Text of the error stream, where it is not passed on as it comes.
    error_text: Vec<u8>,
    /// Whether the runtime has said how the session ended.
    has_status: bool,
}

impl Bridge {
    /// A session of exec or attach.
    pub fn exec(version: Version, streams: ExecStreams) -> Self {
        let mut routes = Vec::new();
        let mut add = |wanted: bool, channel: u8, kind: &str, to_runtime: bool| {
            if wanted {
                let headers = Headers::new([("streamType", kind)]);
                routes.push(Route { channel, id: next_id(&routes), headers, to_runtime, to_client: !to_runtime });
            }
        };
        add(true, ERROR, "error", false);
        add(streams.stdin, STDIN, "stdin", true);
        add(streams.stdout, STDOUT, "stdout", false);
        add(streams.stderr && !streams.tty, STDERR, "stderr", false);
        add(streams.tty, RESIZE, "resize", true);
        // An empty message on the lowest channel tells the client that it is connected.
        let lowest = if streams.stdout { STDOUT } else { ERROR };
        let greeting = vec![(lowest, Bytes::new())];
        Self { version, routes, greeting, error_text: Vec::new(), has_status: false }
    }

    /// A session of port-forward: a data and an error channel per port.
    pub fn port_forward(ports: &[u16]) -> Self {
        let (mut routes, mut greeting) = (Vec::new(), Vec::new());
        for (index, port) in ports.iter().enumerate() {
            for (kind, to_runtime) in [("error", false), ("data", true)] {
                let (number, request) = (port.to_string(), index.to_string());
                let headers = Headers::new([("streamType", kind), ("port", &number), ("requestID", &request)]);
                let offset = if to_runtime { 0 } else { 1 };
                let channel = u8::try_from(index * 2 + offset).unwrap_or(CLOSE);
                routes.push(Route { channel, id: next_id(&routes), headers, to_runtime, to_client: true });
                greeting.push((channel, Bytes::copy_from_slice(&port.to_le_bytes())));
            }
        }
        greeting.sort_by_key(|(channel, _)| *channel);
        Self { version: Version::V4, routes, greeting, error_text: Vec::new(), has_status: true }
    }

    /// Frames that open the session with the runtime.
    pub fn opening(&self) -> Vec<Frame> {
        self.routes.iter().map(|route| Frame::open(route.id, route.headers.clone())).collect()
    }

    /// Messages that open the session with the client.
    pub fn greeting(&self) -> &[(u8, Bytes)] {
        &self.greeting
    }

    /// A message of the client. What fits nothing is dropped, as upstream does.
    pub fn from_client(&mut self, channel: u8, payload: Bytes) -> Option<Frame> {
        if channel == CLOSE && self.version == Version::V5 {
            let route = self.open_to_runtime(*payload.first()?)?;
            route.to_runtime = false;
            return Some(Frame::Data { id: route.id, fin: true, payload: Bytes::new() });
        }
        let route = self.open_to_runtime(channel)?;
        (!payload.is_empty()).then_some(Frame::Data { id: route.id, fin: false, payload })
    }

    fn open_to_runtime(&mut self, channel: u8) -> Option<&mut Route> {
        self.routes.iter_mut().find(|route| route.channel == channel && route.to_runtime)
    }

    /// A frame of the runtime.
    pub fn from_runtime(&mut self, frame: Frame) -> Vec<Output> {
        match frame {
            Frame::Data { id, fin, payload } => self.data(id, fin, payload),
            Frame::SynReply { id, fin, .. } | Frame::Headers { id, fin, .. } => self.data(id, fin, Bytes::new()),
            Frame::RstStream { id, .. } => {
                if let Some(route) = self.routes.iter_mut().find(|route| route.id == id) {
                    route.to_runtime = false;
                }
                self.data(id, true, Bytes::new())
            }
            // A ping with an even number is the server's; ours come back to us.
            Frame::Ping(id) if id % 2 == 0 => vec![Output::Frame(Frame::Ping(id))],
            Frame::SynStream { id, .. } => vec![Output::Frame(Frame::RstStream { id, status: 3 })],
            Frame::Ping(_) | Frame::Settings | Frame::GoAway { .. } | Frame::WindowUpdate { .. } => Vec::new(),
        }
    }

    fn data(&mut self, id: StreamId, fin: bool, payload: Bytes) -> Vec<Output> {
        let Some(route) = self.routes.iter_mut().find(|route| route.id == id && route.to_client) else {
            return Vec::new();
        };
        route.to_client = !fin;
        let channel = route.channel;
        let mut out = Vec::new();
        if channel == ERROR && !payload.is_empty() {
            self.has_status = true;
        }
        if channel == ERROR && self.version == Version::V1 {
            self.error_text.extend_from_slice(&payload);
            if let Some(text) = fin.then(|| failure_text(&self.error_text)).flatten() {
                out.push(Output::Message(ERROR, text.into()));
            }
        } else if !payload.is_empty() {
            out.push(Output::Message(channel, payload));
        }
        out
    }

    /// Whether the runtime has ended everything it can send.
    pub fn is_finished(&self) -> bool {
        self.routes.iter().all(|route| !route.to_client)
    }

    /// What the client has to be told when the runtime's connection ends.
    pub fn farewell(&self) -> Option<Output> {
        if self.has_status || self.version == Version::V1 {
            return None;
        }
        let status = serde_json::json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "the container runtime ended the session without a result"});
        Some(Output::Message(ERROR, status.to_string().into()))
    }
}

/// Stream ids of a client are odd and rise.
fn next_id(routes: &[Route]) -> StreamId {
    StreamId(u32::try_from(routes.len() * 2 + 1).unwrap_or(u32::MAX >> 1))
}

/// The message of a JSON status that is no success, for clients of V1.
fn failure_text(status: &[u8]) -> Option<Vec<u8>> {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(status) else {
        return (!status.is_empty()).then(|| status.to_vec());
    };
    if value["status"] == "Success" {
        return None;
    }
    Some(value["message"].as_str().unwrap_or("error executing command").as_bytes().to_vec())
}

#[cfg(test)]
mod tests;
