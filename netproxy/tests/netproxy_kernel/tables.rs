//! Tables as the kernel ends up with them: the same by both backends, by changes and by a fresh start.

use std::net::Ipv4Addr;

use netproxy::backend::cli::{CliBackend, list_json};
use netproxy::backend::netlink::NetlinkBackend;
use netproxy::backend::{NftBackend, NftError};
use netproxy::links::Owner;
use netproxy::nft::TABLE;
use netproxy::nft::transaction::{Op, Transaction};
use netproxy::snapshot::{Protocol, ServicePort};

use crate::net::Namespace;
use crate::world::{World, port, slice};

/// A bit of everything the ruleset can say.
fn everything() -> World {
    let mut world = World::new();
    let ip = |last| Ipv4Addr::new(10, 43, 1, last);
    let base = |last| ServicePort { cluster_ip: ip(last), node_port: 31000 + u16::from(last), ..port() };
    world.service("plain", vec![base(1), ServicePort { protocol: Protocol::Udp, ..base(1) }]);
    world.service("sticky", vec![ServicePort { affinity: Some(10_800), ..base(2) }]);
    world.service("local", vec![ServicePort { external_local: true, internal_local: true, ..base(3) }]);
    let lb = [Ipv4Addr::new(198, 51, 100, 9)].into();
    let ranges = ["203.0.113.0/24", "0.0.0.0/0", "192.0.2.1/32", "10.128.0.0/9"];
    let source_ranges = Some(ranges.iter().map(|r| r.parse().unwrap()).collect());
    world.service("guarded", vec![ServicePort { load_balancer_ips: lb, source_ranges, ..base(4) }]);
    world.service("empty", vec![base(5)]);
    for service in ["plain", "sticky", "local", "guarded"] {
        world.slice(service, slice(&[0, 1, 2]));
    }
    for index in 0..1100u32 {
        let [_, _, high, low] = index.to_be_bytes();
        let cluster_ip = Ipv4Addr::new(10, 43, 100 + high, low);
        let service = format!("many-{index}");
        world.service(&service, vec![ServicePort { cluster_ip, node_port: 0, ..port() }]);
        world.slice(&service, slice(if index % 2 == 0 { &[0, 1, 2] } else { &[3] }));
    }
    world
}

pub fn normalised(json: &str) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let mut objects: Vec<String> = Vec::new();
    for object in value["nftables"].as_array().unwrap() {
        let mut object = object.clone();
        for (_, inner) in object.as_object_mut().unwrap() {
            if let Some(fields) = inner.as_object_mut() {
                fields.remove("handle");
                if let Some(elements) = fields.get_mut("elem").and_then(|e| e.as_array_mut()) {
                    elements.sort_by_key(ToString::to_string);
                }
            }
        }
        objects.push(object.to_string());
    }
    // Rules of one chain keep their order: the sort is stable and looks at the chain alone.
    objects.sort_by_key(|text| if text.starts_with("{\"rule\"") { chain_of(text) } else { text.clone() });
    objects
}

fn chain_of(rule: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(rule).unwrap();
    format!("{{\"rule\"{}", value["rule"]["chain"])
}

#[test]
fn both_backends_make_the_same_table() {
    let (by_netlink, by_nft) = (Namespace::new(), Namespace::new());
    let listed = |namespace: &Namespace, text: bool| {
        namespace.run(move || {
            let mut world = everything();
            if text {
                let mut backend = CliBackend::default();
                let mut first = World::new();
                first.adopt(&mut backend);
                // From an empty table by a change, so that this way is seen too.
                let tx = world.update();
                backend.run(&tx, None).unwrap();
            } else {
                world.adopt(&mut NetlinkBackend::new().unwrap());
            }
            list_json(TABLE).unwrap()
        })
    };
    let (netlink, nft) = (normalised(&listed(&by_netlink, false)), normalised(&listed(&by_nft, true)));
    for (a, b) in netlink.iter().zip(&nft) {
        assert_eq!(a, b);
    }
    assert_eq!(netlink.len(), nft.len());
    // Either reads the other's table as its own.
    for namespace in [&by_netlink, &by_nft] {
        let tx = namespace.run(|| everything().adopt(&mut NetlinkBackend::new().unwrap()));
        assert_eq!(tx, Transaction::default());
    }
}

#[test]
fn changes_leave_the_same_table_as_a_fresh_start() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut backend = NetlinkBackend::new().unwrap();
        let mut world = everything();
        world.adopt(&mut backend);
        world.service("plain", Vec::new());
        world.slice("sticky", slice(&[1]));
        world.slice("local", slice(&[]));
        world.service("guarded", vec![ServicePort { cluster_ip: [10, 43, 1, 4].into(), ..port() }]);
        world.slice("empty", slice(&[0]));
        let tx = world.update();
        backend.run(&tx, None).unwrap();
        backend.run(&Transaction::delete_chains(&tx.stale_chains), None).unwrap();
        assert_eq!(backend.list().unwrap().table.unwrap(), world.ruleset.table().observe());
        assert!(world.update().is_empty(), "a rebuild asks for nothing");
    });
}

