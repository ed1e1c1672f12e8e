//! Who may do what to which resource: every resource and verb that discovery names, for five kinds of users. Expected
//! values are those of upstream's default policy (bootstrap ClusterRoles, the Node authorizer's rules) with the few
//! rights that an agent has because it is kubelet and proxy in one; a resource without a row fails.

use std::collections::{BTreeMap, BTreeSet};

use apiserver::AuthOptions;
use apiserver::testing::*;
use auth::authn::UserInfo;
use auth::authz::{Attributes, Mode};
use http::StatusCode;
use serde_json::json;

/// A letter for each verb.
const VERBS: [(char, &str); 8] = [
    ('c', "create"),
    ('d', "delete"),
    ('D', "deletecollection"),
    ('g', "get"),
    ('l', "list"),
    ('p', "patch"),
    ('u', "update"),
    ('w', "watch"),
];

const READ_WRITE: &str = "cdDglpuw";
const READ: &str = "glw";

/// Resource, what a node may (of objects it has nothing to do with), what an editor of the namespace may.
const ROWS: &[(&str, &str, &str)] = &[
    ("bindings", "", ""),
    ("componentstatuses", "", ""),
    ("configmaps", "", READ_WRITE),
    ("endpoints", "glw", READ),
    ("events", "cpu", READ_WRITE),
    ("limitranges", "", READ),
    ("namespaces", "", ""),
    ("namespaces/finalize", "", ""),
    ("namespaces/status", "", ""),
    ("nodes", "cglpuw", ""),
    ("nodes/proxy", "", ""),
    ("nodes/status", "pu", ""),
    ("persistentvolumeclaims", "", READ_WRITE),
    ("persistentvolumeclaims/status", "", "g"),
    ("persistentvolumes", "", ""),
    ("persistentvolumes/status", "", ""),
    ("pods", "cd", READ_WRITE),
    ("pods/attach", "", "cg"),
    ("pods/binding", "", ""),
    ("pods/ephemeralcontainers", "", ""),
    ("pods/eviction", "c", "c"),
    ("pods/exec", "", "cg"),
    ("pods/log", "", "g"),
    ("pods/portforward", "", "cg"),
    ("pods/proxy", "", "cdgpu"),
    ("pods/resize", "", ""),
    ("pods/status", "pu", "g"),
    ("podtemplates", "", ""),
    ("replicationcontrollers", "", READ_WRITE),
    ("replicationcontrollers/scale", "", "gpu"),
    ("replicationcontrollers/status", "", "g"),
    ("resourcequotas", "", READ),
    ("resourcequotas/status", "", "g"),
    ("secrets", "", READ_WRITE),
    ("serviceaccounts", "", READ_WRITE),
    ("serviceaccounts/token", "", "c"),
    ("services", "glw", READ_WRITE),
    ("services/proxy", "", "cdgpu"),
    ("services/status", "", "g"),
    ("admissionregistration.k8s.io/mutatingadmissionpolicies", "", ""),
    ("admissionregistration.k8s.io/mutatingadmissionpolicybindings", "", ""),
    ("admissionregistration.k8s.io/mutatingwebhookconfigurations", "", ""),
    ("admissionregistration.k8s.io/validatingadmissionpolicies", "", ""),
    ("admissionregistration.k8s.io/validatingadmissionpolicies/status", "", ""),
    ("admissionregistration.k8s.io/validatingadmissionpolicybindings", "", ""),
    ("admissionregistration.k8s.io/validatingwebhookconfigurations", "", ""),
    ("apiextensions.k8s.io/customresourcedefinitions", "", ""),
    ("apiextensions.k8s.io/customresourcedefinitions/status", "", ""),
    ("apiregistration.k8s.io/apiservices", "", ""),
    ("apiregistration.k8s.io/apiservices/status", "", ""),
    ("apps/controllerrevisions", "", READ),
    ("apps/daemonsets", "", READ_WRITE),
    ("apps/daemonsets/status", "", "g"),
    ("apps/deployments", "", READ_WRITE),
    ("apps/deployments/scale", "", "gpu"),
    ("apps/deployments/status", "", "g"),
    ("apps/replicasets", "", READ_WRITE),
    ("apps/replicasets/scale", "", "gpu"),
    ("apps/replicasets/status", "", "g"),
    ("apps/statefulsets", "", READ_WRITE),
    ("apps/statefulsets/scale", "", "gpu"),
    ("apps/statefulsets/status", "", "g"),
    ("authentication.k8s.io/selfsubjectreviews", "c", "c"),
    ("authentication.k8s.io/tokenreviews", "c", ""),
    ("authorization.k8s.io/localsubjectaccessreviews", "c", ""),
    ("authorization.k8s.io/selfsubjectaccessreviews", "c", "c"),
    ("authorization.k8s.io/selfsubjectrulesreviews", "c", "c"),
    ("authorization.k8s.io/subjectaccessreviews", "c", ""),
    ("autoscaling/horizontalpodautoscalers", "", READ_WRITE),
    ("autoscaling/horizontalpodautoscalers/status", "", "g"),
    ("batch/cronjobs", "", READ_WRITE),
    ("batch/cronjobs/status", "", "g"),
    ("batch/jobs", "", READ_WRITE),
    ("batch/jobs/status", "", "g"),
    ("certificates.k8s.io/certificatesigningrequests", "cglw", ""),
    ("certificates.k8s.io/certificatesigningrequests/approval", "", ""),
    ("certificates.k8s.io/certificatesigningrequests/status", "", ""),
    ("coordination.k8s.io/leases", "", READ_WRITE),
    ("discovery.k8s.io/endpointslices", "lw", READ),
    ("events.k8s.io/events", "cpu", ""),
    ("flowcontrol.apiserver.k8s.io/flowschemas", "", ""),
    ("flowcontrol.apiserver.k8s.io/flowschemas/status", "", ""),
    ("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations", "", ""),
    ("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations/status", "", ""),
    ("networking.k8s.io/ingressclasses", "", ""),
    ("networking.k8s.io/ingresses", "", READ_WRITE),
    ("networking.k8s.io/ingresses/status", "", "g"),
    ("networking.k8s.io/ipaddresses", "", ""),
    ("networking.k8s.io/networkpolicies", "", READ_WRITE),
    ("networking.k8s.io/servicecidrs", "lw", ""),
    ("networking.k8s.io/servicecidrs/status", "", ""),
    ("node.k8s.io/runtimeclasses", "glw", ""),
    ("policy/poddisruptionbudgets", "", READ_WRITE),
    ("policy/poddisruptionbudgets/status", "", "g"),
    ("rbac.authorization.k8s.io/clusterrolebindings", "", ""),
    ("rbac.authorization.k8s.io/clusterroles", "", ""),
    ("rbac.authorization.k8s.io/rolebindings", "", ""),
    ("rbac.authorization.k8s.io/roles", "", ""),
    ("resource.k8s.io/deviceclasses", "", ""),
    ("resource.k8s.io/resourceclaims", "", READ_WRITE),
    ("resource.k8s.io/resourceclaims/status", "", "g"),
    ("resource.k8s.io/resourceclaimtemplates", "", READ_WRITE),
    ("resource.k8s.io/resourceslices", "c", ""),
    ("scheduling.k8s.io/priorityclasses", "", ""),
    ("storage.k8s.io/csidrivers", "glw", ""),
    ("storage.k8s.io/csinodes", "c", ""),
    ("storage.k8s.io/csistoragecapacities", "", ""),
    ("storage.k8s.io/storageclasses", "", ""),
    ("storage.k8s.io/volumeattachments", "", ""),
    ("storage.k8s.io/volumeattachments/status", "", ""),
    ("storage.k8s.io/volumeattributesclasses", "", ""),
];

