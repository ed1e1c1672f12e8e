//! Sessions between a WebSocket client and a scripted SPDY runtime, and the
//! server's front door, all on loopback or in memory.

#![allow(clippy::unwrap_used)]

mod front;

use harness::time;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Socket;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::codec::{FramedRead, FramedWrite};

use super::bridge::{Bridge, ChannelProtocol, EXEC_PROTOCOLS, ExecStreams};
use super::spdy::{Frame, FrameDecoder, FrameEncoder, StreamId};
use super::websocket::{carry_channels, carry_tunnel};

const ALL: ExecStreams = ExecStreams { stdin: true, stdout: true, stderr: true, tty: false };
/// Longer than anything is waited for.
const IDLE: std::time::Duration = std::time::Duration::from_secs(86_400);

struct Ends {
    client: WebSocketStream<DuplexStream>,
    frames_in: FramedRead<tokio::io::ReadHalf<DuplexStream>, FrameDecoder>,
    frames_out: FramedWrite<tokio::io::WriteHalf<DuplexStream>, FrameEncoder>,
    session: tokio::task::JoinHandle<()>,
}

/// A session of exec with a client and a runtime at its ends, through pipes of
/// `size` bytes.
async fn exec(protocol: ChannelProtocol, size: usize) -> Ends {
    let (client, near) = duplex(size);
    let (far, runtime) = duplex(size);
    let bridge = Bridge::exec(protocol.version, ALL);
    let session = tokio::spawn(carry_channels(near, far, protocol, bridge, IDLE));
    let (read, write) = tokio::io::split(runtime);
    Ends {
        client: WebSocketStream::from_raw_socket(client, Role::Client, None).await,
        frames_in: FramedRead::new(read, FrameDecoder::default()),
        frames_out: FramedWrite::new(write, FrameEncoder::default()),
        session,
    }
}

impl Ends {
    async fn frame(&mut self) -> Frame {
        time::within("a frame", self.frames_in.next()).await.unwrap().unwrap().unwrap()
    }

    async fn say(&mut self, id: u32, fin: bool, payload: impl Into<Bytes>) {
        self.frames_out.send(Frame::Data { id: StreamId(id), fin, payload: payload.into() }).await.unwrap();
    }

    async fn message(&mut self) -> Message {
        time::within("a message", self.client.next()).await.unwrap().unwrap().unwrap()
    }

    /// Messages up to the closing, which is answered.
    async fn rest(&mut self) -> (Vec<Message>, Option<u16>) {
        let (mut messages, mut code) = (Vec::new(), None);
        while let Some(Ok(message)) = time::within("a message", self.client.next()).await.unwrap() {
            match message {
                Message::Close(frame) => code = frame.map(|f| f.code.into()),
                other => messages.push(other),
            }
        }
        (messages, code)
    }
}

fn binary(channel: u8, payload: &[u8]) -> Message {
    let mut bytes = vec![channel];
    bytes.extend_from_slice(payload);
    Message::Binary(bytes.into())
}

