//! What a node makes in its network namespace, beside what others have there: one bridge that stays
//! as it is, routes that nobody else's Node object can bend, and nothing of others' touched.

use std::net::{Ipv4Addr, SocketAddrV4};

use harness::api::Api;
use netproxy::backend::netlink::NetlinkBackend;
use netproxy::firewall;
use netproxy::links::{self, BRIDGE, Kind, Link, LinkError, Netlink, Owner};
use netproxy::network::{Clients, NetworkConfig, run};
use netproxy::routes::{DEVICE, NodeNetwork};
use netproxy::ruleset::NodeView;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::eventually;
use crate::net::{Namespace, TARGET_PORT, ask, ask_nobody, serve};
use crate::tunnels::{TestNode, annotate, object, router};
use crate::world::{NODE_PORT, World, endpoint, node_view, port, slice_of};

mod kept;

/// Two nodes on one network, whose pods reach each other.
fn two_nodes(router: &Namespace, api: &Api) -> (TestNode, TestNode) {
    let mut a = TestNode::new("a", router, 1, 1, api);
    let mut b = TestNode::new("b", router, 1, 2, api);
    for node in [&mut a, &mut b] {
        node.start(NodeNetwork::Auto, api);
    }
    b.reaches(&a);
    (a, b)
}

/// Everything in a namespace that somebody could have made, sorted.
fn picture(namespace: &Namespace) -> Vec<String> {
    let shown =
        [("ip", "-o link show"), ("ip", "-o -4 addr show"), ("ip", "route show table all"), ("nft", "-s list ruleset")];
    let lines = shown.map(|(program, args)| namespace.command(program, args));
    // The carrier of links comes and goes by itself.
    let plain = |line: &str| {
        let words = line.split_whitespace().filter(|word| !word.starts_with('<') && *word != "linkdown");
        let words: Vec<_> = words.filter(|word| !["UP", "DOWN", "UNKNOWN", "LOWERLAYERDOWN"].contains(word)).collect();
        words.join(" ")
    };
    let mut lines: Vec<_> = lines.iter().flat_map(|text| text.lines()).map(plain).collect();
    // IPv6 makes its own routes for every link, in its own time.
    lines.retain(|line| {
        !line.contains("fe80::") && !line.contains("ff00::") && !line.contains("proto kernel metric 256")
    });
    let settings = ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "bridge/bridge-nf-call-iptables"];
    for setting in settings {
        let value = namespace.run(move || std::fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap());
        lines.push(format!("{setting} is {}", value.trim()));
    }
    lines.sort_unstable();
    lines
}

/// What is in one picture and not in the other, both ways.
fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

fn node(name: &str, ip: [u8; 4], pod_cidr: &str) -> Value {
    let mut object = object(name, ip.into(), 0);
    object["spec"]["podCIDR"] = json!(pod_cidr);
    object
}

fn bridge(node: &TestNode) -> String {
    let shown = node.namespace.command("ip", &format!("-o link show {BRIDGE}"));
    let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned();
    let addresses = node.namespace.command("ip", &format!("-o -4 addr show dev {BRIDGE}"));
    let mut addresses: Vec<_> = addresses.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
    addresses.sort_unstable();
    format!("{mac} {}", addresses.join(" "))
}

#[test]
fn the_bridge_keeps_its_addresses_as_pods_come_and_go() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    a.start(NodeNetwork::Auto, &api);
    let at_first = bridge(&a);
    assert!(at_first.contains("10.42.1.1/24") && at_first.contains("10.43.0.10/32"), "{at_first}");
    // Their hardware addresses are below and above the bridge's.
    let pods: Vec<_> = (0..6).map(|index| (format!("c{index}"), Namespace::new())).collect();
    for (id, pod) in &pods {
        a.call("ADD", id, pod);
        assert_eq!(bridge(&a), at_first, "{id} came");
    }
    for (id, pod) in &pods {
        a.call("DEL", id, pod);
        assert_eq!(bridge(&a), at_first, "{id} went");
    }
    a.stop();
    a.start(NodeNetwork::Auto, &api);
    assert_eq!(bridge(&a), at_first, "after another start");
}

