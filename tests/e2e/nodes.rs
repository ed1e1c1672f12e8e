//! More than one node: spreading, reaching across, and losing one.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use harness::time;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::cluster::Cluster;

pub fn pods_spread_and_reach_each_other(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: wide}, spec: {replicas: 6,
          selector: {matchLabels: {app: wide}}, template: {metadata: {labels: {app: wide}},
          spec: {terminationGracePeriodSeconds: 1, containers: [{name: demo, image: 'copepod.local/demo:latest',
          resources: {requests: {cpu: 50m, memory: 16Mi}}}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: wide}, spec: {selector: {app: wide}, ports: [{port: 80, targetPort: 8080}]}}",
    )?;
    cluster.wait_rollout("wide")?;
    let pods = cluster.pods("wide")?;
    let nodes: BTreeSet<_> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    ensure!(nodes.len() == 3, "all pods are on {nodes:?}");
    let name = |pod: &serde_json::Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    for from in &pods {
        for to in &pods {
            let ip = to["status"]["podIP"].as_str().context("no IP")?;
            let url = format!("http://{ip}:8080/hostname");
            let answer = cluster.kubectl(&["exec", &name(from), "--", "demo", "http-get", "--timeout", "5", &url])?;
            ensure!(answer.trim() == name(to), "{} to {}: {answer}", name(from), name(to));
        }
    }
    let address = cluster.service("wide", 80)?;
    let url = format!("http://{address}/hostname");
    for node in &nodes {
        let from = pods.iter().find(|pod| pod["spec"]["nodeName"] == *node).map(name).context("a pod")?;
        let answers = cluster.kubectl(&["exec", &from, "--", "demo", "http-get", "--count", "12", &url])?;
        let reached: BTreeSet<_> = answers.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        ensure!(reached.len() == 6, "from {node}: {reached:?}");
    }
    Ok(())
}

/// The last scenario: it ends a node for good.
pub fn pods_of_a_dead_node_are_replaced(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: moving}, spec: {replicas: 3,
          selector: {matchLabels: {app: moving}}, template: {metadata: {labels: {app: moving}},
          spec: {terminationGracePeriodSeconds: 1, containers: [{name: demo, image: 'copepod.local/demo:latest',
          resources: {requests: {cpu: 50m}}}],
          tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2},
                        {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}]}}}}",
    )?;
    cluster.wait_rollout("moving")?;
    let lost = cluster.nodes()[2].clone();
    let there = cluster.pods("moving")?.iter().filter(|pod| pod["spec"]["nodeName"] == lost.as_str()).count();
    ensure!(there > 0, "no pod is on {lost}");
    kill(Pid::from_raw(cluster.init_of(&lost)?), Signal::SIGKILL)?;
    cluster.kubectl(&["wait", "--for=condition=Ready=unknown", &format!("node/{lost}"), &time::kubectl_timeout()])?;
    time::until("pods elsewhere", || {
        let pods = cluster.pods("moving")?;
        let running = pods.iter().filter(|pod| {
            let ready = pod["status"]["conditions"].as_array().is_some_and(|conditions| {
                conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            });
            ready && pod["spec"]["nodeName"] != lost.as_str() && pod["metadata"]["deletionTimestamp"].is_null()
        });
        let running = running.count();
        ensure!(running == 3, "{running} run elsewhere");
        Ok(())
    })?;
    // What the dead node cannot confirm is let go with its object.
    cluster.kubectl(&["delete", "node", &lost])?;
    time::until("the lost pods' end", || {
        let left = cluster.pods("moving")?.len();
        ensure!(left == 3, "{left} pods");
        Ok(())
    })
}
