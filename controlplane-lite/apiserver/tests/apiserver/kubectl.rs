//! What people type, typed by the real kubectl.

use harness::time;
use serde_json::json;

use apiserver::testing::*;

use crate::Kubectl;

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
    let kubectl = Kubectl::of(&cluster);
    let applied = kubectl.run(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert!(
        applied.contains("deployment.apps/hello created") && applied.contains("service/hello created"),
        "{applied}"
    );
    let again = kubectl.run(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert!(again.contains("deployment.apps/hello unchanged") && again.contains("service/hello unchanged"), "{again}");
    let changed = kubectl.run(&["apply", "-f", "-"], &DEPLOYMENT.replace("replicas: 3", "replicas: 4")).await;
    assert!(changed.contains("deployment.apps/hello configured"), "{changed}");

    let wide = kubectl.run(&["get", "deployments,services", "-o", "wide"], "").await;
    assert!(wide.contains("deployment.apps/hello") && wide.contains("NodePort"), "{wide}");
    assert!(wide.contains("IMAGES") && wide.contains("copepod.local/demo:latest"), "{wide}");
    let scaled = kubectl.run(&["scale", "deployment/hello", "--replicas=7"], "").await;
    assert!(scaled.contains("deployment.apps/hello scaled"), "{scaled}");
    let replicas = kubectl.run(&["get", "deploy", "hello", "-o", "jsonpath={.spec.replicas}"], "").await;
    assert_eq!(replicas, "7");
    let patched = kubectl
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
    let image = kubectl
        .run(&["get", "deploy", "hello", "-o", "jsonpath={.spec.template.spec.containers[*]['image','ports']}"], "")
        .await;
    assert!(image.contains("other") && image.contains("80"), "{image}");
    let described = kubectl.run(&["describe", "deployment", "hello"], "").await;
    assert!(described.contains("Name:") && described.contains("other"), "{described}");
    let described = kubectl.run(&["describe", "service", "hello"], "").await;
    assert!(described.contains("NodePort:"), "{described}");
    let label = kubectl.run(&["label", "deployment", "hello", "tier=front"], "").await;
    assert!(label.contains("labeled"), "{label}");
    let deleted = kubectl.run(&["delete", "-f", "-"], DEPLOYMENT).await;
    assert!(deleted.contains("\"hello\" deleted"), "{deleted}");
    let (found, text) = kubectl.told(&["get", "deployment", "hello"], "").await;
    assert!(!found && text.contains("deployments.apps \"hello\" not found"), "{text}");
}

#[tokio::test]
async fn discovery_and_explain() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    let resources = kubectl.run(&["api-resources"], "").await;
    for line in ["deployments", "pods", "endpointslices", "leases", "clusterroles"] {
        assert!(resources.contains(line), "{line} in {resources}");
    }
    let versions = kubectl.run(&["api-versions"], "").await;
    assert!(versions.contains("apps/v1") && versions.contains("\nv1"), "{versions}");
    let version = kubectl.run(&["version"], "").await;
    assert!(version.contains("v1.36.0+copepod"), "{version}");
    let explained = kubectl.run(&["explain", "deployment.spec.replicas"], "").await;
    assert!(explained.contains("replicas") && explained.contains("integer"), "{explained}");
    let raw = kubectl.run(&["get", "--raw", "/readyz?verbose"], "").await;
    assert!(raw.contains("readyz check passed"), "{raw}");
}

