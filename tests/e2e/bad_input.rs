//! Bad input gets upstream's status code, reason and causes, and a bad
//! configuration all its problems at once.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::program;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;

/// A raw request with the administrator's credentials; code and body.
fn request(cluster: &Cluster, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<(u16, Value)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = cluster.client().await?;
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", kind)
            .header("Accept", "application/json")
            .body(kube::client::Body::from(body.to_vec()))?;
        let response = client.send(request).await?;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await?;
        let body =
            serde_json::from_slice(&bytes).with_context(|| format!("{code}: {}", String::from_utf8_lossy(&bytes)))?;
        Ok((code, body))
    })
}

/// Method, path, body; then code, reason, and words of the message.
type Case<'a> = (&'a str, &'a str, Vec<u8>, u16, &'a str, &'a str);

pub fn gets_upstreams_answers(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace();
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let strict = format!("{maps}?fieldValidation=Strict");
    let mut unknown = map("x");
    unknown["oops"] = json!(1);
    let cases: Vec<Case<'_>> = vec![
        ("POST", &maps, b"{\"apiVersion\": \"v1\", ".to_vec(), 400, "BadRequest", ""),
        ("POST", &maps, b"\x00\xff garbage".to_vec(), 400, "BadRequest", ""),
        ("POST", &maps, vec![b'['; 100_000], 400, "BadRequest", ""),
        ("POST", &strict, unknown.to_string().into_bytes(), 400, "BadRequest", "unknown field \"oops\""),
        ("POST", &maps, map("Not_Valid").to_string().into_bytes(), 422, "Invalid", "metadata.name"),
        ("POST", &maps, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}).to_string().into_bytes(), 422, "Invalid", "name or generateName is required"),
        ("POST", &maps, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}).to_string().into_bytes(), 400, "BadRequest", "Secret"),
        ("POST", &maps, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": 1}}).to_string().into_bytes(), 400, "BadRequest", "cannot unmarshal number"),
        ("POST", &deployments, json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"replicas": "three"}}).to_string().into_bytes(), 400, "BadRequest", "spec.replicas"),
        ("POST", &deployments, json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"replicas": -1}}).to_string().into_bytes(), 422, "Invalid", "spec.selector"),
        ("POST", &maps, vec![b' '; 4 << 20], 413, "RequestEntityTooLarge", ""),
        ("GET", "/api/v1/namespaces/default/pods/nope", Vec::new(), 404, "NotFound", "pods \"nope\" not found"),
        ("GET", "/api/v1/pods?fieldSelector=nope%3D1", Vec::new(), 400, "BadRequest", "field label not supported"),
        ("GET", "/api/v1/pods?labelSelector=%21%21", Vec::new(), 400, "BadRequest", ""),
        ("GET", "/api/v1/pods?limit=3&continue=garbage", Vec::new(), 400, "BadRequest", "continue"),
        ("PUT", "/api/v1/namespaces/default/pods", b"{}".to_vec(), 405, "MethodNotAllowed", ""),
    ];
    for (method, path, body, code, reason, words) in cases {
        let (seen, status) = request(cluster, method, path, "application/json", &body)?;
        let told = status.to_string();
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        ensure!(seen == code, "{method} {path} {shown}: {seen}, not {code}: {told}");
        ensure!(status["kind"] == "Status" && status["reason"] == reason, "{method} {path} {shown}: {told}");
        ensure!(status["message"].as_str().unwrap_or_default().contains(words), "{method} {path} {shown}: {told}");
    }
    conflicts_and_causes(cluster, &maps, &deployments)?;
    bad_configurations(cluster)
}

fn conflicts_and_causes(cluster: &Cluster, maps: &str, deployments: &str) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "once"}}).to_string();
    let (code, created) = request(cluster, "POST", maps, "application/json", body.as_bytes())?;
    ensure!(code == 201, "{created}");
    let (code, again) = request(cluster, "POST", maps, "application/json", body.as_bytes())?;
    ensure!(code == 409 && again["reason"] == "AlreadyExists", "{again}");
    let path = format!("{maps}/once");
    let mut stale = created.clone();
    stale["data"] = json!({"a": "b"});
    let (code, updated) = request(cluster, "PUT", &path, "application/json", stale.to_string().as_bytes())?;
    ensure!(code == 200, "{updated}");
    let (code, conflict) = request(cluster, "PUT", &path, "application/json", stale.to_string().as_bytes())?;
    ensure!(code == 409 && conflict["reason"] == "Conflict", "{conflict}");
    let (code, media) = request(cluster, "POST", maps, "text/plain", body.as_bytes())?;
    ensure!(code == 415 && media["reason"] == "UnsupportedMediaType", "{media}");
    let incomplete = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": []}}}});
    let (code, invalid) = request(cluster, "POST", deployments, "application/json", incomplete.to_string().as_bytes())?;
    ensure!(code == 422, "{invalid}");
    let causes = invalid["details"]["causes"].as_array().context("causes")?;
    for (field, reason) in [
        ("spec.template.metadata.labels", "FieldValueInvalid"),
        ("spec.template.spec.containers", "FieldValueRequired"),
    ] {
        let found = causes.iter().any(|cause| cause["field"] == field && cause["reason"] == reason);
        ensure!(found, "no {reason} for {field} in {causes:?}");
    }
    Ok(())
}

fn bad_configurations(cluster: &Cluster) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("node.yaml");
    std::fs::write(
        &file,
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: -3\nunknownThing: 1\ncgroupDriver: odd\n---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\nnftables: {masqueradeBit: 99}\n",
    )?;
    let run = |arguments: &[&str], path: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_copepod"));
        command.args(arguments);
        command.arg("--data-dir").arg(directory.path().join("d")).arg("--run-dir").arg(directory.path().join("r"));
        if let Some(path) = path {
            command.env("PATH", path);
        }
        // In a namespace of its own: a start that is not refused must not
        // touch the machine's network.
        nsenter(&mut command, cluster);
        let ended = program::run(&mut command, None)?;
        anyhow::Ok((ended.status.code(), ended.stderr))
    };
    let (code, told) = run(&["up", "--node-ip=127.0.0.1", "--config", file.to_str().context("a path")?], None)?;
    ensure!(code == Some(2), "exit code {code:?}: {told}");
    for problem in ["maxPods", "unknownThing", "cgroupDriver", "iptables is not offered", "masqueradeBit"] {
        ensure!(told.contains(problem), "{problem} is not named in: {told}");
    }
    let (code, told) = run(&["up", "--node-ip=127.0.0.1"], Some("/nonexistent"))?;
    ensure!(code == Some(1), "exit code {code:?}: {told}");
    ensure!(told.contains("apt-get install containerd") && told.contains("apt-get install runc"), "{told}");
    let (code, told) = run(&["up", "--no-such-flag"], None)?;
    ensure!(code == Some(2) && told.contains("--no-such-flag"), "{told}");
    Ok(())
}

/// Moves a command into the switch namespace, which has no way out.
fn nsenter(command: &mut Command, cluster: &Cluster) {
    // By path: the command's own PATH may lead nowhere.
    let mut wrapped = Command::new("/usr/bin/nsenter");
    wrapped.arg(format!("--net={}", cluster.outside().path().display()));
    wrapped.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    *command = wrapped;
}