#[tokio::test]
async fn a_command_runs_to_its_end() {
    let mut ends = exec(EXEC_PROTOCOLS[0], 4096).await;
    assert_eq!(ends.message().await, binary(1, b""));
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        let Frame::SynStream { id: got, headers, .. } = ends.frame().await else { panic!("no stream") };
        assert_eq!((got.0, headers.get("streamtype")), (id, Some(kind)));
    }
    ends.client.send(binary(0, b"in")).await.unwrap();
    ends.client.send(binary(255, &[0])).await.unwrap();
    assert_eq!(ends.frame().await, Frame::Data { id: StreamId(3), fin: false, payload: "in".into() });
    assert_eq!(ends.frame().await, Frame::Data { id: StreamId(3), fin: true, payload: Bytes::new() });
    ends.frames_out.send(Frame::Ping(2)).await.unwrap();
    assert_eq!(ends.frame().await, Frame::Ping(2));
    ends.say(5, true, "out").await;
    ends.say(7, true, "err").await;
    ends.say(1, true, "{\"status\":\"Success\"}").await;
    let (messages, code) = ends.rest().await;
    assert_eq!(messages, [binary(1, b"out"), binary(2, b"err"), binary(3, b"{\"status\":\"Success\"}")]);
    assert_eq!(code, Some(1000));
    ends.session.await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_breaks_off_is_reported() {
    for garbage in [&b""[..], b"\x80\x09garbage!"] {
        let mut ends = exec(EXEC_PROTOCOLS[1], 4096).await;
        ends.message().await;
        ends.say(5, false, "out").await;
        let mut raw = ends.frames_out.into_inner();
        raw.write_all(garbage).await.unwrap();
        raw.shutdown().await.unwrap();
        drop((raw, ends.frames_in));
        let mut got = Vec::new();
        while let Some(Ok(message)) = time::within("a message", ends.client.next()).await.unwrap() {
            got.push(message);
        }
        assert_eq!(got[0], binary(1, b"out"));
        let status: serde_json::Value = serde_json::from_slice(&got[1].clone().into_data()[1..]).unwrap();
        assert_eq!((&status["status"], got[1].clone().into_data()[0]), (&"Failure".into(), 3));
        ends.session.await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_or_talks_garbage_ends_the_session() {
    let mut ends = exec(EXEC_PROTOCOLS[0], 4096).await;
    ends.client.close(None).await.unwrap();
    while ends.frames_in.next().await.is_some() {}
    ends.session.await.unwrap();

    let (mut client, near) = duplex(4096);
    let (far, mut runtime) = duplex(4096);
    let bridge = Bridge::exec(EXEC_PROTOCOLS[0].version, ALL);
    let session = tokio::spawn(carry_channels(near, far, EXEC_PROTOCOLS[0], bridge, IDLE));
    client.write_all(&[0xff; 64]).await.unwrap();
    runtime.read_to_end(&mut Vec::new()).await.unwrap();
    time::within("the end of the session", session).await.unwrap().unwrap();
}

/// `cat` with more in flight than all pipes hold: neither direction may wait
/// for the other.
#[tokio::test]
async fn full_pipes_do_not_stop_a_session() {
    let mut ends = exec(EXEC_PROTOCOLS[0], 1024).await;
    let sent = Bytes::from(vec![7u8; 8000]);
    const TIMES: usize = 50;
    let (mut sink, mut stream) = ends.client.split();
    let client = tokio::spawn(async move {
        for _ in 0..TIMES {
            sink.send(binary(0, &sent)).await.unwrap();
        }
        sink.send(binary(255, &[0])).await.unwrap();
        sink
    });
    let cat = tokio::spawn(async move {
        loop {
            match ends.frames_in.next().await.unwrap().unwrap() {
                Frame::Data { id: StreamId(3), fin, payload } => {
                    let id = StreamId(5);
                    ends.frames_out.send(Frame::Data { id, fin: false, payload }).await.unwrap();
                    if fin {
                        break;
                    }
                }
                _ => ends.frames_out.send(Frame::Ping(4)).await.unwrap(),
            }
        }
        for id in [5, 7, 1] {
            ends.frames_out.send(Frame::Data { id: StreamId(id), fin: true, payload: Bytes::new() }).await.unwrap();
        }
        ends.frames_in
    });
    let read = async {
        let mut got = 0;
        while let Some(Ok(message)) = stream.next().await {
            let bytes = message.into_data();
            if bytes.first() == Some(&1) {
                got += bytes.len() - 1;
            }
        }
        got
    };
    assert_eq!(time::within("everything back", read).await.unwrap(), 8000 * TIMES);
    drop(client.await.unwrap());
    cat.await.unwrap();
    ends.session.await.unwrap();
}

#[tokio::test]
async fn a_tunnel_carries_bytes_as_they_are() {
    let (client, near) = duplex(4096);
    let (far, mut runtime) = duplex(4096);
    let session = tokio::spawn(carry_tunnel(near, far, IDLE));
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    client.send(Message::Binary("ab".into())).await.unwrap();
    client.send(Message::Binary("cd".into())).await.unwrap();
    let mut got = [0; 4];
    runtime.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"abcd");
    runtime.write_all(b"xyz").await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary("xyz".into()));
    drop(runtime);
    assert!(client.next().await.unwrap().unwrap().is_close());
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_waited_for() {
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = holder.local_addr().unwrap();
    let socket = Socket::open(address).await.unwrap();
    assert!(matches!(socket, Socket::Taken(taken) if taken == address), "{socket:?}");
    let waiting = tokio::spawn(async move { socket.listener(&CancellationToken::new()).await });
    drop(holder);
    let listener = time::within("a free port", waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(listener.local_addr().unwrap(), address);
    // Whoever is told to end meanwhile ends.
    let socket = Socket::open(address).await.unwrap();
    let token = CancellationToken::new();
    token.cancel();
    assert!(socket.listener(&token).await.is_none());
}