#[test]
fn a_bridge_that_somebody_removes_comes_back_with_its_ports() {
    let (router, api) = (router(), Api::default());
    let (a, b) = two_nodes(&router, &api);
    let at_first = bridge(&a);
    a.namespace.ip(&format!("link delete {BRIDGE}"));
    // Anything that happens to a node is a reason to look.
    annotate(&api, "b", &json!({}));
    eventually("the bridge is there again", || a.namespace.command("ip", "-o link show").contains(BRIDGE));
    b.reaches(&a);
    assert_eq!(bridge(&a), at_first);
}

#[test]
fn no_node_object_bends_the_routes_of_others() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut victim = TestNode::new("victim", &router, 1, 2, &api);
    a.namespace.ip("link add lan type bridge");
    a.namespace.ip("addr add 10.42.77.1/24 dev lan");
    a.namespace.ip("link set lan up");
    a.namespace.ip("route add 10.42.78.0/24 via 10.1.1.254");
    for node in [&mut a, &mut victim] {
        node.start(NodeNetwork::Auto, &api);
    }
    a.reaches(&victim);
    let before = a.namespace.command("ip", "-4 route show table all type unicast");
    let claims = [
        "0.0.0.0/0",
        "10.1.1.254/32",
        "10.1.1.0/24",
        "10.43.0.0/16",
        "10.43.0.10/32",
        "10.42.0.0/16",
        "10.42.1.0/24",
        "10.42.1.128/25",
        "10.42.2.0/24",
        "10.42.2.5/32",
        "10.42.77.0/24",
        "10.42.78.0/24",
        "127.0.0.0/8",
        "nonsense",
    ];
    for (index, claim) in claims.into_iter().enumerate() {
        let host = 50 + u8::try_from(index).unwrap();
        api.put("nodes", node(&format!("evil{index}"), [10, 1, 1, host], claim));
    }
    // Addresses that are no node's, with networks that could be.
    for (index, ip) in
        [[127, 0, 0, 1], [10, 1, 1, 1], [10, 42, 2, 2], [10, 43, 0, 1], [224, 0, 0, 1]].into_iter().enumerate()
    {
        api.put("nodes", node(&format!("liar{index}"), ip, &format!("10.42.{}.0/24", 90 + index)));
    }
    // Whoever comes after them shows that they were looked at.
    api.put("nodes", node("honest", [10, 1, 1, 9], "10.42.9.0/24"));
    let honest = "10.42.9.0/24 via 10.1.1.9 dev eth0 proto 143 \n";
    let routes = |node: &TestNode| node.namespace.command("ip", "-4 route show table all type unicast");
    eventually("an honest node has its route", || routes(&a).contains(honest));
    assert_eq!(routes(&a).replace(honest, ""), before);
    a.reaches(&victim);
    api.delete("nodes", "honest");
    eventually("its route goes with it", || routes(&a) == before);
    // What is there is the older claim: a restart does not change its mind.
    a.stop();
    a.start(NodeNetwork::Auto, &api);
    api.put("nodes", node("honest", [10, 1, 1, 9], "10.42.9.0/24"));
    eventually("the nodes were looked at", || routes(&a).contains(honest));
    assert_eq!(routes(&a).replace(honest, ""), before);
}

#[test]
fn wrong_ranges_go_when_the_right_ones_come() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut wrong = a.config(NodeNetwork::Auto);
    wrong.dns_address = Some(Ipv4Addr::new(10, 96, 0, 10));
    wrong.pods.as_mut().unwrap().service_cidr = "10.96.0.0/12".parse().unwrap();
    a.run_network(wrong, &api);
    eventually("it is as it was told", || a.shown().contains("10.96.0.0/12"));
    eventually("DNS, too", || bridge(&a).contains("10.96.0.10/32"));
    a.stop();
    // The cluster has moved the node meanwhile, as well.
    api.put("nodes", object("a", a.ip, 8));
    a.run_network(a.config(NodeNetwork::Auto), &api);
    eventually("the wrong way is gone", || !a.shown().contains("10.96.0.0/12"));
    assert!(a.shown().contains("10.43.0.0/16"), "{}", a.shown());
    let addresses = bridge(&a);
    assert!(addresses.contains("10.42.8.1/24") && addresses.contains("10.43.0.10/32"), "{addresses}");
    assert!(!addresses.contains("10.96.0.10") && !addresses.contains("10.42.1.1"), "{addresses}");
}

