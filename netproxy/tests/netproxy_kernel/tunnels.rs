//! Nodes on two links with a router between them: pods reach each other through tunnels, neighbours on one link by
//! routes, and what nodes leave behind goes.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread::JoinHandle;

use harness::api::Api;
use harness::time;
use netproxy::cni::hostports::mapping::ReservedPort;
use netproxy::links::{BRIDGE, Owner};
use netproxy::network::{Clients, NetworkConfig, PodNetworkConfig, remove_owned, run};
use netproxy::routes::{DEVICE, NodeNetwork};
use netproxy::snapshot::Protocol;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::eventually;
use crate::net::{Answer, Namespace, TARGET_PORT, ask, ask_within, serve};

/// Changes annotations of a node, or merely touches it.
pub fn annotate(api: &Api, name: &str, annotations: &Value) {
    api.merge("nodes", name, &json!({"metadata": {"annotations": annotations}})).unwrap();
}

pub fn object(name: &str, ip: Ipv4Addr, third: u8) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "resourceVersion": "2", "annotations": {}},
        "spec": {"podCIDR": format!("10.42.{third}.0/24")},
        "status": {"addresses": [{"type": "InternalIP", "address": ip.to_string()}]},
    })
}

/// A node with one pod that serves.
pub struct TestNode {
    name: &'static str,
    pub ip: Ipv4Addr,
    third: u8,
    pub namespace: Namespace,
    pub pod: Namespace,
    /// CNI configuration and leases.
    dir: TempDir,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl TestNode {
    pub fn pod_ip(&self) -> Ipv4Addr {
        // The first of its network.
        Ipv4Addr::new(10, 42, self.third, 2)
    }

    pub fn new(name: &'static str, router: &Namespace, subnet: u8, third: u8, api: &Api) -> Self {
        let ip = Ipv4Addr::new(10, 1, subnet, third);
        let (namespace, pod) = (Namespace::new(), Namespace::new());
        namespace.sysctl("ipv4/ip_forward", "1");
        // As distributions set it that check the reverse path strictly.
        namespace.sysctl("ipv4/conf/all/rp_filter", "1");
        router.ip(&format!("link add name to-{name} type veth peer name eth0 netns {}", namespace.tid));
        router.ip(&format!("link set to-{name} master link{subnet} up"));
        namespace.ip(&format!("addr add {ip}/24 dev eth0"));
        namespace.ip("link set eth0 up");
        namespace.ip(&format!("route add default via 10.1.{subnet}.254"));
        pod.run(move || serve(third));
        api.put("nodes", object(name, ip, third));
        Self { name, ip, third, namespace, pod, dir: tempfile::tempdir().unwrap(), running: None }
    }

    pub fn owner(&self) -> Owner {
        Owner::new(&format!("instance-{}", self.name)).unwrap()
    }

    pub fn config(&self, node_network: NodeNetwork) -> NetworkConfig {
        NetworkConfig {
            owner: self.owner(),
            node_name: self.name.to_owned(),
            node_ip: self.ip,
            dns_address: Some(Ipv4Addr::new(10, 43, 0, 10)),
            pods: Some(PodNetworkConfig {
                service_cidr: "10.43.0.0/16".parse().unwrap(),
                cluster_cidr: "10.42.0.0/16".parse().unwrap(),
                node_network,
                conf_dir: self.dir.path().join("net.d"),
                data_dir: self.dir.path().join("leases"),
                reserved_ports: [ReservedPort(Protocol::Tcp, 10250)].into(),
                masquerade_mark: 0x4000,
                sysctls_note: self.dir.path().join("sysctls"),
            }),
        }
    }

    /// What the runtime reads of the pods' network.
    pub fn conflist(&self) -> Option<Value> {
        let text = std::fs::read(self.dir.path().join("net.d/10-copepod.conflist")).ok()?;
        Some(serde_json::from_slice::<Value>(&text).unwrap()["plugins"][0].clone())
    }

    pub fn remove_conflist(&self) {
        std::fs::remove_file(self.dir.path().join("net.d/10-copepod.conflist")).unwrap();
    }

    /// What is noted of settings that were changed.
    pub fn former_settings(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.path().join("sysctls")).unwrap()).unwrap()
    }

    /// Starts the node's network and attaches its pod.
    pub fn start(&mut self, network: NodeNetwork, api: &Api) {
        self.run_network(self.config(network), api);
        eventually("the pods' network is known", || self.conflist().is_some());
        self.call("ADD", "pod", &self.pod);
    }

    /// Calls the plugin as the runtime would.
    pub fn call(&self, command: &'static str, id: &str, pod: &Namespace) {
        let netns = format!("/proc/{}/task/{}/ns/net", std::process::id(), pod.tid);
        let (mut config, id) = (self.conflist().unwrap(), id.to_owned());
        (config["name"], config["cniVersion"]) = (json!("copepod"), json!("1.1.0"));
        self.namespace.run(move || {
            let variable = |name: &str| match name {
                "CNI_COMMAND" => Some(command.to_owned()),
                "CNI_CONTAINERID" => Some(id.clone()),
                "CNI_IFNAME" => Some("eth0".to_owned()),
                "CNI_NETNS" => Some(netns.clone()),
                _ => None,
            };
            let mut output = Vec::new();
            let code = netproxy::cni::main(variable, config.to_string().as_bytes(), &mut output);
            assert_eq!(code, 0, "{}", String::from_utf8_lossy(&output));
        });
    }

    pub fn run_network(&mut self, config: NetworkConfig, api: &Api) {
        let (token, api) = (CancellationToken::new(), api.clone());
        let ended = token.clone();
        let thread = self.namespace.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                let address: SocketAddr = listener.local_addr().unwrap();
                let server = tokio::spawn(api.serve(listener));
                let client = kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap()));
                let client = client.unwrap();
                let clients = Clients { nodes: client.clone(), own_node: client, metrics: Default::default() };
                run(config, clients, ended).await.unwrap();
                server.abort();
            });
        });
        self.running = Some((token, thread));
    }

    pub fn stop(&mut self) {
        if let Some((token, thread)) = self.running.take() {
            token.cancel();
            thread.join().unwrap();
        }
    }

    pub fn remove_owned(&self) {
        let owner = self.owner();
        self.namespace.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(remove_owned(&owner)).unwrap();
        });
    }

    /// What the kernel has for other nodes, as people read it.
    pub fn shown(&self) -> String {
        let show = |program, args: &str| self.namespace.command(program, args);
        let device = show("ip", "-o link show");
        if !device.contains(DEVICE) {
            return show("ip", "route show");
        }
        show("ip", "route show")
            + &show("ip", &format!("neigh show dev {DEVICE}"))
            + &show("bridge", &format!("fdb show dev {DEVICE}"))
    }

    fn device(&self) -> String {
        self.namespace.command("ip", &format!("-o -d link show {DEVICE}"))
    }

    pub fn reaches(&self, other: &TestNode) {
        let expect = Answer { pod: other.third, seen: self.pod_ip() };
        let to = SocketAddrV4::new(other.pod_ip(), TARGET_PORT);
        eventually(&format!("{} reaches {}", self.name, other.name), || {
            self.pod.run(move || ask_within(to, time::attempt()).is_ok_and(|answer| answer == expect))
        });
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One link a subnet, and a router between them.
pub fn router() -> Namespace {
    let router = Namespace::new();
    router.sysctl("ipv4/ip_forward", "1");
    for subnet in [1, 2] {
        router.ip(&format!("link add link{subnet} type bridge"));
        router.ip(&format!("addr add 10.1.{subnet}.254/24 dev link{subnet}"));
        router.ip(&format!("link set link{subnet} up"));
    }
    router
}

#[test]
fn pods_on_other_links_are_reached_through_tunnels() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut near = TestNode::new("near", &router, 1, 2, &api);
    let mut far = TestNode::new("far", &router, 2, 3, &api);
    for node in [&mut a, &mut near, &mut far] {
        node.start(NodeNetwork::Auto, &api);
    }
    for (from, to) in [(&a, &far), (&far, &a), (&near, &far), (&a, &near), (&near, &a)] {
        from.reaches(to);
    }
    // The node itself, too, and the answer finds back.
    let to = SocketAddrV4::new(far.pod_ip(), TARGET_PORT);
    assert_eq!(a.namespace.run(move || ask(to).unwrap().pod), far.third);
    let shown = a.shown();
    let mac = "0a:59:0a:01:02:03";
    for line in [
        "10.42.2.0/24 via 10.1.1.2 dev eth0",
        "10.42.3.0/24 via 10.42.3.0 dev copepod.1",
        &format!("10.42.3.0 lladdr {mac} PERMANENT"),
        &format!("{mac} dst 10.1.2.3 self permanent"),
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let device = a.device();
    for part in ["mtu 1450", "vxlan id 1 local 10.1.1.1", "dstport 8472", "nolearning", "0a:59:0a:01:01:01"] {
        assert!(device.contains(part), "{part} is not in {device}");
    }
    eventually("pods have the tunnels' room", || a.conflist().is_some_and(|config| config["mtu"] == 1450));

    // A start finds everything as it should be and leaves it alone.
    a.stop();
    a.start(NodeNetwork::Auto, &api);
    a.reaches(&far);
    assert_eq!((a.device(), a.shown()), (device, shown));

    // A node that moves takes its entries with it; one that goes leaves none.
    let new_mac = "0a:59:00:00:00:07";
    let moved = json!({"copepod.local/vtep-mac": new_mac});
    annotate(&api, "far", &moved);
    eventually("a node that runs knows better", || a.shown().contains(mac) && !a.shown().contains(new_mac));
    far.stop();
    annotate(&api, "far", &moved);
    eventually("the entries moved", || a.shown().contains(new_mac) && !a.shown().contains(mac));
    api.delete("nodes", "far");
    eventually("the entries are gone", || !a.shown().contains("10.42.3.0") && !a.shown().contains(new_mac));
    assert!(a.shown().contains("10.42.2.0/24 via 10.1.1.2"), "others stay");
    a.stop();
    for _ in 0..2 {
        a.remove_owned();
    }
    let left = a.namespace.command("ip", "-o link show") + &a.shown();
    assert!(
        !left.contains(DEVICE) && !left.contains(BRIDGE) && !left.contains("10.43.0.0") && !left.contains("10.42.2.0"),
        "{left}"
    );
}

#[test]
fn tunnels_only_routes_only_and_neither() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut b = TestNode::new("b", &router, 1, 2, &api);
    let far = TestNode::new("far", &router, 2, 3, &api);
    // Nonsense is no way to anybody.
    annotate(&api, "far", &json!({"copepod.local/vtep-mac": "ff:ff", "copepod.local/vtep-ip": "203.0.113.9"}));
    for node in [&mut a, &mut b] {
        node.start(NodeNetwork::Vxlan, &api);
    }
    a.reaches(&b);
    b.reaches(&a);
    assert!(a.shown().contains("10.42.2.0/24 via 10.42.2.0 dev copepod.1"), "{}", a.shown());
    assert!(!a.shown().contains("203.0.113.9") && !a.shown().contains("10.42.3.0"), "{}", a.shown());
    // The same link, by routes now: the tunnels' entries go.
    for node in [&mut a, &mut b] {
        node.stop();
        node.start(NodeNetwork::Routes, &api);
    }
    eventually("the way is a route", || a.shown().contains("10.42.2.0/24 via 10.1.1.2 dev eth0"));
    eventually("the entries are gone", || !a.shown().contains("0a:59"));
    a.reaches(&b);
    eventually("pods have all the room again", || a.conflist().is_some_and(|config| config["mtu"] == 0));
    a.stop();
    a.start(NodeNetwork::None, &api);
    eventually("nothing leads to other nodes", || !a.shown().contains("10.42.2.0"));
    drop(far);
}

/// One Node object that makes no sense must not cost the others their way.
#[test]
fn a_node_that_cannot_be_read_keeps_no_other_from_being_reached() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut b = TestNode::new("b", &router, 1, 2, &api);
    let mut odd = object("odd", Ipv4Addr::new(10, 1, 1, 9), 9);
    odd["status"]["conditions"] = json!([{"type": "Ready", "lastHeartbeatTime": "never"}]);
    odd["spec"]["podCIDRs"] = json!("all of them");
    api.put("nodes", odd.clone());
    for node in [&mut a, &mut b] {
        node.start(NodeNetwork::Auto, &api);
    }
    a.reaches(&b);
    // The same while they run.
    odd["status"]["addresses"] = json!(7);
    api.put("nodes", odd);
    let far = TestNode::new("far", &router, 1, 3, &api);
    eventually("a node after that", || a.shown().contains("10.42.3.0/24 via 10.1.1.3 dev eth0"));
    drop(far);
}
