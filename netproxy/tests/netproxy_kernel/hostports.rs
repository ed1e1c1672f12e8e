//! Host ports as the CNI plugin opens and closes them: requests as a runtime makes them, and
//! connections from everywhere.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use harness::time;
use netproxy::backend::NftBackend;
use netproxy::backend::cli::{CliBackend, list_json};
use netproxy::backend::netlink::NetlinkBackend;
use netproxy::cni;
use netproxy::cni::hostports::mapping::{HostPort, ReservedPort};
use netproxy::cni::hostports::table::{NetworkAddresses, TABLE, repair, table};
use netproxy::conntrack::ctnetlink::{Conntrack, CtNetlink};
use netproxy::links::{self, BRIDGE, Link, Netlink, Owner};
use netproxy::nft::object::Observed;
use netproxy::nft::transaction::Transaction;
use netproxy::snapshot::Protocol;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::eventually;
use crate::net::{
    Answer, CLIENT_IP, NODE_IP, Namespace, Net, Shape, TARGET_PORT, ask, ask_udp, connect_to_nobody, serve, tally,
};
use crate::tables::normalised;
use crate::world::{Served, evenly, node_port, port};

mod others;
mod restored;

const OWNER: &str = "instance-1";
const SUBNET: &str = "10.42.7.0/24";
const BRIDGE_IP: Ipv4Addr = Ipv4Addr::new(10, 42, 7, 1);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

/// A node with the plugin's configuration.
struct Node {
    net: Net,
    data: TempDir,
}

/// A container that is attached.
struct Pod {
    id: String,
    namespace: Namespace,
    address: Ipv4Addr,
}

/// A mapping in containerd's letters.
fn mapping(host_ip: &str, protocol: &str, host_port: u16) -> Value {
    json!({"HostIP": host_ip, "Protocol": protocol, "HostPort": host_port, "ContainerPort": TARGET_PORT})
}

fn netns(namespace: &Namespace) -> PathBuf {
    format!("/proc/{}/task/{}/ns/net", std::process::id(), namespace.tid).into()
}

/// One call of the plugin, in the calling thread's network namespace: its result, or its error object.
fn call(data: &Path, command: &str, (id, netns): (&str, &Path), more: &Value) -> Result<Value, Value> {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "copepod", "type": "copepod-cni", "bridge": BRIDGE, "subnet": SUBNET, "dataDir": data,
        "owner": OWNER, "reservedPorts": ["10250/tcp", "8472/udp"], "dnsAddress": DNS,
    });
    for (field, value) in more.as_object().unwrap() {
        config[field] = value.clone();
    }
    let variable = |name: &str| match name {
        "CNI_COMMAND" => Some(command.to_owned()),
        "CNI_CONTAINERID" => Some(id.to_owned()),
        "CNI_IFNAME" => Some("eth0".to_owned()),
        "CNI_NETNS" => netns.to_str().map(str::to_owned),
        _ => None,
    };
    let mut output = Vec::new();
    let code = cni::main(variable, config.to_string().as_bytes(), &mut output);
    let value = if output.is_empty() { Value::Null } else { serde_json::from_slice(&output).unwrap() };
    if code == 0 { Ok(value) } else { Err(value) }
}

fn ports(mappings: &[Value]) -> Value {
    json!({"runtimeConfig": {"portMappings": mappings}})
}

/// A bridge as the node makes it, for the plugin to find.
fn make_bridge(node: &Namespace, name: &'static str, address: Ipv4Addr) {
    node.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let owner = Owner::new(OWNER).unwrap();
            let bridge = Link { name: name.to_owned(), ..links::bridge(&owner, None, [(address, 24)]) };
            links::apply(&Netlink::open().unwrap(), &[bridge], &owner).await.unwrap();
        });
    });
}

impl Node {
    fn new() -> Self {
        Self::on(Net::new(0, Shape::Routed))
    }