struct Resource {
    group: String,
    name: String,
    namespaced: bool,
    verbs: BTreeSet<String>,
}

/// Everything that discovery names, by `group/resource/subresource`; of several versions the verbs of all.
async fn discovered(client: &kube::Client) -> BTreeMap<String, Resource> {
    let mut documents = vec!["/api/v1".to_owned()];
    let groups = expect(get(client, "/apis").await, StatusCode::OK);
    for group in groups["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            documents.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
        }
    }
    let mut found: BTreeMap<String, Resource> = BTreeMap::new();
    for path in documents {
        let document = expect(get(client, &path).await, StatusCode::OK);
        let group = path.strip_prefix("/apis/").and_then(|gv| gv.split('/').next()).unwrap_or_default().to_owned();
        for resource in document["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap().to_owned();
            let key = if group.is_empty() { name.clone() } else { format!("{group}/{name}") };
            let verbs = resource["verbs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned());
            let namespaced = resource["namespaced"] == true;
            let group = group.clone();
            let entry = found.entry(key).or_insert(Resource { group, name, namespaced, verbs: BTreeSet::new() });
            entry.verbs.extend(verbs);
        }
    }
    found
}

fn allowed(server: &apiserver::ApiServer, user: &UserInfo, resource: &Resource) -> String {
    let (name, subresource) = resource.name.split_once('/').unwrap_or((&resource.name, ""));
    let may = |verb: &str| {
        let namespace = if resource.namespaced { "team" } else { "" };
        let named = !["create", "list", "watch", "deletecollection"].contains(&verb) || !subresource.is_empty();
        let asked = Attributes::resource(user.clone(), verb, &resource.group, name, namespace);
        let name = if named { "x" } else { "" };
        let asked = Attributes { subresource: subresource.into(), name: name.into(), ..asked };
        server.server().authz.authorize(&asked).allowed()
    };
    VERBS.iter().filter(|(_, verb)| resource.verbs.contains(*verb) && may(verb)).map(|(letter, _)| letter).collect()
}

