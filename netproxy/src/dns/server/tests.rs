//! Limits, on real sockets of loopback.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use harness::time;
use hickory_proto::op::{Message, MessageType, OpCode};
use tokio::sync::Notify;

use super::super::forward::UpstreamAnswer;
use super::super::watch::SharedZone;
use super::super::zone::Zone;
use super::*;

/// Answers nobody until it is told to.
#[derive(Clone, Default)]
struct Slow {
    asked: Arc<AtomicUsize>,
    go: Arc<Notify>,
}

#[async_trait]
impl Upstream for Slow {
    async fn lookup(&self, _: &Name, _: RecordType) -> UpstreamAnswer {
        let go = self.go.notified();
        self.asked.fetch_add(1, Ordering::SeqCst);
        go.await;
        UpstreamAnswer::Failed
    }

    fn available(&self) -> bool {
        true
    }
}

fn server(slow: Slow, token: &CancellationToken) -> Arc<Server<Slow>> {
    let zone = Zone::new("cluster.local", Ipv4Addr::LOCALHOST, vec![]).unwrap();
    let shared = SharedZone::new(zone);
    let complete = crate::cluster::Batch { services_listed: true, slices_listed: true, ..Default::default() };
    shared.apply(&complete);
    let names = NameResolver::new(Arc::new(shared), slow);
    Server::new(names, "cluster.local.".to_owned(), Metrics::default(), token.clone())
}

fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

async fn answer(socket: &UdpSocket) -> Message {
    let mut bytes = [0; 4096];
    let length = time::within("an answer", socket.recv(&mut bytes)).await.unwrap().unwrap();
    Message::from_vec(&bytes[..length]).unwrap()
}

async fn framed_answer(stream: &mut TcpStream) -> Message {
    let mut bytes = Vec::new();
    assert!(time::within("an answer", read_frame(stream, &mut bytes)).await.unwrap().unwrap());
    Message::from_vec(&bytes).unwrap()
}

async fn udp(server: &Arc<Server<Slow>>) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(socket.local_addr().unwrap()).await.unwrap();
    let server = Arc::clone(server);
    tokio::spawn(async move { server.serve_udp(socket).await });
    client
}

async fn tcp(server: &Arc<Server<Slow>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::clone(server);
    tokio::spawn(async move { server.serve_tcp(listener).await });
    address
}

#[tokio::test]
async fn only_so_many_names_are_asked_of_others_at_a_time() {
    let (slow, token) = (Slow::default(), CancellationToken::new());
    let server = server(slow.clone(), &token);
    let client = udp(&server).await;
    // A flood of names that nobody answers: the queue of a socket is short, so in portions.
    let beyond = 50;
    for id in 0..FORWARDS + beyond {
        let id = u16::try_from(id).unwrap();
        client.send(&question(id, "slow.example.org.")).await.unwrap();
        if usize::from(id) < FORWARDS {
            let asked = async || slow.asked.load(Ordering::SeqCst) > usize::from(id);
            time::eventually_true("the question is passed on", asked).await.unwrap();
        } else {
            let refused = answer(&client).await;
            assert_eq!((refused.metadata.id, refused.metadata.response_code), (id, ResponseCode::Refused));
        }
    }
    assert_eq!(slow.asked.load(Ordering::SeqCst), FORWARDS);
    assert_eq!(server.metrics.rejected_forwards.get(), beyond as u64);
    assert!(server.tasks.len() <= FORWARDS, "{} tasks", server.tasks.len());
    // The cluster's names are answered meanwhile.
    client.send(&question(7, "missing.t.svc.cluster.local.")).await.unwrap();
    assert_eq!(answer(&client).await.metadata.response_code, ResponseCode::NXDomain);
    // Places come back with the answers.
    slow.go.notify_waiters();
    for _ in 0..FORWARDS {
        assert_eq!(answer(&client).await.metadata.response_code, ResponseCode::ServFail);
    }
    client.send(&question(8, "slow.example.org.")).await.unwrap();
    let again = async || slow.asked.load(Ordering::SeqCst) > FORWARDS;
    time::eventually_true("another question that is passed on", again).await.unwrap();
    token.cancel();
    time::within("the end of everything under way", server.drained()).await.unwrap();
}

#[tokio::test]
async fn only_so_many_connections_are_kept() {
    let token = CancellationToken::new();
    let server = server(Slow::default(), &token);
    let address = tcp(&server).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_CLIENT {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&framed(&question(1, "missing.t.svc.cluster.local."))).await.unwrap();
        framed_answer(&mut stream).await;
        held.push(stream);
    }
    let mut beyond = TcpStream::connect(address).await.unwrap();
    let closed = time::within("its end", beyond.read(&mut [0; 1])).await.unwrap();
    assert!(closed.is_err() || closed.unwrap() == 0);
    assert_eq!(server.metrics.rejected_connections.get(), 1);
    // One place is free again.
    drop(held.pop());
    let again = async {
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let message = framed(&question(1, "missing.t.svc.cluster.local."));
            let mut answer = Vec::new();
            if stream.write_all(&message).await.is_ok()
                && matches!(read_frame(&mut stream, &mut answer).await, Ok(true))
            {
                return;
            }
        }
    };
    time::within("a connection that is taken", again).await.unwrap();
    token.cancel();
    time::within("the end of all connections", server.drained()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_ends() {
    let token = CancellationToken::new();
    let server = server(Slow::default(), &token);
    let address = tcp(&server).await;
    for started in [&b""[..], b"\0", b"\0\x20", b"\xff\xffab"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(started).await.unwrap();
        // Virtual time passes while everybody waits.
        let ended = time::within("the server's end of it", stream.read(&mut [0; 1])).await.unwrap();
        assert!(ended.is_err() || ended.unwrap() == 0, "{started:?}");
    }
}

#[tokio::test]
async fn frames_that_mean_nothing_end_their_connection_alone() {
    let token = CancellationToken::new();
    let server = server(Slow::default(), &token);
    let address = tcp(&server).await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for length in (0..60).chain([511, 4096, 65_535]) {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()[0]
        })
        .take(length)
        .collect();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(&framed(&noise)).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        time::within("its end", stream.read_to_end(&mut answer)).await.unwrap().ok();
        assert!(answer.is_empty() || answer.len() >= 14, "an answer is a whole message: {answer:?}");
    }
    // Two questions in one piece, and one in pieces.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (one, two) = (question(1, "a.t.svc.cluster.local."), question(2, "b.t.svc.cluster.local."));
    stream.write_all(&[framed(&one), framed(&two)].concat()).await.unwrap();
    assert_eq!(framed_answer(&mut stream).await.metadata.id, 1);
    assert_eq!(framed_answer(&mut stream).await.metadata.id, 2);
    for byte in framed(&question(3, "c.t.svc.cluster.local.")) {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(framed_answer(&mut stream).await.metadata.id, 3);
}
