//! kill -9, everywhere.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use harness::time;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::cluster::Cluster;
use harness::net::http_get;

/// Kills a process of the cluster under test.
fn kill_9(pid: i32) -> Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("kill {pid}"))
}

/// Processes of the demo program on a node, found through the pod's environment.
fn demo_processes(node_init: i32, host: &str) -> Result<Vec<i32>> {
    let namespace = fs::read_link(format!("/proc/{node_init}/ns/uts"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(pid) = path.file_name().unwrap_or_default().to_string_lossy().parse() else { continue };
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        if !command.starts_with(b"/bin/demo") || fs::read_link(path.join("ns/uts")).is_ok_and(|uts| uts == namespace) {
            continue;
        }
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let wanted = format!("HOSTNAME={host}");
        if environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
            found.push(pid);
        }
    }
    Ok(found)
}

pub fn a_killed_container_restarts_with_back_off(cluster: &Cluster) -> Result<()> {
    let node = cluster.nodes()[1].clone();
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: victim}}, spec: {{nodeName: {node},
          containers: [{{name: demo, image: 'copepod.local/demo:latest'}}]}}}}"
    ))?;
    cluster.wait_ready("victim")?;
    let init = cluster.init_of(&node)?;
    let status = || -> Result<Value> { Ok(cluster.get("pod", "victim")?["status"]["containerStatuses"][0].clone()) };
    let first = demo_processes(init, "victim")?;
    ensure!(first.len() == 1, "{first:?}");
    kill_9(first[0])?;
    time::until("the first restart", || {
        let status = status()?;
        ensure!(status["restartCount"] == 1 && !status["state"]["running"].is_null(), "{status}");
        Ok(())
    })?;
    let status_now = status()?;
    let last = &status_now["lastState"]["terminated"];
    ensure!(last["exitCode"] == 137 && last["reason"] == "Error", "{last}");
    let second = time::until("the new process", || {
        let pids = demo_processes(init, "victim")?;
        pids.first().copied().context("none yet")
    })?;
    kill_9(second)?;
    time::until("back-off", || {
        let status = status()?;
        ensure!(status["state"]["waiting"]["reason"] == "CrashLoopBackOff", "{status}");
        Ok(())
    })?;
    ensure!(cluster.kubectl(&["get", "pod", "victim"])?.contains("CrashLoopBackOff"));
    time::until("the second restart", || {
        let status = status()?;
        ensure!(status["restartCount"] == 2 && !status["state"]["running"].is_null(), "{status}");
        Ok(())
    })
}

pub fn a_killed_copepod_adopts_everything(cluster: &Cluster) -> Result<()> {
    cluster.apply(include_str!("../../examples/hello.yaml"))?;
    cluster.wait_rollout("hello")?;
    let address = cluster.service("hello", 80)?;
    cluster.wait_served(address)?;
    for node in [cluster.nodes()[1].clone(), cluster.nodes()[0].clone()] {
        adopts(cluster, &node, address).with_context(|| node.clone())?;
    }
    Ok(())
}

