//! Real packets over loopback: questions, garbage, and a zone that is not
//! complete yet.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_server::Server;
use tokio::net::UdpSocket;

use super::handler::Handler;
use super::read::{Kind, ServiceEntry};
use super::watch::SharedZone;
use super::zone::{ServiceKey, Zone};

async fn serve() -> (Server<Handler>, UdpSocket, Arc<SharedZone>) {
    let mut zone = Zone::new("cluster.local", vec!["10.43.0.0/16".parse().unwrap()]).unwrap();
    let key = ServiceKey { namespace: "default".to_owned(), name: "web".to_owned() };
    zone.put_service(key, ServiceEntry { kind: Kind::ClusterIp([10, 43, 0, 7].into()), ports: vec![] });
    let shared = Arc::new(SharedZone::new(zone));
    let mut server = Server::new(Handler::new(shared.clone(), None));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(socket.local_addr().unwrap()).await.unwrap();
    server.register_socket(socket);
    (server, client, shared)
}

async fn ask(client: &UdpSocket, name: &str) -> Message {
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    client.send(&question.to_vec().unwrap()).await.unwrap();
    let mut answer = [0; 2048];
    let received = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut answer)).await;
    Message::from_vec(&answer[..received.expect("an answer in time").unwrap()]).unwrap()
}

#[tokio::test]
async fn questions_are_answered_with_their_own_spelling() {
    let (_server, client, shared) = serve().await;
    assert_eq!(ask(&client, "web.default.svc.cluster.local.").await.metadata.response_code, ResponseCode::ServFail);
    shared.complete();
    let answer = ask(&client, "WEB.default.svc.cluster.LOCAL.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.metadata.authoritative);
    assert_eq!(answer.answers[0].data.to_string(), "10.43.0.7");
    assert!(answer.answers[0].name.to_string().starts_with("WEB."), "{}", answer.answers[0].name);
    let missing = ask(&client, "nope.default.svc.cluster.local.").await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities.len(), 1, "the start of authority says how long to remember");
    assert_eq!(ask(&client, "example.org.").await.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn garbage_is_survived() {
    let (_server, client, shared) = serve().await;
    shared.complete();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for length in (0..200).chain([1500, 9000]) {
        let mut packet = vec![0u8; length];
        for byte in &mut packet {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = seed.to_le_bytes()[0];
        }
        client.send(&packet).await.unwrap();
    }
    // Answers to garbage may come first; the right one carries our id.
    loop {
        let answer = ask(&client, "web.default.svc.cluster.local.").await;
        if answer.metadata.id == 7 && !answer.answers.is_empty() {
            break;
        }
    }
}
