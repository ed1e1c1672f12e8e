//! Cluster DNS as a whole, on sockets of loopback: beside a server that has the port, through a
//! resolver configuration that changes, and under noise.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::time;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::cluster::Batch;
use crate::snapshot::ServiceName;

fn zone() -> Arc<SharedZone> {
    let zone = Zone::new("cluster.local", Ipv4Addr::LOCALHOST, vec!["10.43.0.0/16".parse().unwrap()]).unwrap();
    Arc::new(SharedZone::new(zone))
}

fn services(listed: bool) -> Batch {
    let many: Vec<_> = (1..200).map(|n| json!({"addresses": [format!("10.42.0.{n}")]})).collect();
    let name = |name: &str| ServiceName { namespace: "default".into(), name: name.into() };
    let service = |spec| Some(serde_json::from_value(json!({"spec": spec})).unwrap());
    let slice = serde_json::from_value(json!({"addressType": "IPv4", "endpoints": many})).unwrap();
    Batch {
        services: [
            (name("web"), service(json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}))),
            (name("many"), service(json!({"clusterIP": "None"}))),
        ]
        .into(),
        slices: [((name("many"), "many-1".into()), Some(slice))].into(),
        services_listed: listed,
        slices_listed: listed,
        ..Batch::default()
    }
}

struct Running {
    address: SocketAddrV4,
    metrics: Metrics,
    client: UdpSocket,
    _server: AbortOnDropHandle<()>,
}

/// Serves on `address`.
async fn start(address: SocketAddrV4, zone: Arc<SharedZone>, resolv_conf: Option<PathBuf>) -> Running {
    let metrics = Metrics::default();
    let names = NameResolver::new(zone, Forwarder::new(resolv_conf, "192.0.2.53".parse().unwrap()));
    let server = Server::new(names, "cluster.local.".to_owned(), metrics.clone(), CancellationToken::new());
    let counted = metrics.clone();
    let task = tokio::spawn(async move { listen(&server, address, &counted).await });
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    Running { address, metrics, client, _server: AbortOnDropHandle::new(task) }
}

/// Nobody else's, for both transports.
fn own_address() -> SocketAddrV4 {
    SocketAddrV4::new(harness::net::own_address(), 5353)
}

fn question(name: &str) -> Vec<u8> {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    question.to_vec().unwrap()
}

impl Running {
    async fn listens(&self) {
        let both = async || [Transport::Udp, Transport::Tcp].iter().all(|one| self.metrics.is_listening(*one));
        time::eventually_true("both sockets", both).await.unwrap();
    }

    /// Asks until somebody answers: datagrams sent before the socket was there are lost.
    async fn ask(&self, name: &str) -> Message {
        let mut bytes = [0; 2048];
        let asked = time::eventually("an answer", async || {
            let _ = self.client.send(&question(name)).await;
            Ok(timeout(time::attempt(), self.client.recv(&mut bytes)).await??)
        });
        let length = asked.await.unwrap();
        Message::from_vec(&bytes[..length]).unwrap()
    }
}

