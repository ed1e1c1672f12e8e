//! kubectl as people use it, in every version at hand.

use std::net::TcpStream;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use harness::net::http_get;
use harness::program::{self, Ended};
use harness::time;

use crate::support::cluster::Cluster;

/// Where `make kubectls` puts further versions.
const VERSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/kubectl");

struct Kubectl<'a> {
    cluster: &'a Cluster,
    kubectl: harness::kubectl::Kubectl,
    program: String,
}

impl Kubectl<'_> {
    fn output(&self, arguments: &[&str], input: Option<&str>) -> Result<Ended> {
        self.kubectl.output(arguments, input)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        self.output(arguments, None)?.success(&format!("{} {}", self.program, arguments.join(" ")))
    }

    /// Runs and looks for words in what is printed.
    fn shows(&self, arguments: &[&str], words: &[&str]) -> Result<()> {
        let text = self.run(arguments)?;
        for word in words {
            ensure!(text.contains(word), "{} {}: no {word:?} in\n{text}", self.program, arguments.join(" "));
        }
        Ok(())
    }
}

fn programs() -> Result<Vec<String>> {
    let mut programs = vec!["kubectl".to_owned()];
    for version in ["1.27", "1.30", "1.33"] {
        let program = PathBuf::from(VERSIONS).join(version).join("kubectl");
        ensure!(program.is_file(), "{} is missing: run make kubectls", program.display());
        programs.push(program.to_string_lossy().into_owned());
    }
    Ok(programs)
}

pub fn works_in_every_version(cluster: &Cluster) -> Result<()> {
    for (index, program) in programs()?.into_iter().enumerate() {
        let kubectl = Kubectl { cluster, kubectl: cluster.kubectls().program(&program), program };
        let name = format!("k{index}");
        reads_and_writes(&kubectl, &name).with_context(|| kubectl.program.clone())?;
        streams(&kubectl, &name).with_context(|| kubectl.program.clone())?;
        kubectl.run(&["delete", "deployment,service", &name, &time::kubectl_timeout()])?;
    }
    Ok(())
}

fn reads_and_writes(kubectl: &Kubectl<'_>, name: &str) -> Result<()> {
    let manifest = format!(
        "---\n{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{replicas: 1,
          selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}},
          spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: demo, image: 'copepod.local/demo:latest'}}]}}}}}}}}"
    );
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), &manifest)?;
    let path = file.path().to_str().context("a path")?;
    kubectl.shows(&["apply", "-f", path], &["created"])?;
    kubectl.shows(&["apply", "-f", path], &["unchanged"])?;
    kubectl.shows(&["diff", "-f", path], &[])?;
    kubectl.shows(
        &["rollout", "status", &format!("deployment/{name}"), &time::kubectl_timeout()],
        &["successfully rolled out"],
    )?;
    kubectl.shows(&["get", "pods", "-o", "wide"], &["NAME", "READY", "STATUS", "NODE", "1/1", "Running"])?;
    kubectl.shows(&["get", "deployment", name], &["UP-TO-DATE", "AVAILABLE", "1/1"])?;
    kubectl.shows(&["get", "nodes", "-o", "wide"], &["Ready", "control-plane", "containerd://", "INTERNAL-IP"])?;
    kubectl.shows(&["get", "all"], &["replicaset.apps/", "pod/"])?;
    kubectl.shows(&["describe", "deployment", name], &["RollingUpdate", "ScalingReplicaSet", "NewReplicaSet"])?;
    kubectl.shows(&["describe", "pods", "-l", &format!("app={name}")], &["Started", "Events", "QoS Class"])?;
    kubectl.shows(&["describe", "nodes"], &["Allocatable", "Non-terminated Pods", "Allocated resources"])?;
    kubectl.shows(&["scale", &format!("deployment/{name}"), "--replicas=2"], &["scaled"])?;
    kubectl.shows(
        &["wait", "--for=condition=Available", &format!("deployment/{name}"), &time::kubectl_timeout()],
        &["met"],
    )?;
    kubectl.shows(&["expose", "deployment", name, "--port=80", "--target-port=8080"], &["exposed"])?;
    kubectl.shows(&["get", "service", name], &["ClusterIP", "80/TCP"])?;
    kubectl.shows(&["explain", "deployment.spec.strategy"], &["rollingUpdate", "DESCRIPTION"])?;
    kubectl.shows(&["api-resources"], &["deployments", "deploy", "apps/v1", "configmaps"])?;
    kubectl.shows(&["api-versions"], &["apps/v1", "v1"])?;
    kubectl.shows(&["version"], &["Server Version"])?;
    kubectl.shows(&["cluster-info"], &["control plane"])?;
    kubectl.shows(&["auth", "can-i", "create", "pods"], &["yes"])?;
    kubectl.shows(&["annotate", "deployment", name, "note=x"], &["annotate"])?;
    kubectl.shows(&["label", "deployment", name, "tier=web"], &["labeled"])?;
    kubectl.shows(&["get", "deployment", "-l", "tier=web", "-o", "name"], &[name])?;
    kubectl.shows(
        &[
            "patch",
            "deployment",
            name,
            "--type=json",
            "-p",
            r#"[{"op":"add","path":"/metadata/labels/j","value":"1"}]"#,
        ],
        &["patched"],
    )?;
    kubectl.shows(&["set", "env", &format!("deployment/{name}"), "A=1"], &["env updated"])?;
    kubectl
        .shows(&["rollout", "status", &format!("deployment/{name}"), &time::kubectl_timeout()], &["successfully"])?;
    kubectl.shows(&["rollout", "history", &format!("deployment/{name}")], &["REVISION", "2"])?;
    kubectl.shows(&["rollout", "undo", &format!("deployment/{name}")], &["rolled back"])?;
    kubectl
        .shows(&["rollout", "status", &format!("deployment/{name}"), &time::kubectl_timeout()], &["successfully"])?;
    kubectl.shows(&["get", "events"], &["Scheduled", "Pulled", "Created", "Started"])?;
    kubectl.shows(&["create", "token", "default"], &["ey"])?;
    kubectl.shows(
        &["run", &format!("{name}-dry"), "--image=x", "--dry-run=server", "-o", "yaml"],
        &["uid:", "image: x"],
    )?;
    Ok(())
}

