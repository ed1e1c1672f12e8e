//! What links come to, from description and kernel state: tables and properties.

#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn owner() -> Owner {
    Owner::new("instance-1").unwrap()
}

fn bridge() -> Link {
    Link {
        name: "copepod0".to_owned(),
        kind: Kind::Bridge,
        mac: owner().mac("copepod0"),
        mtu: None,
        addresses: [(Ipv4Addr::new(10, 42, 0, 1), 24)].into(),
        filter_bridged: true,
    }
}

fn made(link: &Link, index: u32) -> Observed {
    Observed {
        index,
        name: link.name.clone(),
        kind: link.kind.clone(),
        mac: Some(link.mac),
        mtu: link.mtu.unwrap_or(1500),
        alias: Some(owner().mark()),
        group: 0,
        up: true,
        master: None,
        addresses: link.addresses.clone(),
        filter_bridged: link.filter_bridged,
    }
}

/// The kernel, as far as plans know it.
fn perform(mut links: Vec<Observed>, changes: &[Change]) -> Vec<Observed> {
    for change in changes {
        let mut at = |index: &u32, change: &dyn Fn(&mut Observed)| {
            links.iter_mut().filter(|link| link.index == *index).for_each(change);
        };
        match change {
            Change::Delete(index) => {
                links.retain(|link| link.index != *index);
                links.iter_mut().filter(|link| link.master == Some(*index)).for_each(|port| port.master = None);
            }
            Change::Create(link) => {
                let index = links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
                links.push(made(link, index));
            }
            Change::Set { index, mark, mac, mtu, filter_bridged } => at(index, &|link| {
                link.up = true;
                link.mac = mac.or(link.mac);
                link.mtu = mtu.unwrap_or(link.mtu);
                link.filter_bridged = filter_bridged.unwrap_or(link.filter_bridged);
                link.alias = if *mark { Some(owner().mark()) } else { link.alias.clone() };
            }),
            Change::AddAddress(index, address) => at(index, &|link| assert!(link.addresses.insert(*address))),
            Change::RemoveAddress(index, address) => at(index, &|link| assert!(link.addresses.remove(address))),
            Change::Attach { port, bridge } => at(port, &|link| link.master = Some(*bridge)),
        }
    }
    links
}

#[test]
fn what_is_right_stays() {
    assert_eq!(plan(&[bridge()], &[made(&bridge(), 3)], &owner()), Ok(Vec::new()));
    assert_eq!(plan(&[bridge()], &[], &owner()), Ok(vec![Change::Create(bridge())]));
}

#[test]
fn each_difference_is_one_step() {
    type Damage = fn(&mut Observed);
    let set = |mark, mac, mtu, filter_bridged| Change::Set { index: 3, mark, mac, mtu, filter_bridged };
    let mac = Some(bridge().mac);
    let wrong = (Ipv4Addr::new(10, 244, 0, 1), 24);
    let right = (Ipv4Addr::new(10, 42, 0, 1), 24);
    let cases: [(Damage, Vec<Change>); 6] = [
        (|l| l.mac = None, vec![set(false, mac, None, None)]),
        (|l| l.mtu = 9000, vec![set(false, None, Some(1450), None)]),
        (|l| l.up = false, vec![set(false, None, None, None)]),
        (|l| l.filter_bridged = false, vec![set(false, None, None, Some(true))]),
        (
            |l| (l.alias, l.group) = (None, Owner::new("instance-1").unwrap().birth_group()),
            vec![set(true, None, None, None)],
        ),
        (
            |l| l.addresses = [(Ipv4Addr::new(10, 244, 0, 1), 24)].into(),
            vec![Change::RemoveAddress(3, wrong), Change::AddAddress(3, right)],
        ),
    ];
    let desired = Link { mtu: Some(1450), ..bridge() };
    for (damage, expect) in cases {
        let mut there = made(&desired, 3);
        damage(&mut there);
        assert_eq!(plan(std::slice::from_ref(&desired), &[there.clone()], &owner()), Ok(expect), "{there:?}");
    }
}

#[test]
fn a_link_of_another_kind_is_made_anew() {
    let tunnel = |port| Link {
        name: "copepod.1".to_owned(),
        kind: Kind::Vxlan { id: 1, local: Ipv4Addr::new(192, 0, 2, 1), port },
        ..bridge()
    };
    let changes = plan(&[tunnel(8472)], &[made(&tunnel(4789), 7)], &owner());
    assert_eq!(changes, Ok(vec![Change::Delete(7), Change::Create(tunnel(8472))]));
}

