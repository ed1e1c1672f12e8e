//! Tables of questions and answers, in the order of the specification.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn port(name: &str, number: u16) -> Port {
    Port { name: name.into(), protocol: "tcp".into(), number }
}

/// What is not ready is not read.
fn endpoint(last: u8, hostname: Option<&str>, ready: bool) -> Option<Endpoint> {
    ready.then(|| Endpoint { address: Ipv4Addr::new(10, 42, 0, last), hostname: hostname.map(Into::into) })
}

fn slice(endpoints: Vec<Option<Endpoint>>, ports: Vec<Port>) -> Option<SliceEntry> {
    Some(SliceEntry::new(endpoints.into_iter().flatten(), ports.into_iter()))
}

fn key(namespace: &str, name: &str) -> ServiceName {
    ServiceName { namespace: namespace.into(), name: name.into() }
}

fn service(kind: Kind, ports: Vec<Port>) -> Option<ServiceEntry> {
    Some(ServiceEntry { kind, ports: ports.into() })
}

fn web() -> Option<ServiceEntry> {
    service(Kind::ClusterIp(Ipv4Addr::new(10, 43, 0, 7)), vec![port("http", 80)])
}

fn zone() -> Zone {
    let networks = ["10.43.0.0/16", "10.42.0.0/16"].map(|text| text.parse().unwrap()).to_vec();
    let mut zone = Zone::new("cluster.local", Ipv4Addr::new(10, 43, 0, 10), networks).unwrap();
    zone.set_service(&key("default", "web"), web());
    let backends = vec![endpoint(8, None, true), endpoint(9, None, false)];
    zone.set_slice(&key("default", "web"), &"web-x".into(), slice(backends, vec![port("http", 8080)]));
    zone.set_service(&key("default", "db"), service(Kind::Headless, vec![port("sql", 5432)]));
    let endpoints = vec![endpoint(5, Some("db-0"), true), endpoint(6, None, true), endpoint(7, None, false)];
    zone.set_slice(&key("default", "db"), &"db-x".into(), slice(endpoints, vec![port("sql", 5433)]));
    zone.set_service(&key("default", "empty"), service(Kind::Headless, vec![port("sql", 5432)]));
    zone.set_service(&key("default", "down"), service(Kind::Headless, vec![port("sql", 5432)]));
    let down = slice(vec![endpoint(20, None, false)], vec![port("sql", 5432)]);
    zone.set_slice(&key("default", "down"), &"down-x".into(), down);
    let out = Kind::ExternalName(Name::from_ascii("example.org.").unwrap());
    zone.set_service(&key("other", "out"), service(out, vec![]));
    zone
}

fn in_zone(zone: &Zone, name: &str, kind: RecordType) -> Answer {
    let name = Name::from_ascii(name).unwrap();
    assert!(zone.covers(&name), "{name}");
    zone.answer(&name, kind)
}

fn ask(name: &str, kind: RecordType) -> Answer {
    in_zone(&zone(), name, kind)
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
        ("10-42-0-8.web.default.svc.cluster.local.", vec!["10.42.0.8"]),
        ("10-42-9-9.default.pod.cluster.local.", vec!["10.42.9.9"]),
        ("ns.dns.cluster.local.", vec!["10.43.0.10"]),
    ] {
        assert_eq!(texts(&ask(name, RecordType::A)), expected, "{name}");
    }
}