#[test]
fn a_cluster_with_another_range_than_the_flags_is_followed() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut own = object("a", a.ip, 1);
    own["spec"]["podCIDR"] = json!("10.244.1.0/24");
    api.put("nodes", own);
    api.put("nodes", node("b", [10, 1, 1, 9], "10.244.2.0/24"));
    api.put("nodes", node("evil", [10, 1, 1, 8], "10.1.0.0/24"));
    a.start(NodeNetwork::Auto, &api);
    eventually("the other node's pods have a route", || a.shown().contains("10.244.2.0/24 via 10.1.1.9"));
    assert!(bridge(&a).contains("10.244.1.1/24") && !a.shown().contains("10.1.1.8"), "{}", a.shown());
}

/// One of each that others make on a machine.
fn plant(namespace: &Namespace) {
    for args in [
        "link add cni0 type bridge",
        "addr add 10.244.0.1/24 dev cni0",
        "link set cni0 up",
        "link add docker0 type bridge",
        "addr add 172.17.0.1/16 dev docker0",
        "link add vethdeadbeef type veth peer name vethcafe",
        "link set vethdeadbeef master cni0 up",
        "link add flannel.1 type vxlan id 1 local 127.0.0.1 dstport 8473 nolearning",
        "link set flannel.1 alias copepod",
        "route add 10.42.200.0/24 via 10.1.1.254 proto static",
        "route add blackhole 198.18.0.0/15",
        "route add 10.250.0.0/16 via 10.1.1.254 table 100",
    ] {
        namespace.ip(args);
    }
    for args in [
        "add table ip filter",
        "add chain ip filter FORWARD { type filter hook forward priority filter ; policy accept ; }",
        "add rule ip filter FORWARD iifname docker0 counter accept",
        "add table inet firewall",
        "add table ip kube-proxy",
    ] {
        namespace.command("nft", args);
    }
}

#[test]
fn what_others_have_is_as_before_after_start_and_removal() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut far = TestNode::new("far", &router, 2, 3, &api);
    plant(&a.namespace);
    let before = picture(&a.namespace);
    a.start(NodeNetwork::Auto, &api);
    far.start(NodeNetwork::Auto, &api);
    a.reaches(&far);
    let running = difference(&before, &picture(&a.namespace));
    let gone: Vec<_> = running.iter().filter(|line| line.starts_with('-')).collect();
    assert!(gone.is_empty(), "a start takes nothing away: {gone:?}");
    a.stop();
    a.call("DEL", "pod", &a.pod);
    a.remove_owned();
    assert_eq!(difference(&before, &picture(&a.namespace)), Vec::<String>::new());
}

#[test]
fn a_foreign_link_of_our_name_is_an_error_and_stays() {
    for alias in ["", "copepod:instance-2", "copepod:instance-aa"] {
        let namespace = Namespace::new();
        namespace.ip(&format!("link add {BRIDGE} type bridge"));
        namespace.ip(&format!("addr add 10.42.0.1/24 dev {BRIDGE}"));
        if !alias.is_empty() {
            namespace.ip(&format!("link set {BRIDGE} alias {alias}"));
        }
        let before = picture(&namespace);
        let (_router, api) = (router(), Api::default());
        let config = TestNode::new("a", &_router, 1, 1, &api).config(NodeNetwork::Auto);
        let error = namespace.run(move || fails(config));
        assert!(matches!(&error, LinkError::Clash(clash) if clash.name == BRIDGE), "{error}");
        assert_eq!(difference(&before, &picture(&namespace)), Vec::<String>::new(), "{alias}");
    }
}

fn fails(config: NetworkConfig) -> LinkError {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
        let clients = Clients { nodes: client.clone(), own_node: client, metrics: Default::default() };
        let owner = config.owner.clone();
        let error = run(config, clients, CancellationToken::new()).await.unwrap_err();
        netproxy::network::remove_owned(&owner).await.unwrap();
        error
    })
}