    fn on(net: Net) -> Self {
        let data = tempfile::tempdir().unwrap();
        let note = data.path().join("sysctls");
        net.node.run(move || cni::prepare_node(&note).unwrap());
        // As distributions set it that check the reverse path strictly.
        net.node.sysctl("ipv4/conf/all/rp_filter", "1");
        // Others' bridges are not filtered: ours asks for it by itself.
        net.node.sysctl("bridge/bridge-nf-call-iptables", "0");
        make_bridge(&net.node, BRIDGE, BRIDGE_IP);
        Self { net, data }
    }

    fn call(&self, command: &'static str, id: &str, netns: PathBuf, more: Value) -> Result<Value, Value> {
        let (data, id) = (self.data.path().to_owned(), id.to_owned());
        self.net.node.run(move || call(&data, command, (id.as_str(), netns.as_path()), &more))
    }

    /// Attaches a container that says `index` on its port.
    fn add(&self, index: u8, mappings: &[Value]) -> Result<Pod, Value> {
        let namespace = Namespace::new();
        let id = format!("pod-{index}");
        let result = self.call("ADD", &id, netns(&namespace), ports(mappings))?;
        let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
        namespace.run(move || serve(index));
        // A new link drops packets for a moment; tests that expect a quick answer must not meet that.
        self.net.node.run(move || ask(SocketAddrV4::new(address, TARGET_PORT)).expect("the container answers"));
        Ok(Pod { id, namespace, address })
    }

    fn delete(&self, pod: &Pod) -> Result<Value, Value> {
        self.call("DEL", &pod.id, netns(&pod.namespace), json!({}))
    }

    fn check(&self, pod: &Pod, mappings: &[Value]) -> Result<Value, Value> {
        self.call("CHECK", &pod.id, netns(&pod.namespace), ports(mappings))
    }

    /// GC, with these containers alive.
    fn collect(&self, alive: &[&Pod]) {
        let alive: Vec<_> = alive.iter().map(|pod| json!({"containerID": pod.id, "ifname": "eth0"})).collect();
        self.call("GC", "", PathBuf::new(), json!({"cni.dev/valid-attachments": alive})).unwrap();
    }

    /// The kernel's table.
    fn observed(&self) -> Option<Observed> {
        self.net.node.run(|| NetlinkBackend::for_table(TABLE).unwrap().list().unwrap().table)
    }

    /// Number of elements in all sets of the table.
    fn elements(&self) -> usize {
        self.observed().map_or(0, |table| table.sets.values().map(|set| set.elements.len()).sum())
    }

    /// Number of containers' interfaces.
    fn links(&self) -> usize {
        self.net.node.command("ip", "-o link show type veth").lines().filter(|line| line.contains(": veth")).count()
    }

    fn leases(&self) -> String {
        std::fs::read_to_string(self.data.path().join("copepod.json")).unwrap_or_default()
    }

