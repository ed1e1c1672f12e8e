//! What people type, typed by the real kubectl.

use serde_json::json;

use apiserver::testing::*;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
  labels: {app: hello}
spec:
  replicas: 3
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: hello
        image: copepod.local/demo:latest
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  type: NodePort
  selector: {app: hello}
  ports: [{port: 80}]
"#;

#[tokio::test]
async fn apply_get_patch_scale_delete() {
    let cluster = serve().await;
    let applied = cluster.run(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert!(
        applied.contains("deployment.apps/hello created") && applied.contains("service/hello created"),
        "{applied}"
    );
    let again = cluster.run(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert!(again.contains("deployment.apps/hello unchanged") && again.contains("service/hello unchanged"), "{again}");
    let changed = cluster.run(&["apply", "-f", "-"], &DEPLOYMENT.replace("replicas: 3", "replicas: 4")).await;
    assert!(changed.contains("deployment.apps/hello configured"), "{changed}");

    let wide = cluster.run(&["get", "deployments,services", "-o", "wide"], "").await;
    assert!(wide.contains("deployment.apps/hello") && wide.contains("NodePort"), "{wide}");
    assert!(wide.contains("IMAGES") && wide.contains("copepod.local/demo:latest"), "{wide}");
    let scaled = cluster.run(&["scale", "deployment/hello", "--replicas=7"], "").await;
    assert!(scaled.contains("deployment.apps/hello scaled"), "{scaled}");
    let replicas = cluster.run(&["get", "deploy", "hello", "-o", "jsonpath={.spec.replicas}"], "").await;
    assert_eq!(replicas, "7");
    let patched = cluster
        .run(
            &[
                "patch",
                "deployment",
                "hello",
                "-p",
                r#"{"spec":{"template":{"spec":{"containers":[{"name":"hello","image":"other"}]}}}}"#,
            ],
            "",
        )
        .await;
    assert!(patched.contains("patched"), "{patched}");
    let image = cluster
        .run(&["get", "deploy", "hello", "-o", "jsonpath={.spec.template.spec.containers[*]['image','ports']}"], "")
        .await;
    assert!(image.contains("other") && image.contains("80"), "{image}");
    let described = cluster.run(&["describe", "deployment", "hello"], "").await;
    assert!(described.contains("Name:") && described.contains("other"), "{described}");
    let described = cluster.run(&["describe", "service", "hello"], "").await;
    assert!(described.contains("NodePort:"), "{described}");
    let label = cluster.run(&["label", "deployment", "hello", "tier=front"], "").await;
    assert!(label.contains("labeled"), "{label}");
    let deleted = cluster.run(&["delete", "-f", "-"], DEPLOYMENT).await;
    assert!(deleted.contains("\"hello\" deleted"), "{deleted}");
    let (found, text) = cluster.try_run(&["get", "deployment", "hello"], "").await;
    assert!(!found && text.contains("deployments.apps \"hello\" not found"), "{text}");
}

#[tokio::test]
async fn discovery_and_explain() {
    let cluster = serve().await;
    let resources = cluster.run(&["api-resources"], "").await;
    for line in ["deployments", "pods", "endpointslices", "leases", "clusterroles"] {
        assert!(resources.contains(line), "{line} in {resources}");
    }
    let versions = cluster.run(&["api-versions"], "").await;
    assert!(versions.contains("apps/v1") && versions.contains("\nv1"), "{versions}");
    let version = cluster.run(&["version"], "").await;
    assert!(version.contains("v1.36.0+copepod"), "{version}");
    let explained = cluster.run(&["explain", "deployment.spec.replicas"], "").await;
    assert!(explained.contains("replicas") && explained.contains("integer"), "{explained}");
    let raw = cluster.run(&["get", "--raw", "/readyz?verbose"], "").await;
    assert!(raw.contains("readyz check passed"), "{raw}");
}

#[tokio::test]
async fn dry_run_validation_and_waiting() {
    let cluster = serve().await;
    let dry = cluster.run(&["apply", "--dry-run=server", "-f", "-"], DEPLOYMENT).await;
    assert!(dry.contains("hello created (server dry run)"), "{dry}");
    let (_, text) = cluster.try_run(&["get", "deployment", "hello"], "").await;
    assert!(text.contains("not found"), "{text}");
    let (ok, text) = cluster.try_run(&["apply", "-f", "-"], &DEPLOYMENT.replace("replicas: 3", "replicants: 3")).await;
    assert!(!ok && text.contains("unknown field \"spec.replicants\""), "{text}");
    let (ok, text) = cluster.try_run(&["apply", "-f", "-"], &DEPLOYMENT.replace("replicas: 3", "replicas: many")).await;
    assert!(!ok && text.contains("cannot unmarshal string"), "{text}");

    cluster.run(&["create", "configmap", "c", "--from-literal=a=b"], "").await;
    let waiting = cluster.kubectl(&["wait", "--for=jsonpath={.data.a}=z", "configmap/c", "--timeout=20s"]).output();
    let change = cluster.run(&["patch", "configmap", "c", "-p", r#"{"data":{"a":"z"}}"#], "");
    let (waited, _) = tokio::join!(waiting, change);
    assert!(waited.unwrap().status.success());
    let gone = cluster.kubectl(&["wait", "--for=delete", "configmap/c", "--timeout=20s"]).output();
    let delete = cluster.run(&["delete", "configmap", "c"], "");
    let (gone, _) = tokio::join!(gone, delete);
    assert!(gone.unwrap().status.success());
}

#[tokio::test]
async fn watching_prints_changes() {
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let cluster = serve().await;
    let mut watch = cluster.kubectl(&["get", "configmaps", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let made = json!({"metadata": {"name": "seen"}, "data": {"a": "b"}});
    // The watch may open before or after the write; it prints the object either way.
    post(&cluster.client, "/api/v1/namespaces/default/configmaps", &made).await;
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("seen ") {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), found).await.expect("the watch prints the object");
    watch.kill().await.unwrap();
}

#[tokio::test]
async fn who_may_do_what() {
    let cluster = serve().await;
    assert_eq!(cluster.run(&["auth", "can-i", "create", "pods"], "").await.trim(), "yes");
    let who = cluster.run(&["auth", "whoami"], "").await;
    assert!(who.contains("system:masters"), "{who}");
}

#[tokio::test]
async fn generators_post_protobuf() {
    let cluster = serve().await;
    cluster.run(&["create", "namespace", "team"], "").await;
    let made =
        cluster.run(&["-n", "team", "create", "deployment", "web", "--image=i", "--replicas=0", "--port=80"], "").await;
    assert!(made.contains("deployment.apps/web created"), "{made}");
    let replicas = cluster.run(&["-n", "team", "get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], "").await;
    assert_eq!(replicas, "0");
    cluster.run(&["-n", "team", "expose", "deployment", "web", "--port=80", "--target-port=http"], "").await;
    let port =
        cluster.run(&["-n", "team", "get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort}"], "").await;
    assert_eq!(port, "http");
    cluster.run(&["-n", "team", "create", "secret", "generic", "s", "--from-literal=a=b"], "").await;
    let secret = cluster.run(&["-n", "team", "get", "secret", "s", "-o", "jsonpath={.data.a}"], "").await;
    assert_eq!(secret, "Yg==");
    cluster.run(&["-n", "team", "create", "role", "r", "--verb=get", "--resource=pods"], "").await;
    cluster.run(&["-n", "team", "create", "rolebinding", "r", "--role=r", "--user=jane"], "").await;
    cluster.run(&["-n", "team", "create", "job", "j", "--image=i"], "").await;
    cluster.run(&["-n", "team", "create", "quota", "q", "--hard=pods=2"], "").await;
    cluster.run(&["-n", "team", "set", "image", "deployment/web", "i=j"], "").await;
    cluster.run(&["-n", "team", "rollout", "pause", "deployment/web"], "").await;
    cluster.run(&["-n", "team", "annotate", "deployment", "web", "a=b"], "").await;
    let all = cluster.run(&["-n", "team", "get", "all"], "").await;
    assert!(all.contains("deployment.apps/web") && all.contains("service/web") && all.contains("job.batch/j"), "{all}");
    let edited = cluster.run(&["-n", "team", "get", "deploy", "web", "-o", "yaml"], "").await;
    assert!(edited.contains("paused: true") && edited.contains("image: j"), "{edited}");
    cluster.run(&["-n", "team", "replace", "-f", "-"], &edited).await;
    cluster.run(&["-n", "team", "delete", "deployment,service,job", "--all", "--wait=false"], "").await;
}

#[tokio::test]
async fn nodes_are_cordoned_and_tainted() {
    let cluster = serve().await;
    post(&cluster.client, "/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    cluster.run(&["cordon", "n"], "").await;
    cluster.run(&["taint", "node", "n", "a=b:NoSchedule"], "").await;
    cluster.run(&["label", "node", "n", "zone=z"], "").await;
    let nodes = cluster.run(&["get", "nodes", "-L", "zone"], "").await;
    assert!(nodes.contains("SchedulingDisabled") && nodes.contains('z'), "{nodes}");
    let described = cluster.run(&["describe", "node", "n"], "").await;
    assert!(described.contains("a=b:NoSchedule") && described.contains("Unschedulable:      true"), "{described}");
}