#[test]
fn tunnels_that_another_has_are_told_and_routes_are_made() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut near = TestNode::new("near", &router, 1, 2, &api);
    let mut far = TestNode::new("far", &router, 2, 3, &api);
    // As flannel makes it.
    a.namespace.ip("link add flannel.1 type vxlan id 1 local 10.1.1.1 dstport 8472 nolearning");
    for node in [&mut a, &mut near, &mut far] {
        node.start(NodeNetwork::Auto, &api);
    }
    a.reaches(&near);
    let owner = a.owner();
    let told = a.namespace.run(move || {
        let link = Link {
            name: DEVICE.to_owned(),
            kind: Kind::Vxlan { id: 1, local: Ipv4Addr::new(10, 1, 1, 1), port: 8472 },
            ..links::bridge(&owner, None, [])
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { links::apply(&Netlink::open().unwrap(), &[link], &owner).await.unwrap_err() })
    });
    let LinkError::Kernel { step, source } = &told else { panic!("{told}") };
    assert!(step.contains(DEVICE) && source.to_string().contains("number 1 and the port 8472"), "{step}: {source}");
    assert!(a.namespace.command("ip", "-o link show").contains("flannel.1"));
}

/// A chain as iptables makes it, and one rule of somebody's.
fn drop_forwarded(namespace: &Namespace) {
    for args in [
        "add table ip filter",
        "add chain ip filter FORWARD { type filter hook forward priority filter ; policy drop ; }",
        "add chain ip filter DOCKER-USER",
        "add rule ip filter FORWARD counter jump DOCKER-USER",
    ] {
        namespace.command("nft", args);
    }
}

#[test]
fn pods_reach_each_other_where_the_host_drops_what_it_forwards() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut b = TestNode::new("b", &router, 1, 2, &api);
    for node in [&a, &b] {
        drop_forwarded(&node.namespace);
    }
    let before = picture(&a.namespace);
    for node in [&mut a, &mut b] {
        node.start(NodeNetwork::Auto, &api);
    }
    a.reaches(&b);
    b.reaches(&a);
    // Another pod of the same node: its frames pass the filter, too.
    let neighbour = Namespace::new();
    a.call("ADD", "neighbour", &neighbour);
    let to = SocketAddrV4::new(a.pod_ip(), TARGET_PORT);
    assert_eq!(neighbour.run(move || ask(to).unwrap().pod), 1);
    // And the outside, whose answers come back.
    router.run(|| serve(77));
    let outside = SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 254), TARGET_PORT);
    router.ip("route add 10.42.1.0/24 via 10.1.1.1");
    assert_eq!(neighbour.run(move || ask(outside).unwrap().pod), 77);

    // Somebody's rules come first from now on; ours come back when somebody drops them, once.
    let rules = || a.namespace.command("nft", "list chain ip filter FORWARD");
    let ours = || rules().matches("copepod:instance-a").count();
    assert_eq!(ours(), 4, "{}", rules());
    annotate(&api, "b", &json!({}));
    a.namespace.command("nft", "flush chain ip filter FORWARD");
    annotate(&api, "b", &json!({}));
    eventually("pods are let through again", || ours() == 4);
    a.stop();
    for (id, pod) in [("pod", &a.pod), ("neighbour", &neighbour)] {
        a.call("DEL", id, pod);
    }
    a.namespace.command("nft", "add rule ip filter FORWARD counter jump DOCKER-USER");
    a.remove_owned();
    assert_eq!(difference(&before, &picture(&a.namespace)), Vec::<String>::new());
}

/// A Service's endpoint on another node's own network is no pod's address, nor is the client.
#[test]
fn node_ports_lead_to_other_nodes_where_the_host_drops_what_it_forwards() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let b = TestNode::new("b", &router, 1, 2, &api);
    drop_forwarded(&a.namespace);
    a.start(NodeNetwork::Auto, &api);
    b.namespace.run(|| serve(88));
    let mut world = World::with(NodeView { node_ips: vec![a.ip], ..node_view() });
    world.service("svc", vec![port()]);
    world.slice("svc", slice_of(vec![endpoint(b.ip)]));
    world.adopt(&mut a.namespace.run(|| NetlinkBackend::new().unwrap()));
    let to = SocketAddrV4::new(a.ip, NODE_PORT);
    assert_eq!(router.run(move || ask(to).unwrap().pod), 88);
    // What nobody translates the host goes on dropping.
    router.ip("route add 10.1.1.2/32 via 10.1.1.1");
    let past = SocketAddrV4::new(b.ip, TARGET_PORT);
    assert!(router.run(move || ask_nobody(past).is_err()));
}

