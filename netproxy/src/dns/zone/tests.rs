//! Tables of questions and answers, in the order of the specification.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::dns::read::{Endpoint, Port, ServiceEntry, SliceEntry};

fn port(name: &str, number: u16) -> Port {
    Port { name: name.to_owned(), protocol: "tcp".to_owned(), number }
}

fn endpoint(last: u8, hostname: Option<&str>, ready: bool) -> Endpoint {
    Endpoint { address: Ipv4Addr::new(10, 42, 0, last), hostname: hostname.map(str::to_owned), ready }
}

fn zone() -> Zone {
    let networks = ["10.43.0.0/16", "10.42.0.0/16"].map(|text| text.parse().unwrap()).to_vec();
    let mut zone = Zone::new("cluster.local", networks).unwrap();
    let web = ServiceEntry { kind: Kind::ClusterIp(Ipv4Addr::new(10, 43, 0, 7)), ports: vec![port("http", 80)] };
    zone.put_service(key("default", "web"), web);
    zone.put_service(key("default", "db"), ServiceEntry { kind: Kind::Headless, ports: vec![port("sql", 5432)] });
    let endpoints = vec![endpoint(5, Some("db-0"), true), endpoint(6, None, true), endpoint(7, None, false)];
    zone.put_slice(&key("default", "db"), "db-x", SliceEntry { endpoints, ports: vec![port("sql", 5433)] });
    zone.put_service(key("default", "empty"), ServiceEntry { kind: Kind::Headless, ports: vec![] });
    let out = Kind::ExternalName(Name::from_ascii("example.org.").unwrap());
    zone.put_service(key("other", "out"), ServiceEntry { kind: out, ports: vec![] });
    zone
}

fn ask(name: &str, kind: RecordType) -> Answer {
    zone().answer(&Name::from_ascii(name).unwrap(), kind)
}

fn texts(answer: &Answer) -> Vec<String> {
    let Answer::Records { answers, .. } = answer else { return vec![format!("{answer:?}")] };
    answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn addresses_of_services() {
    for (name, expected) in [
        ("web.default.svc.cluster.local.", vec!["10.43.0.7"]),
        ("WEB.Default.SVC.cluster.local.", vec!["10.43.0.7"]),
        ("db.default.svc.cluster.local.", vec!["10.42.0.5", "10.42.0.6"]),
        ("db-0.db.default.svc.cluster.local.", vec!["10.42.0.5"]),
        ("10-42-0-6.db.default.svc.cluster.local.", vec!["10.42.0.6"]),
        ("10-42-9-9.default.pod.cluster.local.", vec!["10.42.9.9"]),
    ] {
        let seen: Vec<_> = found(&ask(name, RecordType::A)).iter().map(IpAddr::to_string).collect();
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn names_that_exist_without_the_asked_type() {
    for (name, kind) in [
        ("web.default.svc.cluster.local.", RecordType::AAAA),
        ("db.default.svc.cluster.local.", RecordType::AAAA),
        ("empty.default.svc.cluster.local.", RecordType::A),
        ("default.svc.cluster.local.", RecordType::A),
        ("svc.cluster.local.", RecordType::A),
        ("cluster.local.", RecordType::A),
        ("_tcp.web.default.svc.cluster.local.", RecordType::SRV),
        ("_http._tcp.web.default.svc.cluster.local.", RecordType::A),
        ("7.0.43.10.in-addr.arpa.", RecordType::A),
    ] {
        assert_eq!(ask(name, kind), Answer::NoData, "{name} {kind}");
    }
}

#[test]
fn names_that_do_not_exist() {
    for name in [
        "nope.default.svc.cluster.local.",
        "web.nowhere.svc.cluster.local.",
        "nowhere.svc.cluster.local.",
        "x.web.default.svc.cluster.local.",
        "10-42-0-7.db.default.svc.cluster.local.",
        "_udp.web.default.svc.cluster.local.",
        "_nope._tcp.web.default.svc.cluster.local.",
        "nope.cluster.local.",
        "not-an-address.default.pod.cluster.local.",
        "example.org.default.svc.cluster.local.",
        "9.9.43.10.in-addr.arpa.",
        "7.0.42.10.in-addr.arpa.",
    ] {
        assert_eq!(ask(name, RecordType::A), Answer::NameError, "{name}");
    }
}

#[test]
fn names_of_others() {
    for name in ["example.org.", "local.", ".", "1.0.0.127.in-addr.arpa.", "xcluster.local."] {
        assert_eq!(ask(name, RecordType::A), Answer::Elsewhere, "{name}");
    }
}

#[test]
fn ports_of_services_and_of_their_endpoints() {
    let clustered = ask("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV);
    assert_eq!(texts(&clustered), ["0 100 80 web.default.svc.cluster.local."]);
    let headless = ask("_sql._tcp.db.default.svc.cluster.local.", RecordType::SRV);
    assert_eq!(
        texts(&headless),
        ["0 100 5433 db-0.db.default.svc.cluster.local.", "0 100 5433 10-42-0-6.db.default.svc.cluster.local."]
    );
    let Answer::Records { additionals, .. } = headless else { panic!() };
    assert_eq!(additionals.len(), 2, "targets come with their addresses");
}

#[test]
fn reverse_names() {
    assert_eq!(texts(&ask("7.0.43.10.in-addr.arpa.", RecordType::PTR)), ["web.default.svc.cluster.local."]);
    assert_eq!(texts(&ask("5.0.42.10.in-addr.arpa.", RecordType::PTR)), ["db-0.db.default.svc.cluster.local."]);
}

#[test]
fn external_names_are_aliases() {
    let answer = ask("out.other.svc.cluster.local.", RecordType::A);
    assert!(matches!(answer, Answer::Alias { target, .. } if target.to_string() == "example.org."));
    assert_eq!(texts(&ask("out.other.svc.cluster.local.", RecordType::CNAME)), ["example.org."]);
}

#[test]
fn the_version_of_the_naming_scheme() {
    assert_eq!(texts(&ask("dns-version.cluster.local.", RecordType::TXT)), ["1.1.0"]);
    assert_eq!(ask("cluster.local.", RecordType::SOA), records(vec![zone().soa()]));
}

#[test]
fn what_is_removed_is_gone() {
    let mut zone = zone();
    zone.remove_slice(&key("default", "db"), "db-x");
    zone.remove_service(&key("default", "web"));
    let answer = |name: &str, kind| zone.answer(&Name::from_ascii(name).unwrap(), kind);
    assert_eq!(answer("db.default.svc.cluster.local.", RecordType::A), Answer::NoData);
    assert_eq!(answer("web.default.svc.cluster.local.", RecordType::A), Answer::NameError);
    for name in ["7.0.43.10.in-addr.arpa.", "5.0.42.10.in-addr.arpa."] {
        assert_eq!(answer(name, RecordType::PTR), Answer::NameError);
    }
}

#[test]
fn a_domain_that_is_none_is_refused() {
    assert!(Zone::new("", vec![]).is_none());
    assert!(Zone::new("..", vec![]).is_none());
}

proptest! {
    #[test]
    fn any_name_gets_an_answer(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8)) {
        let mut name = Name::root();
        for label in labels.iter().rev() {
            if let Ok(longer) = name.clone().prepend_label(label.as_slice()) {
                name = longer;
            }
        }
        for kind in [RecordType::A, RecordType::SRV, RecordType::PTR] {
            let _ = zone().answer(&name, kind);
        }
    }
}
