//! Replies: aliases, what others say, what is not known yet, and the order of addresses.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use async_trait::async_trait;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::{A, CNAME};
use serde_json::{Value, json};

use super::*;
use crate::cluster::Batch;
use crate::snapshot::ServiceName;

/// Says one thing, and remembers what it was asked.
struct Others(UpstreamAnswer, Mutex<Vec<String>>);

#[async_trait]
impl Upstream for Others {
    async fn lookup(&self, name: &Name, _: RecordType) -> UpstreamAnswer {
        self.1.lock().unwrap().push(name.to_string());
        self.0.clone()
    }

    fn available(&self) -> bool {
        true
    }
}

fn batch(services: &[(&str, Value)], listed: bool) -> Batch {
    let service = |(name, spec): &(&str, Value)| {
        let name = ServiceName { namespace: "t".into(), name: (*name).into() };
        (name, Some(serde_json::from_value(json!({"spec": spec})).unwrap()))
    };
    Batch {
        services: services.iter().map(service).collect(),
        services_listed: listed,
        slices_listed: listed,
        ..Batch::default()
    }
}

fn to(target: &str) -> Value {
    json!({"type": "ExternalName", "externalName": target})
}

fn names(forwarded: UpstreamAnswer, listed: bool) -> NameResolver<Others> {
    let zone = Zone::new("cluster.local", Ipv4Addr::new(10, 43, 0, 10), vec!["10.43.0.0/16".parse().unwrap()]);
    let shared = SharedZone::new(zone.unwrap());
    let endless = (0..12).map(|n| (format!("e{n}"), to(&format!("e{}.t.svc.cluster.local", n + 1))));
    let endless: Vec<_> = endless.collect();
    let mut services = vec![
        ("front", json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]})),
        ("one", to("front.t.svc.cluster.local")),
        ("two", to("ONE.t.svc.cluster.local.")),
        ("nowhere", to("missing.t.svc.cluster.local")),
        ("circle", to("circle.t.svc.cluster.local")),
        ("out", to("www.example.org")),
        ("far", to("out.t.svc.cluster.local")),
        ("address", to("192.0.2.1")),
    ];
    services.extend(endless.iter().map(|(name, spec)| (name.as_str(), spec.clone())));
    shared.apply(&batch(&services, listed));
    NameResolver::new(Arc::new(shared), Others(forwarded, Mutex::default()))
}

fn record(name: &str, last: u8) -> Record {
    Record::from_rdata(Name::from_ascii(name).unwrap(), 60, RData::A(A(Ipv4Addr::new(192, 0, 2, last))))
}

async fn reply(names: &NameResolver<Others>, name: &str) -> Reply {
    let query = Query::query(Name::from_ascii(name).unwrap(), RecordType::A);
    match names.local(&query) {
        LocalAnswer::Known(reply) => reply,
        LocalAnswer::Outside { aliases, name } => names.outside(&query, aliases, &name).await,
    }
}

/// Code and data of an answer.
async fn said(forwarded: UpstreamAnswer, name: &str) -> (ResponseCode, Vec<String>) {
    let reply = reply(&names(forwarded, true), name).await;
    (reply.code, reply.answers.iter().map(|record| record.data.to_string()).collect())
}

fn found() -> UpstreamAnswer {
    UpstreamAnswer::Records(vec![record("www.example.org.", 1)])
}

fn nothing(code: ResponseCode) -> UpstreamAnswer {
    UpstreamAnswer::Negative { code, soa: Some(Box::new(record("example.org.", 9))) }
}