    /// Who answers TCP at `addr` when asked from `from`.
    fn who(&self, from: &Namespace, addr: SocketAddrV4) -> Result<u8, ErrorKind> {
        from.run(move || ask(addr).map(|answer| answer.pod).map_err(|error| error.kind()))
    }
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

fn udp_socket(from: &Namespace, bind: Ipv4Addr) -> UdpSocket {
    let socket = from.run(move || UdpSocket::bind((bind, 0)).unwrap());
    socket.set_read_timeout(Some(time::limit())).unwrap();
    socket
}

#[test]
fn a_host_port_leads_into_its_container_from_everywhere() {
    let node = Node::new();
    let mappings = [mapping("", "tcp", 8000), mapping("0.0.0.0", "udp", 8000)];
    let (pod, other) = (node.add(1, &mappings).unwrap(), node.add(2, &[]).unwrap());
    let (public, loopback) = (at(NODE_IP, 8000), at(Ipv4Addr::LOCALHOST, 8000));
    for (from, namespace, addr, seen) in [
        ("outside", &node.net.client, public, CLIENT_IP),
        ("outside, another address", &node.net.client, at(BRIDGE_IP, 8000), CLIENT_IP),
        ("another pod", &other.namespace, public, other.address),
        ("the node", &node.net.node, public, NODE_IP),
        ("the node's loopback", &node.net.node, loopback, BRIDGE_IP),
        ("the pod itself", &pod.namespace, public, BRIDGE_IP),
    ] {
        assert_eq!(namespace.run(move || ask(addr).unwrap()), Answer { pod: 1, seen }, "TCP from {from}");
        let socket = udp_socket(namespace, Ipv4Addr::UNSPECIFIED);
        assert_eq!(ask_udp(&socket, addr).unwrap(), 1, "UDP from {from}");
    }
    assert_eq!(node.who(&node.net.client, at(NODE_IP, TARGET_PORT)), Err(ErrorKind::ConnectionRefused));
    node.check(&pod, &mappings).unwrap();
    // The node's range may be another one by now.
    let mut moved = ports(&mappings);
    moved["subnet"] = json!("10.99.0.0/25");
    node.call("CHECK", &pod.id, netns(&pod.namespace), moved).unwrap();
}

#[test]
fn hardware_addresses_stay_as_containers_come_and_go() {
    // Left to itself a bridge takes the lowest address of its ports, and containers send to the one
    // before; just so the node to a container whose address was another's.
    let node = Node::new();
    let bridge = || node.net.node.command("ip", &format!("-o link show {BRIDGE}"));
    let _pods = [1, 2, 3].map(|index| {
        let pod = node.add(index, &[]).unwrap();
        assert!(bridge().contains(&Owner::new(OWNER).unwrap().mac(BRIDGE).to_string()), "{}", bridge());
        let link = pod.namespace.command("ip", "-o link show eth0");
        assert!(link.contains(&format!("0a:58:0a:2a:07:0{}", index + 1)), "{link}");
        pod
    });
}

#[test]
fn one_number_serves_several_addresses_and_protocols() {
    let node = Node::new();
    let loopback = Ipv4Addr::LOCALHOST;
    let _pods = [
        node.add(1, &[mapping("127.0.0.1", "tcp", 54323)]).unwrap(),
        node.add(2, &[mapping(&NODE_IP.to_string(), "TCP", 54323)]).unwrap(),
        node.add(3, &[mapping(&NODE_IP.to_string(), "UDP", 54323)]).unwrap(),
        node.add(4, &[mapping("127.0.0.1", "udp", 54323)]).unwrap(),
    ];
    assert_eq!(node.who(&node.net.node, at(loopback, 54323)), Ok(1));
    for from in [&node.net.node, &node.net.client] {
        assert_eq!(node.who(from, at(NODE_IP, 54323)), Ok(2));
        assert_eq!(ask_udp(&udp_socket(from, Ipv4Addr::UNSPECIFIED), at(NODE_IP, 54323)).unwrap(), 3);
    }
    // A client on the node may come from the node's address to its loopback, too.
    for source in [loopback, NODE_IP] {
        assert_eq!(ask_udp(&udp_socket(&node.net.node, source), at(loopback, 54323)).unwrap(), 4, "{source}");
    }
    let refused = node.who(&node.net.client, at(BRIDGE_IP, 54323));
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "on no other address");
}

#[test]
fn a_taken_port_is_refused_and_nothing_is_left() {
    let node = Node::new();
    let first = node.add(1, &[mapping("", "tcp", 80)]).unwrap();
    let (leases, table, links) = (node.leases(), node.observed(), node.links());
    for wish in [mapping("", "tcp", 80), mapping("127.0.0.1", "tcp", 80)] {
        let error = node.add(2, &[mapping("", "tcp", 81), wish]).err().unwrap();
        assert_eq!(error["code"], 102, "{error}");
        assert!(error["msg"].as_str().unwrap().contains("80/tcp is taken"), "{error}");
        assert!(error["details"].as_str().unwrap().contains(&first.id), "{error}");
        assert_eq!((node.leases(), node.observed(), node.links()), (leases.clone(), table.clone(), links));
    }
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Ok(1));
    // Nobody told us that the first one is gone: its namespace does.
    drop(first);
    let second = node.add(2, &[mapping("127.0.0.1", "tcp", 80)]).unwrap();
    assert_eq!(node.who(&node.net.node, at(Ipv4Addr::LOCALHOST, 80)), Ok(2));
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Err(ErrorKind::ConnectionRefused));
    node.delete(&second).unwrap();
    assert_eq!(node.elements(), 0);
}