/// The host's end of an attachment: one from before links were marked goes, one of another owner stays.
#[test]
fn only_ports_that_are_ours_or_nobodys_are_removed() {
    let namespace = Namespace::new();
    let [ours, theirs] = ["instance-1", "instance-2"].map(|id| Owner::new(id).unwrap());
    let remove = |name: &'static str| {
        let owner = ours.clone();
        namespace.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { Netlink::open().unwrap().remove_port(name, &owner).await })
        })
    };
    for (name, alias) in [("ours", Some(ours.mark())), ("theirs", Some(theirs.mark())), ("old", None)] {
        namespace.ip(&format!("link add {name} type veth peer name {name}-peer"));
        if let Some(alias) = alias {
            namespace.ip(&format!("link set {name} alias {alias}"));
        }
    }
    // A name of ours may be taken by something that no plugin makes.
    namespace.ip("link add other type bridge");
    let there = |name: &str| namespace.command("ip", "-o link show").contains(&format!(" {name}"));
    for _ in 0..2 {
        remove("ours").unwrap();
        remove("old").unwrap();
    }
    assert!(!there("ours") && !there("old"));
    for name in ["theirs", "other"] {
        assert!(matches!(remove(name), Err(LinkError::Clash(_))), "{name}");
        assert!(there(name), "{name}");
    }
}

#[test]
fn filters_that_are_not_ours_to_open_are_told() {
    let namespace = Namespace::new();
    let obstacles = || namespace.run(|| firewall::in_the_way("10.42.0.0/16".parse().unwrap()).unwrap());
    let other_proxy = || namespace.run(|| firewall::other_proxy().unwrap());
    assert_eq!(other_proxy(), None);
    assert_eq!(obstacles(), Vec::<String>::new());
    drop_forwarded(&namespace);
    assert_eq!(obstacles(), Vec::<String>::new(), "that one is opened");
    for args in [
        "add table inet mine",
        "add chain inet mine forward { type filter hook forward priority 10 ; policy drop ; }",
        "add table inet firewalld",
        "add chain inet firewalld filter_FORWARD { type filter hook forward priority 11 ; policy accept ; }",
        "add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited",
        "add table ip nat",
        "add chain ip nat KUBE-SERVICES",
    ] {
        namespace.command("nft", args);
    }
    let lines = obstacles();
    for part in ["inet mine", "firewall-cmd"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} is not in {lines:?}");
    }
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(other_proxy().unwrap().contains("KUBE-SERVICES"));
    // The machine's owner has thought of pods.
    namespace.command("nft", "insert rule inet mine forward ip saddr 10.42.0.0/16 accept");
    namespace.command("nft", "insert rule inet firewalld filter_FORWARD iifname copepod0 accept");
    assert_eq!(obstacles(), Vec::<String>::new());
}

#[test]
fn where_others_give_pods_their_network_dns_has_its_address_all_the_same() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    plant(&a.namespace);
    let before = picture(&a.namespace);
    let config = NetworkConfig { pods: None, ..a.config(NodeNetwork::Auto) };
    a.run_network(config, &api);
    eventually("the address is there", || a.namespace.command("ip", "-o -4 addr show").contains("10.43.0.10/32"));
    // Whoever is on the node, and whoever's packets come to it, is answered there.
    let dns = SocketAddrV4::new(Ipv4Addr::new(10, 43, 0, 10), TARGET_PORT);
    a.namespace.run(|| serve(53));
    assert_eq!(a.namespace.run(move || ask(dns).unwrap().pod), 53);
    router.ip("route add 10.43.0.10/32 via 10.1.1.1");
    assert_eq!(router.run(move || ask(dns).unwrap().pod), 53);
    assert!(!a.shown().contains("proto 143") && a.conflist().is_none());
    a.stop();
    a.remove_owned();
    assert_eq!(difference(&before, &picture(&a.namespace)), Vec::<String>::new());
}
