//! No port of the nodes and no address without a claim: whatever clients write, what a Service could be served at is in
//! range, its own, and free again when it is gone.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use scheme::Kind;
use scheme::strategy::{Context, Requester};

const SLOTS: usize = 4;

fn named(port: i64) -> Value {
    json!([{"port": 80, "protocol": "TCP", "nodePort": port}])
}

/// A load balancer for which no ports are drawn.
fn undrawn(more: Value) -> Value {
    let mut spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "clusterIP": "None"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service(spec)
}

#[test]
fn what_is_named_is_claimed_where_none_are_drawn() {
    let mut pools = pools();
    for outside in [22, 6443, 10250] {
        let errors = pools.fill(&mut undrawn(json!({"ports": named(outside)})), None, &mut zero).unwrap_err().invalid();
        assert!(errors[0].to_string().contains("not in the valid range"), "{outside}: {errors:?}");
    }
    let mut theirs = service(json!({"type": "NodePort", "ports": named(30007)}));
    pools.fill(&mut theirs, None, &mut zero).unwrap();
    let mut mine = undrawn(json!({"ports": named(30007)}));
    assert!(
        pools.fill(&mut mine, None, &mut zero).unwrap_err().invalid()[0].to_string().ends_with("already allocated")
    );
    let mut mixed =
        undrawn(json!({"ports": [{"port": 80, "nodePort": 30008}, {"port": 81}, {"port": 80, "protocol": "UDP"}]}));
    pools.fill(&mut mixed, None, &mut zero).unwrap();
    let drawn: Vec<&Value> = mixed["spec"]["ports"].as_array().unwrap().iter().map(|port| &port["nodePort"]).collect();
    assert_eq!(drawn, [&json!(30008), &Value::Null, &Value::Null]);
    // A change of the type claims, too.
    let plain = service(json!({"type": "ClusterIP", "clusterIP": "None", "ports": named(0)}));
    assert!(pools.fill(&mut undrawn(json!({"ports": named(30007)})), Some(&plain), &mut zero).is_err());
}

#[test]
fn only_who_is_asked_for_its_health_holds_a_port_for_it() {
    let mut pools = pools();
    let local = |port: i64| {
        undrawn(json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": port, "ports": [{"port": 80}]}))
    };
    let mut drawn = local(0);
    pools.fill(&mut drawn, None, &mut zero).unwrap();
    let port = int_at(&drawn, &["spec", "healthCheckNodePort"]).unwrap();
    assert!((30000..=30100).contains(&port), "a port although no node ports are drawn");
    for (wanted, why) in [(port, "already allocated"), (10250, "not in the valid range"), (99_999, "valid range")] {
        let error = pools.fill(&mut local(wanted), None, &mut zero).unwrap_err().failed();
        let begins = format!("failed to allocate requested HealthCheck NodePort {wanted}: provided port is ");
        assert!(error.starts_with(&begins) && error.contains(why), "{error}");
    }
    assert_eq!(pools.fill(&mut drawn.clone(), Some(&drawn), &mut zero).unwrap(), Grant::default(), "it keeps its own");
    // One that says so without being asked holds nothing, and frees nothing of the one that does.
    let pretends = service(json!({"type": "ClusterIP", "clusterIP": "None", "healthCheckNodePort": port}));
    let mut takes = service(json!({"type": "NodePort", "clusterIP": "None", "ports": named(port)}));
    assert!(pools.fill(&mut takes, Some(&pretends), &mut zero).is_err());
    pools.vacate(&pretends);
    assert!(pools.fill(&mut takes, None, &mut zero).is_err());
    pools.vacate(&drawn);
    assert!(pools.fill(&mut takes, None, &mut zero).is_ok());
}

#[test]
fn no_free_port_for_health_checks_is_told() {
    let mut pools = Pools::new("10.43.0.0/24".parse().unwrap(), (30000, 30000));
    pools.fill(&mut service(json!({"type": "NodePort", "ports": named(30000)})), None, &mut zero).unwrap();
    let mut local = undrawn(json!({"externalTrafficPolicy": "Local", "ports": [{"port": 80}]}));
    let error = pools.fill(&mut local, None, &mut zero).unwrap_err().failed();
    assert_eq!(error, "failed to allocate a HealthCheck NodePort 0: range is full");
}

#[test]
fn a_port_of_a_former_range_can_be_kept() {
    let mut pools = pools();
    let old = service(json!({"type": "NodePort", "clusterIP": "None", "ports": named(31000)}));
    assert_eq!(pools.fill(&mut old.clone(), Some(&old), &mut zero).unwrap(), Grant::default());
}

#[test]
fn an_address_of_another_family_is_refused() {
    let mut pools = pools();
    let six = service(json!({"type": "ClusterIP", "clusterIP": "fd00::1"}));
    let errors = pools.fill(&mut six.clone(), None, &mut zero).unwrap_err().invalid();
    assert!(errors[0].to_string().contains("IPv6 is not configured"), "{errors:?}");
    assert!(pools.fill(&mut six.clone(), Some(&six), &mut zero).is_ok(), "one that is stored can be changed");
}

/// The steps of a write between what a client sends and the store.
fn write(pools: &mut Pools, spec: &Value, old: Option<&Value>, seed: u32) -> Option<(Value, Grant)> {
    let kind: &Kind = scheme::builtin().by_gvk("", "v1", "Service").unwrap();
    let extra = BTreeMap::new();
    let user = Requester { username: "jane", uid: "", groups: &[], extra: &extra };
    let context = Context { user, now: "2026-01-01T00:00:00Z", uid: "u" };
    let mut object = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec});
    kind.default(&mut object);
    let errors = match old {
        None => {
            kind.prepare_create(&mut object, &context);
            kind.validate_create(&object)
        }
        Some(old) => {
            kind.prepare_update("", &mut object, old, &context);
            kind.validate_update("", &object, old)
        }
    };
    if !errors.is_empty() {
        return None;
    }
    let grant = pools.fill(&mut object, old, &mut |span| seed % span).ok()?;
    Some((object, grant))
}