#[test]
fn links_of_others_are_neither_taken_nor_changed() {
    for (alias, by) in [
        (None, None),
        (Some("uplink"), None),
        (Some("copepod:instance-2"), Some("copepod:instance-2")),
        (Some("copepod:instance-10"), Some("copepod:instance-10")),
    ] {
        let foreign = Observed { alias: alias.map(str::to_owned), ..made(&bridge(), 3) };
        let clash = plan(&[bridge()], &[foreign], &owner()).unwrap_err();
        assert_eq!(clash.by.as_deref(), by);
        let told = clash.to_string();
        assert!(told.contains("copepod0") && !told.contains('\n'), "{told}");
    }
}

#[test]
fn a_note_behind_the_mark_is_no_other_mark() {
    let with = |alias: &str| Observed { alias: Some(alias.to_owned()), ..made(&bridge(), 3) };
    let noted = with("copepod:instance-1 10.42.0.2 c1");
    assert_eq!((noted.is_of(&owner()), noted.note()), (true, Some("10.42.0.2 c1")));
    assert_eq!(plan(&[bridge()], &[noted], &owner()), Ok(Vec::new()));
    assert!(!with("copepod:instance-10 x").is_of(&owner()) && !with("x copepod:instance-1").is_of(&owner()));
}

#[test]
fn ports_that_lost_their_bridge_get_it_back() {
    let veth = |index, alias: Option<String>, master| Observed {
        alias,
        master,
        ..made(&Link { name: format!("veth{index}"), kind: Kind::Veth, ..bridge() }, index)
    };
    let ours = || Some(owner().mark());
    let observed = [made(&bridge(), 3), veth(4, ours(), Some(3)), veth(5, ours(), None), veth(6, None, None)];
    assert_eq!(plan(&[bridge()], &observed, &owner()), Ok(vec![Change::Attach { port: 5, bridge: 3 }]));
}

#[test]
fn hardware_addresses_are_read_strictly() {
    assert_eq!(Mac::parse("0a:59:c0:a8:01:07"), Some(Mac([0x0a, 0x59, 0xc0, 0xa8, 1, 7])));
    for text in ["", "0a:59", "0a:59:c0:a8:01:07:08", "0g:59:c0:a8:01:07", "00:00:00:00:00:00", "01:59:c0:a8:01:07"] {
        assert_eq!(Mac::parse(text), None, "{text}");
    }
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let alias = prop_oneof![
        Just(None),
        Just(Some("copepod:instance-1".to_owned())),
        Just(Some("copepod:instance-2".to_owned()))
    ];
    let address = (0u8..3).prop_map(|third| (Ipv4Addr::new(10, 42, third, 1), 24));
    let kind = prop_oneof![Just(Kind::Bridge), Just(Kind::Veth), Just(Kind::Other("dummy".to_owned()))];
    let numbers = (1400u32..1403, 0u32..2, any::<bool>(), any::<bool>(), 0u8..2);
    let addresses = proptest::collection::btree_set(address, 0..3);
    (0u32..3, kind, alias, numbers, addresses).prop_map(|(number, kind, alias, numbers, addresses)| {
        let (mtu, group, up, filter_bridged, mac) = numbers;
        Observed {
            index: 10 + number,
            name: format!("copepod{number}"),
            kind,
            mac: Some(Mac([10, 0, 0, 0, 0, mac])),
            mtu,
            alias,
            group: if group == 0 { 0 } else { owner().birth_group() },
            up,
            master: None,
            addresses,
            filter_bridged,
        }
    })
}

proptest! {
    #[test]
    fn a_plan_is_done_after_one_round_and_touches_nobody_else(
        observed in proptest::collection::vec(any_observed(), 0..3),
        third in 0u8..3,
    ) {
        let mut observed = observed;
        observed.dedup_by_key(|link| link.index);
        observed.sort_by_key(|link| link.index);
        observed.dedup_by_key(|link| link.index);
        let link = Link { addresses: [(Ipv4Addr::new(10, 42, third, 1), 24)].into(), mtu: Some(1401), ..bridge() };
        let foreign: Vec<_> = observed.iter().filter(|link| !link.is_of(&owner())).cloned().collect();
        match plan(std::slice::from_ref(&link), &observed, &owner()) {
            Err(clash) => prop_assert!(foreign.iter().any(|there| there.name == clash.name)),
            Ok(changes) => {
                let mut after = perform(observed, &changes);
                for there in &foreign {
                    prop_assert!(after.contains(there));
                }
                // A new bridge gets its ports in the next round.
                let ports = plan(std::slice::from_ref(&link), &after, &owner()).unwrap();
                prop_assert!(ports.iter().all(|change| matches!(change, Change::Attach { .. })), "{ports:?}");
                after = perform(after, &ports);
                prop_assert_eq!(plan(&[link], &after, &owner()), Ok(Vec::new()));
            }
        }
    }
}
