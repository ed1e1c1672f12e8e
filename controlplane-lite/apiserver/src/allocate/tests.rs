//! Tests of `apiserver::allocate`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::*;

mod claims;

fn pools() -> Pools {
    Pools::new("10.43.0.0/24".parse().unwrap(), (30000, 30100))
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": spec})
}

fn zero(_: u32) -> u32 {
    0
}

impl Refused {
    fn invalid(self) -> Vec<scheme::FieldError> {
        let Self::Invalid(errors) = self else { panic!("{self:?}") };
        errors.0
    }

    fn failed(self) -> String {
        let Self::Failed(why) = self else { panic!("{self:?}") };
        why
    }
}

#[test]
fn cidrs_are_checked() {
    for bad in ["", "10.43.0.0", "10.43.0.0/33", "10.43.0.0/x", "10.43.0.0/+16", "a/16", "10.43.0.0/30", "::/64"] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
    assert_eq!("10.43.7.9/16".parse::<Cidr>().unwrap().to_string(), "10.43.0.0/16");
}

#[test]
fn addresses_come_from_the_upper_part() {
    let mut pools = pools();
    let mut first = service(json!({"type": "ClusterIP", "selector": {"a": "b"}}));
    pools.fill(&mut first, None, &mut zero).unwrap();
    assert_eq!(first["spec"]["clusterIP"], "10.43.0.17");
    assert_eq!(first["spec"]["clusterIPs"], json!(["10.43.0.17"]));
    assert_eq!(first["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(first["spec"]["ipFamilyPolicy"], "SingleStack");
    pools.vacate(&first);
    let mut second = service(json!({"type": "ClusterIP"}));
    pools.fill(&mut second, None, &mut zero).unwrap();
    assert_eq!(second["spec"]["clusterIP"], "10.43.0.17");
}

#[test]
fn asking_for_an_address() {
    let mut pools = pools();
    let ask = |pools: &mut Pools, ip: &str| {
        pools.fill(&mut service(json!({"type": "ClusterIP", "clusterIP": ip})), None, &mut zero)
    };
    let grant = ask(&mut pools, "10.43.0.10").unwrap();
    let taken = ask(&mut pools, "10.43.0.10").unwrap_err().invalid();
    assert_eq!(
        taken[0].to_string(),
        "spec.clusterIPs: Invalid value: [\"10.43.0.10\"]: failed to allocate IP 10.43.0.10: provided IP is already allocated"
    );
    pools.revert(&grant);
    ask(&mut pools, "10.43.0.10").unwrap();
    for outside in ["10.44.0.1", "10.43.0.0", "10.43.0.255"] {
        assert!(ask(&mut pools, outside).unwrap_err().invalid()[0].to_string().contains("not in the valid range"));
    }
}

#[test]
fn an_external_address_is_none_of_the_clusters() {
    let mut pools = pools();
    let with = |ip: &str| service(json!({"type": "ClusterIP", "externalIPs": [ip]}));
    for ip in ["10.43.0.1", "10.43.0.10", "::ffff:10.43.0.1"] {
        let refused = pools.fill(&mut with(ip), None, &mut zero).unwrap_err().invalid();
        assert!(refused[0].to_string().contains("may not be in the range of cluster IPs"), "{ip}");
        // One that is stored from before can still be changed, and removed.
        let mut old = with(ip);
        old["spec"]["clusterIP"] = json!("10.43.0.20");
        assert!(pools.fill(&mut old.clone(), Some(&old), &mut zero).is_ok(), "{ip}");
    }
    assert!(pools.fill(&mut with("192.0.2.1"), None, &mut zero).is_ok());
}

#[test]
fn headless_and_external_names_take_nothing() {
    let mut pools = pools();
    let mut headless = service(json!({"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}}));
    assert_eq!(pools.fill(&mut headless, None, &mut zero).unwrap(), Grant::default());
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let mut external = service(json!({"type": "ExternalName", "externalName": "x.example"}));
    assert_eq!(pools.fill(&mut external, None, &mut zero).unwrap(), Grant::default());
    assert_eq!(external["spec"].get("clusterIP"), None);
}

#[test]
fn node_ports() {
    let mut pools = pools();
    let ports =
        json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80, "nodePort": 30007}]);
    let mut dns = service(json!({"type": "NodePort", "ports": ports}));
    pools.fill(&mut dns, None, &mut zero).unwrap();
    assert_eq!(dns["spec"]["ports"][0]["nodePort"], dns["spec"]["ports"][1]["nodePort"]);
    assert_eq!(dns["spec"]["ports"][2]["nodePort"], 30007);
    let mut again = service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30007}]}));
    assert!(
        pools.fill(&mut again, None, &mut zero).unwrap_err().invalid()[0].to_string().contains("already allocated"),
    );
    let mut outside = service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 99}]}));
    assert!(
        pools.fill(&mut outside, None, &mut zero).unwrap_err().invalid()[0]
            .to_string()
            .ends_with("valid ports is 30000-30100"),
    );
    // An update without node ports keeps them; turning to ClusterIP frees them.
    let mut update = service(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}));
    let old = service(json!({"type": "NodePort", "clusterIP": "10.43.0.17",
                             "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30007}]}));
    pools.fill(&mut update, Some(&old), &mut zero).unwrap();
    assert_eq!(update["spec"]["ports"][0]["nodePort"], 30007);
    assert_eq!(update["spec"]["clusterIP"], "10.43.0.17");
    let mut plain = service(json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}));
    let grant = pools.fill(&mut plain, Some(&old), &mut zero).unwrap();
    pools.commit(&grant);
    assert!(pools.fill(&mut again, None, &mut zero).is_ok());
}

