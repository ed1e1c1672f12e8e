//! WebSocket sessions: the handshake, and carrying channels or a SPDY tunnel.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::bridge::{Bridge, ChannelProtocol, Output};
use super::spdy::{Frame, FrameDecoder, FrameEncoder};
use super::tunnel::{Activity, switching_headers};

/// Largest message taken from a client; kubectl sends tens of KiB.
const MAX_MESSAGE: usize = 1 << 20;
/// How long a client may take to answer our closing.
const LINGER: Duration = Duration::from_secs(5);

/// Subprotocols of a request, in the client's order.
pub(super) fn offered(headers: &HeaderMap) -> Vec<&str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// Headers of the 101 answer; the error is the text of a 400.
pub(super) fn accept(headers: &HeaderMap, protocol: &str) -> Result<HeaderMap, &'static str> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("unsupported WebSocket version: 13 is wanted");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or("missing Sec-WebSocket-Key")?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| "bad Sec-WebSocket-Key")?;
    let mut answer = switching_headers("websocket", None);
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        let value = HeaderValue::try_from(protocol).map_err(|_| "bad Sec-WebSocket-Protocol")?;
        answer.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(answer)
}

async fn server<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

fn payload(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(text) => Some(text.into()),
        _ => None,
    }
}

/// Says goodbye and waits a little for the answer, so that nothing is lost.
async fn close<W, R>(sink: &mut W, stream: &mut R, code: CloseCode)
where
    W: Sink<Message, Error = WsError> + Unpin,
    R: Stream<Item = Result<Message, WsError>> + Unpin,
{
    let goodbye = async {
        let frame = CloseFrame { code, reason: "".into() };
        sink.send(Message::Close(Some(frame))).await?;
        while let Some(Ok(_)) = stream.next().await {}
        Ok::<_, WsError>(())
    };
    let _ = tokio::time::timeout(LINGER, goodbye).await;
}

/// Carries the bytes of a SPDY connection as binary messages.
pub(super) async fn carry_tunnel<C, R>(client: C, runtime: R, idle: Duration)
where
    C: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = server(client).await.split();
    let (mut runtime_in, mut runtime_out) = tokio::io::split(runtime);
    let activity = Activity::new(idle);
    let to_runtime = async {
        while let Some(Ok(message)) = stream.next().await {
            if message.is_close() {
                return;
            }
            activity.touch();
            let Some(bytes) = payload(message) else { continue };
            if runtime_out.write_all(&bytes).await.is_err() || runtime_out.flush().await.is_err() {
                return;
            }
        }
    };
    let to_client = async {
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(32 * 1024);
            match runtime_in.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            }
            activity.touch();
            if sink.send(Message::Binary(buffer.freeze())).await.is_err() {
                return;
            }
        }
    };
    let runtime_ended = tokio::select! {
        () = to_runtime => false,
        () = to_client => true,
        () = activity.expired() => false,
    };
    if runtime_ended {
        close(&mut sink, &mut stream, CloseCode::Normal).await;
    }
}

/// How one direction of a session ended.
enum Ended {
    Finished,
    ClientGone,
    /// The runtime's connection broke or spoke no SPDY.
    RuntimeGone(String),
}

