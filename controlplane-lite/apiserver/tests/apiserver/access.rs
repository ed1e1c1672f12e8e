//! Who is asking and may they: certificates, tokens, roles, nodes, impersonation, over real TLS where that matters.

use anyhow::ensure;
use auth::authn::UserInfo;
use harness::time;
use http::StatusCode;
use serde_json::{Value, json};

use apiserver::testing::*;

use crate::Kubectl;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn nobody(name: &str) -> UserInfo {
    UserInfo::new(name, Vec::<String>::new())
}

async fn grant(client: &kube::Client, user: &str, rules: Value) {
    let role = json!({"metadata": {"name": user}, "rules": rules});
    expect(post(client, &format!("{RBAC}/clusterroles"), &role).await, StatusCode::CREATED);
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    expect(post(client, &format!("{RBAC}/clusterrolebindings"), &binding).await, StatusCode::CREATED);
}

/// The caches follow writes by a moment.
async fn eventually(client: &kube::Client, path: &str, code: u16) -> Value {
    let answered = async || {
        let (got, answer) = get(client, path).await;
        ensure!(got == code, "{got}: {answer}");
        Ok(answer)
    };
    time::eventually(path, answered).await.unwrap()
}

#[tokio::test]
async fn roles_decide() {
    let (server, admin) = start().await;
    let jane = server.client(nobody("jane"));
    let refused = expect(get(&jane, "/api/v1/pods").await, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
    );
    grant(&admin, "jane", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])).await;
    eventually(&jane, "/api/v1/pods", 200).await;
    expect(get(&jane, "/api/v1/secrets").await, StatusCode::FORBIDDEN);
    let asked = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(expect(post(&jane, reviews, &asked).await, StatusCode::CREATED)["status"]["allowed"], true);
    let rules = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = expect(post(&jane, rules, &json!({"spec": {"namespace": "default"}})).await, StatusCode::CREATED);
    let resources = answer["status"]["resourceRules"].as_array().unwrap();
    assert!(resources.iter().any(|r| r["resources"] == json!(["pods"]) && r["verbs"] == json!(["list"])), "{answer}");
}