/// Every port that the fields of a Service name, whatever its type.
fn ports_of(service: &Value) -> Vec<u16> {
    let spec = &service["spec"];
    let listed = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    let all = listed.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64).filter(|port| *port != 0);
    let mut ports: Vec<u16> = all.map(|port| u16::try_from(port).unwrap()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn addresses_of(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let all = spec["clusterIPs"].as_array().into_iter().flatten().chain([&spec["clusterIP"]]);
    let mut all: Vec<String> = all.filter_map(Value::as_str).filter(|ip| *ip != "None").map(str::to_owned).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 6 => 29_999_i64..30_006, 1 => Just(6443), 1 => Just(10_250), 1 => Just(70_000)]
}

fn spec() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"]);
    let draws = prop::sample::select(vec![json!(null), json!(true), json!(false)]);
    let policy = prop::sample::select(vec![json!(null), json!("Cluster"), json!("Local"), json!("Local")]);
    let address = prop::sample::select(vec![json!(null), json!(""), json!("10.43.0.20"), json!("10.43.0.21")]);
    let port = (prop::sample::select(vec![80, 81]), prop::sample::select(vec!["TCP", "UDP"]), number());
    let ports = prop::collection::vec(port, 1..4);
    (kind, draws, policy, address, number(), ports).prop_map(|(kind, draws, policy, address, health, ports)| {
        let port = |(i, (port, protocol, node)): (usize, (i32, &str, i64))| {
            json!({"name": format!("p{i}"), "port": port, "protocol": protocol, "nodePort": node})
        };
        let ports: Vec<Value> = ports.into_iter().enumerate().map(port).collect();
        let mut spec = json!({"type": kind, "ports": ports, "externalName": "x.example", "healthCheckNodePort": health});
        for (field, value) in
            [("allocateLoadBalancerNodePorts", draws), ("externalTrafficPolicy", policy), ("clusterIP", address)]
        {
            if !value.is_null() {
                spec[field] = value;
            }
        }
        spec
    })
}

/// What becomes of a slot: a write that is stored, one that is given up, or a deletion.
#[derive(Debug, Clone)]
enum Step {
    Write { spec: Value, stored: bool },
    Delete,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let write = (spec(), prop::bool::weighted(0.8)).prop_map(|(spec, stored)| Step::Write { spec, stored });
    (0..SLOTS, prop_oneof![8 => write, 1 => Just(Step::Delete)])
}

proptest! {
    #[test]
    fn what_services_name_is_in_range_exclusive_and_taken(
        steps in prop::collection::vec(step(), 1..40), seed in 0_u32..100,
    ) {
        let mut pools = Pools::new("10.43.0.0/24".parse().unwrap(), (30_000, 30_005));
        let mut slots: [Option<Value>; SLOTS] = Default::default();
        for (slot, step) in steps {
            match step {
                Step::Delete => {
                    if let Some(service) = slots[slot].take() {
                        pools.vacate(&service);
                    }
                }
                Step::Write { spec, stored } => {
                    if let Some((object, grant)) = write(&mut pools, &spec, slots[slot].as_ref(), seed) {
                        if stored {
                            pools.commit(&grant);
                            slots[slot] = Some(object);
                        } else {
                            pools.revert(&grant);
                        }
                    }
                }
            }
            let mut ports: Vec<u16> = slots.iter().flatten().flat_map(ports_of).collect();
            ports.sort_unstable();
            let taken: Vec<u16> = (30_000..=30_005).filter(|port| !pools.clone().ports.take((*port).into())).collect();
            prop_assert_eq!(ports, taken, "ports of {:?}", slots);
            let mut ips: Vec<String> = slots.iter().flatten().flat_map(addresses_of).collect();
            ips.sort_unstable();
            let is_taken = |index: &u32| !pools.clone().addresses.take(*index);
            let mut taken: Vec<String> = (1..255).filter(is_taken).map(|n| pools.cidr.nth(n).to_string()).collect();
            taken.sort_unstable();
            prop_assert_eq!(ips, taken, "addresses of {:?}", slots);
        }
    }
}
