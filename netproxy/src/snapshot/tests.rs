//! From API objects to the snapshot: what counts, what is ignored, what garbage does.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::convert::*;
use super::*;
use crate::api::{EndpointSlice, Service};

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "svc"}, "spec": spec})).unwrap()
}

fn slice(labels: Value, ports: Value, endpoints: Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "svc-1", "labels": labels},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
    .unwrap()
}

fn of_svc() -> Value {
    json!({"kubernetes.io/service-name": "svc"})
}

#[test]
fn reads_a_full_service() {
    let mut full = service(json!({
        "type": "LoadBalancer", "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"],
        "ports": [
            {"name": "http", "port": 80, "nodePort": 30080, "targetPort": 8080},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
        "externalIPs": ["198.51.100.7", "fd00::1", "garbage", "198.51.100.7"],
        "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31234, "loadBalancerSourceRanges": [" 203.0.113.0/24", "nonsense"],
    }));
    full.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.9"}, {"ip": "198.51.100.8", "ipMode": "Proxy"}, {"hostname": "lb.example"}, {"ip": "x"},
    ]}}))
    .unwrap();
    let ports = service_ports(&full);
    assert_eq!(ports.len(), 2);
    let http = &ports[0];
    assert_eq!((&*http.port_name, http.protocol, http.port, http.node_port), ("http", Protocol::Tcp, 80, 30080));
    assert_eq!(*http.external_ips, [Ipv4Addr::new(198, 51, 100, 7)]);
    assert_eq!(*http.load_balancer_ips, [Ipv4Addr::new(198, 51, 100, 9)]);
    assert_eq!(http.source_ranges, Some(vec!["203.0.113.0/24".parse().unwrap()]));
    assert_eq!((http.affinity, http.internal_local, http.external_local), (Some(10_800), true, true));
    assert_eq!(http.health_check_node_port, 31234);
    assert_eq!((ports[1].protocol, ports[1].node_port), (Protocol::Udp, 0));
}

#[test]
fn only_a_load_balancer_with_local_policy_is_asked_for_its_health() {
    let with = |kind: &str, policy: &str| {
        let spec = json!({"type": kind, "clusterIP": "10.43.0.1", "externalTrafficPolicy": policy,
            "healthCheckNodePort": 10250, "ports": [{"port": 80}]});
        service_ports(&service(spec))[0].health_check_node_port
    };
    assert_eq!(with("LoadBalancer", "Local"), 10250);
    for (kind, policy) in [("LoadBalancer", "Cluster"), ("NodePort", "Local"), ("ClusterIP", "Local"), ("", "")] {
        assert_eq!(with(kind, policy), 0, "{kind} {policy}");
    }
}

