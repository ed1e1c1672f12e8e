//! Deployments over time, and what goes with whom.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use harness::time;

use crate::support::cluster::Cluster;
use harness::net::http_get;

fn web(name: &str, version: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: demo
        image: copepod.local/demo:latest
        env: [{{name: VERSION, value: '{version}'}}]
        readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{exec: {{command: [demo, sleep, '2']}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

pub fn deployments_roll_and_roll_back(cluster: &Cluster) -> Result<()> {
    cluster.apply(&web("roll", "one"))?;
    cluster.wait_rollout("roll")?;
    cluster.apply(&web("roll", "two"))?;
    cluster.wait_rollout("roll")?;
    let version = |cluster: &Cluster| -> Result<String> {
        let deployment = cluster.get("deployment", "roll")?;
        let value = deployment["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"].clone();
        Ok(value.as_str().unwrap_or_default().to_owned())
    };
    ensure!(version(cluster)? == "two");
    cluster.kubectl(&["rollout", "undo", "deployment/roll"])?;
    cluster.wait_rollout("roll")?;
    ensure!(version(cluster)? == "one");
    cluster.kubectl(&["rollout", "pause", "deployment/roll"])?;
    cluster.kubectl(&["set", "env", "deployment/roll", "VERSION=three"])?;
    let sets = cluster.kubectl(&["get", "replicasets", "-l", "app=roll", "-o", "name"])?;
    ensure!(sets.lines().count() == 2, "a paused Deployment made a ReplicaSet: {sets}");
    cluster.kubectl(&["rollout", "resume", "deployment/roll"])?;
    cluster.wait_rollout("roll")?;
    cluster.kubectl(&["scale", "deployment/roll", "--replicas=1"])?;
    time::until("one pod", || {
        let pods = cluster.pods("roll")?.len();
        ensure!(pods == 1, "{pods} pods");
        Ok(())
    })
}

pub fn a_rolling_update_fails_no_request(cluster: &Cluster) -> Result<()> {
    cluster.apply(&web("load", "one"))?;
    cluster.wait_rollout("load")?;
    let address = cluster.service("load", 80)?;
    cluster.wait_served(address)?;
    let done = AtomicBool::new(false);
    let node = cluster.node_namespace(&cluster.nodes()[1]);
    let (asked, failed) = std::thread::scope(|scope| -> Result<(usize, Vec<String>)> {
        let client = scope.spawn(|| {
            node.run(|| {
                let (mut asked, mut failed) = (0, Vec::new());
                while !done.load(Ordering::Relaxed) {
                    asked += 1;
                    failed.extend(http_get(address, "/hostname").err().map(|error| format!("{error:#}")));
                }
                Ok((asked, failed))
            })
        });
        let rolled = cluster.apply(&web("load", "two")).and_then(|()| cluster.wait_rollout("load"));
        done.store(true, Ordering::Relaxed);
        let counts = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        rolled.map(|()| counts)
    })?;
    ensure!(asked > 100, "only {asked} requests");
    ensure!(failed.is_empty(), "{} of {asked} requests failed: {:?}", failed.len(), failed.first());
    Ok(())
}

pub fn deletion_propagates(cluster: &Cluster) -> Result<()> {
    cluster.apply(&web("tree", "one"))?;
    cluster.wait_rollout("tree")?;
    let uid = |kind: &str| -> Result<String> {
        let list = cluster.kubectl(&["get", kind, "-l", "app=tree", "-o", "jsonpath={.items[0].metadata.uid}"])?;
        (!list.is_empty()).then_some(list).context("nothing there")
    };
    uid("replicasets")?;
    cluster.kubectl(&["delete", "deployment", "tree", "--cascade=orphan"])?;
    let owners = cluster.kubectl(&[
        "get",
        "replicasets",
        "-l",
        "app=tree",
        "-o",
        "jsonpath={.items[0].metadata.ownerReferences}",
    ])?;
    ensure!(owners.is_empty(), "an orphan has owners: {owners}");
    // Applied again, the Deployment adopts what matches.
    let before = uid("replicasets")?;
    cluster.apply(&web("tree", "one"))?;
    cluster.wait_rollout("tree")?;
    ensure!(uid("replicasets")? == before, "the orphan was not adopted");
    cluster.kubectl(&["delete", "deployment", "tree", "--cascade=foreground", &time::kubectl_timeout()])?;
    ensure!(uid("replicasets").is_err() && uid("pods").is_err(), "dependents outlive a foreground deletion");
    Ok(())
}
