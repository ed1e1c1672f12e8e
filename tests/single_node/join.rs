//! A worker on a machine of its own joins a control plane on another by the
//! command that `copepod token create` prints; and is told why when it may not.

use std::process::Child;

use anyhow::{Context, Result, ensure};
use harness::machine::Machine;
use harness::program::{self, Ended};
use harness::time;

use crate::machine::{self, COPEPOD};

const SERVER: &str = "203.0.113.1";
const WORKER: &str = "203.0.113.2";

/// Starts copepod and lets it run.
fn start(machine: &Machine, arguments: &[&str]) -> Result<Child> {
    let log = std::fs::File::create(machine.path("/var/log/copepod-test.log"))?;
    let mut command = machine.command(&[&[COPEPOD], arguments].concat());
    command.stdout(log.try_clone()?).stderr(log).spawn().context("start copepod")
}

/// Ends copepod as `down` does, and waits for whoever started it.
fn end(machine: &Machine, mut child: Child) -> Result<()> {
    machine.copepod(&["down"])?;
    child.wait().map(drop).context("wait for copepod")
}

fn log(machine: &Machine) -> String {
    std::fs::read_to_string(machine.path("/var/log/copepod-test.log")).unwrap_or_default()
}

/// Tries to join with what cannot work: exit code 1, and one line to tell why.
fn refused(worker: &Machine, arguments: &[&str], code: i32, why: &str) -> Result<()> {
    let base = ["agent", "--node-name", "worker", "--node-ip", WORKER, "--log", "error"];
    let Ended { status, stderr: told, .. } =
        program::run(&mut worker.command(&[&[COPEPOD], &base[..], arguments].concat()), None)?;
    ensure!(status.code() == Some(code), "{arguments:?}: {status:?}: {told}");
    ensure!(told.lines().count() == 1 && told.contains(why), "{arguments:?}: {told}");
    ensure!(!worker.path("/var/lib/copepod/kubelet.kubeconfig").exists(), "a kubeconfig was written");
    Ok(())
}

fn ready(server: &Machine) -> Result<()> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    let ready = server.kubectl(&["get", "node", "worker", "-o", path])?;
    ensure!(ready == "True", "Ready is {ready:?}");
    Ok(())
}

/// Everything that keeps a worker out, with a good token at hand.
fn refusals(server: &Machine, worker: &Machine, (url, token): (&str, &str)) -> Result<()> {
    let id = &token[..6];
    let other = format!("{id}.{}", token[7..].chars().rev().collect::<String>());
    refused(worker, &["--server", url, "--token", &other], 1, "did not sign")?;
    let nobody = "aaaaaa.0123456789abcdef";
    refused(worker, &["--server", url, "--token", nobody], 1, "does not know token aaaaaa")?;
    let hash = format!("sha256:{}", "00".repeat(32));
    let wrong_ca = ["--server", url, "--token", token, "--ca-cert-hash", &hash];
    refused(worker, &wrong_ca, 1, "which no --ca-cert-hash names")?;
    refused(worker, &["--server", url, "--token", "garbage"], 2, "--token: a bootstrap token is")?;
    refused(worker, &["--server", url, "--token", token, "--ca-cert-hash", "x"], 2, "64 hexadecimal digits")?;
    let short = server.copepod(&["token", "create", "--ttl", "1s"])?;
    time::until("the end of a token", || {
        ensure!(!server.copepod(&["token", "list"])?.contains(short.trim()), "it is still listed");
        Ok(())
    })?;
    refused(worker, &["--server", url, "--token", short.trim()], 1, "does not know token")
}

