//! Ports of nodes that lead into pods.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use harness::net::{Namespace, udp_ask};
use harness::time;

use crate::services::node_ip;
use crate::support::cluster::Cluster;

/// A pod on `node` whose ports are these, in YAML's short form.
fn pod(name: &str, node: &str, ports: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1,
          nodeSelector: {{kubernetes.io/hostname: {node}}}, containers: [{{name: demo,
          image: 'copepod.local/demo:latest', ports: [{ports}],
          readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}}}]}}}}"
    )
}

fn http(from: &Namespace, address: impl Into<SocketAddr>, expected: &str) -> Result<()> {
    let address = address.into();
    time::until(&format!("{expected} at {address}"), || {
        let answer = from.get(address, "/hostname")?;
        ensure!(answer == expected, "{answer} answered");
        Ok(())
    })
}

/// The demo's UDP echo; asked on a new socket each time.
fn echo(from: &Namespace, address: impl Into<SocketAddr>) -> Result<()> {
    let address = address.into();
    time::until(&format!("an echo from {address}"), || {
        let socket = from.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(address)?;
            Ok(socket)
        })?;
        let answer = udp_ask(&socket, "hello")?;
        ensure!(answer.contains("hello"), "{answer}");
        Ok(())
    })
}

pub fn a_host_port_answers_until_its_pod_goes(cluster: &Cluster) -> Result<()> {
    let [first, second, _] = cluster.nodes();
    let ports = "{containerPort: 8080, hostPort: 18080}, {containerPort: 9001, hostPort: 18080, protocol: UDP}";
    cluster.apply(&pod("exposed", &second, ports))?;
    cluster.wait_ready("exposed")?;
    let ip = node_ip(cluster, &second)?;
    for from in [cluster.node_namespace(&first), cluster.node_namespace(&second), cluster.outside()] {
        http(&from, (ip, 18080), "exposed")?;
        echo(&from, (ip, 18080))?;
    }
    http(&cluster.node_namespace(&second), (Ipv4Addr::LOCALHOST, 18080), "exposed")?;
    let url = format!("http://{ip}:18080/hostname");
    let itself = cluster.kubectl(&["exec", "exposed", "--", "demo", "http-get", "--timeout", "3", &url])?;
    ensure!(itself.trim() == "exposed", "{itself}");
    // Only on its node, and only as long as it is there.
    let closed = |ip: IpAddr| -> Result<()> {
        let answer = cluster.outside().get((ip, 18080).into(), "/hostname");
        ensure!(answer.is_err(), "{answer:?}");
        Ok(())
    };
    closed(node_ip(cluster, &first)?)?;
    cluster.kubectl(&["delete", "pod", "exposed"])?;
    time::until("the port is closed", || closed(ip))?;
    // The next pod has it.
    cluster.apply(&pod("successor", &second, ports))?;
    cluster.wait_ready("successor")?;
    http(&cluster.outside(), (ip, 18080), "successor")
}

/// As upstream's conformance suite has it, with a client in the node's own network.
pub fn one_host_port_serves_pods_of_other_addresses_and_protocols(cluster: &Cluster) -> Result<()> {
    let node = cluster.nodes()[1].clone();
    let ip = node_ip(cluster, &node)?;
    let port = |host_ip: &str, container: u16, protocol: &str| {
        format!("{{hostPort: 54323, hostIP: {host_ip}, containerPort: {container}, protocol: {protocol}}}")
    };
    cluster.apply(&pod("pod1", &node, &port("127.0.0.1", 8080, "TCP")))?;
    cluster.apply(&pod("pod2", &node, &port(&ip.to_string(), 8080, "TCP")))?;
    cluster.apply(&pod("pod3", &node, &port(&ip.to_string(), 9001, "UDP")))?;
    for pod in ["pod1", "pod2", "pod3"] {
        cluster.wait_ready(pod)?;
    }
    let inside = cluster.node_namespace(&node);
    http(&inside, (Ipv4Addr::LOCALHOST, 54323), "pod1")?;
    http(&inside, (ip, 54323), "pod2")?;
    echo(&inside, (ip, 54323))?;
    // Every address is each of them: the scheduler finds no room for it on this node.
    cluster.apply(&pod("pod4", &node, &port("0.0.0.0", 8080, "TCP")))?;
    time::until("the conflict is told", || {
        let pod = cluster.get("pod", "pod4")?;
        let conditions = pod["status"]["conditions"].as_array().context("no conditions")?;
        let message = conditions.iter().find(|condition| condition["type"] == "PodScheduled");
        let message = message.and_then(|condition| condition["message"].as_str()).context("no message")?;
        ensure!(message.contains("didn't have free ports for the requested pod ports"), "{message}");
        Ok(())
    })
}