/// Carries channels of `protocol` over a SPDY session of the runtime.
pub(super) async fn carry_channels<C, R>(
    client: C,
    runtime: R,
    protocol: ChannelProtocol,
    bridge: Bridge,
    idle: Duration,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = server(client).await.split();
    let (runtime_in, runtime_out) = tokio::io::split(runtime);
    let channels = Channels { protocol, bridge: Mutex::new(bridge), activity: Activity::new(idle) };
    // Answers to the runtime's pings go out between the client's frames: the two
    // directions must never wait for each other, or a full pipe stops both.
    let (replies, reply_queue) = mpsc::channel::<Frame>(16);
    let ended = tokio::select! {
        ended = channels.to_runtime(&mut stream, runtime_out, reply_queue) => ended,
        ended = channels.to_client(runtime_in, &mut sink, replies) => ended,
        () = channels.activity.expired() => Ended::ClientGone,
    };
    match ended {
        Ended::ClientGone => {}
        Ended::Finished => close(&mut sink, &mut stream, CloseCode::Normal).await,
        Ended::RuntimeGone(reason) => {
            tracing::debug!(reason, "streaming session of the runtime ended");
            let farewell = channels.bridge().farewell();
            let code = if farewell.is_some() { CloseCode::Error } else { CloseCode::Normal };
            if let Some(Output::Message(channel, payload)) = farewell {
                let _ = tokio::time::timeout(LINGER, sink.send(wire(protocol, channel, &payload))).await;
            }
            close(&mut sink, &mut stream, code).await;
        }
    }
}

/// What the two directions of a session by channels share.
struct Channels {
    protocol: ChannelProtocol,
    bridge: Mutex<Bridge>,
    activity: Activity,
}

impl Channels {
    fn bridge(&self) -> MutexGuard<'_, Bridge> {
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's messages, and `replies` between them, as frames.
    async fn to_runtime<S, W>(&self, stream: &mut S, runtime: W, mut replies: mpsc::Receiver<Frame>) -> Ended
    where
        S: Stream<Item = Result<Message, WsError>> + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut frames = FramedWrite::new(runtime, FrameEncoder::default());
        let opening = self.bridge().opening();
        for frame in opening {
            if let Err(error) = frames.send(frame).await {
                return Ended::RuntimeGone(error.to_string());
            }
        }
        loop {
            // Both arms are cancel-safe: neither takes anything it does not return.
            let frame = tokio::select! {
                message = stream.next() => match message {
                    Some(Ok(message)) if !message.is_close() => {
                        self.activity.touch();
                        let decoded = payload(message).and_then(|bytes| self.protocol.decode(bytes));
                        decoded.and_then(|(channel, payload)| self.bridge().from_client(channel, payload))
                    }
                    _ => return Ended::ClientGone,
                },
                frame = replies.recv() => frame,
            };
            if let Some(frame) = frame
                && let Err(error) = frames.send(frame).await
            {
                return Ended::RuntimeGone(error.to_string());
            }
        }
    }

    /// The runtime's frames as messages, until it has no more to say.
    async fn to_client<R, W>(&self, runtime: R, sink: &mut W, replies: mpsc::Sender<Frame>) -> Ended
    where
        R: AsyncRead + Unpin,
        W: Sink<Message, Error = WsError> + Unpin,
    {
        let mut frames = FramedRead::new(runtime, FrameDecoder::default());
        let greeting = self.bridge().greeting().to_vec();
        for (channel, payload) in greeting {
            if sink.send(wire(self.protocol, channel, &payload)).await.is_err() {
                return Ended::ClientGone;
            }
        }
        loop {
            let frame = match frames.next().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Ended::RuntimeGone(error.to_string()),
                None => return Ended::RuntimeGone("connection closed".into()),
            };
            self.activity.touch();
            let outputs = self.bridge().from_runtime(frame);
            for output in outputs {
                match output {
                    Output::Message(channel, payload) => {
                        if sink.send(wire(self.protocol, channel, &payload)).await.is_err() {
                            return Ended::ClientGone;
                        }
                    }
                    // A flood of pings may lose some answers.
                    Output::Frame(frame) => drop(replies.try_send(frame)),
                }
            }
            if self.bridge().is_finished() {
                return Ended::Finished;
            }
        }
    }
}

fn wire(protocol: ChannelProtocol, channel: u8, payload: &[u8]) -> Message {
    match protocol.encode(channel, payload) {
        (false, bytes) => Message::Binary(bytes.into()),
        // A digit and base64 are always text.
        (true, bytes) => Message::Text(String::from_utf8(bytes).unwrap_or_default().into()),
    }
}