#[test]
fn names_that_exist_without_the_asked_type() {
    for (name, kind) in [
        ("web.default.svc.cluster.local.", RecordType::AAAA),
        ("db.default.svc.cluster.local.", RecordType::AAAA),
        ("db.default.svc.cluster.local.", RecordType::MX),
        ("default.svc.cluster.local.", RecordType::A),
        ("svc.cluster.local.", RecordType::A),
        ("default.pod.cluster.local.", RecordType::A),
        ("cluster.local.", RecordType::A),
        ("_tcp.web.default.svc.cluster.local.", RecordType::SRV),
        ("_http._tcp.web.default.svc.cluster.local.", RecordType::A),
        ("db-0.db.default.svc.cluster.local.", RecordType::AAAA),
        ("10-42-9-9.default.pod.cluster.local.", RecordType::AAAA),
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
        "x.web.default.svc.cluster.local.",
        "10-42-0-7.db.default.svc.cluster.local.",
        "10-42-0-9.web.default.svc.cluster.local.",
        "_udp.web.default.svc.cluster.local.",
        "_nope._tcp.web.default.svc.cluster.local.",
        "db-0.out.other.svc.cluster.local.",
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
fn headless_services_without_ready_endpoints_have_no_names() {
    for service in ["empty", "down"] {
        for prefix in ["", "_sql._tcp.", "_tcp.", "10-42-0-20."] {
            for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
                let name = format!("{prefix}{service}.default.svc.cluster.local.");
                assert_eq!(ask(&name, kind), Answer::NameError, "{name} {kind}");
            }
        }
    }
}

#[test]
fn pods_have_names_in_namespaces_that_exist() {
    let answer = |zone: &Zone, namespace: &str| {
        let pod = in_zone(zone, &format!("10-42-9-9.{namespace}.pod.cluster.local."), RecordType::A);
        let own = ["svc", "pod"].map(|of| in_zone(zone, &format!("{namespace}.{of}.cluster.local."), RecordType::A));
        assert_eq!(own[0], own[1]);
        assert_eq!(own[0] == Answer::NoData, matches!(pod, Answer::Records { .. }), "{namespace}");
        matches!(pod, Answer::Records { .. })
    };
    let mut zone = zone();
    assert!(answer(&zone, "nowhere"), "as long as nobody knows better");
    zone.set_namespace(&"quiet".into(), true);
    zone.namespaces_are_known();
    assert!(!answer(&zone, "nowhere"));
    assert!(answer(&zone, "quiet"));
    assert!(answer(&zone, "other"), "a Service came before its namespace");
    zone.set_namespace(&"quiet".into(), false);
    assert!(!answer(&zone, "quiet"));
}

#[test]
fn names_of_others() {
    for name in ["example.org.", "local.", ".", "1.0.0.127.in-addr.arpa.", "xcluster.local.", "0.42.10.in-addr.arpa."] {
        assert!(!zone().covers(&Name::from_ascii(name).unwrap()), "{name}");
    }
}

#[test]
fn ports_of_services_and_of_their_endpoints() {
    let clustered = ask("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV);
    assert_eq!(texts(&clustered), ["0 100 80 web.default.svc.cluster.local."]);
    let headless = ask("_sql._tcp.db.default.svc.cluster.local.", RecordType::SRV);
    assert_eq!(
        texts(&headless),
        ["0 50 5433 10-42-0-6.db.default.svc.cluster.local.", "0 50 5433 db-0.db.default.svc.cluster.local."]
    );
    let Answer::Records { additionals, .. } = headless else { panic!() };
    assert_eq!(additionals.len(), 2, "targets come with their addresses");
}

#[test]
fn reverse_names() {
    assert_eq!(texts(&ask("7.0.43.10.in-addr.arpa.", RecordType::PTR)), ["web.default.svc.cluster.local."]);
    assert_eq!(texts(&ask("5.0.42.10.in-addr.arpa.", RecordType::PTR)), ["db-0.db.default.svc.cluster.local."]);
    assert_eq!(texts(&ask("8.0.42.10.in-addr.arpa.", RecordType::PTR)), ["10-42-0-8.web.default.svc.cluster.local."]);
}

#[test]
fn reverse_names_of_a_range_that_is_added_later() {
    let mut zone = zone();
    let name = Name::from_ascii("7.0.99.10.in-addr.arpa.").unwrap();
    assert!(!zone.covers(&name));
    zone.set_service_ranges(vec!["10.99.0.0/24".parse().unwrap()]);
    assert!(zone.covers(&name));
    zone.set_service_ranges(Vec::new());
    assert!(!zone.covers(&name));
}

/// A pod behind an ordinary Service and two headless ones, whichever is seen first and goes first.
#[test]
fn an_address_has_a_name_in_each_service_it_is_behind() {
    let services = ["ordinary", "a", "b"];
    let entry = |service: &str| match service {
        "ordinary" => (web(), endpoint(30, None, true)),
        _ => (service_headless(), endpoint(30, Some("pod-0"), true)),
    };
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        for first_gone in 0..3 {
            let mut zone = zone();
            for service in order.map(|at| services[at]) {
                let (kind, endpoint) = entry(service);
                zone.set_slice(&key("x", service), &"s".into(), slice(vec![endpoint], vec![]));
                zone.set_service(&key("x", service), kind);
            }
            let names = |zone: &Zone| texts(&in_zone(zone, "30.0.42.10.in-addr.arpa.", RecordType::PTR));
            let all = [
                "pod-0.a.x.svc.cluster.local.",
                "pod-0.b.x.svc.cluster.local.",
                "10-42-0-30.ordinary.x.svc.cluster.local.",
            ];
            assert_eq!(names(&zone), all, "{order:?}");
            let gone = services[first_gone];
            zone.set_service(&key("x", gone), None);
            zone.set_slice(&key("x", gone), &"s".into(), None);
            let left: Vec<_> = all.into_iter().filter(|name| !name.contains(&format!(".{gone}.x."))).collect();
            assert_eq!(names(&zone), left, "{order:?} without {gone}");
        }
    }
}

fn service_headless() -> Option<ServiceEntry> {
    service(Kind::Headless, vec![])
}

#[test]
fn an_address_may_stand_in_two_slices_of_a_service() {
    let mut zone = zone();
    let moving = || slice(vec![endpoint(5, Some("db-0"), true)], vec![port("sql", 5433)]);
    zone.set_slice(&key("default", "db"), &"db-y".into(), moving());
    let names = |zone: &Zone| texts(&in_zone(zone, "5.0.42.10.in-addr.arpa.", RecordType::PTR));
    assert_eq!(names(&zone).len(), 1, "one name once");
    zone.set_slice(&key("default", "db"), &"db-x".into(), None);
    assert_eq!(names(&zone), ["db-0.db.default.svc.cluster.local."]);
}

/// A Service of so many slices, each with as many endpoints and ports as are read.
fn crowd(zone: &mut Zone, slices: u8) {
    let ports = || (1..=u16::MAX).map(|number| port(&format!("p{number}"), number));
    for at in 0..slices {
        let address = |n: u32| Ipv4Addr::from_bits(0x0a2a_0000 + (u32::from(at) << 16) + n);
        let hostname = |n: u32| (n.is_multiple_of(2)).then(|| format!("h-{at}-{n}").into());
        let endpoints = (0..u32::from(u16::MAX)).map(|n| Endpoint { address: address(n), hostname: hostname(n) });
        let entry = SliceEntry::new(endpoints, ports());
        zone.set_slice(&key("default", "crowd"), &format!("crowd-{at}").into(), Some(entry));
    }
    zone.set_service(&key("default", "crowd"), service(Kind::Headless, Vec::new()));
}

#[test]
fn no_answer_is_longer_than_a_message() {
    let mut zone = zone();
    crowd(&mut zone, 20);
    let ports: Vec<_> = (1..=u16::MAX).map(|number| port("", number)).collect();
    zone.set_service(
        &key("default", "wide"),
        service(Kind::ClusterIp([10, 43, 0, 9].into()), ports[..RECORDS].to_vec()),
    );
    for (name, kind, hosts) in [
        ("crowd.default.svc.cluster.local.", RecordType::A, 0),
        ("crowd.default.svc.cluster.local.", RecordType::SRV, RECORDS),
        ("_p7._tcp.crowd.default.svc.cluster.local.", RecordType::SRV, RECORDS),
        ("wide.default.svc.cluster.local.", RecordType::SRV, 1),
    ] {
        let Answer::Records { answers, additionals } = in_zone(&zone, name, kind) else { panic!("{name} {kind}") };
        // One more than fits, so that it is seen to be too many.
        assert_eq!(answers.len(), RECORDS, "{name} {kind}");
        assert!(additionals.len() <= hosts, "{name} {kind}: {}", additionals.len());
    }
    // Whoever is asked for by name is found, however many there are.
    for (label, address) in [("h-19-998", "10.61.3.230"), ("10-61-3-231", "10.61.3.231")] {
        let name = format!("{label}.crowd.default.svc.cluster.local.");
        assert_eq!(texts(&in_zone(&zone, &name, RecordType::A)), [address]);
    }
    assert_eq!(texts(&in_zone(&zone, "230.3.42.10.in-addr.arpa.", RecordType::PTR)).len(), 1);
}

#[test]
fn no_question_looks_at_everything() {
    let mut zone = zone();
    crowd(&mut zone, 40);
    let (entry, named) = zone.named("default", "crowd").unwrap();
    assert_eq!((named.ports(entry).count(), named.endpoints().count()), (LOOKS, RECORDS));
    let looked = std::cell::Cell::new(0);
    let never = |_: &Port| {
        looked.set(looked.get() + 1);
        false
    };
    assert_eq!((named.targets(never).count(), looked.get()), (0, LOOKS));
    let always = |_: &Port| {
        looked.set(looked.get() + 1);
        true
    };
    looked.set(0);
    assert_eq!(named.targets(always).count(), RECORDS);
    assert!(looked.get() <= RECORDS, "{}", looked.get());
    assert_eq!(
        (named.labelled("10-42-0-1").count(), named.labelled("h-7-2").count(), named.labelled("x").count()),
        (1, 1, 0)
    );
}

#[test]
fn an_address_in_many_slices_has_some_of_their_names() {
    let mut zone = zone();
    for at in 0..NAMES + 10 {
        let name = key("x", &format!("s{at}"));
        zone.set_slice(&name, &"s".into(), slice(vec![endpoint(40, None, true)], vec![]));
        zone.set_service(&name, service_headless());
    }
    let names = |zone: &Zone, address| texts(&in_zone(zone, address, RecordType::PTR)).len();
    assert_eq!(names(&zone, "40.0.42.10.in-addr.arpa."), NAMES);
    // One that has the address itself is not lost among them.
    zone.set_service(&key("z", "own"), service(Kind::ClusterIp([10, 42, 0, 40].into()), vec![]));
    assert_eq!(names(&zone, "40.0.42.10.in-addr.arpa."), 1);
}

#[test]
fn external_names_are_aliases() {
    let answer = ask("out.other.svc.cluster.local.", RecordType::A);
    assert!(matches!(answer, Answer::Alias { target, .. } if target.to_string() == "example.org."));
    assert_eq!(texts(&ask("out.other.svc.cluster.local.", RecordType::CNAME)), ["example.org."]);
}

#[test]
fn the_zone_itself() {
    assert_eq!(texts(&ask("dns-version.cluster.local.", RecordType::TXT)), ["1.1.0"]);
    assert_eq!(ask("cluster.local.", RecordType::SOA), records(vec![zone().soa()]));
    assert_eq!(texts(&ask("cluster.local.", RecordType::NS)), ["ns.dns.cluster.local."]);
}

#[test]
fn what_is_removed_is_gone() {
    let mut zone = zone();
    zone.set_slice(&key("default", "db"), &"db-x".into(), None);
    zone.set_slice(&key("default", "web"), &"web-x".into(), None);
    zone.set_service(&key("default", "web"), None);
    zone.set_service(&key("default", "never"), None);
    for name in [
        "db.default.svc.cluster.local.",
        "web.default.svc.cluster.local.",
        "7.0.43.10.in-addr.arpa.",
        "5.0.42.10.in-addr.arpa.",
    ] {
        assert_eq!(in_zone(&zone, name, RecordType::ANY), Answer::NameError, "{name}");
    }
    for (namespace, service) in [("default", "db"), ("default", "empty"), ("default", "down"), ("other", "out")] {
        zone.set_service(&key(namespace, service), None);
    }
    zone.set_slice(&key("default", "down"), &"down-x".into(), None);
    assert!(zone.namespaces.is_empty() && zone.owners.is_empty(), "{zone:?}");
}

#[test]
fn a_service_that_changes_its_address_leaves_the_old_one() {
    let mut zone = zone();
    let moved = service(Kind::ClusterIp(Ipv4Addr::new(10, 43, 0, 8)), vec![]);
    zone.set_service(&key("default", "web"), moved);
    assert_eq!(in_zone(&zone, "7.0.43.10.in-addr.arpa.", RecordType::PTR), Answer::NameError);
    assert_eq!(texts(&in_zone(&zone, "8.0.43.10.in-addr.arpa.", RecordType::PTR)), ["web.default.svc.cluster.local."]);
    zone.set_service(&key("default", "web"), web());
    zone.set_service(&key("default", "web"), web());
    assert_eq!(texts(&in_zone(&zone, "7.0.43.10.in-addr.arpa.", RecordType::PTR)), ["web.default.svc.cluster.local."]);
}

#[test]
fn a_domain_that_is_none_is_refused() {
    assert!(Zone::new("", Ipv4Addr::LOCALHOST, vec![]).is_none());
    assert!(Zone::new("..", Ipv4Addr::LOCALHOST, vec![]).is_none());
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
        let zone = zone();
        let below = name.clone().append_domain(zone.origin());
        for name in [Ok(name), below].into_iter().flatten() {
            for kind in [RecordType::A, RecordType::SRV, RecordType::PTR] {
                let known = matches!(zone.answer(&name, kind), Answer::Records { .. } | Answer::NoData);
                prop_assert!(!known || zone.covers(&name));
            }
        }
    }
}
