//! What webhooks are asked, and which requests they see.

use super::*;

#[tokio::test]
async fn a_question_says_all_of_the_request() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": true})).await;
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &json!({"timeoutSeconds": 7}))]).await;
    let path = format!("{MAPS}?fieldManager=me&fieldValidation=Strict");
    expect(post(&client, &path, &map("m")).await, StatusCode::CREATED);
    let mut asked = hook.take();
    let review = asked.remove(0);
    let request = &review["request"];
    assert_eq!(
        (review["kind"].as_str(), review["apiVersion"].as_str()),
        (Some("AdmissionReview"), Some("admission.k8s.io/v1"))
    );
    assert_eq!(review["query"], "timeout=7s");
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    for (field, value) in [
        ("kind", kind.clone()),
        ("requestKind", kind),
        ("resource", resource.clone()),
        ("requestResource", resource),
        ("name", json!("m")),
        ("namespace", json!("default")),
        ("operation", json!("CREATE")),
        ("oldObject", json!(null)),
        ("dryRun", json!(false)),
        (
            "options",
            json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "fieldValidation": "Strict"}),
        ),
    ] {
        assert_eq!(request[field], value, "{field}");
    }
    assert_eq!(request["userInfo"]["username"], "copepod-admin");
    assert!(request.get("subResource").is_none() && request["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    let object = &request["object"];
    assert_eq!(
        (&object["kind"], &object["apiVersion"], &object["metadata"]["name"]),
        (&json!("ConfigMap"), &json!("v1"), &json!("m"))
    );
    // Validation sees what is about to be stored.
    assert!(object["metadata"]["uid"].is_string());

    let mut changed = map("m");
    changed["data"] = json!({"a": "b"});
    expect(put(&client, &format!("{MAPS}/m"), &changed).await, StatusCode::OK);
    expect(delete(&client, &format!("{MAPS}/m?gracePeriodSeconds=0")).await, StatusCode::OK);
    let asked = hook.take();
    let [update, remove] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(
        (&update["request"]["operation"], &remove["request"]["operation"]),
        (&json!("UPDATE"), &json!("DELETE"))
    );
    assert!(update["request"]["oldObject"].get("data").is_none());
    assert_eq!(
        (&remove["request"]["object"], &remove["request"]["oldObject"]["data"]),
        (&json!(null), &json!({"a": "b"}))
    );
    assert_eq!(remove["request"]["options"]["kind"], "DeleteOptions");
}

#[tokio::test]
async fn selectors_choose_namespaces_and_objects() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": false})).await;
    let labelled = json!({"matchLabels": {"ask": "yes"}});
    let names = |rules: &str| json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": [rules]}]});
    let by_namespace = scheme::patch::merge::apply(&names("*"), &json!({"namespaceSelector": labelled}));
    let by_object = scheme::patch::merge::apply(&names("secrets"), &json!({"objectSelector": labelled}));
    configure(
        &client,
        VALIDATING,
        "a",
        &[hook.named("a.example.com", &by_namespace), hook.named("b.example.com", &by_object)],
    )
    .await;
    let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    // A Namespace is chosen by what it is going to be.
    expect(post(&client, "/api/v1/namespaces", &namespace("x", json!({"ask": "yes"}))).await, StatusCode::BAD_REQUEST);
    expect(post(&client, "/api/v1/namespaces", &namespace("x", json!({}))).await, StatusCode::CREATED);
    expect(post(&client, "/api/v1/namespaces/x/configmaps", &map("m")).await, StatusCode::CREATED);
    let secret = |labels: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "s", "labels": labels}});
    let secrets = "/api/v1/namespaces/x/secrets";
    let made = expect(post(&client, secrets, &secret(json!({}))).await, StatusCode::CREATED);
    expect(post(&client, secrets, &secret(json!({"ask": "yes"}))).await, StatusCode::BAD_REQUEST);
    // The label of either state counts.
    let path = format!("{secrets}/{}", made["metadata"]["name"].as_str().unwrap());
    let patched = patch(&client, &path, "merge-patch+json", &json!({"metadata": {"labels": {"ask": "yes"}}})).await;
    expect(patched, StatusCode::BAD_REQUEST);
    // What is in no namespace is never spared.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    expect(post(&client, "/api/v1/nodes", &node).await, StatusCode::BAD_REQUEST);
    assert!(!hook.take().is_empty());
}

/// A rule that names another version of the same objects counts, and the webhook sees them as it knows them.
#[tokio::test]
async fn other_versions_are_the_same_objects() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|review| {
        let version = review["request"]["object"]["apiVersion"].clone();
        patching(&json!([{"op": "add", "path": "/metadata/annotations", "value": {"seen": version}}]))
    })
    .await;
    let rules = json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"]}]});
    configure(&client, MUTATING, "a", &[hook.named("a.example.com", &rules)]).await;
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "s"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let made = expect(post(&client, path, &scaler).await, StatusCode::CREATED);
    assert_eq!(
        (&made["apiVersion"], &made["metadata"]["annotations"]["seen"]),
        (&json!("autoscaling/v2"), &json!("autoscaling/v1"))
    );
    let request = hook.take().remove(0)["request"].take();
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!((&request["resource"]["version"], &request["requestResource"]["version"]), (&json!("v1"), &json!("v2")));
}

