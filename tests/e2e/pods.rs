//! What a PodSpec says, seen from inside the container and on the node.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::time;
use serde_json::Value;

use crate::support::cluster::Cluster;

fn exec(cluster: &Cluster, pod: &str, arguments: &[&str]) -> Result<String> {
    let mut command = vec!["exec", pod, "--", "demo"];
    command.extend(arguments);
    cluster.kubectl(&command)
}

/// A pod with variables and volumes of every source.
const FULL: &str = "apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: full}, annotations: {note: 'a b'}}
spec:
  hostAliases: [{ip: 10.1.2.3, hostnames: [legacy]}]
  containers:
  - name: demo
    image: copepod.local/demo:latest
    env:
    - {name: PLAIN, value: one}
    - {name: COMPOSED, value: '$(PLAIN)-two-$$(PLAIN)'}
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: conf, key: color}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: hidden, key: password}}}
    - {name: ABSENT, valueFrom: {configMapKeyRef: {name: nope, key: x, optional: true}}}
    envFrom: [{prefix: C_, configMapRef: {name: conf}}]
    resources: {limits: {memory: 64Mi, cpu: 200m}}
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: conf, mountPath: /conf}
    - {name: hidden, mountPath: /hidden, readOnly: true}
    - {name: info, mountPath: /info}
    - {name: conf, mountPath: /single/file.txt, subPath: file.txt}
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: conf, configMap: {name: conf}}
  - {name: hidden, secret: {secretName: hidden, defaultMode: 256}}
  - {name: info, downwardAPI: {items: [{path: note, fieldRef: {fieldPath: 'metadata.annotations[''note'']'}}]}}";

pub fn environment_and_volumes_reach_the_container(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "configmap", "conf", "--from-literal=color=blue", "--from-literal=file.txt=hello"])?;
    cluster.kubectl(&["create", "secret", "generic", "hidden", "--from-literal=password=s3cret"])?;
    cluster.apply(FULL)?;
    cluster.wait_ready("full")?;
    let environment = exec(cluster, "full", &["env"])?;
    for line in [
        "PLAIN=one",
        "COMPOSED=one-two-$(PLAIN)",
        "POD_NAME=full",
        "LIMIT=67108864",
        "COLOR=blue",
        "PASSWORD=s3cret",
        "C_color=blue",
        "KUBERNETES_SERVICE_HOST=10.43.0.1",
    ] {
        ensure!(environment.lines().any(|seen| seen == line), "{line} is missing in\n{environment}");
    }
    ensure!(!environment.contains("ABSENT"), "an optional reference to nothing is no variable");
    let ip = cluster.get("pod", "full")?["status"]["podIP"].as_str().context("no IP")?.to_owned();
    ensure!(environment.contains(&format!("POD_IP={ip}")), "{environment}");
    for (file, expected) in [
        ("/conf/file.txt", "hello"),
        ("/hidden/password", "s3cret"),
        ("/info/note", "a b"),
        ("/single/file.txt", "hello"),
        ("/etc/hosts", "10.1.2.3\tlegacy"),
        ("/etc/hosts", "full"),
        ("/etc/resolv.conf", "nameserver 10.43.0.10"),
        ("/var/run/secrets/kubernetes.io/serviceaccount/namespace", &cluster.namespace()),
        ("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "BEGIN CERTIFICATE"),
        ("/var/run/secrets/kubernetes.io/serviceaccount/token", "ey"),
    ] {
        let content = exec(cluster, "full", &["cat", file])?;
        ensure!(content.contains(expected), "{file} has {content:?}, not {expected:?}");
    }
    exec(cluster, "full", &["write", "/scratch/a", "kept"])?;
    ensure!(exec(cluster, "full", &["cat", "/scratch/a"])?.trim() == "kept");
    ensure!(exec(cluster, "full", &["write", "/hidden/a", "no"]).is_err(), "a read-only mount was written");
    Ok(())
}

pub fn mounted_files_follow_their_objects(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "configmap", "live", "--from-literal=key=old"])?;
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: reader}, spec: {containers: [{name: demo,
          image: 'copepod.local/demo:latest', volumeMounts: [{name: v, mountPath: /live}]}],
          volumes: [{name: v, configMap: {name: live}}]}}",
    )?;
    cluster.wait_ready("reader")?;
    ensure!(exec(cluster, "reader", &["cat", "/live/key"])?.trim() == "old");
    cluster.kubectl(&["patch", "configmap", "live", "-p", r#"{"data":{"key":"new"}}"#])?;
    time::until("the new content", || {
        let content = exec(cluster, "reader", &["cat", "/live/key"])?;
        ensure!(content.trim() == "new", "{content}");
        Ok(())
    })
}

pub fn init_containers_run_in_order(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: ordered}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: first, image: 'copepod.local/demo:latest', args: [write, /v/one, '1'], volumeMounts: [{name: v, mountPath: /v}]}
  - {name: second, image: 'copepod.local/demo:latest', args: [cat, /v/one], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: main, image: 'copepod.local/demo:latest', args: [cat, /v/one], volumeMounts: [{name: v, mountPath: /v}]}