#[test]
fn a_worker_joins_by_the_printed_command() -> Result<()> {
    let (server, worker) = (machine::new("joined")?, machine::new("joining")?);
    let before = worker.picture()?;
    server.cable((SERVER, &worker, WORKER))?;
    // Not the range that a node takes by itself.
    let range = ["--service-cluster-ip-range", "10.96.0.0/16"];
    let control_plane = start(&server, &[&["server", "--advertise-address", SERVER][..], &range].concat())?;
    let create = ["token", "create", "--print-join-command", "--description", "a test"];
    let printed = time::until("the control plane", || server.copepod(&create))?;
    let words: Vec<&str> = printed.split_whitespace().collect();
    ensure!(words[..2] == ["copepod", "agent"] && words.len() == 8, "{printed}");
    let (url, token) = (words[3], words[5]);
    ensure!(server.copepod(&["token", "list"])?.contains("a test"), "the token is not listed");
    refusals(&server, &worker, (url, token))?;

    let root = worker.cgroup_root();
    let config = "/var/lib/kubelet.yaml";
    let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nserverTLSBootstrap: true\n";
    std::fs::write(worker.path(config), text)?;
    let own = ["--node-name", "worker", "--node-ip", WORKER, "--cgroup-root", &root, "--config", config];
    let join: Vec<&str> = words[1..].iter().copied().chain(own).collect();
    let agent = start(&worker, &join)?;
    time::until("the worker", || ready(&server)).with_context(|| log(&worker))?;
    time::until("the cluster's DNS address", || {
        let shown = worker.run(&["ip", "-4", "address", "show", "copepod0"])?;
        ensure!(shown.contains("10.96.0.10/32") && !shown.contains("10.43."), "{shown}");
        Ok(())
    })?;
    let image = "--image=copepod.local/demo:latest";
    server.kubectl(&["run", "hello", image, "--image-pull-policy=IfNotPresent"])?;
    server
        .kubectl(&["wait", "pod/hello", "--for=condition=Ready", &time::kubectl_timeout()])
        .with_context(|| log(&worker))?;

    time::until("the serving certificate", || {
        let shown = server.kubectl(&["get", "csr", "--no-headers"])?;
        let issued = |line: &str| line.contains("kubelet-serving") && line.ends_with("Approved,Issued");
        ensure!(shown.lines().any(|line| issued(line.trim_end())), "{shown}");
        ensure!(worker.path("/var/lib/copepod/kubelet/pki/kubelet-server-current.pem").exists(), "not stored");
        Ok(())
    })?;

    // Joined is joined: with the token gone it starts again, and the pod is the same.
    server.copepod(&["token", "delete", &token[..6]])?;
    worker.kill_9(worker.process("copepod", "agent")?.pid)?;
    let mut agent = agent;
    agent.wait()?;
    let uid = server.kubectl(&["get", "pod", "hello", "-o", "jsonpath={.metadata.uid}"])?;
    let heartbeat = || {
        let lease = ["get", "lease", "worker", "--namespace=kube-node-lease", "-o", "jsonpath={.spec.renewTime}"];
        server.kubectl(&lease)
    };
    let last = heartbeat()?;
    let agent = start(&worker, &join)?;
    time::until("a sign of life", || {
        ensure!(heartbeat()? != last, "the lease is as it was");
        ready(&server)
    })
    .with_context(|| log(&worker))?;
    ensure!(server.kubectl(&["get", "pod", "hello", "-o", "jsonpath={.metadata.uid}"])? == uid, "another pod");
    end(&worker, agent)?;
    end(&server, control_plane)?;
    std::fs::remove_file(worker.path("/var/log/copepod-test.log"))?;
    std::fs::remove_file(worker.path(config))?;
    worker.run(&["ip", "link", "delete", "join0"])?;
    worker.expect_unchanged_since(&before)
}

#[test]
fn a_bootstrap_kubeconfig_will_do() -> Result<()> {
    let (server, worker) = (machine::new("booted")?, machine::new("booting")?);
    server.cable((SERVER, &worker, WORKER))?;
    let control_plane = start(&server, &["server", "--advertise-address", SERVER])?;
    let token = time::until("the control plane", || server.copepod(&["token", "create"]))?;
    let ca = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let ca = server.kubectl(&["config", "view", "--raw", "-o", ca])?;
    let bootstrap = |token: &str| {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "b",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{SERVER}:6443"), "certificate-authority-data": ca}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "b", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(worker.path("/var/lib/bootstrap.kubeconfig"), config.to_string())
    };
    let file = ["--bootstrap-kubeconfig", "/var/lib/bootstrap.kubeconfig"];
    bootstrap("abcdef.0123456789abcdef")?;
    refused(&worker, &file, 1, "the token is not accepted")?;
    bootstrap(token.trim())?;
    let root = worker.cgroup_root();
    let own = ["agent", "--node-name", "worker", "--node-ip", WORKER, "--cgroup-root", &root];
    let agent = start(&worker, &[&own[..], &file].concat())?;
    time::until("the worker", || ready(&server)).with_context(|| log(&worker))?;
    let written = std::fs::read_to_string(worker.path("/var/lib/copepod/kubelet.kubeconfig"))?;
    ensure!(written.contains("kubelet-client-current.pem") && !written.contains(token.trim()), "{written}");
    end(&worker, agent)?;
    end(&server, control_plane)
}