#[tokio::test]
async fn everybody_may_what_upstreams_policy_says() {
    let (server, client) = start().await;
    let binding = json!({"metadata": {"name": "editors"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "editor"}]});
    expect(post(&client, "/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await, StatusCode::CREATED);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings";
    expect(post(&client, bindings, &binding).await, StatusCode::CREATED);
    server.server().registry.fresh().await.unwrap();
    let account =
        UserInfo::new("system:serviceaccount:team:robot", ["system:serviceaccounts", "system:serviceaccounts:team"]);
    let (anonymous, nobody) = (UserInfo::anonymous(), UserInfo::new("nobody", Vec::<String>::new()));
    let (node, editor) = (UserInfo::node("n1"), UserInfo::new("editor", Vec::<String>::new()));
    let rows: BTreeMap<&str, (&str, &str)> = ROWS.iter().map(|(key, node, editor)| (*key, (*node, *editor))).collect();
    assert_eq!(rows.len(), ROWS.len(), "a row twice");
    let found = discovered(&client).await;
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for (key, resource) in &found {
        let Some((of_node, of_editor)) = rows.get(key.as_str()) else {
            wrong.push(format!("{key} has no row"));
            continue;
        };
        // Everybody who is known may ask about themselves.
        let own = if key.starts_with("authentication.k8s.io/self") || key.starts_with("authorization.k8s.io/self") {
            "c"
        } else {
            ""
        };
        let users = [
            ("anonymous", &anonymous, ""),
            ("nobody", &nobody, own),
            ("a pod's account", &account, own),
            ("a node", &node, *of_node),
            ("an editor", &editor, *of_editor),
        ];
        for (who, user, expected) in users {
            let got = allowed(&server, user, resource);
            if got != expected {
                wrong.push(format!("{key}: {who} may {got:?}, not {expected:?}"));
            }
            compared += resource.verbs.len();
        }
    }
    wrong.extend(rows.keys().filter(|key| !found.contains_key(**key)).map(|key| format!("{key} is not served")));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared > 1500, "{compared}");
}

