//! The service proxy and the CNI plugin against the real kernel: connections between network namespaces.
//! Needs root, `ip` and `nft`; without them it fails.
#![allow(clippy::unwrap_used)]

mod hostports;
mod links;
mod local_traffic;
mod net;
mod router;
mod tables;
mod tunnels;
mod whole;
mod world;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use harness::time;
use net::{Answer, CLIENT_IP, NODE_IP, Namespace, Shape, ask, ask_nobody, ask_udp, pod_ip, tally};
use netproxy::backend::netlink::NetlinkBackend;
use netproxy::conntrack::UdpServices;
use netproxy::conntrack::ctnetlink::{Conntrack, CtNetlink};
use netproxy::nft::transaction::Transaction;
use netproxy::snapshot::{Protocol, ServicePort};
use world::{NODE_PORT, Served, VIP, World, endpoint, evenly, name, node_port, port, slice, slice_of, vip};

/// Waits until `condition` holds.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    time::until_true(what, condition).unwrap();
}

#[test]
fn serves_in_exact_turn_from_everywhere() {
    serves_in_exact_turn(Shape::Routed);
}

#[test]
fn serves_in_exact_turn_over_a_bridge() {
    serves_in_exact_turn(Shape::Bridged);
}

fn serves_in_exact_turn(shape: Shape) {
    let mut served = Served::shaped(4, port(), shape);
    served.endpoints(&[0, 1, 2]);
    let Served { net, .. } = &served;
    for (from, namespace) in [("pod", &net.pods[3]), ("node", &net.node), ("outside", &net.client)] {
        assert_eq!(tally(namespace, vip(), 300), evenly(3, 100), "ClusterIP from {from}");
        assert_eq!(tally(namespace, node_port(), 300), evenly(3, 100), "NodePort from {from}");
    }
    // Pods see each other's addresses; clients from outside come back through this node.
    assert_eq!(net.pods[3].run(|| ask(vip()).unwrap().seen), pod_ip(3));
    assert_ne!(net.client.run(|| ask(vip()).unwrap().seen), CLIENT_IP);
    assert_ne!(net.client.run(|| ask(node_port()).unwrap().seen), CLIENT_IP);
    // NodePorts are not served on loopback.
    let loopback = SocketAddrV4::new(Ipv4Addr::LOCALHOST, NODE_PORT);
    let refused = net.node.run(move || ask(loopback).unwrap_err().kind());
    assert_eq!(refused, ErrorKind::ConnectionRefused);
}

#[test]
fn turn_goes_on_over_changes_elsewhere_and_over_a_restart() {
    let mut served = Served::new(3, port());
    let ask_one = |served: &Served| served.net.client.run(|| ask(vip()).unwrap().pod);
    assert_eq!(ask_one(&served), 0);
    served.world.service("other", vec![ServicePort { cluster_ip: [10, 43, 0, 7].into(), node_port: 0, ..port() }]);
    served.world.slice("other", slice(&[1]));
    assert!(!served.sync().is_empty());
    assert_eq!(ask_one(&served), 1);
    // A new process finds its own rules and leaves them alone.
    let mut world = World::new();
    world.service("svc", vec![port()]);
    world.slice("svc", slice(&[0, 1, 2]));
    world.service("other", vec![ServicePort { cluster_ip: [10, 43, 0, 7].into(), node_port: 0, ..port() }]);
    world.slice("other", slice(&[1]));
    served.backend = served.net.node.run(|| NetlinkBackend::new().unwrap());
    let tx = world.adopt(&mut served.backend);
    assert_eq!(tx, Transaction::default());
    served.world = world;
    assert_eq!(ask_one(&served), 2);
}