/// TCP and UDP on one number share a node port, unless another port of the Service has it.
#[test]
fn a_node_port_is_shared_once() {
    let named = |port: u16, protocol: &str| json!({"port": port, "protocol": protocol, "nodePort": 30007});
    let drawn = json!({"port": 80, "protocol": "TCP"});
    for ports in [
        [named(80, "UDP"), named(90, "TCP"), drawn.clone()],
        [named(80, "UDP"), drawn.clone(), named(90, "TCP")],
        [named(80, "UDP"), drawn.clone(), drawn],
    ] {
        let mut service = service(json!({"type": "NodePort", "ports": ports}));
        pools().fill(&mut service, None, &mut zero).unwrap();
        let mut seen = std::collections::HashSet::new();
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert!(seen.insert((port["protocol"].to_string(), port["nodePort"].as_u64().unwrap())), "{service}");
        }
    }
}

/// What a Service names is not drawn for another of its ports, which may come before it; and who may share it does
/// (`pkg/registry/core/service/storage/alloc.go`: `findRequestedNodePort`).
#[test]
fn what_is_named_is_not_drawn() {
    for (ports, expect) in [
        // The first that is drawn, but for its being named.
        (json!([{"port": 80}, {"port": 443, "nodePort": 30016}]), [30017, 30016]),
        (json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30007}]), [30007, 30007]),
    ] {
        let mut service = service(json!({"type": "NodePort", "ports": ports}));
        pools().fill(&mut service, None, &mut zero).unwrap();
        let granted =
            service["spec"]["ports"].as_array().unwrap().iter().map(|port| port["nodePort"].as_u64().unwrap());
        assert_eq!(granted.collect::<Vec<_>>(), expect, "{service}");
    }
}