#[tokio::test]
async fn nobody_grants_what_they_lack() {
    let (server, admin) = start().await;
    let clerk = server.client(nobody("clerk"));
    let rules = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["create", "update", "patch", "get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
    ]);
    grant(&admin, "clerk", rules).await;
    eventually(&clerk, &format!("{RBAC}/clusterroles/clerk"), 200).await;
    let role = |resource: &str| {
        json!({"metadata": {"name": format!("r-{resource}")},
        "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]})
    };
    let path = format!("{RBAC}/clusterroles");
    let refused = expect(post(&clerk, &path, &role("secrets")).await, StatusCode::FORBIDDEN);
    assert!(refused["message"].as_str().unwrap().contains("attempting to grant RBAC permissions not currently held"));
    expect(post(&clerk, &path, &role("configmaps")).await, StatusCode::CREATED);
    let binding = json!({"metadata": {"name": "up"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "clerk"}]});
    expect(post(&clerk, &format!("{RBAC}/clusterrolebindings"), &binding).await, StatusCode::FORBIDDEN);
    // A role that gathers others would grant whatever they hold, now or later.
    let gathering = json!({"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]});
    let mut sum = role("configmaps");
    sum["metadata"]["name"] = json!("sum");
    sum["aggregationRule"] = gathering.clone();
    let refused = expect(post(&clerk, &path, &sum).await, StatusCode::FORBIDDEN);
    assert!(
        refused["message"].as_str().unwrap().contains("must have cluster-admin privileges to use the aggregationRule")
    );
    let own = format!("{path}/clerk");
    let kind = "merge-patch+json";
    expect(patch(&clerk, &own, kind, &json!({"aggregationRule": gathering})).await, StatusCode::FORBIDDEN);
    expect(post(&admin, &path, &sum).await, StatusCode::CREATED);
    eventually(&clerk, &format!("{path}/sum"), 200).await;
    let narrower = json!({"aggregationRule": null});
    expect(patch(&clerk, &format!("{path}/sum"), kind, &narrower).await, StatusCode::FORBIDDEN);
    // Nor is a label, by which others gather it, given to a role that holds more.
    expect(post(&admin, &path, &role("secrets")).await, StatusCode::CREATED);
    eventually(&clerk, &format!("{path}/r-secrets"), 200).await;
    let label = json!({"metadata": {"labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}});
    expect(patch(&clerk, &format!("{path}/r-secrets"), kind, &label).await, StatusCode::FORBIDDEN);
    let released = json!({"metadata": {"finalizers": []}});
    expect(patch(&clerk, &format!("{path}/r-secrets"), kind, &released).await, StatusCode::OK);
}

#[tokio::test]
async fn to_put_what_is_not_there_is_to_create_it() {
    let (server, admin) = start().await;
    let writer = server.client(nobody("writer"));
    let rules = json!([{"apiGroups": ["", "rbac.authorization.k8s.io", "coordination.k8s.io"],
        "resources": ["endpoints", "roles", "leases"], "verbs": ["get", "update"]}]);
    grant(&admin, "writer", rules).await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    eventually(&writer, &format!("{endpoints}/kubernetes"), 200).await;
    let new = json!({"metadata": {"name": "new"}});
    for path in [
        endpoints,
        "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
    ] {
        let refused = expect(put(&writer, &format!("{path}/new"), &new).await, StatusCode::FORBIDDEN);
        assert!(refused["message"].as_str().unwrap().contains("User \"writer\" cannot create resource"), "{refused}");
        expect(put(&admin, &format!("{path}/new"), &new).await, StatusCode::CREATED);
    }
}

#[tokio::test]
async fn nodes_keep_to_themselves() {
    let (server, admin) = start().await;
    for name in ["a", "b"] {
        expect(post(&admin, "/api/v1/nodes", &json!({"metadata": {"name": name}})).await, StatusCode::CREATED);
    }
    let kubelet = server.client(UserInfo::node("a"));
    expect(get(&kubelet, "/api/v1/nodes/a").await, StatusCode::OK);
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let kind = "strategic-merge-patch+json";
    expect(patch(&kubelet, "/api/v1/nodes/a/status", kind, &status).await, StatusCode::OK);
    expect(patch(&kubelet, "/api/v1/nodes/b/status", kind, &status).await, StatusCode::FORBIDDEN);
    let lease =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    expect(post(&kubelet, leases, &lease("a")).await, StatusCode::CREATED);
    expect(post(&kubelet, leases, &lease("b")).await, StatusCode::FORBIDDEN);
    expect(get(&kubelet, "/api/v1/namespaces/kube-system/secrets").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need_and_makes_no_such_pod_itself() {
    let (server, admin) = start().await;
    let node = expect(post(&admin, "/api/v1/nodes", &json!({"metadata": {"name": "a"}})).await, StatusCode::CREATED);
    let space = "/api/v1/namespaces/default";
    for name in ["wanted", "other"] {
        for plural in ["secrets", "configmaps"] {
            let object = json!({"metadata": {"name": name}});
            expect(post(&admin, &format!("{space}/{plural}"), &object).await, StatusCode::CREATED);
        }
    }
    let account = json!({"metadata": {"name": "default"}});
    expect(post(&admin, &format!("{space}/serviceaccounts"), &account).await, StatusCode::CREATED);
    let kubelet = server.client(UserInfo::node("a"));
    let mirror = |name: &str, container: Value| {
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": node["metadata"]["uid"], "controller": true}]);
        json!({"metadata": {"name": name, "annotations": {"kubernetes.io/config.mirror": "h"}, "ownerReferences": owner},
            "spec": {"nodeName": "a", "containers": [container]}})
    };
    let pods = format!("{space}/pods");
    let reading =
        |what: &str| json!({"name": "c", "image": "i", "envFrom": [{format!("{what}Ref"): {"name": "wanted"}}]});
    let plain = json!({"name": "c", "image": "i"});
    expect(post(&kubelet, &pods, &mirror("plain", plain)).await, StatusCode::CREATED);
    for what in ["secret", "configMap"] {
        expect(post(&kubelet, &pods, &mirror("reader", reading(what))).await, StatusCode::FORBIDDEN);
    }
    // Nor does one give rights that somebody else made for it.
    expect(post(&admin, &pods, &mirror("reader", reading("configMap"))).await, StatusCode::CREATED);
    server.server().registry.fresh().await.unwrap();
    for plural in ["secrets", "configmaps"] {
        expect(get(&kubelet, &format!("{space}/{plural}/wanted")).await, StatusCode::FORBIDDEN);
    }
    for (name, what) in [("s", "secret"), ("m", "configMap")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": "a", "containers": [reading(what)]}});
        expect(post(&admin, &pods, &pod).await, StatusCode::CREATED);
    }
    for plural in ["secrets", "configmaps"] {
        eventually(&kubelet, &format!("{space}/{plural}/wanted"), 200).await;
        expect(get(&kubelet, &format!("{space}/{plural}/other")).await, StatusCode::FORBIDDEN);
    }
}

/// One manifest may hold a namespace and its pods.
#[tokio::test]
async fn a_pod_waits_for_its_namespaces_account() {
    let (_server, client) = start().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let account = json!({"metadata": {"name": "default"}});
    let (pod, account) = tokio::join!(
        post(&client, "/api/v1/namespaces/default/pods", &pod),
        post(&client, "/api/v1/namespaces/default/serviceaccounts", &account),
    );
    expect(account, StatusCode::CREATED);
    assert_eq!(expect(pod, StatusCode::CREATED)["spec"]["serviceAccountName"], "default");
}

#[tokio::test]
async fn a_namespace_enforces_its_pod_security_level() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let client = &cluster.client;
    expect(patch(client, "/api/v1/namespaces/default", "merge-patch+json", &labels).await, StatusCode::OK);
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    expect(post(client, accounts, &json!({"metadata": {"name": "default"}})).await, StatusCode::CREATED);
    let (ok, text) = kubectl.told(&["run", "x", "--image=i", "--privileged"], "").await;
    assert!(!ok && text.contains("violates PodSecurity \"restricted:latest\": privileged (container \"x\""), "{text}");
    let text = kubectl.run(&["create", "deployment", "d", "--image=i"], "").await;
    assert!(
        text.contains("Warning: would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{text}"
    );
    let text = kubectl.run(&["create", "job", "j", "--image=i"], "").await;
    assert!(text.contains("Warning: Job has no controller here"), "{text}");
}

#[tokio::test]
async fn tokens_die_with_what_they_are_bound_to() {
    let (_server, client) = start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let pods = "/api/v1/namespaces/default/pods";
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let authenticated = async |token: &str, wanted: bool| {
        let review = json!({"spec": {"token": token}});
        let reviewed = async || {
            let answer = expect(post(&client, reviews, &review).await, StatusCode::CREATED);
            (answer["status"]["authenticated"] == true) == wanted
        };
        time::eventually_true("what the cache follows", reviewed).await.unwrap();
    };
    let token = async |bound: Value| {
        let path = format!("{accounts}/default/token");
        let issued =
            expect(post(&client, &path, &json!({"spec": {"boundObjectRef": bound}})).await, StatusCode::CREATED);
        issued["status"]["token"].as_str().unwrap().to_owned()
    };
    expect(post(&client, accounts, &json!({"metadata": {"name": "default"}})).await, StatusCode::CREATED);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    expect(post(&client, pods, &pod).await, StatusCode::CREATED);
    let of_pod = token(json!({"apiVersion": "v1", "kind": "Pod", "name": "p"})).await;
    let of_account = token(json!(null)).await;
    authenticated(&of_pod, true).await;
    expect(delete(&client, &format!("{pods}/p?gracePeriodSeconds=0")).await, StatusCode::OK);
    authenticated(&of_pod, false).await;
    authenticated(&of_account, true).await;
    expect(delete(&client, &format!("{accounts}/default")).await, StatusCode::OK);
    authenticated(&of_account, false).await;
    // Another account of the name is another account.
    expect(post(&client, accounts, &json!({"metadata": {"name": "default"}})).await, StatusCode::CREATED);
    eventually(&client, &format!("{accounts}/default"), 200).await;
    authenticated(&of_account, false).await;
}

#[tokio::test]
async fn tokens_are_issued_and_reviewed() {
    let (_server, client) = start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    expect(post(&client, accounts, &json!({"metadata": {"name": "robot"}})).await, StatusCode::CREATED);
    let path = format!("{accounts}/robot/token");
    let issued = expect(post(&client, &path, &json!({"spec": {"expirationSeconds": 700}})).await, StatusCode::CREATED);
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    assert!(issued["status"]["expirationTimestamp"].is_string());
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = |token: &str| json!({"spec": {"token": token}});
    let reviewed = async || {
        let answer = expect(post(&client, reviews, &review(&token)).await, StatusCode::CREATED);
        ensure!(answer["status"]["authenticated"] == true, "{answer}");
        Ok(answer)
    };
    let answer = time::eventually("what the cache follows", reviewed).await.unwrap();
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:robot");
    let garbage = expect(post(&client, reviews, &review("a.b.c")).await, StatusCode::CREATED);
    assert_ne!(garbage["status"]["authenticated"], true);
    let short = post(&client, &path, &json!({"spec": {"expirationSeconds": 5}})).await;
    expect(short, StatusCode::UNPROCESSABLE_ENTITY);
    expect(post(&client, &format!("{accounts}/none/token"), &json!({"spec": {}})).await, StatusCode::NOT_FOUND);
    for audiences in [json!([""]), json!([" "]), json!(["a", ""])] {
        let nobody = json!({"spec": {"audiences": audiences}});
        let refused = expect(post(&client, &path, &nobody).await, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused["reason"], "Invalid", "{nobody}");
    }
    let bound = json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}});
    expect(post(&client, &path, &bound).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn over_the_socket() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    // Without credentials: health and version only.
    for path in ["/version", "/healthz", "/livez?verbose", "/readyz"] {
        assert_eq!(cluster.get(path, ("", "")).await.0, 200, "{path}");
    }
    for path in ["/api/v1/pods", "/metrics", "/api", "/healthzz"] {
        let (code, text) = cluster.get(path, ("", "")).await;
        let status: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((code, status["reason"].as_str()), (401, Some("Unauthorized")), "{path}");
    }
    let (code, _) = cluster.get("/version", ("authorization", "Bearer garbage")).await;
    assert_eq!(code, 401);
    let empty = cluster.dir.path().join("empty");
    std::fs::write(&empty, "apiVersion: v1\nkind: Config\n").unwrap();
    let server = format!("--server=https://{}", cluster.address);
    let config = format!("--kubeconfig={}", empty.display());
    let base = [server.as_str(), config.as_str(), "--insecure-skip-tls-verify"];
    // A token from the server works as its account.
    kubectl.run(&["create", "serviceaccount", "robot"], "").await;
    let token = kubectl.run(&["create", "token", "robot"], "").await;
    let token = format!("--token={}", token.trim());
    let (ok, text) = kubectl.told(&[&base[..], &[&token, "auth", "whoami"]].concat(), "").await;
    assert!(ok && text.contains("system:serviceaccount:default:robot"), "{text}");
    let (ok, text) = kubectl.told(&[&base[..], &[&token, "get", "pods"]].concat(), "").await;
    assert!(!ok && text.contains("cannot list resource \"pods\""), "{text}");
    // A certificate is a user; an administrator may act as others.
    let jane = cluster.kubeconfig("jane", "jane", "people");
    let jane = format!("--kubeconfig={}", jane.display());
    let (ok, text) = kubectl.told(&[&jane, "get", "pods"], "").await;
    assert!(!ok && text.contains("User \"jane\" cannot list resource \"pods\""), "{text}");
    let (_, text) = kubectl.told(&["auth", "can-i", "list", "pods", "--as", "jane"], "").await;
    assert!(text.contains("no"), "{text}");
    let (ok, text) = kubectl.told(&[&jane, "get", "pods", "--as", "admin"], "").await;
    assert!(!ok && text.contains("cannot impersonate resource \"users\""), "{text}");
}

#[tokio::test]
async fn who_wants_to_join_reads_cluster_info_and_nothing_else() {
    let cluster = serve().await;
    let maps = "/api/v1/namespaces/kube-public/configmaps";
    for name in ["cluster-info", "other"] {
        let map = json!({"metadata": {"name": name}, "data": {"kubeconfig": "k"}});
        expect(post(&cluster.client, maps, &map).await, StatusCode::CREATED);
    }
    eventually(&cluster.client, &format!("{maps}/cluster-info"), 200).await;
    let (code, text) = cluster.get(&format!("{maps}/cluster-info"), ("", "")).await;
    assert!(code == 200 && text.contains("\"kubeconfig\":\"k\""), "{code} {text}");
    for path in [maps, &format!("{maps}/other"), &format!("{maps}/cluster-info/x")] {
        let (code, text) = cluster.get(path, ("", "")).await;
        assert!([401, 403].contains(&code), "{path}: {code} {text}");
    }
}

#[tokio::test]
async fn kubectl_approves_and_denies_certificates() {
    let cluster = serve().await;
    let kubectl = Kubectl::of(&cluster);
    for (name, verb) in [("yes", "approve"), ("no", "deny")] {
        let pem = rcgen::CertificateParams::default().serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name}, "spec": {"usages": ["client auth"], "username": "forged",
            "signerName": "kubernetes.io/kube-apiserver-client", "request": base64(pem.pem().unwrap())}});
        kubectl.run(&["create", "-f", "-"], &request.to_string()).await;
        kubectl.run(&["certificate", verb, name], "").await;
    }
    let shown = kubectl.run(&["get", "csr", "--no-headers"], "").await;
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("yes").ends_with("Approved") && line("no").ends_with("Denied"), "{shown}");
    assert!(shown.contains("copepod-admin") && !shown.contains("forged"), "{shown}");
    // What was decided stays decided.
    let (ok, text) = kubectl.told(&["certificate", "approve", "no"], "").await;
    assert!(!ok && text.contains("already Denied"), "{text}");
    let patch = r#"{"spec": {"signerName": "example.com/other"}}"#;
    kubectl.run(&["patch", "csr", "yes", "--type=merge", "-p", patch], "").await;
    let signer = kubectl.run(&["get", "csr", "yes", "-o", "jsonpath={.spec.signerName}"], "").await;
    assert_eq!(signer, "kubernetes.io/kube-apiserver-client");
}

fn base64(text: String) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