#[test]
fn keeps_clients_with_their_endpoint_until_the_timeout() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let mut served = Served::new(3, ServicePort { affinity: Some(3), ..port() });
    for addr in [vip(), node_port()] {
        assert_eq!(tally(&served.net.client, addr, 300).len(), 1, "{addr}");
    }
    let mut first = served.net.client.run(|| ask(vip()).unwrap().pod);
    let node = served.net.node.run(|| ask(vip()).unwrap().pod);
    assert_ne!(first, node, "another client, another endpoint");
    // Connections keep the entry alive past its timeout. On a machine that stalls longer than the
    // timeout between two of them the observation begins anew.
    let (mut began, mut last) = (Instant::now(), Instant::now());
    while began.elapsed() < TIMEOUT + Duration::from_millis(500) {
        let pod = served.net.client.run(|| ask(vip()).unwrap().pod);
        if last.elapsed() > TIMEOUT / 2 {
            (began, first) = (Instant::now(), pod);
        }
        assert_eq!(pod, first);
        last = Instant::now();
        std::thread::sleep(Duration::from_millis(100));
    }
    eventually("affinity expires", || !served.net.node.command("nft", "list table ip copepod").contains("expires"));
    let second = served.net.client.run(|| ask(vip()).unwrap().pod);
    assert_ne!(second, first, "a new choice is made");
    // An endpoint that goes takes its clients' entries with it.
    let rest: Vec<u8> = (0..3).filter(|pod| *pod != second).collect();
    served.endpoints(&rest);
    let third = served.net.client.run(|| ask(vip()).unwrap().pod);
    assert_ne!(third, second);
    assert_eq!(tally(&served.net.client, vip(), 20).len(), 1);
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let mut served = Served::shaped(2, port(), shape);
        served.endpoints(&[0]);
        let answer = served.net.pods[0].run(|| ask(vip()).unwrap());
        assert_eq!(answer.pod, 0);
        assert_ne!(answer.seen, pod_ip(0), "it would answer itself directly");
        assert_eq!(served.net.pods[1].run(|| ask(vip()).unwrap()), Answer { pod: 0, seen: pod_ip(1) });
    }
}

#[test]
fn refuses_what_nobody_serves() {
    let udp = ServicePort { protocol: Protocol::Udp, ..port() };
    let mut served = Served::new(2, port());
    served.world.service("svc", vec![port(), udp]);
    served.world.slice("svc", slice(&[]));
    served.sync();
    let net = &served.net;
    let unknown_port = SocketAddrV4::new(VIP, 81);
    let unknown_vip = SocketAddrV4::new(Ipv4Addr::new(10, 43, 9, 9), 80);
    for (from, namespace) in [("pod", &net.pods[1]), ("node", &net.node), ("outside", &net.client)] {
        let kind = |addr| namespace.run(move || ask(addr).unwrap_err().kind());
        assert_eq!(kind(vip()), ErrorKind::ConnectionRefused, "ClusterIP from {from}");
        assert_eq!(kind(node_port()), ErrorKind::ConnectionRefused, "NodePort from {from}");
        assert_eq!(kind(unknown_port), ErrorKind::ConnectionRefused, "undefined port from {from}");
        let silence = namespace.run(move || ask_nobody(unknown_vip).unwrap_err().kind());
        assert_eq!(silence, ErrorKind::TimedOut, "unallocated address from {from}");
        let udp = namespace.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(time::limit())).unwrap();
            socket.connect(vip()).unwrap();
            socket.send(b"?").and_then(|_| socket.recv(&mut [0; 1])).unwrap_err().kind()
        });
        // A sender on the node learns of the refusal from its own send.
        let refused = if from == "node" { ErrorKind::PermissionDenied } else { ErrorKind::ConnectionRefused };
        assert_eq!(udp, refused, "UDP from {from}");
    }
    // It comes to life, and dies again.
    served.endpoints(&[1]);
    assert_eq!(served.net.client.run(|| ask(vip()).unwrap().pod), 1);
    served.endpoints(&[]);
    assert!(served.net.client.run(|| ask(vip()).is_err()));
}

#[test]
fn udp_goes_on_after_its_only_pod_is_replaced() {
    let udp = ServicePort { protocol: Protocol::Udp, ..port() };
    let mut served = Served::new(3, udp);
    let mut conntrack = served.net.node.run(|| CtNetlink::new().unwrap());
    let mut services = UdpServices::default();
    for addr in [vip(), node_port()] {
        served.endpoints(&[0]);
        services.update(&name("svc"), &served.world.state.resolve(&name("svc")));
        let earlier = services.stale(&conntrack.udp_flows().unwrap(), &[NODE_IP]);
        earlier.iter().for_each(|flow| conntrack.delete(flow).unwrap());
        let socket = served.net.client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(time::limit())).unwrap();
        assert_eq!(ask_udp(&socket, addr).unwrap(), 0);
        let flows = conntrack.udp_flows().unwrap();
        assert_eq!(services.stale(&flows, &[NODE_IP]), [], "flows that are valid stay");
        served.endpoints(&[2]);
        services.update(&name("svc"), &served.world.state.resolve(&name("svc")));
        let flows = conntrack.udp_flows().unwrap();
        let stale = services.stale(&flows, &[NODE_IP]);
        assert_eq!(stale.len(), 1, "{flows:?}");
        stale.iter().for_each(|flow| conntrack.delete(flow).unwrap());
        stale.iter().for_each(|flow| conntrack.delete(flow).expect("deleting twice is fine"));
        assert_eq!(ask_udp(&socket, addr).unwrap(), 2, "the same socket reaches the new pod");
    }
}