",
    )?;
    cluster.kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/ordered", &time::kubectl_timeout()])?;
    ensure!(cluster.kubectl(&["logs", "ordered", "-c", "second"])?.trim() == "1");
    ensure!(cluster.kubectl(&["logs", "ordered"])?.trim() == "1");
    let pod = cluster.get("pod", "ordered")?;
    for status in pod["status"]["initContainerStatuses"].as_array().context("init statuses")? {
        ensure!(status["state"]["terminated"]["reason"] == "Completed", "{status}");
    }
    Ok(())
}

pub fn probes_gate_and_restart(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: demo
    image: copepod.local/demo:latest
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 30}
    readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {exec: {command: [demo, test, -e, /bin/demo]}, periodSeconds: 1}
  - name: sick
    image: copepod.local/demo:latest
    args: [serve, --http, '8090', --tcp, 'off', --udp, 'off']
    livenessProbe: {httpGet: {path: /healthz, port: 8090}, periodSeconds: 1, failureThreshold: 2}
",
    )?;
    cluster.wait_ready("probed")?;
    let get = |url: &str| exec(cluster, "probed", &["http-get", url]);
    get("http://127.0.0.1:8080/readyz?fail=1").ok();
    cluster.kubectl(&["wait", "--for=condition=Ready=false", "pod/probed", &time::kubectl_timeout()])?;
    get("http://127.0.0.1:8080/readyz?fail=0").ok();
    cluster.wait_ready("probed")?;
    get("http://127.0.0.1:8090/healthz?fail=1").ok();
    time::until("the sick container's restart", || {
        let pod = cluster.get("pod", "probed")?;
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let sick = statuses.iter().find(|status| status["name"] == "sick").context("no status")?;
        ensure!(sick["restartCount"] == 1 && !sick["state"]["running"].is_null(), "{sick}");
        let other = statuses.iter().find(|status| status["name"] == "demo").context("no status")?;
        ensure!(other["restartCount"] == 0, "{other}");
        Ok(())
    })?;
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=probed"])?;
    ensure!(events.contains("Unhealthy") && events.contains("Killing"), "{events}");
    Ok(())
}

pub fn graceful_deletion_runs_pre_stop(cluster: &Cluster) -> Result<()> {
    let node = &cluster.nodes()[1];
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: leaving}}, spec: {{nodeName: {node}, terminationGracePeriodSeconds: 20,
          volumes: [{{name: v, hostPath: {{path: /run/e2e-leaving, type: DirectoryOrCreate}}}}],
          containers: [{{name: demo, image: 'copepod.local/demo:latest', volumeMounts: [{{name: v, mountPath: /v}}],
          lifecycle: {{preStop: {{exec: {{command: [demo, write, /v/stopped, 'yes']}}}}}}}}]}}}}"
    ))?;
    cluster.wait_ready("leaving")?;
    let codes = cluster.follow("pod", "leaving", "{.status.containerStatuses[0].state.terminated.exitCode}")?;
    cluster.kubectl(&["delete", "pod", "leaving", &time::kubectl_timeout()])?;
    let code = time::until("how it ended", || codes.last().context("not told yet"))?;
    ensure!(code != "137", "SIGTERM was not enough");
    let init = cluster.init_of(node)?;
    let written = fs::read_to_string(format!("/proc/{init}/root/run/e2e-leaving/stopped"))?;
    ensure!(written.trim() == "yes", "{written}");
    Ok(())
}

pub fn resources_become_cgroup_limits(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: limited}, spec: {containers: [{name: demo,
          image: 'copepod.local/demo:latest', resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 250m, memory: 48Mi}}}]}}",
    )?;
    cluster.wait_ready("limited")?;
    let pod = cluster.get("pod", "limited")?;
    ensure!(pod["status"]["qosClass"] == "Burstable", "{}", pod["status"]["qosClass"]);
    let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
    let memory = find_cgroup_files(uid, &["memory.limit_in_bytes", "memory.max"])?;
    ensure!(memory.iter().any(|value| value == "50331648"), "memory limits {memory:?}");
    let quota = find_cgroup_files(uid, &["cpu.cfs_quota_us", "cpu.max"])?;
    ensure!(quota.iter().any(|value| value.starts_with("25000")), "cpu quotas {quota:?}");
    Ok(())
}

