//! Whatever happens to Services: every change is valid and leads where a fresh start leads.

use proptest::prelude::*;

use super::*;

fn any_port() -> impl Strategy<Value = ServicePort> {
    let addresses = proptest::collection::vec(1u8..5, 0..3);
    (0u8..6, 0u16..4, addresses, any::<[bool; 5]>(), any::<bool>()).prop_map(|(vip, node_port, lbs, flags, udp)| {
        let [affinity, internal_local, external_local, external, ranges] = flags;
        let lbs: Arc<[_]> = lbs.into_iter().map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
        ServicePort {
            cluster_ip: Ipv4Addr::new(10, 43, 0, vip),
            node_port: if node_port == 0 { 0 } else { 30000 + node_port },
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            external_ips: if external { Arc::clone(&lbs) } else { Arc::default() },
            load_balancer_ips: lbs,
            source_ranges: ranges.then(|| vec!["203.0.113.0/24".parse().unwrap()]),
            affinity: affinity.then_some(10),
            internal_local,
            external_local,
            ..port()
        }
    })
}

fn any_endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let one = (1u8..8, any::<[bool; 4]>()).prop_map(|(last, [ready, serving, terminating, local])| Endpoint {
        ready,
        serving,
        terminating,
        local,
        ..ep(last)
    });
    proptest::collection::vec(one, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens, contested addresses and all: `sync` asserts that the changes are valid one
    /// after the other and end in the table a fresh start would make.
    #[test]
    fn changes_lead_where_a_fresh_start_leads(
        steps in proptest::collection::vec((0u8..4, proptest::option::of(any_port()), any_endpoints()), 1..12)
    ) {
        let mut world = World::new(node());
        for (service, port, endpoints) in steps {
            let service = format!("s{service}");
            world.service(&service, port.into_iter().collect()).endpoints(&service, endpoints);
            world.sync();
            prop_assert!(world.sync().is_empty());
        }
        let mut fresh = World::new(node());
        std::mem::swap(&mut fresh.state, &mut world.state);
        let all = fresh.state.services().cloned().collect::<Vec<_>>();
        for name in all {
            fresh.state.touch(name);
        }
        fresh.sync();
        // Lanes of one's own are given in order of arrival; here there are enough for all.
        prop_assert!(fresh.ruleset.table() == world.ruleset.table());
    }

    /// The same where lanes are few and change hands: a port that needs some waits only while there
    /// are none left.
    #[test]
    fn lanes_change_hands_by_valid_changes(
        steps in proptest::collection::vec((0u8..6, proptest::option::of(any_port()), any_endpoints()), 1..16)
    ) {
        let mut world = World::new(node());
        world.ruleset.lanes = LaneAllocator::with_limit(2);
        for (service, port, endpoints) in steps {
            let service = format!("s{service}");
            world.service(&service, port.into_iter().collect()).endpoints(&service, endpoints);
            world.sync();
            prop_assert!(world.ruleset.lanes.is_fair(), "{:?}", world.ruleset.lanes);
        }
    }
}