#[test]
fn repairs_a_table_somebody_meddled_with() {
    let namespace = Namespace::new();
    let mut backend = namespace.run(|| NetlinkBackend::new().unwrap());
    let mut world = everything();
    world.adopt(&mut backend);
    for command in [
        "flush chain ip copepod services",
        "add chain ip copepod foreign",
        "add rule ip copepod foreign drop",
        "add element ip copepod cluster-ips { 1.2.3.4 }",
        "delete element ip copepod service-ips { 10.43.1.1 . tcp . 80 }",
        "add rule ip copepod nat-output counter",
        "add set ip copepod mine { type inet_service; flags interval; }",
    ] {
        let script = command.to_owned();
        namespace.run(move || {
            assert!(std::process::Command::new("nft").arg(&script).status().unwrap().success(), "{script}");
        });
    }
    let tx = world.adopt(&mut backend);
    assert!(!tx.is_empty());
    backend.run(&Transaction::delete_chains(&tx.stale_chains), None).unwrap();
    assert_eq!(backend.list().unwrap().table.unwrap(), world.ruleset.table().observe());
    // A set of another shape cannot be changed: the table is replaced.
    namespace.command("nft", "delete table ip copepod");
    namespace.command("nft", "add table ip copepod");
    namespace.run(|| {
        let set = "add set ip copepod hairpin { type inet_service; }";
        assert!(std::process::Command::new("nft").arg(set).status().unwrap().success());
    });
    world.adopt(&mut backend);
    assert_eq!(backend.list().unwrap().table.unwrap(), world.ruleset.table().observe());
}

#[test]
fn a_refused_transaction_changes_nothing_and_says_why() {
    let namespace = Namespace::new();
    let mut backend = namespace.run(|| NetlinkBackend::new().unwrap());
    let mut world = World::new();
    world.adopt(&mut backend);
    let before = backend.list().unwrap();
    let bad = Transaction {
        ops: vec![Op::AddChain("fine".into(), None), Op::FlushChain("missing".into())],
        stale_chains: Vec::new(),
    };
    for result in [backend.run(&bad, None), backend.check(&bad)] {
        let error = result.unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(error.to_string().contains("flush chain ip copepod missing"), "{error}");
    }
    let good = Transaction { ops: vec![Op::AddChain("fine".into(), None)], stale_chains: Vec::new() };
    backend.check(&good).unwrap();
    assert_eq!(backend.list().unwrap().table, before.table, "checking changes nothing");
    backend.run(&good, before.generation).unwrap();
    let late = backend.run(&Transaction::delete_chains(&["fine".into()]), before.generation);
    assert!(matches!(late, Err(NftError::Changed)), "{late:?}");
    backend.run(&Transaction::delete_table(), None).unwrap();
    backend.run(&Transaction::delete_table(), None).expect("deleting what is not there is fine");
    assert!(backend.list().unwrap().table.is_none());
    let long =
        Transaction { ops: vec![Op::AddTable, Op::AddChain("x".repeat(300).into(), None)], ..Default::default() };
    assert!(matches!(backend.run(&long, None), Err(NftError::Name(_))));
}

/// Who removes and replaces a table, by the mark that `nft` shows as its comment.
#[test]
fn a_table_is_removed_and_replaced_by_its_mark() {
    let namespace = Namespace::new();
    let [ours, theirs] = ["instance-1", "instance-2"].map(|id| Owner::new(id).unwrap());
    let open = |owner: &Owner| {
        let owner = owner.clone();
        namespace.run(move || NetlinkBackend::new().unwrap().of(Some(&owner)))
    };
    let list = || namespace.command("nft", "list tables") + &namespace.command("nft", "list ruleset");
    let (mut mine, mut other) = (open(&ours), open(&theirs));
    World::new().adopt(&mut mine);
    assert!(list().contains("comment \"copepod:instance-1\""), "{}", list());
    assert!(!mine.list().unwrap().table.unwrap().foreign);
    other.remove().unwrap();
    assert!(list().contains("table ip copepod"), "it is not the other's to remove");
    // Who holds the namespace now replaces it as a whole, in one transaction, and is its owner afterwards.
    assert!(other.list().unwrap().table.unwrap().foreign);
    let tx = World::new().adopt(&mut other);
    assert_eq!(tx.ops[..2], [Op::DeleteTable, Op::AddTable]);
    assert!(!other.list().unwrap().table.unwrap().foreign && list().contains("copepod:instance-2"));
    assert_eq!(World::new().adopt(&mut other), Transaction::default());
    mine.remove().unwrap();
    assert!(list().contains("table ip copepod"));
    for _ in 0..2 {
        other.remove().unwrap();
    }
    assert!(!list().contains("copepod"));
    // One from before marks is adopted as it is, and goes with the node that holds the namespace.
    World::new().adopt(&mut namespace.run(|| NetlinkBackend::new().unwrap()));
    assert_eq!(World::new().adopt(&mut mine), Transaction::default());
    mine.remove().unwrap();
    assert!(!list().contains("copepod"));
}