/// The composition root runs it on any thread.
#[test]
fn the_whole_may_move_between_threads() {
    fn moves<F: Future + Send>(_: impl FnOnce(DnsConfig, Subscription, CancellationToken) -> F) {}
    moves(run);
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

#[tokio::test]
async fn questions_are_answered_with_their_own_spelling() {
    let shared = zone();
    let running = start(own_address(), shared.clone(), None).await;
    assert_eq!(code(&running.ask("web.default.svc.cluster.local.").await), ResponseCode::ServFail);
    shared.apply(&services(true));
    let answer = running.ask("WEB.default.svc.cluster.LOCAL.").await;
    assert_eq!(code(&answer), ResponseCode::NoError);
    assert!(answer.metadata.authoritative);
    assert_eq!(answer.answers[0].data.to_string(), "10.43.0.7");
    assert!(answer.answers[0].name.to_string().starts_with("WEB."), "{}", answer.answers[0].name);
    let missing = running.ask("nope.default.svc.cluster.local.").await;
    assert_eq!((code(&missing), missing.authorities.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(code(&running.ask("example.org.").await), ResponseCode::Refused);
}

#[tokio::test]
async fn what_is_too_long_for_a_datagram_is_whole_by_tcp() {
    let shared = zone();
    shared.apply(&services(true));
    let running = start(own_address(), shared, None).await;
    let short = running.ask("many.default.svc.cluster.local.").await;
    assert!(short.metadata.truncation && short.answers.len() < 199);
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let message = question("many.default.svc.cluster.local.");
    stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
    stream.write_all(&message).await.unwrap();
    let length = time::within("a length", stream.read_u16()).await.unwrap().unwrap();
    let mut bytes = vec![0; usize::from(length)];
    time::within("an answer", stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    let whole = Message::from_vec(&bytes).unwrap();
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 199);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_taken_is_waited_for() {
    let address = own_address();
    let (udp, tcp) = (UdpSocket::bind(address).await.unwrap(), TcpListener::bind(address).await.unwrap());
    let shared = zone();
    shared.apply(&services(true));
    let running = start(address, shared, None).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!running.metrics.is_listening(Transport::Udp) && !running.metrics.is_listening(Transport::Tcp));
    drop((udp, tcp));
    running.listens().await;
    assert_eq!(code(&running.ask("web.default.svc.cluster.local.").await), ResponseCode::NoError);
}

/// Its address is brought by somebody else, before or after.
#[tokio::test]
async fn an_address_that_is_not_here_yet_can_be_listened_on() {
    let address = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 53), 0);
    assert!(UdpSocket::bind(address).await.is_err(), "it is not this machine's");
    assert!(bind_udp(address).is_ok() && bind_tcp(address).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_ends_is_started_again() {
    let metrics = Metrics::default();
    let started = AtomicUsize::new(0);
    let serve = || async {
        match started.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(io::Error::other("lost")),
            1 => Err(io::Error::other("taken")),
            _ => std::future::pending().await,
        }
    };
    let keeping = keep(Transport::Udp, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53), &metrics, serve);
    assert!(timeout(Duration::from_secs(60), keeping).await.is_err(), "it goes on");
    assert_eq!(started.into_inner(), 3);
    assert!(metrics.is_listening(Transport::Udp));
}

/// A name server that knows one address.
async fn name_server(last: u8, port: u16) -> (u16, AbortOnDropHandle<()>) {
    // Resolver configurations name addresses alone, so each server has one of its own.
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 53, 0, last), port)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut bytes = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut bytes).await {
            let Ok(asked) = Message::from_vec(&bytes[..length]) else { continue };
            let mut answer = Message::response(asked.metadata.id, OpCode::Query);
            answer.metadata.recursion_available = true;
            answer.queries.clone_from(&asked.queries);
            let data = RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
            answer.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 1, data));
            let _ = socket.send_to(&answer.to_vec().unwrap(), client).await;
        }
    });
    (port, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn the_resolver_configuration_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let (port, _one) = name_server(1, 0).await;
    let (_, _two) = name_server(2, port).await;
    let forwarder = Forwarder::new(Some(path.clone()), "192.0.2.53".parse().unwrap()).at_port(port);
    let ask = async |name: &str| forwarder.lookup(&Name::from_ascii(name).unwrap(), RecordType::A).await;
    let told = |forwarded| match forwarded {
        forward::UpstreamAnswer::Records(records) => records[0].data.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(told(ask("a.example.org.").await), "Failed", "no file yet");
    fs::write(&path, "").unwrap();
    assert_eq!(told(ask("a.example.org.").await), "Failed", "empty at boot: the client may try again");
    fs::write(&path, "nameserver 192.0.2.53\nnameserver 127.53.0.1\n").unwrap();
    assert_eq!(told(ask("a.example.org.").await), "192.0.2.1");
    fs::write(&path, "nameserver 127.53.0.2\n").unwrap();
    assert_eq!(told(ask("a.example.org.").await), "192.0.2.2", "what another server said is forgotten");
    fs::remove_file(&path).unwrap();
    assert_eq!(told(ask("a.example.org.").await), "Failed");
}

#[tokio::test]
async fn garbage_is_survived() {
    let shared = zone();
    shared.apply(&services(true));
    let running = start(own_address(), shared, None).await;
    running.listens().await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for length in (0..200).chain([1500, 9000]) {
        let mut packet = vec![0u8; length];
        for byte in &mut packet {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = seed.to_le_bytes()[0];
        }
        running.client.send(&packet).await.unwrap();
    }
    // Answers to garbage may come first; the right one carries our id.
    loop {
        let answer = running.ask("web.default.svc.cluster.local.").await;
        if answer.metadata.id == 7 && !answer.answers.is_empty() {
            break;
        }
    }
}