#[test]
fn local_policy_keeps_sources_and_drops_without_local_endpoints() {
    let local = ServicePort { external_local: true, internal_local: true, ..port() };
    let mut served = Served::new(3, local.clone());
    let remote = netproxy::snapshot::Endpoint { local: false, ..endpoint(pod_ip(1)) };
    served.world.slice("svc", slice_of(vec![endpoint(pod_ip(0)), remote.clone()]));
    served.sync();
    let seen = served.net.client.run(|| ask(node_port()).unwrap());
    assert_eq!(seen, Answer { pod: 0, seen: CLIENT_IP }, "the source is kept");
    assert_eq!(tally(&served.net.pods[2], vip(), 20), [(0, 20)].into(), "internal Local uses local endpoints");
    assert_eq!(tally(&served.net.pods[2], node_port(), 20), evenly(2, 10), "pods use the Cluster policy");
    assert_eq!(tally(&served.net.node, node_port(), 20), evenly(2, 10), "so does the node");
    served.world.slice("svc", slice_of(vec![remote]));
    served.sync();
    let kind = |ns: &Namespace, addr| ns.run(move || ask_nobody(addr).unwrap_err().kind());
    assert_eq!(kind(&served.net.client, node_port()), ErrorKind::TimedOut);
    assert_eq!(kind(&served.net.pods[2], vip()), ErrorKind::TimedOut);
    assert_eq!(served.net.pods[2].run(|| ask(node_port()).unwrap().pod), 1);
}

#[test]
fn source_ranges_guard_load_balancer_addresses_only() {
    let (lb, external) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
    let ranges = |range: &str| Some(vec![range.parse().unwrap()]);
    let guarded = ServicePort {
        load_balancer_ips: [lb].into(),
        external_ips: [external].into(),
        source_ranges: ranges("203.0.113.0/24"),
        ..port()
    };
    let mut served = Served::new(2, guarded.clone());
    let at = |ip| SocketAddrV4::new(ip, 80);
    let silence = served.net.client.run(move || ask_nobody(at(lb)).unwrap_err().kind());
    assert_eq!(silence, ErrorKind::TimedOut);
    assert!(served.net.client.run(move || ask(at(external)).is_ok()));
    served.world.service("svc", vec![ServicePort { source_ranges: ranges("192.0.2.0/24"), ..guarded }]);
    served.sync();
    assert_eq!(tally(&served.net.client, at(lb), 20), evenly(2, 10));
}

#[test]
fn no_connection_fails_while_endpoints_change() {
    let mut served = Served::new(3, port());
    let (stop, failures, made) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let load = |namespace: &Namespace, addr| {
        let (stop, failures, made) = (Arc::clone(&stop), Arc::clone(&failures), Arc::clone(&made));
        namespace.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match ask(addr) {
                    Ok(_) => made.fetch_add(1, Ordering::Relaxed),
                    Err(_) => failures.fetch_add(1, Ordering::Relaxed),
                };
            }
        })
    };
    let threads =
        [load(&served.net.client, vip()), load(&served.net.client, node_port()), load(&served.net.node, vip())];
    let subsets: [&[u8]; 6] = [&[0], &[0, 1], &[1, 2], &[0, 1, 2], &[2], &[1]];
    for subset in subsets.into_iter().cycle().take(300) {
        served.endpoints(subset);
    }
    for subset in subsets.into_iter().cycle().take_while(|_| made.load(Ordering::Relaxed) <= 100) {
        served.endpoints(subset);
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(failures.load(Ordering::Relaxed), 0, "of {} connections", made.load(Ordering::Relaxed));
}