#[tokio::test]
async fn aliases_are_followed_to_their_end() {
    use ResponseCode::{NXDomain, NoError, Refused, ServFail};
    let (front, one, out) = ("front.t.svc.cluster.local.", "ONE.t.svc.cluster.local.", "www.example.org.");
    for (name, forwarded, code, data) in [
        ("one", UpstreamAnswer::Failed, NoError, vec![front, "10.43.0.7"]),
        ("two", UpstreamAnswer::Failed, NoError, vec![one, front, "10.43.0.7"]),
        ("out", found(), NoError, vec![out, "192.0.2.1"]),
        ("far", found(), NoError, vec!["out.t.svc.cluster.local.", out, "192.0.2.1"]),
        // Upstream's server: the alias stands, its end does not; inside the cluster neither counts.
        ("out", nothing(NXDomain), NoError, vec![out]),
        ("out", nothing(NoError), NoError, vec![out]),
        ("nowhere", found(), NoError, vec![]),
        ("circle", found(), NoError, vec![]),
        ("e0", found(), NoError, vec![]),
        // Nobody answered: the client shall try again, and not take it for an answer.
        ("out", UpstreamAnswer::Failed, ServFail, vec![]),
        ("far", UpstreamAnswer::Failed, ServFail, vec![]),
        ("out", UpstreamAnswer::Refused, Refused, vec![]),
        ("address", found(), NXDomain, vec![]),
    ] {
        let (seen_code, seen) = said(forwarded.clone(), &format!("{name}.t.svc.cluster.local.")).await;
        assert_eq!(
            (seen_code, seen.iter().map(String::as_str).collect::<Vec<_>>()),
            (code, data),
            "{name} {forwarded:?}"
        );
    }
}

#[tokio::test]
async fn names_of_others_are_what_others_say() {
    use ResponseCode::{NXDomain, NoError, Refused, ServFail};
    for (forwarded, code) in [
        (found(), NoError),
        (nothing(NXDomain), NXDomain),
        (nothing(NoError), NoError),
        (UpstreamAnswer::Failed, ServFail),
        (UpstreamAnswer::Refused, Refused),
    ] {
        let names = names(forwarded.clone(), true);
        let reply = reply(&names, "WWW.example.org.").await;
        assert_eq!(reply.code, code, "{forwarded:?}");
        assert!(!reply.authoritative);
        assert_eq!(reply.soa.is_some(), matches!(forwarded, UpstreamAnswer::Negative { .. }));
        assert_eq!(*names.upstream.1.lock().unwrap(), ["WWW.example.org."]);
        let spelling = |record: &Record| record.name.to_string();
        assert!(reply.answers.iter().all(|record| spelling(record) == "WWW.example.org."), "{:?}", reply.answers);
    }
}

#[tokio::test]
async fn before_the_lists_are_in_names_of_others_are_answered_and_the_clusters_are_not() {
    let names = names(found(), false);
    for (name, code) in [
        ("www.example.org.", ResponseCode::NoError),
        ("front.t.svc.cluster.local.", ResponseCode::ServFail),
        ("missing.t.svc.cluster.local.", ResponseCode::ServFail),
        ("7.0.43.10.in-addr.arpa.", ResponseCode::ServFail),
        ("7.0.0.10.in-addr.arpa.", ResponseCode::NoError),
    ] {
        assert_eq!(reply(&names, name).await.code, code, "{name}");
    }
}

#[tokio::test]
async fn negative_answers_say_how_long_to_remember_them() {
    let names = names(UpstreamAnswer::Failed, true);
    let missing = reply(&names, "missing.t.svc.cluster.local.").await;
    assert_eq!((missing.code, missing.authoritative), (ResponseCode::NXDomain, true));
    assert!(missing.soa.is_some());
    let empty = reply(&names, "t.svc.cluster.local.").await;
    assert_eq!((empty.code, empty.soa.is_some()), (ResponseCode::NoError, true));
}

#[tokio::test]
async fn addresses_change_places_from_answer_to_answer() {
    let answers = (1..=3).map(|last| record("www.example.org.", last)).collect();
    let names = names(UpstreamAnswer::Records(answers), true);
    let mut orders = BTreeSet::new();
    let mut first = BTreeSet::new();
    for _ in 0..60 {
        let answers = reply(&names, "www.example.org.").await.answers;
        let order: Vec<_> = answers.iter().map(|record| record.data.to_string()).collect();
        first.insert(order[0].clone());
        orders.insert(order);
    }
    assert_eq!((orders.len(), first.len()), (6, 3), "every order, and each address first");
}

#[test]
fn aliases_stay_before_what_they_lead_to() {
    let alias = Name::from_ascii("a.").unwrap();
    let alias = Record::from_rdata(alias, 5, RData::CNAME(CNAME(Name::from_ascii("b.").unwrap())));
    for seed in 0..20 {
        let mut records = vec![alias.clone(), record("b.", 1), record("b.", 2)];
        shuffle(&mut records, &mut Random(seed));
        assert_eq!(records[0], alias);
        assert_eq!(records.len(), 3);
        assert_ne!(records[1], records[2]);
    }
}
