//! Rules of host ports that somebody flushed: they come back at a start, and by themselves.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use netproxy::cni::{self, CniConfig};
use tokio_util::sync::CancellationToken;

use netproxy::links::{BRIDGE, Owner};
use netproxy::network::remove_owned;

use super::{BRIDGE_IP, DNS, Node, OWNER, Protocol, ReservedPort, SUBNET, at, make_bridge, mapping};
use crate::eventually;
use crate::net::NODE_IP;

pub fn config(node: &Node) -> CniConfig {
    CniConfig {
        bridge: BRIDGE.to_owned(),
        owner: Owner::new(OWNER).unwrap(),
        reserved_ports: [ReservedPort(Protocol::Tcp, 10250)].into(),
        dns_address: Some(DNS),
        pod_cidr: SUBNET.parse().unwrap(),
        mtu: 0,
        data_dir: node.data.path().to_owned(),
    }
}

#[test]
fn a_start_restores_what_somebody_flushed() {
    let node = Node::new();
    let config = config(&node);
    let restore = || {
        let config = config.clone();
        node.net.node.run(move || cni::restore_host_ports(&config).unwrap())
    };
    assert!(!restore());
    assert_eq!(node.observed(), None, "nothing is made for nothing");
    let _pod = node.add(1, &[mapping("", "tcp", 80)]).unwrap();
    let before = node.observed();
    node.net.node.command("nft", "flush ruleset");
    assert!(restore());
    assert_eq!(node.observed(), before);
    assert!(!restore(), "there was nothing to do");
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Ok(1));
    let data = tempfile::tempdir().unwrap().path().to_owned();
    for _ in 0..2 {
        let (leases, conf) = (node.data.path().to_owned(), data.clone());
        node.net.node.run(move || {
            cni::cleanup(&leases, &conf).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(remove_owned(&Owner::new(OWNER).unwrap())).unwrap();
        });
    }
    assert_eq!(node.observed(), None);
    assert_eq!(node.net.node.command("ip", "-o link show type bridge"), "");
}

/// What a bridge lets pass goes with it.
#[test]
fn a_bridge_made_anew_leads_loopback_to_containers_again() {
    let node = Node::new();
    let config = config(&node);
    let _pod = node.add(1, &[mapping("", "tcp", 80)]).unwrap();
    let loopback = || node.who(&node.net.node, at(Ipv4Addr::LOCALHOST, 80));
    assert_eq!(loopback(), Ok(1));
    node.net.node.ip(&format!("link delete {BRIDGE}"));
    let restore = || {
        let config = config.clone();
        node.net.node.run(move || cni::restore_host_ports(&config).unwrap())
    };
    assert!(!restore(), "without a bridge there is nothing to do");
    make_bridge(&node.net.node, BRIDGE, BRIDGE_IP);
    assert!(!restore(), "the rules were there");
    eventually("its ports hand on again", || loopback() == Ok(1));
}

#[test]
fn a_port_that_the_node_needs_from_now_on_leads_nowhere_else() {
    let node = Node::new();
    let _pod = node.add(1, &[mapping("", "tcp", 9000), mapping("", "tcp", 9001)]).unwrap();
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 9000)), Ok(1));
    // The node starts anew, with one of them for itself.
    let config = CniConfig { reserved_ports: [ReservedPort(Protocol::Tcp, 9000)].into(), ..config(&node) };
    node.net.node.run(move || assert!(cni::restore_host_ports(&config).unwrap()));
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 9000)), Err(ErrorKind::ConnectionRefused));
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 9001)), Ok(1));
}

#[test]
fn what_somebody_flushes_comes_back_by_itself() {
    let node = Node::new();
    let config = config(&node);
    let token = CancellationToken::new();
    let keeper = node.net.node.spawn({
        let token = token.clone();
        move || {
            // Its blocking threads are born in the node's namespace, as this one is in it.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(cni::keep_host_ports(config, Duration::from_millis(20), token));
        }
    });
    let _pod = node.add(1, &[mapping("", "tcp", 80)]).unwrap();
    let before = node.observed();
    for damage in [
        "flush ruleset",
        "delete table ip copepod-hostports",
        "flush map ip copepod-hostports ports",
        "flush chain ip copepod-hostports hostports",
    ] {
        node.net.node.command("nft", damage);
        eventually(damage, || node.observed() == before);
        assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Ok(1), "{damage}");
    }
    // A damaged file of leases ends nothing: it is made anew, with its ports, and then serves as before.
    std::fs::write(node.data.path().join("copepod.json"), "{").unwrap();
    eventually("the leases are told anew", || node.leases().contains("\"hostPort\":80"));
    node.net.node.command("nft", "flush ruleset");
    eventually("after garbage", || node.observed() == before);
    token.cancel();
    keeper.join().unwrap();
    assert_eq!(node.observed(), before, "the rules outlive whoever keeps them");
}