/// The contents of files so named below the cgroups of a pod.
fn find_cgroup_files(uid: &str, names: &[&str]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else if path.to_string_lossy().contains(uid)
                && names.iter().any(|name| path.file_name().is_some_and(|file| file == *name))
            {
                found.push(fs::read_to_string(path)?.trim().to_owned());
            }
        }
    }
    ensure!(!found.is_empty(), "no cgroup has {uid} in its path");
    Ok(found)
}

pub fn static_pods_have_mirrors(cluster: &Cluster) -> Result<()> {
    let node = cluster.nodes()[2].clone();
    let directory = cluster.node_data(&node).join("manifests");
    ensure!(directory.is_dir(), "{} is not watched", directory.display());
    let file = directory.join("static.yaml");
    fs::write(directory.join("broken.yaml"), "kind: [")?;
    fs::write(
        &file,
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: fixed, namespace: {}}}\nspec: {{containers: [{{name: demo,
              image: 'copepod.local/demo:latest'}}]}}",
            cluster.namespace()
        ),
    )?;
    let mirror = format!("fixed-{node}");
    time::until("the mirror pod", || cluster.get("pod", &mirror))?;
    cluster.wait_ready(&mirror)?;
    let pod: Value = cluster.get("pod", &mirror)?;
    ensure!(pod["metadata"]["annotations"]["kubernetes.io/config.source"] == "file", "{}", pod["metadata"]);
    // Deleting the mirror stops nothing: it comes back.
    cluster.kubectl(&["delete", "pod", &mirror, "--grace-period=0", "--force", "--wait=false"])?;
    time::until("the mirror's return", || {
        let again = cluster.get("pod", &mirror)?;
        ensure!(again["metadata"]["uid"] != pod["metadata"]["uid"], "still the old one");
        Ok(())
    })?;
    fs::remove_file(&file)?;
    fs::remove_file(directory.join("broken.yaml"))?;
    time::until("the mirror's end", || {
        ensure!(cluster.get("pod", &mirror).is_err(), "it is still there");
        Ok(())
    })
}

pub fn runtime_classes_choose_handlers(cluster: &Cluster) -> Result<()> {
    // Classes belong to no namespace: these go with the test.
    struct Classes<'a>(&'a Cluster);
    impl Drop for Classes<'_> {
        fn drop(&mut self) {
            let _ = self.0.kubectl(&["delete", "runtimeclass", "unheard-of", "plain", "--ignore-not-found"]);
        }
    }
    let _classes = Classes(cluster);
    let pod = |class: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {class}}}, spec: {{terminationGracePeriodSeconds: 1,
              runtimeClassName: {class}, containers: [{{name: demo, image: 'copepod.local/demo:latest'}}]}}}}"
        )
    };
    let refused = cluster.apply(&pod("plain"));
    ensure!(refused.as_ref().is_err_and(|e| e.to_string().contains("\"plain\" not found")), "{refused:?}");
    cluster.apply("{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: unheard-of}, handler: gvisor}")?;
    cluster.apply(
        "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: plain}, handler: runc,
          overhead: {podFixed: {cpu: 10m, memory: 8Mi}}}",
    )?;
    ensure!(cluster.kubectl(&["get", "runtimeclasses"])?.contains("gvisor"), "kubectl shows the handler");
    cluster.apply(&pod("unheard-of"))?;
    cluster.apply(&pod("plain"))?;
    cluster.wait_ready("plain")?;
    let plain = cluster.get("pod", "plain")?;
    ensure!(plain["spec"]["overhead"] == serde_json::json!({"cpu": "10m", "memory": "8Mi"}), "{}", plain["spec"]);
    time::until("why it does not start", || {
        let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=unheard-of"])?;
        ensure!(events.lines().any(|l| l.contains("FailedCreatePodSandBox") && l.contains("gvisor")), "{events}");
        Ok(())
    })?;
    ensure!(cluster.get("pod", "unheard-of")?["status"]["phase"] == "Pending", "nothing started it");
    cluster.kubectl(&["delete", "pod", "unheard-of", &time::kubectl_timeout()])?;
    cluster.kubectl(&["delete", "pod", "plain", &time::kubectl_timeout()]).map(drop)
}