#[test]
fn ignores_what_is_not_ours_and_what_makes_no_sense() {
    let ports = json!([{"port": 80}]);
    let with = |spec: Value| service_ports(&service(spec)).len();
    assert_eq!(with(json!({"clusterIP": "10.43.0.1", "ports": ports})), 1);
    assert_eq!(with(json!({"clusterIP": "None", "ports": ports})), 0, "headless");
    assert_eq!(with(json!({"clusterIP": "", "ports": ports})), 0, "not allocated yet");
    assert_eq!(with(json!({"type": "ExternalName", "externalName": "x", "clusterIP": "10.43.0.1", "ports": ports})), 0);
    assert_eq!(with(json!({"clusterIP": "fd00::1", "ports": ports})), 0, "another family");
    assert_eq!(with(json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.43.0.1"], "ports": ports})), 1);
    for bad in ["127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.43.0.256", "💥"] {
        assert_eq!(with(json!({"clusterIP": bad, "ports": ports})), 0, "{bad}");
    }
    for port in
        [json!({"port": 0}), json!({"port": -1}), json!({"port": 65536}), json!({"port": 80, "protocol": "ICMP"})]
    {
        assert_eq!(with(json!({"clusterIP": "10.43.0.1", "ports": [port, {"name": "b", "port": 81}]})), 1, "{port}");
    }
    let mut other = service(json!({"type": "NodePort", "clusterIP": "10.43.0.1", "externalIPs": ["198.51.100.7"],
        "ports": [{"port": 80, "nodePort": 30080}], "externalTrafficPolicy": "Local"}));
    other.metadata.labels = [(LABEL_SERVICE_PROXY_NAME.to_owned(), "cilium".to_owned())].into();
    let claimed = ServicePort::new(Protocol::Tcp, Ipv4Addr::new(10, 43, 0, 1), 80);
    assert_eq!(service_ports(&other), [ServicePort { proxied: false, ..claimed }]);
    assert!(service_ports(&Service::default()).is_empty());
}

#[test]
fn reads_slices() {
    let ports = json!([{"name": "http", "port": 8080}, {"name": "all"}, {"name": "x", "port": 99999}]);
    let endpoints = json!([
        {"addresses": ["10.42.0.1", "10.42.9.9"], "nodeName": "here", "conditions": {"ready": true}},
        {"addresses": ["10.42.0.2"], "nodeName": "there", "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.42.0.3"], "hints": {"forZones": [{"name": "a"}]}},
        {"addresses": ["fd00::1"]}, {"addresses": []}, {"addresses": ["0.0.0.0"]}, {"addresses": ["zzz"]},
    ]);
    let object = slice(of_svc(), ports, endpoints);
    let content = slice_content(&object, "here");
    assert_eq!(content.ports, [("http".into(), Protocol::Tcp, 8080)]);
    let flags: Vec<_> = content
        .endpoints
        .iter()
        .map(|e| (e.addr.octets()[3], e.ready, e.serving, e.terminating, e.local, e.node_unknown, e.hints.is_some()))
        .collect();
    assert_eq!(
        flags,
        [
            (1, true, true, false, true, false, false),
            (2, false, true, true, false, false, false),
            (3, true, true, false, false, true, true),
        ]
    );
    let six = EndpointSlice { address_type: "IPv6".to_owned(), ..object.clone() };
    assert_eq!(slice_content(&six, "here"), Slice::default());
    assert!(is_proxied(&object));
    for labels in [
        json!({"kubernetes.io/service-name": "svc", "service.kubernetes.io/headless": ""}),
        json!({"kubernetes.io/service-name": "svc", "service.kubernetes.io/service-proxy-name": "x"}),
    ] {
        assert!(!is_proxied(&slice(labels, json!([]), json!([]))));
    }
    let mut timed = object;
    timed.metadata.annotations.last_change_trigger_time = Some("2026-01-02T03:04:05.5Z".to_owned());
    assert_eq!(trigger_time(&timed), Some(1_767_323_045_500));
    timed.metadata.annotations.last_change_trigger_time = Some("yesterday".to_owned());
    assert_eq!(trigger_time(&timed), None);
}

fn name() -> ServiceName {
    ServiceName { namespace: "ns".into(), name: "svc".into() }
}

fn ports() -> Vec<ServicePort> {
    service_ports(&service(json!({"clusterIP": "10.43.0.1", "ports": [{"name": "http", "port": 80}]})))
}

fn content(endpoints: Value) -> Slice {
    slice_content(&slice(of_svc(), json!([{"name": "http", "port": 8080}]), endpoints), "here")
}

#[test]
fn nothing_counts_before_both_lists_came() {
    let mut state = State::new();
    state.apply(Change::Service(name(), ports()));
    assert!(!state.synced());
    state.apply(Change::ServicesListed);
    assert!(!state.synced());
    state.apply(Change::SlicesListed);
    assert!(state.synced());
}

#[test]
fn remembers_what_changed_and_only_that() {
    let mut state = State::new();
    state.apply(Change::Service(name(), ports()));
    let one = || content(json!([{"addresses": ["10.42.0.1"], "nodeName": "here"}]));
    state.apply(Change::Slice(name(), "a".into(), one()));
    assert_eq!(state.take_changed().into_iter().collect::<Vec<_>>(), [name()]);
    state.apply(Change::Service(name(), ports()));
    state.apply(Change::Slice(name(), "a".into(), one()));
    state.apply(Change::ServicesListed);
    state.apply(Change::SlicesListed);
    assert!(state.take_changed().is_empty(), "the same again is no change");
    // Slices of Services that are not served wait for their Service.
    let other = ServiceName { name: "other".into(), ..name() };
    state.apply(Change::Slice(other.clone(), "b".into(), one()));
    assert!(state.take_changed().is_empty());
    state.apply(Change::Service(other.clone(), ports()));
    assert_eq!(state.resolve(&other)[0].endpoints.len(), 1);
    state.take_changed();
    state.apply(Change::ServiceGone(name()));
    state.apply(Change::ServiceGone(other));
    assert_eq!(state.take_changed().len(), 2);
    assert_eq!(state.services().count(), 0);
    assert!(state.resolve(&name()).is_empty());
}

#[test]
fn merges_slices_and_prefers_the_more_useful_copy() {
    let mut state = State::new();
    state.apply(Change::Service(name(), ports()));
    let old = content(json!([
        {"addresses": ["10.42.0.2"], "conditions": {"ready": false}}, {"addresses": ["10.42.0.1"]}
    ]));
    let new = content(json!([{"addresses": ["10.42.0.2"], "conditions": {"ready": true}}]));
    state.apply(Change::Slice(name(), "a".into(), old));
    state.apply(Change::Slice(name(), "b".into(), new));
    let seen: Vec<_> =
        state.resolve(&name())[0].endpoints.iter().map(|e| (e.addr.octets()[3], e.port, e.ready)).collect();
    assert_eq!(seen, [(1, 8080, true), (2, 8080, true)]);
    state.apply(Change::SliceGone(name(), "b".into()));
    assert!(!state.resolve(&name())[0].endpoints[1].ready);
}

#[test]
fn a_new_zone_changes_what_has_hints() {
    let mut state = State::new();
    state.apply(Change::Service(name(), ports()));
    state.apply(Change::Slice(name(), "a".into(), content(json!([{"addresses": ["10.42.0.1"]}]))));
    state.take_changed();
    state.apply(Change::Zone(Some("a".into())));
    assert!(state.take_changed().is_empty());
    let hinted = content(json!([{"addresses": ["10.42.0.1"], "hints": {"forZones": [{"name": "a"}]}}]));
    state.apply(Change::Slice(name(), "a".into(), hinted));
    state.take_changed();
    state.apply(Change::Zone(Some("b".into())));
    assert_eq!(state.take_changed().len(), 1);
    state.apply(Change::Zone(Some("b".into())));
    assert!(state.take_changed().is_empty());
}

#[test]
fn a_service_has_its_share_of_the_table_and_no_more() {
    let svc = || ServiceName { namespace: "ns".into(), name: "svc".into() };
    let ports = |count: u16| {
        let port = |number: u16| ServicePort {
            port_name: number.to_string().into(),
            ..ServicePort::new(Protocol::Tcp, Ipv4Addr::new(10, 43, 0, 1), number)
        };
        (1..=count).map(port).collect::<Vec<_>>()
    };
    let slice = |count: u16| {
        let endpoint = |index: u32| Endpoint::new(Ipv4Addr::from_bits(0x0a2a_0000 + index), 0);
        let ports = (1..=count).map(|number| (number.to_string().into(), Protocol::Tcp, 8080)).collect();
        Slice { ports, endpoints: (0..1000).map(endpoint).collect() }
    };
    let mut state = State::new();
    state.apply(Change::Service(svc(), ports(100)));
    state.apply(Change::Slice(svc(), "a".into(), slice(100)));
    let count = |state: &State| state.resolve(&svc()).iter().map(|r| r.endpoints.len()).sum::<usize>();
    assert_eq!((state.resolve(&svc()).len(), state.unserved(&svc()), count(&state)), (100, 0, 100_000));
    state.apply(Change::Service(svc(), ports(2000)));
    state.apply(Change::Slice(svc(), "a".into(), slice(2000)));
    assert_eq!(state.resolve(&svc()).len() + state.unserved(&svc()), 2000);
    assert!(count(&state) <= bound::MAX_ELEMENTS);
    state.apply(Change::ServiceGone(svc()));
    assert_eq!((state.resolve(&svc()).len(), state.unserved(&svc())), (0, 0));
}