fn streams(kubectl: &Kubectl<'_>, name: &str) -> Result<()> {
    let pod = kubectl.run(&[
        "get",
        "pods",
        "-l",
        &format!("app={name}"),
        "--field-selector=status.phase=Running",
        "-o",
        // Those of the version before may still be ending, which is no phase.
        "go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{\"\\n\"}}{{end}}{{end}}",
    ])?;
    let pod = pod.lines().next().context("a pod runs")?.to_owned();
    kubectl.run(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), &time::kubectl_timeout()])?;
    exec_and_attach(kubectl, &pod)?;
    logs(kubectl, &pod)?;
    port_forward(kubectl, &pod)?;
    copy(kubectl, &pod)?;
    watch(kubectl)
}

fn exec_and_attach(kubectl: &Kubectl<'_>, pod: &str) -> Result<()> {
    kubectl.shows(&["exec", pod, "--", "demo", "echo", "out"], &["out"])?;
    let failed = kubectl.output(&["exec", pod, "--", "demo", "exit", "7"], None)?;
    ensure!(failed.status.code() == Some(7), "{failed:?}");
    // Standard input travels, and its end too.
    let ended = kubectl.output(&["exec", "-i", pod, "--", "demo", "cat"], Some("through and back"))?;
    ensure!(ended.stdout == "through and back", "{ended:?}");
    // A terminal on our side, made by script(1), gives one on the other.
    let line = format!(
        "{} --kubeconfig {} -n {} exec -it {pod} -- demo tty",
        kubectl.program,
        kubectl.cluster.kubeconfig().display(),
        kubectl.cluster.namespace()
    );
    let text = program::run(std::process::Command::new("script").args(["-qec", &line, "/dev/null"]), None)?;
    let text = text.success("script")?;
    ensure!(!text.contains("not a tty"), "{text}");
    Ok(())
}

fn logs(kubectl: &Kubectl<'_>, pod: &str) -> Result<()> {
    let follower = kubectl.kubectl.start(&["logs", "-f", "--tail=0", pod])?;
    // The follower has no way to say that it follows: speak until it hears.
    time::until("a followed line", || {
        kubectl.run(&["exec", pod, "--", "demo", "http-get", "http://127.0.0.1:8080/log?msg=marker"])?;
        let heard = follower.printed()?;
        ensure!(heard.contains("marker"), "{heard:?}");
        Ok(())
    })?;
    kubectl.shows(&["logs", "--tail=1", pod], &["marker"])?;
    kubectl.shows(&["logs", "--timestamps", "--tail=1", pod], &["T", "Z marker"])?;
    kubectl.shows(&["logs", "--since=1h", pod], &["marker"])
}

fn port_forward(kubectl: &Kubectl<'_>, pod: &str) -> Result<()> {
    let mut forward = kubectl.kubectl.start(&["port-forward", pod, ":8080"])?;
    // Forwarding from 127.0.0.1:41234 -> 8080
    let local = |line: &str| Some(line.split("127.0.0.1:").nth(1)?.split(' ').next()?.to_owned());
    let address = format!("127.0.0.1:{}", forward.line("a forwarded port", local)?).parse()?;
    for _ in 0..3 {
        let answer = http_get(address, "/hostname")?;
        ensure!(answer == pod, "{answer}");
    }
    drop(TcpStream::connect(address)?);
    ensure!(http_get(address, "/hostname")? == pod, "an idle connection broke the session");
    Ok(())
}

fn copy(kubectl: &Kubectl<'_>, pod: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let here = directory.path().join("sent");
    let back = directory.path().join("back");
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&here, &content)?;
    let there = format!("{pod}:/copied");
    kubectl.run(&["cp", here.to_str().context("a path")?, &there])?;
    kubectl.run(&["cp", &there, back.to_str().context("a path")?])?;
    if std::fs::read(&back)? != content {
        bail!("what came back is not what was sent");
    }
    Ok(())
}

fn watch(kubectl: &Kubectl<'_>) -> Result<()> {
    let mut watcher = kubectl.kubectl.start(&["get", "configmaps", "--watch", "-o", "name"])?;
    // The list comes first: the namespace's certificate authority.
    watcher.line("the list", |line| line.contains("kube-root-ca.crt").then_some(()))?;
    kubectl.run(&["create", "configmap", "seen"])?;
    watcher.line("the change", |line| line.contains("configmap/seen").then_some(()))?;
    kubectl.run(&["delete", "configmap", "seen"]).map(drop)
}