fn adopts(cluster: &Cluster, node: &str, address: std::net::SocketAddr) -> Result<()> {
    let init = cluster.init_of(node)?;
    let before = container_ids(cluster)?;
    let processes = all_demo_processes(init)?;
    let done = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let namespace = cluster.node_namespace(node);
    let outcome = std::thread::scope(|scope| -> Result<Vec<String>> {
        let client = scope.spawn(|| {
            namespace.run(|| {
                let mut failed = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    failed.extend(http_get(address, "/hostname").err().map(|error| format!("{error:#}")));
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                Ok(failed)
            })
        });
        let result = (|| {
            let old = cluster.copepod_of(node)?;
            kill_9(old)?;
            time::until("a new copepod", || {
                let new = cluster.copepod_of(node)?;
                ensure!(new != old, "still the old one");
                Ok(())
            })?;
            time::until("the node's word", || serves_again(cluster, node))
        })();
        done.store(true, Ordering::Relaxed);
        let failed = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        result.map(|()| failed)
    })?;
    ensure!(
        outcome.is_empty(),
        "{} of {} requests failed: {:?}",
        outcome.len(),
        asked.load(Ordering::Relaxed),
        outcome.first()
    );
    ensure!(container_ids(cluster)? == before, "containers were restarted");
    ensure!(all_demo_processes(init)? == processes, "processes changed");
    let conditions = cluster.get("node", node)?;
    let ready = conditions["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|c| c["type"] == "Ready").cloned());
    ensure!(ready.context("no condition")?["status"] == "True", "the node is not Ready");
    Ok(())
}

/// The new agent works when a container on its node can be entered.
fn serves_again(cluster: &Cluster, node: &str) -> Result<()> {
    let pods = cluster.pods("hello")?;
    let here = pods.iter().find(|pod| pod["spec"]["nodeName"] == node);
    match here.and_then(|pod| pod["metadata"]["name"].as_str()) {
        Some(pod) => cluster.kubectl(&["exec", pod, "--", "demo", "true"]).map(drop),
        None => cluster.kubectl(&["get", "nodes"]).map(drop),
    }
}

fn container_ids(cluster: &Cluster) -> Result<BTreeMap<String, (String, i64)>> {
    let pods = cluster.pods("hello")?;
    let read = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let name = pod["metadata"]["name"].as_str()?.to_owned();
        Some((name, (status["containerID"].as_str()?.to_owned(), status["restartCount"].as_i64()?)))
    };
    Ok(pods.iter().filter_map(read).collect())
}

/// Every demo process inside the PID namespace of a node.
fn all_demo_processes(init: i32) -> Result<Vec<i32>> {
    let depth_of = |pid: i32| -> Option<Vec<String>> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        Some(line.split_whitespace().map(str::to_owned).collect())
    };
    let mut found = Vec::new();
    let mut open = vec![init];
    while let Some(pid) = open.pop() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        open.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.starts_with(b"/bin/demo") && depth_of(pid).is_some() {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub fn acknowledged_writes_survive_kill_9(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace();
    let control_plane = cluster.nodes()[0].clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let acknowledged = runtime.block_on(async {
        use k8s_openapi::api::core::v1::ConfigMap;
        let maps: kube::Api<ConfigMap> = kube::Api::namespaced(cluster.client().await?, &namespace);
        let written = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let writers = (0..8).map(|writer| {
            let (maps, written) = (maps.clone(), written.clone());
            tokio::spawn(async move {
                for index in 0..125 {
                    let mut map = ConfigMap::default();
                    map.metadata.name = Some(format!("w{writer}-{index}"));
                    if maps.create(&kube::api::PostParams::default(), &map).await.is_ok() {
                        written.lock().unwrap().push(format!("w{writer}-{index}"));
                    }
                }
            })
        });
        let writers: Vec<_> = writers.collect();
        // In the middle: a third is written, the rest is not.
        time::eventually_true("a third", async || written.lock().unwrap().len() >= 300).await?;
        kill_9(cluster.copepod_of(&control_plane)?)?;
        for writer in writers {
            writer.await?;
        }
        let written = written.lock().unwrap().clone();
        anyhow::Ok(written)
    })?;
    time::until("the API's return", || cluster.kubectl(&["get", "--raw", "/readyz"]))?;
    let kept = cluster.kubectl(&["get", "configmaps", "-o", "name"])?;
    let kept: std::collections::BTreeSet<_> = kept.lines().map(|line| line.trim_start_matches("configmap/")).collect();
    if let Some(lost) = acknowledged.iter().find(|name| !kept.contains(name.as_str())) {
        bail!("{lost} was acknowledged and is lost ({} of 1,000 were acknowledged)", acknowledged.len());
    }
    Ok(())
}
