//! Services: exact turns, affinity, UDP, refusal, hairpin.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::net::udp_ask;
use harness::time;
use serde_json::Value;

use crate::support::cluster::Cluster;

/// Three pods behind a NodePort Service, as the repository's example has them.
const HELLO: &str = include_str!("../../examples/hello.yaml");

/// Exactly `each` answers from each of three pods.
fn in_turn(answers: &BTreeMap<String, usize>, each: usize) -> Result<()> {
    ensure!(answers.len() == 3 && answers.values().all(|count| *count == each), "not in turn: {answers:?}");
    Ok(())
}

pub fn hello_is_served_in_exact_turn(cluster: &Cluster) -> Result<()> {
    cluster.apply(HELLO)?;
    cluster.wait_rollout("hello")?;
    let address = cluster.service("hello", 80)?;
    cluster.wait_served(address)?;
    wait_for_all_three(cluster, address)?;
    let [first, second, _] = cluster.nodes();
    in_turn(&cluster.node_namespace(&first).tally(address, "/hostname", 300)?, 100)?;
    let service = cluster.get("service", "hello")?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("no node port")?;
    let port = u16::try_from(port)?;
    for node in [first, second] {
        let ip: IpAddr = node_ip(cluster, &node)?;
        let answers = cluster.outside().tally((ip, port).into(), "/hostname", 300)?;
        in_turn(&answers, 100).with_context(|| format!("through the port of {node}"))?;
    }
    Ok(())
}

/// Rules follow within milliseconds, but each node follows on its own.
fn wait_for_all_three(cluster: &Cluster, address: SocketAddr) -> Result<()> {
    for node in cluster.nodes() {
        let namespace = cluster.node_namespace(&node);
        time::until("three pods answer", || {
            let answers = namespace.tally(address, "/hostname", 6)?;
            ensure!(answers.len() == 3, "{node} sees {answers:?}");
            Ok(())
        })?;
    }
    Ok(())
}

pub fn node_ip(cluster: &Cluster, node: &str) -> Result<IpAddr> {
    let node = cluster.get("node", node)?;
    let addresses = node["status"]["addresses"].as_array().context("no addresses")?;
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP").context("no internal address")?;
    Ok(internal["address"].as_str().context("no text")?.parse()?)
}

pub fn client_ip_affinity_holds_and_times_out(cluster: &Cluster) -> Result<()> {
    cluster.apply(HELLO)?;
    let sticky = |name: &str, seconds: u32| {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {{app: hello}},
              sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}},
              ports: [{{port: 80, targetPort: 8080}}]}}}}"
        ))
    };
    // One that outlasts whatever the machine does meanwhile, one that is soon over.
    sticky("sticky", 3600)?;
    sticky("brief", 1)?;
    cluster.wait_rollout("hello")?;
    let (address, brief) = (cluster.service("sticky", 80)?, cluster.service("brief", 80)?);
    cluster.wait_served(address)?;
    cluster.wait_served(brief)?;
    let node = cluster.node_namespace(&cluster.nodes()[1]);
    let answers = node.tally(address, "/hostname", 300)?;
    ensure!(answers.len() == 1, "one client reached {answers:?}");
    let remembered = |service: &str| {
        let name = format!("affinity-{}/{service}/", cluster.namespace());
        Ok::<_, anyhow::Error>(remembered(&node.run(ruleset_of_services)?, &name))
    };
    let timeouts = remembered("sticky")?;
    ensure!(timeouts == [3600], "the kernel remembers one client for {timeouts:?} seconds");
    node.get(brief, "/hostname")?;
    time::until("the choice is forgotten", || {
        let timeouts = remembered("brief")?;
        ensure!(timeouts.is_empty(), "{timeouts:?}");
        Ok(())
    })
}

/// Our table as the kernel of this namespace has it.
fn ruleset_of_services() -> Result<Value> {
    let output = Command::new("nft").args(["-j", "list", "table", "ip", "copepod"]).output().context("run nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The timeouts of all elements in sets whose names begin so.
fn remembered(ruleset: &Value, prefix: &str) -> Vec<u64> {
    let objects = ruleset["nftables"].as_array().into_iter().flatten();
    let sets = objects.filter_map(|object| object.get("set"));
    let ours = sets.filter(|set| set["name"].as_str().is_some_and(|name| name.starts_with(prefix)));
    let elements = ours.flat_map(|set| set["elem"].as_array().cloned().unwrap_or_default());
    elements.filter_map(|element| element["elem"]["timeout"].as_u64()).collect()
}

pub fn udp_survives_the_replacement_of_its_only_pod(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: echo}, spec: {replicas: 1,
          strategy: {type: Recreate}, selector: {matchLabels: {app: echo}},
          template: {metadata: {labels: {app: echo}}, spec: {terminationGracePeriodSeconds: 1,
          containers: [{name: demo, image: 'copepod.local/demo:latest',
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: echo}, spec: {selector: {app: echo},
 ports: [{port: 7, targetPort: 9001, protocol: UDP}]}}",
    )?;
    cluster.wait_rollout("echo")?;
    let address = cluster.service("echo", 7)?;
    let before = cluster.pods("echo")?[0]["metadata"]["name"].clone();
    // One socket throughout, made in the node's namespace and used from here:
    // its flow must not stay with the dead pod.
    let socket = cluster.node_namespace(&cluster.nodes()[0]).run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(address)?;
        Ok(socket)
    })?;
    time::until("the first echo", || udp_ask(&socket, "one"))?;
    cluster.kubectl(&["rollout", "restart", "deployment/echo"])?;
    cluster.wait_rollout("echo")?;
    let after = cluster.pods("echo")?.into_iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    ensure!(after.context("a pod")?["metadata"]["name"] != before, "the pod was not replaced");
    time::until("an echo of the new pod", || {
        let answer = udp_ask(&socket, "two")?;
        ensure!(answer.contains("two"), "{answer}");
        Ok(())
    })
}

pub fn a_service_without_endpoints_refuses(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: nobody}, spec: {selector: {app: nobody}, ports: [{port: 80}]}}",
    )?;
    let address = cluster.service("nobody", 80)?;
    let node = cluster.node_namespace(&cluster.nodes()[0]);
    time::until("a refusal", || {
        let answer = node.run(|| Ok(std::net::TcpStream::connect_timeout(&address, time::attempt()).map(drop)))?;
        let error = answer.err().context("somebody answers")?;
        ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}");
        Ok(())
    })
}

pub fn a_pod_reaches_itself_through_its_service(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: self, labels: {app: self}}, spec: {
          containers: [{name: demo, image: 'copepod.local/demo:latest'}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: self}, spec: {selector: {app: self},
 ports: [{port: 80, targetPort: 8080}]}}",
    )?;
    cluster.wait_ready("self")?;
    let address = cluster.service("self", 80)?;
    time::until("the pod's own answer", || {
        let url = format!("http://{address}/hostname");
        let answer = cluster.kubectl(&["exec", "self", "--", "demo", "http-get", "--timeout", "3", &url])?;
        ensure!(answer.trim() == "self", "{answer}");
        Ok(())
    })
}