#[test]
fn senseless_mappings_are_refused_before_anything_is_made() {
    let node = Node::new();
    for (runtime_config, complaint) in [
        (json!({"portMappings": "x"}), "list"),
        (json!({"portMappings": [{"hostPort": 70_000, "containerPort": 80}]}), "70000"),
        (json!({"portMappings": [{"hostPort": 80}]}), "containerPort is missing"),
        (json!({"portMappings": [mapping("banana", "tcp", 80)]}), "hostIP"),
        (json!({"portMappings": [mapping("", "icmp", 80)]}), "protocol"),
    ] {
        let namespace = Namespace::new();
        let more = json!({"runtimeConfig": runtime_config});
        let error = node.call("ADD", "x", netns(&namespace), more.clone()).unwrap_err();
        assert_eq!(error["code"], 7, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(complaint), "{error}");
        node.call("DEL", "x", netns(&namespace), more).expect("whatever it is, the container can be taken away");
        assert_eq!((node.links(), node.leases().contains("\"x\"")), (0, false));
    }
    let pod = node.add(1, &[mapping("::", "tcp", 80), mapping("fd00::1", "tcp", 81)]).unwrap();
    assert_eq!(node.observed(), None, "addresses of IPv6 are ignored");
    node.delete(&pod).unwrap();
}

#[test]
fn deleting_takes_exactly_the_containers_own_ports() {
    let node = Node::new();
    let first = node.add(1, &[mapping("", "tcp", 80), mapping(&NODE_IP.to_string(), "udp", 53)]).unwrap();
    let second = node.add(2, &[mapping("", "tcp", 81)]).unwrap();
    let gone = PathBuf::from("/nowhere");
    node.call("DEL", &first.id, gone.clone(), json!({})).unwrap();
    for _ in 0..2 {
        node.delete(&first).expect("deleting again is fine");
    }
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Err(ErrorKind::ConnectionRefused));
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 81)), Ok(2));
    node.check(&second, &[mapping("", "tcp", 81)]).unwrap();
    // A port goes over to the next one at once.
    let third = node.add(3, &[mapping("", "tcp", 80)]).unwrap();
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Ok(3));
    // Somebody flushed everything: there is nothing to delete, and that is fine.
    node.net.node.command("nft", "flush ruleset");
    assert_eq!(node.check(&second, &[]).unwrap_err()["code"], 101);
    node.call("DEL", &second.id, gone, json!({})).unwrap();
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Ok(3), "what is left is made whole again");
    node.delete(&third).unwrap();
    assert_eq!(node.elements(), 0);
}

#[test]
fn what_died_half_way_is_collected() {
    let node = Node::new();
    let live = node.add(1, &[mapping("", "tcp", 80)]).unwrap();
    let dead = node.add(2, &[mapping("", "tcp", 81)]).unwrap();
    let before = node.elements();
    // Died after its lease, before its rules.
    node.net.node.command("nft", "delete table ip copepod-hostports");
    node.collect(&[&live]);
    assert!(!node.leases().contains(&dead.id), "{}", node.leases());
    assert_eq!(node.elements(), before / 2);
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Ok(1));
    // Asking again for what is leased already is no conflict with oneself.
    let again = node.call("ADD", &live.id, netns(&live.namespace), ports(&[mapping("", "tcp", 80)])).unwrap();
    assert_eq!(again["ips"][0]["address"], format!("{}/24", live.address));
    eventually("it answers again", || node.who(&node.net.client, at(NODE_IP, 80)) == Ok(1));
    // And for other ports, the ones it had are given up.
    node.call("ADD", &live.id, netns(&live.namespace), ports(&[mapping("", "tcp", 82)])).unwrap();
    eventually("it answers there", || node.who(&node.net.client, at(NODE_IP, 82)) == Ok(1));
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 80)), Err(ErrorKind::ConnectionRefused));
    assert_eq!(node.elements(), before / 2);
    // Rules without a lease.
    let stray = node.add(3, &[mapping("", "tcp", 83)]).unwrap();
    std::fs::remove_file(node.data.path().join("copepod.json")).unwrap();
    assert_eq!(node.who(&node.net.client, at(NODE_IP, 83)), Ok(3));
    node.collect(&[]);
    assert_eq!(node.elements(), 0);
    drop(stray);
}