/// An update says by name which port it means, as upstream.
#[test]
fn node_ports_are_kept_by_name() {
    let fill = |old: Value, new: Value| {
        let mut update = service(json!({"type": "NodePort", "ports": new}));
        let old = service(json!({"type": "NodePort", "clusterIP": "10.43.0.17", "ports": old}));
        pools().fill(&mut update, Some(&old), &mut zero).unwrap();
        update["spec"]["ports"].as_array().unwrap().iter().map(|p| p["nodePort"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let old = json!([{"name": "a", "port": 80, "nodePort": 30007}, {"name": "b", "port": 81, "nodePort": 30008}]);
    let swapped = json!([{"name": "b", "port": 80}, {"name": "a", "port": 81}]);
    assert_eq!(fill(old.clone(), swapped), [30008, 30007]);
    let other = fill(old.clone(), json!([{"name": "c", "port": 80}]));
    assert!(other[0] != 30007 && other[0] != 30008, "another name is another port: {other:?}");
    let said = json!([{"name": "b", "port": 80, "nodePort": 30007}, {"name": "a", "port": 81}]);
    let said = fill(old, said);
    assert!(said[0] == 30007 && said[1] != 30007, "what is named is not given twice: {said:?}");
    assert_eq!(fill(json!([{"port": 80, "nodePort": 30007}]), json!([{"port": 90}])), [30007]);
}

/// As many ports as fit into a request, filled while every other write of a Service waits.
#[test]
fn many_ports_are_filled_in_one_pass() {
    let mut pools = Pools::new("10.43.0.0/24".parse().unwrap(), (1, 65535));
    let mut seed = 1_u32;
    let mut random = |span: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % span
    };
    let port = |n: u16| json!({"name": format!("p{n}"), "port": n, "protocol": "TCP"});
    let ports: Vec<Value> = (1..=45_000).map(port).collect();
    let of = |kind: &str| service(json!({"type": kind, "clusterIP": "10.43.0.17", "ports": ports}));
    let mut first = of("NodePort");
    pools.fill(&mut first, None, &mut random).unwrap();
    let mut second = of("NodePort");
    let grant = pools.fill(&mut second, Some(&first), &mut random).unwrap();
    assert_eq!(second["spec"]["ports"], first["spec"]["ports"], "each keeps its own");
    assert_eq!(grant, Grant::default(), "nothing is taken or freed");
    let mut plain = of("ClusterIP");
    let grant = pools.fill(&mut plain, Some(&second), &mut random).unwrap();
    assert_eq!(grant.freed_ports.len(), ports.len());
    pools.vacate(&second);
    pools.fill(&mut first, None, &mut random).unwrap();
}

#[test]
fn a_full_range_says_so() {
    let mut pools = Pools::new("10.43.0.0/29".parse().unwrap(), (30000, 30001));
    for _ in 0..6 {
        pools.fill(&mut service(json!({"type": "ClusterIP"})), None, &mut zero).unwrap();
    }
    let error = pools.fill(&mut service(json!({"type": "ClusterIP"})), None, &mut zero).unwrap_err();
    assert_eq!(error.failed(), "failed to allocate a serviceIP: range is full");
    // Both ports are drawn, and given back with the third that cannot be.
    for _ in 0..2 {
        let mut three =
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 1}, {"port": 2}, {"port": 3}]});
        let error = pools.fill(&mut service(three.take()), None, &mut zero).unwrap_err();
        assert_eq!(error.failed(), "failed to allocate a nodePort: range is full");
    }
}

#[test]
fn dual_stack_is_refused() {
    let mut pools = pools();
    let mut both = service(json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"}));
    assert!(pools.fill(&mut both, None, &mut zero).is_err());
    let mut six = service(json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]}));
    assert!(pools.fill(&mut six, None, &mut zero).is_err());
}

proptest::proptest! {
    #[test]
    fn no_address_is_given_twice(seeds in proptest::collection::vec(0u32..1000, 1..60)) {
        let mut pools = pools();
        let mut seen = std::collections::HashSet::new();
        for seed in seeds {
            let mut s = service(json!({"type": "ClusterIP"}));
            pools.fill(&mut s, None, &mut |n| seed % n).unwrap();
            proptest::prop_assert!(seen.insert(s["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        }
    }
}

#[test]
fn ranges_that_were_added_give_addresses_when_the_first_is_full() {
    let mut pools = Pools::new("10.43.0.0/29".parse().unwrap(), (30000, 30100));
    pools.set_added(vec!["10.43.0.0/28".parse().unwrap(), "203.0.113.0/29".parse().unwrap()]);
    let mut all = HashSet::new();
    while let Ok(grant) = pools.fill(&mut service(json!({"type": "ClusterIP"})), None, &mut zero) {
        assert!(all.insert(grant.taken_ips[0]), "{all:?}");
    }
    // Six of the first range, of the next one what is not in the first, and six.
    assert_eq!(all.len(), 6 + 14 - 6 + 6);
    assert!(!all.contains(&"10.43.0.15".parse().unwrap()), "a broadcast address");
    let held = service(json!({"type": "ClusterIP", "clusterIP": "203.0.113.3"}));
    assert!(pools.fill(&mut held.clone(), None, &mut zero).is_err());
    pools.vacate(&held);
    pools.fill(&mut held.clone(), None, &mut zero).unwrap();
    // What is stored is held, whichever ranges there are.
    let mut emptied = pools.emptied();
    emptied.set_added(Vec::new());
    emptied.occupy(&held);
    emptied.set_added(vec!["203.0.113.0/29".parse().unwrap()]);
    assert!(emptied.fill(&mut held.clone(), None, &mut zero).is_err());
}