#[tokio::test]
async fn subresources_and_their_bodies_are_seen() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": true})).await;
    let rules =
        json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &rules)]).await;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    expect(post(&client, path, &deployment).await, StatusCode::CREATED);
    let scale = json!({"spec": {"replicas": 5}});
    expect(patch(&client, &format!("{path}/d/scale"), "merge-patch+json", &scale).await, StatusCode::OK);
    let request = hook.take().pop().unwrap()["request"].take();
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["resource"], json!({"group": "apps", "version": "v1", "resource": "deployments"}));
    assert_eq!((&request["subResource"], &request["requestSubResource"]), (&json!("scale"), &json!("scale")));
    assert_eq!((&request["object"]["kind"], &request["object"]["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    assert_eq!(request["oldObject"]["kind"], "Scale");
}

/// "should be able to deny attaching pod"
#[tokio::test]
async fn connections_are_asked_about() {
    let (_api, client) = start().await;
    let hook = Hook::answering(
        |_| json!({"allowed": false, "status": {"message": "attaching to pod 'to-be-attached-pod' is not allowed"}}),
    )
    .await;
    let rules = json!({"rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/attach", "pods/proxy"]}]});
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &rules)]).await;
    account(&client).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    expect(post(&client, pods, &pod).await, StatusCode::CREATED);
    let path = format!("{pods}/p/attach?container=c&stdout=true&stdin=true");
    let refused = expect(send(&client, "POST", &path, "", "").await, StatusCode::BAD_REQUEST);
    assert_eq!(
        refused["message"],
        "admission webhook \"a.example.com\" denied the request: attaching to pod 'to-be-attached-pod' is not allowed"
    );
    let request = hook.take().remove(0)["request"].take();
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "PodAttachOptions"}));
    assert_eq!(
        (&request["operation"], &request["name"], &request["subResource"]),
        (&json!("CONNECT"), &json!("p"), &json!("attach"))
    );
    assert_eq!(
        request["object"],
        json!({"apiVersion": "v1", "kind": "PodAttachOptions", "container": "c", "stdin": true, "stdout": true})
    );
    assert_eq!((&request["oldObject"], &request["options"]), (&json!(null), &json!(null)));
    expect(get(&client, &format!("{pods}/p/proxy/a/b")).await, StatusCode::BAD_REQUEST);
    assert_eq!(hook.take()[0]["request"]["object"]["path"], "/a/b");
    // Others of the same pod are not.
    let other = send(&client, "POST", &format!("{pods}/p/exec?command=a&stdout=true"), "", "").await;
    assert_ne!(other.1["message"].as_str().unwrap_or(""), refused["message"].as_str().unwrap());
    assert!(hook.take().is_empty());
}

/// "should not be able to mutate or prevent deletion of webhook configuration objects"
#[tokio::test]
async fn nobody_is_asked_about_who_is_asked() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": false})).await;
    let rules =
        json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &rules)]).await;
    configure(&client, MUTATING, "b", &[hook.named("b.example.com", &rules)]).await;
    configure(&client, MUTATING, "c", &[]).await;
    for path in [format!("{MUTATING}/c"), format!("{MUTATING}/b"), format!("{VALIDATING}/a")] {
        expect(delete(&client, &path).await, StatusCode::OK);
    }
    assert!(hook.take().is_empty());
    expect(get(&client, VALIDATING).await, StatusCode::OK);
    // Gone, they have no say any more.
    expect(post(&client, MAPS, &map("m")).await, StatusCode::CREATED);
}

/// A Binding that is posted without its pod's path is none of the pods that are made.
#[tokio::test]
async fn a_binding_is_a_resource_and_a_subresource() {
    let (_api, client) = start().await;
    let hook = Hook::answering(|_| json!({"allowed": false})).await;
    let of = |resources: &[&str]| json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources}]});
    configure(&client, VALIDATING, "a", &[hook.named("a.example.com", &of(&["bindings", "pods/binding"]))]).await;
    account(&client).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    expect(post(&client, "/api/v1/namespaces/default/pods", &pod).await, StatusCode::CREATED);
    assert!(hook.take().is_empty());
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}});
    for (path, resource, subresource) in [("bindings", "bindings", None), ("pods/p/binding", "pods", Some("binding"))] {
        let path = format!("/api/v1/namespaces/default/{path}");
        expect(post(&client, &path, &binding).await, StatusCode::BAD_REQUEST);
        let request = hook.take().remove(0)["request"].take();
        assert_eq!((&request["kind"]["kind"], &request["resource"]["resource"]), (&json!("Binding"), &json!(resource)));
        assert_eq!((request["subResource"].as_str(), &request["name"]), (subresource, &json!("p")));
    }
}