#[test]
fn many_plugins_at_the_same_time_share_the_ports_out() {
    const PODS: u16 = 12;
    let node = Node::new();
    let namespaces: Vec<_> = (0..PODS).map(|_| Namespace::new()).collect();
    let start = |index: u16, mappings: Vec<Value>| {
        let (data, netns) = (node.data.path().to_owned(), netns(&namespaces[usize::from(index)]));
        node.net.node.spawn(move || {
            let id = format!("pod-{index}");
            call(&data, "ADD", (id.as_str(), netns.as_path()), &ports(&mappings))
        })
    };
    // Each its own port; the second half wants one that all of them want.
    let threads: Vec<_> = (0..PODS)
        .map(|index| {
            let own = mapping("", "tcp", 8000 + index);
            start(index, if index < PODS / 2 { vec![own] } else { vec![own, mapping("", "udp", 53)] })
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(refused.len(), usize::from(PODS / 2) - 1, "{results:?}");
    assert!(refused.iter().all(|error| error["code"] == 102), "{refused:?}");
    let added = usize::from(PODS) - refused.len();
    // A port, a hairpin and an address each, and one port more for the winner.
    assert_eq!(node.elements(), added * 3 + 1);
    assert_eq!(node.links(), added);
    let whole = node.observed().unwrap();
    assert!(whole.chains.values().all(|(_, tags)| tags.len() <= 3), "no rule is there twice: {:?}", whole.chains);
}

#[test]
fn udp_flows_follow_the_port() {
    let node = Node::new();
    let addr = at(NODE_IP, 5353);
    let socket = udp_socket(&node.net.client, Ipv4Addr::UNSPECIFIED);
    let direct = udp_socket(&node.net.client, Ipv4Addr::UNSPECIFIED);
    // There is no translation of addresses yet, but there is tracking: the flow would stay with the node.
    node.net.node.command("nft", "add table ip tracking");
    node.net.node.command("nft", "add chain ip tracking input { type nat hook prerouting priority -101 ; }");
    socket.send_to(b"?", addr).unwrap();
    let first = node.add(1, &[mapping("", "udp", 5353)]).unwrap();
    assert_eq!(ask_udp(&socket, addr).unwrap(), 1, "the same socket reaches the container");
    let target = at(first.address, TARGET_PORT);
    assert_eq!(ask_udp(&direct, target).unwrap(), 1);
    let flows_to = |port| {
        let flows = node.net.node.run(|| CtNetlink::new().unwrap().udp_flows().unwrap());
        flows.iter().filter(|flow| flow.original.dport == port).count()
    };
    assert_eq!((flows_to(5353), flows_to(TARGET_PORT)), (1, 1));
    node.delete(&first).unwrap();
    assert_eq!((flows_to(5353), flows_to(TARGET_PORT)), (0, 1), "other flows stay");
    let _second = node.add(2, &[mapping(&NODE_IP.to_string(), "udp", 5353)]).unwrap();
    assert_eq!(ask_udp(&socket, addr).unwrap(), 2, "the same socket reaches the next one");
}

#[test]
fn containers_do_not_reach_the_nodes_loopback() {
    let node = Node::new();
    let pod = node.add(1, &[mapping("127.0.0.1", "tcp", 80)]).unwrap();
    node.net.node.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 10_248)).unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
    });
    // A container with the privilege to do so sends packets for 127.0.0.1 to the bridge.
    pod.namespace.ip("link set lo down");
    pod.namespace.ip("addr flush dev lo");
    pod.namespace.sysctl("ipv4/conf/all/route_localnet", "1");
    pod.namespace.ip(&format!("route add 127.0.0.1/32 via {BRIDGE_IP} src {}", pod.address));
    let reach = |port| {
        let addr = at(Ipv4Addr::LOCALHOST, port);
        pod.namespace.run(move || connect_to_nobody(addr).map_err(|e| e.kind()))
    };
    assert_eq!(reach(10_248), Err(ErrorKind::TimedOut));
    assert_eq!(reach(80), Err(ErrorKind::TimedOut), "a port of the loopback address is the node's alone");
    let connect = || std::net::TcpStream::connect(at(Ipv4Addr::LOCALHOST, 10_248)).map(drop);
    node.net.node.run(connect).unwrap();
    // What keeps it out is the check, and not a test that cannot reach the bridge.
    node.net.node.command("nft", "flush chain ip copepod-hostports loopback-check");
    pod.namespace.run(connect).unwrap();
}