/// The code of a GET by somebody with a certificate, or by nobody.
async fn asked(served: &Served, user: Option<(&str, &str)>, path: &str) -> u16 {
    let identity = user.map(|(name, group)| served.ca.issue(name, group));
    let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str()));
    let request = http::Request::get(path).header("host", "x").body(http_body_util::Full::default()).unwrap();
    let mut sender = connect(served.address, served.ca.pem(), identity).await;
    sender.send_request(request).await.unwrap().status().as_u16()
}

/// Users by name and password, where a file of them is given, and only there.
#[tokio::test]
async fn passwords_of_a_file_are_users() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users.csv");
    std::fs::write(&file, "secret,root,1,\"system:masters\"\n").unwrap();
    let with = serve_with(AuthOptions { basic_file: Some(file), ..AuthOptions::default() }).await;
    let without = serve().await;
    // `root:secret` and `root:other`.
    for (served, header, expect) in [
        (&with, "Basic cm9vdDpzZWNyZXQ=", 200),
        (&with, "Basic cm9vdDpvdGhlcg==", 401),
        (&with, "Basic !", 401),
        (&without, "Basic cm9vdDpzZWNyZXQ=", 401),
    ] {
        let mut sender = connect(served.address, served.ca.pem(), None).await;
        let request = http::Request::get("/api/v1/nodes").header("host", "localhost").header("authorization", header);
        let request = request.body(http_body_util::Full::default()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status().as_u16(), expect, "{header}");
    }
}

/// A file of policies, alone and behind the others.
#[tokio::test]
async fn policies_of_a_file_are_asked_in_their_turn() {
    const PODS: &str = "/api/v1/namespaces/one/pods";
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.jsonl");
    let line = |spec: &str| {
        format!(r#"{{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{spec}}}"#)
    };
    let lines = [
        line(r#"{"user":"jane","namespace":"one","resource":"pods","readonly":true}"#),
        line(r#"{"group":"*","nonResourcePath":"/healthz"}"#),
    ];
    std::fs::write(&policy, lines.join("\n")).unwrap();
    let with = async |modes: &[Mode]| {
        let policy_file = modes.contains(&Mode::Abac).then(|| policy.clone());
        serve_with(AuthOptions { modes: modes.to_vec(), policy_file, ..AuthOptions::default() }).await
    };
    let (jane, node, admin) =
        (Some(("jane", "")), Some(("system:node:n", "system:nodes")), Some(("a", "system:masters")));
    let (abac, all) = (with(&[Mode::Abac]).await, with(&[Mode::Node, Mode::Rbac, Mode::Abac]).await);
    let (open, none) = (with(&[Mode::AlwaysAllow]).await, with(&[Mode::AlwaysDeny]).await);
    for (user, path, [by_abac, by_all, by_open, by_none]) in [
        (jane, PODS, [200, 200, 200, 403]),
        (jane, "/api/v1/namespaces/two/pods", [403, 403, 200, 403]),
        (jane, "/healthz", [200, 200, 200, 403]),
        (node, "/api/v1/services", [403, 200, 200, 403]),
        (admin, PODS, [200, 200, 200, 200]),
        (None, "/healthz", [403, 200, 200, 403]),
        (None, PODS, [401, 401, 401, 401]),
    ] {
        for (served, expect) in [(&abac, by_abac), (&all, by_all), (&open, by_open), (&none, by_none)] {
            assert_eq!(asked(served, user, path).await, expect, "{user:?} {path} {:?}", served.address);
        }
    }
    // Who asks is told.
    let review = json!({"spec": {"namespace": "one"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let client = all.server().client(UserInfo::new("jane", [""; 0]));
    let rules = expect(post(&client, path, &review).await, StatusCode::CREATED)["status"]["resourceRules"].clone();
    let theirs = json!({"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]});
    assert!(rules.as_array().unwrap().contains(&theirs), "{rules}");
}
