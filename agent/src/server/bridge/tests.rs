//! Bridges between channels and streams, step by step.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const ALL: ExecStreams = ExecStreams { stdin: true, stdout: true, stderr: true, tty: false };

fn types(bridge: &Bridge) -> Vec<(u32, String)> {
    let opened = bridge.opening().into_iter().map(|frame| match frame {
        Frame::SynStream { id, headers, .. } => (id.0, headers.get("streamtype").unwrap().to_owned()),
        other => panic!("{other:?}"),
    });
    opened.collect()
}

fn data(id: u32, fin: bool, payload: &'static [u8]) -> Frame {
    Frame::Data { id: StreamId(id), fin, payload: Bytes::from_static(payload) }
}

fn message(channel: u8, payload: &'static [u8]) -> Output {
    Output::Message(channel, Bytes::from_static(payload))
}

#[test]
fn streams_by_request() {
    let named = |list: &[(u32, &str)]| list.iter().map(|(id, kind)| (*id, (*kind).to_owned())).collect::<Vec<_>>();
    let bridge = Bridge::exec(Version::V5, ALL);
    assert_eq!(types(&bridge), named(&[(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")]));
    assert_eq!(bridge.greeting(), [(1, Bytes::new())]);
    let bridge = Bridge::exec(Version::V4, ExecStreams { tty: true, ..ALL });
    assert_eq!(types(&bridge), named(&[(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")]));
    let bridge = Bridge::exec(Version::V4, ExecStreams { stdin: true, ..ExecStreams::default() });
    assert_eq!(bridge.greeting(), [(3, Bytes::new())]);
}

#[test]
fn carries_both_ways_until_all_is_ended() {
    let mut bridge = Bridge::exec(Version::V5, ALL);
    assert_eq!(bridge.from_client(0, "in".into()), Some(data(3, false, b"in")));
    assert_eq!(bridge.from_client(1, "wrong way".into()), None);
    assert_eq!(bridge.from_client(9, "nowhere".into()), None);
    assert_eq!(bridge.from_client(255, Bytes::from_static(&[0])), Some(data(3, true, b"")));
    assert_eq!(bridge.from_client(0, "late".into()), None);
    assert_eq!(bridge.from_client(255, Bytes::from_static(&[0])), None);
    assert_eq!(bridge.from_client(255, Bytes::new()), None);

    assert_eq!(bridge.from_runtime(data(5, false, b"out")), [message(1, b"out")]);
    assert_eq!(bridge.from_runtime(data(7, true, b"err")), [message(2, b"err")]);
    assert_eq!(bridge.from_runtime(data(7, false, b"late")), []);
    assert_eq!(bridge.from_runtime(data(99, false, b"x")), []);
    assert_eq!(bridge.from_runtime(Frame::Ping(2)), [Output::Frame(Frame::Ping(2))]);
    assert_eq!(bridge.from_runtime(Frame::Ping(1)), []);
    assert!(bridge.farewell().is_some());
    assert_eq!(
        bridge.from_runtime(data(1, true, b"{\"status\":\"Success\"}")),
        [message(3, b"{\"status\":\"Success\"}")]
    );
    assert!(bridge.farewell().is_none());
    assert!(!bridge.is_finished());
    assert_eq!(bridge.from_runtime(Frame::RstStream { id: StreamId(5), status: 5 }), []);
    assert!(bridge.is_finished());
}

#[test]
fn only_v5_knows_the_close_channel() {
    let mut bridge = Bridge::exec(Version::V4, ALL);
    assert_eq!(bridge.from_client(255, Bytes::from_static(&[0])), None);
    assert!(bridge.from_client(0, "in".into()).is_some());
}

#[test]
fn old_clients_get_text_and_only_on_failure() {
    let run = |parts: &[&'static [u8]]| {
        let mut bridge = Bridge::exec(Version::V1, ALL);
        let mut out = Vec::new();
        for part in parts {
            out.extend(bridge.from_runtime(data(1, false, part)));
        }
        out.extend(bridge.from_runtime(data(1, true, b"")));
        out
    };
    assert_eq!(run(&[b"{\"status\":", b"\"Success\"}"]), []);
    assert_eq!(run(&[b"{\"status\":\"Failure\",\"message\":\"code 3\"}"]), [message(3, b"code 3")]);
    assert_eq!(run(&[b"plain"]), [message(3, b"plain")]);
    assert_eq!(run(&[]), []);
}

#[test]
fn port_forward_has_two_channels_per_port() {
    let mut bridge = Bridge::port_forward(&[80, 0x1234]);
    let ports: Vec<_> = bridge.greeting().to_vec();
    assert_eq!(ports[0], (0, Bytes::from_static(&[80, 0])));
    assert_eq!(ports[1], (1, Bytes::from_static(&[80, 0])));
    assert_eq!(ports[3], (3, Bytes::from_static(&[0x34, 0x12])));
    let Frame::SynStream { headers, .. } = &bridge.opening()[3] else { panic!() };
    assert_eq!((headers.get("port"), headers.get("requestid")), (Some("4660"), Some("1")));
    assert_eq!(bridge.from_client(2, "x".into()), Some(data(7, false, b"x")));
    assert_eq!(bridge.from_client(3, "x".into()), None);
    assert_eq!(bridge.from_runtime(data(7, false, b"y")), [message(2, b"y")]);
    assert_eq!(bridge.from_runtime(data(5, false, b"refused")), [message(3, b"refused")]);
}

#[test]
fn subprotocols() {
    let choice = |offered: &[&str]| choose(EXEC_PROTOCOLS, offered).map(|p| p.name);
    assert_eq!(choice(&["v5.channel.k8s.io", "v4.channel.k8s.io"]), Some("v5.channel.k8s.io"));
    assert_eq!(choice(&["unknown", "base64.channel.k8s.io"]), Some("base64.channel.k8s.io"));
    assert_eq!(choice(&[]), Some(""));
    assert_eq!(choice(&["unknown"]), None);
    assert_eq!(choose(PORT_FORWARD_PROTOCOLS, &["v5.channel.k8s.io"]), None);
}

#[test]
fn base64_messages() {
    let protocol = choose(EXEC_PROTOCOLS, &["v4.base64.channel.k8s.io"]).unwrap();
    assert_eq!(protocol.encode(1, b"hi"), (true, b"1aGk=".to_vec()));
    assert_eq!(protocol.decode("0aGk=".into()), Some((0, "hi".into())));
    assert_eq!(protocol.decode("0!!".into()), None);
    assert_eq!(protocol.decode("xaGk=".into()), None);
    assert_eq!(protocol.decode(Bytes::new()), None);
}

proptest! {
    #[test]
    fn messages_round_trip(payload in proptest::collection::vec(any::<u8>(), 0..200), channel in 0u8..5, which in 0usize..6) {
        let protocol = EXEC_PROTOCOLS[which];
        let (_, wire) = protocol.encode(channel, &payload);
        prop_assert_eq!(protocol.decode(wire.into()), Some((channel, payload.into())));
    }

    #[test]
    fn garbage_never_panics(wire in proptest::collection::vec(any::<u8>(), 0..50), which in 0usize..6, id in any::<u32>()) {
        let mut bridge = Bridge::exec(EXEC_PROTOCOLS[which].version, ALL);
        if let Some((channel, payload)) = EXEC_PROTOCOLS[which].decode(wire.clone().into()) {
            let _ = bridge.from_client(channel, payload);
        }
        let _ = bridge.from_runtime(Frame::Data { id: StreamId(id), fin: true, payload: wire.into() });
        let _ = bridge.from_runtime(Frame::RstStream { id: StreamId(id), status: 0 });
    }
}