#[test]
fn a_node_port_wins_over_a_host_port_and_both_work_side_by_side() {
    let mut served = Served::new(2, port());
    let number = node_port().port();
    let node = Node::on(std::mem::replace(&mut served.net, Net::new(0, Shape::Routed)));
    let _pod = node.add(7, &[mapping("", "tcp", number), mapping("", "tcp", number + 1)]).unwrap();
    for order in ["Services first", "host ports first"] {
        assert_eq!(tally(&node.net.client, node_port(), 20), evenly(2, 10), "{order}");
        assert_eq!(node.who(&node.net.client, at(NODE_IP, number + 1)), Ok(7), "{order}");
        assert_eq!(node.who(&node.net.node, at(Ipv4Addr::LOCALHOST, number)), Ok(7), "NodePorts leave loopback free");
        node.net.node.command("nft", "delete table ip copepod");
        assert_eq!(node.who(&node.net.client, at(NODE_IP, number)), Ok(7), "{order}");
        served.world.adopt(&mut served.backend);
    }
}

#[test]
fn both_backends_make_the_same_table() {
    let (by_netlink, by_nft) = (Namespace::new(), Namespace::new());
    let make = |backend: &mut dyn NftBackend| {
        let host_port = |host_ip, protocol| HostPort { host_ip, protocol, host_port: 80, container_port: 8080 };
        let mappings =
            [host_port(None, Protocol::Tcp), host_port(Some(NODE_IP), Protocol::Udp), host_port(None, Protocol::Sctp)];
        let desired = table([(Ipv4Addr::new(10, 42, 7, 2), mappings.as_slice())], Some(DNS));
        let listing = backend.list().unwrap();
        let ours = NetworkAddresses { subnet: SUBNET.parse().unwrap(), leased: [].into() };
        let tx = repair(listing.table.as_ref(), desired, &ours);
        backend.run(&tx, listing.generation).unwrap();
        tx
    };
    by_netlink.run(move || make(&mut NetlinkBackend::for_table(TABLE).unwrap()));
    by_nft.run(move || make(&mut CliBackend::for_table(TABLE)));
    let listed = |namespace: &Namespace| normalised(&namespace.run(|| list_json(TABLE).unwrap()));
    assert_eq!(listed(&by_netlink), listed(&by_nft));
    let again = by_nft.run(move || make(&mut NetlinkBackend::for_table(TABLE).unwrap()));
    assert_eq!(again, Transaction::default(), "either reads the other's table as its own");
    let services = by_netlink.run(|| NetlinkBackend::new().unwrap().list().unwrap().table);
    assert_eq!(services, None, "the table of Services is another one");
}
