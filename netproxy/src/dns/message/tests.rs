//! Tables of packets, sizes, and bytes that mean nothing.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData};
use proptest::prelude::*;

use super::*;

fn name() -> Name {
    Name::from_ascii("web.default.svc.cluster.local.").unwrap()
}

fn ask(edns: Option<(u8, u16)>) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(), RecordType::A));
    message.metadata.recursion_desired = true;
    message.edns = edns.map(|(version, payload)| {
        let mut edns = Edns::new();
        edns.set_version(version).set_max_payload(payload).set_dnssec_ok(true);
        edns
    });
    message
}

fn question(message: &Message) -> Question {
    match read(&message.to_vec().unwrap()) {
        Packet::Asked(question, _) => question,
        other => panic!("{other:?}"),
    }
}

fn addresses(count: u16) -> Vec<Record> {
    let record = |n| Record::from_rdata(name(), 5, RData::A(A(Ipv4Addr::from_bits(0x0a2a_0000 + u32::from(n)))));
    (0..count).map(record).collect()
}

fn refusal(bytes: &[u8]) -> ResponseCode {
    match read(bytes) {
        Packet::Refused(question, code) => {
            let written = write(&question, Reply::code(code), true, Transport::Udp).unwrap();
            let message = Message::from_vec(&written).unwrap();
            assert_eq!((message.metadata.id, message.metadata.message_type), (7, MessageType::Response));
            message.metadata.response_code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_is_read_with_its_spelling() {
    let mut message = ask(None);
    message.queries[0].set_name(Name::from_ascii("WEB.default.SVC.cluster.local.").unwrap());
    let Packet::Asked(question, query) = read(&message.to_vec().unwrap()) else { panic!() };
    assert_eq!(query.name().to_string(), "WEB.default.SVC.cluster.local.");
    let written = write(&question, Reply::default(), true, Transport::Udp).unwrap();
    let answer = Message::from_vec(&written).unwrap();
    assert_eq!(answer.queries[0].name().to_string(), "WEB.default.SVC.cluster.local.");
    assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
    assert!(answer.edns.is_none(), "nobody asked for extensions");
}

#[test]
fn what_is_no_question_of_ours_is_refused_with_its_code() {
    let with = |change: &dyn Fn(&mut Message)| {
        let mut message = ask(None);
        change(&mut message);
        refusal(&message.to_vec().unwrap())
    };
    assert_eq!(with(&|m| m.metadata.op_code = OpCode::Notify), ResponseCode::NotImp);
    assert_eq!(with(&|m| m.metadata.op_code = OpCode::Update), ResponseCode::NotImp);
    assert_eq!(with(&|m| m.queries.clear()), ResponseCode::FormErr);
    assert_eq!(with(&|m| m.queries.push(Query::query(name(), RecordType::A))), ResponseCode::FormErr);
    let class = |m: &mut Message| {
        m.queries[0].set_query_class(DNSClass::CH);
    };
    let transfer = |m: &mut Message| {
        m.queries[0].set_query_type(RecordType::AXFR);
    };
    assert_eq!((with(&class), with(&transfer)), (ResponseCode::Refused, ResponseCode::Refused));
    let whole = ask(None).to_vec().unwrap();
    assert_eq!(refusal(&whole[..whole.len() - 3]), ResponseCode::FormErr, "cut short");
    let mut two = ask(Some((0, 1232)));
    two.additionals.push(Record::from(&two.edns.clone().unwrap()));
    assert_eq!(refusal(&two.to_vec().unwrap()), ResponseCode::FormErr, "two OPT records");
}

#[test]
fn versions_of_extensions_to_come_are_told_ours() {
    // The same number means something else in signatures, and reads as that.
    let code = refusal(&ask(Some((1, 1232))).to_vec().unwrap());
    assert_eq!((code.high(), code.low()), (ResponseCode::BADVERS.high(), ResponseCode::BADVERS.low()));
    let Packet::Refused(question, code) = read(&ask(Some((9, 1232))).to_vec().unwrap()) else { panic!() };
    let answer = Message::from_vec(&write(&question, Reply::code(code), true, Transport::Udp).unwrap()).unwrap();
    assert_eq!(answer.edns.unwrap().version(), 0);
}

#[test]
fn answers_to_others_and_scraps_are_ignored() {
    let mut answer = ask(None);
    answer.metadata.message_type = MessageType::Response;
    assert_eq!(read(&answer.to_vec().unwrap()), Packet::Ignored);
    for length in 0..12 {
        assert_eq!(read(&vec![0; length]), Packet::Ignored, "{length} bytes");
    }
}

#[test]
fn a_datagram_is_no_larger_than_its_client_takes() {
    for (edns, limit) in [
        (None, 512),
        (Some(0), 512),
        (Some(511), 512),
        (Some(512), 512),
        (Some(700), 700),
        (Some(1200), 1200),
        (Some(1232), 1232),
        (Some(4096), 1232),
        (Some(u16::MAX), 1232),
    ] {
        let question = question(&ask(edns.map(|payload| (0, payload))));
        let reply = Reply { answers: addresses(200), ..Reply::default() };
        let written = write(&question, reply, true, Transport::Udp).unwrap();
        assert!(written.len() <= limit, "{edns:?}: {} bytes", written.len());
        assert!(written.len() + 16 > limit, "{edns:?}: {} bytes use what there is", written.len());
        let answer = Message::from_vec(&written).unwrap();
        assert!(answer.metadata.truncation, "{edns:?}");
        assert_eq!(answer.edns.is_some(), edns.is_some(), "truncated or not, extensions are answered");
        assert!(answer.edns.is_none_or(|edns| edns.flags().dnssec_ok));
    }
}

#[test]
fn what_fits_is_whole_and_tcp_carries_all() {
    let question = question(&ask(None));
    let small = write(&question, Reply { answers: addresses(20), ..Reply::default() }, true, Transport::Udp).unwrap();
    let small = Message::from_vec(&small).unwrap();
    assert_eq!((small.answers.len(), small.metadata.truncation), (20, false));
    let large = Reply { answers: addresses(1000), ..Reply::default() };
    let large = Message::from_vec(&write(&question, large, true, Transport::Tcp).unwrap()).unwrap();
    assert_eq!((large.answers.len(), large.metadata.truncation), (1000, false));
}

#[test]
fn additional_records_give_way_without_a_word() {
    let question = question(&ask(None));
    let reply = Reply { answers: addresses(20), additionals: addresses(40), ..Reply::default() };
    let answer = Message::from_vec(&write(&question, reply, true, Transport::Udp).unwrap()).unwrap();
    assert_eq!((answer.answers.len(), answer.additionals.len(), answer.metadata.truncation), (20, 0, false));
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Packet::Refused(question, code) = read(&bytes) {
            prop_assert!(write(&question, Reply::code(code), true, Transport::Udp).is_some());
        }
    }

    /// A real question with bytes changed: decoders see more of such a packet than of noise.
    #[test]
    fn any_change_to_a_question_is_read(changes in proptest::collection::vec((0usize..90, any::<u8>()), 1..8)) {
        let mut bytes = ask(Some((0, 1232))).to_vec().unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        match read(&bytes) {
            Packet::Ignored => {}
            Packet::Refused(question, _) | Packet::Asked(question, _) => {
                let reply = Reply { answers: addresses(300), ..Reply::default() };
                let written = write(&question, reply, true, Transport::Udp);
                prop_assert!(written.is_none_or(|written| written.len() <= usize::from(UDP_PAYLOAD)));
            }
        }
    }
}