#[tokio::test]
async fn dry_run_validation_and_waiting() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    let dry = kubectl.run(&["apply", "--dry-run=server", "-f", "-"], DEPLOYMENT).await;
    assert!(dry.contains("hello created (server dry run)"), "{dry}");
    let (_, text) = kubectl.told(&["get", "deployment", "hello"], "").await;
    assert!(text.contains("not found"), "{text}");
    let (ok, text) = kubectl.told(&["apply", "-f", "-"], &DEPLOYMENT.replace("replicas: 3", "replicants: 3")).await;
    assert!(!ok && text.contains("unknown field \"spec.replicants\""), "{text}");
    let (ok, text) = kubectl.told(&["apply", "-f", "-"], &DEPLOYMENT.replace("replicas: 3", "replicas: many")).await;
    assert!(!ok && text.contains("cannot unmarshal string"), "{text}");

    kubectl.run(&["create", "configmap", "c", "--from-literal=a=b"], "").await;
    let limit = time::kubectl_timeout();
    let changed = ["wait", "--for=jsonpath={.data.a}=z", "configmap/c", &limit];
    let waiting = kubectl.run(&changed, "");
    let change = kubectl.run(&["patch", "configmap", "c", "-p", r#"{"data":{"a":"z"}}"#], "");
    tokio::join!(waiting, change);
    let gone = ["wait", "--for=delete", "configmap/c", &limit];
    let gone = kubectl.run(&gone, "");
    let delete = kubectl.run(&["delete", "configmap", "c"], "");
    tokio::join!(gone, delete);
}

#[tokio::test]
async fn watching_prints_changes() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    let watch = kubectl.start(&["get", "configmaps", "--watch"]);
    let made = json!({"metadata": {"name": "seen"}, "data": {"a": "b"}});
    // The watch may open before or after the write; it prints the object either way.
    post(&cluster.client, "/api/v1/namespaces/default/configmaps", &made).await;
    let seen = async || watch.printed().unwrap().lines().any(|line| line.starts_with("seen "));
    time::eventually_true("the object among what is printed", seen).await.unwrap();
}

#[tokio::test]
async fn who_may_do_what() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    assert_eq!(kubectl.run(&["auth", "can-i", "create", "pods"], "").await.trim(), "yes");
    let who = kubectl.run(&["auth", "whoami"], "").await;
    assert!(who.contains("system:masters"), "{who}");
}

#[tokio::test]
async fn generators_post_protobuf() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    kubectl.run(&["create", "namespace", "team"], "").await;
    let made =
        kubectl.run(&["-n", "team", "create", "deployment", "web", "--image=i", "--replicas=0", "--port=80"], "").await;
    assert!(made.contains("deployment.apps/web created"), "{made}");
    let replicas = kubectl.run(&["-n", "team", "get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"], "").await;
    assert_eq!(replicas, "0");
    kubectl.run(&["-n", "team", "expose", "deployment", "web", "--port=80", "--target-port=http"], "").await;
    let port =
        kubectl.run(&["-n", "team", "get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort}"], "").await;
    assert_eq!(port, "http");
    kubectl.run(&["-n", "team", "create", "secret", "generic", "s", "--from-literal=a=b"], "").await;
    let secret = kubectl.run(&["-n", "team", "get", "secret", "s", "-o", "jsonpath={.data.a}"], "").await;
    assert_eq!(secret, "Yg==");
    kubectl.run(&["-n", "team", "create", "role", "r", "--verb=get", "--resource=pods"], "").await;
    kubectl.run(&["-n", "team", "create", "rolebinding", "r", "--role=r", "--user=jane"], "").await;
    kubectl.run(&["-n", "team", "create", "job", "j", "--image=i"], "").await;
    kubectl.run(&["-n", "team", "create", "quota", "q", "--hard=pods=2"], "").await;
    kubectl.run(&["-n", "team", "set", "image", "deployment/web", "i=j"], "").await;
    kubectl.run(&["-n", "team", "rollout", "pause", "deployment/web"], "").await;
    kubectl.run(&["-n", "team", "annotate", "deployment", "web", "a=b"], "").await;
    let all = kubectl.run(&["-n", "team", "get", "all"], "").await;
    assert!(all.contains("deployment.apps/web") && all.contains("service/web") && all.contains("job.batch/j"), "{all}");
    let edited = kubectl.run(&["-n", "team", "get", "deploy", "web", "-o", "yaml"], "").await;
    assert!(edited.contains("paused: true") && edited.contains("image: j"), "{edited}");
    kubectl.run(&["-n", "team", "replace", "-f", "-"], &edited).await;
    kubectl.run(&["-n", "team", "delete", "deployment,service,job", "--all", "--wait=false"], "").await;
}

#[tokio::test]
async fn nodes_are_cordoned_and_tainted() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    post(&cluster.client, "/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await;
    kubectl.run(&["cordon", "n"], "").await;
    kubectl.run(&["taint", "node", "n", "a=b:NoSchedule"], "").await;
    kubectl.run(&["label", "node", "n", "zone=z"], "").await;
    let nodes = kubectl.run(&["get", "nodes", "-L", "zone"], "").await;
    assert!(nodes.contains("SchedulingDisabled") && nodes.contains('z'), "{nodes}");
    let described = kubectl.run(&["describe", "node", "n"], "").await;
    assert!(described.contains("a=b:NoSchedule") && described.contains("Unschedulable:      true"), "{described}");
}
