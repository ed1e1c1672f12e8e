//! What upstream does around the plain verbs: generated names, dry runs, finalizers, grace, propagation, Services'
//! addresses, binding, eviction, scale, patches under contention.

use http::StatusCode;
use serde_json::{Value, json};

use apiserver::testing::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn pod(client: &kube::Client, name: &str) -> Value {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    post(client, accounts, &json!({"metadata": {"name": "default"}})).await;
    let body = json!({"metadata": {"name": name, "labels": {"app": "x"}},
                      "spec": {"containers": [{"name": "c", "image": "i"}]}});
    expect(post(client, PODS, &body).await, StatusCode::CREATED)
}

async fn bind(client: &kube::Client, name: &str) -> (u16, Value) {
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    post(client, &format!("{PODS}/{name}/binding"), &binding).await
}

#[tokio::test]
async fn generated_names_and_dry_runs() {
    let (_server, client) = start().await;
    let made = expect(post(&client, MAPS, &json!({"metadata": {"generateName": "g-"}})).await, StatusCode::CREATED);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
    let dry = post(&client, &format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "dry"}})).await;
    assert!(expect(dry, StatusCode::CREATED)["metadata"]["uid"].is_string());
    assert_eq!(get(&client, &format!("{MAPS}/dry")).await.0, 404);
    let path = format!("{MAPS}/{name}");
    let patched = patch(&client, &format!("{path}?dryRun=All"), "merge-patch+json", &json!({"data": {"a": "b"}})).await;
    assert_eq!(expect(patched, StatusCode::OK)["data"]["a"], "b");
    assert_eq!(delete(&client, &format!("{path}?dryRun=All")).await.0, 200);
    assert_eq!(expect(get(&client, &path).await, StatusCode::OK).get("data"), None);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let (_server, client) = start().await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/x"]}});
    expect(post(&client, MAPS, &held).await, StatusCode::CREATED);
    let path = format!("{MAPS}/held");
    let marked = expect(delete(&client, &path).await, StatusCode::OK);
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    expect(get(&client, &path).await, StatusCode::OK);
    expect(patch(&client, &path, "merge-patch+json", &json!({"metadata": {"finalizers": null}})).await, StatusCode::OK);
    expect(get(&client, &path).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn propagation_leaves_its_finalizer() {
    let (_server, client) = start().await;
    for (name, policy, finalizer) in [("o", "Orphan", "orphan"), ("f", "Foreground", "foregroundDeletion")] {
        expect(post(&client, MAPS, &json!({"metadata": {"name": name}})).await, StatusCode::CREATED);
        let path = format!("{MAPS}/{name}");
        let (code, marked) =
            send(&client, "DELETE", &path, "application/json", json!({"propagationPolicy": policy}).to_string()).await;
        assert!(code == 200 || code == 202, "{marked}");
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
    }
}

#[tokio::test]
async fn pods_go_in_two_steps_once_bound() {
    let (_server, client) = start().await;
    pod(&client, "free").await;
    expect(delete(&client, &format!("{PODS}/free")).await, StatusCode::OK);
    expect(get(&client, &format!("{PODS}/free")).await, StatusCode::NOT_FOUND);

    pod(&client, "bound").await;
    expect(bind(&client, "bound").await, StatusCode::CREATED);
    let again = expect(bind(&client, "bound").await, StatusCode::CONFLICT);
    assert!(again["message"].as_str().unwrap().contains("is already assigned to node \"n\""), "{again}");
    let stored = expect(get(&client, &format!("{PODS}/bound")).await, StatusCode::OK);
    assert_eq!(stored["spec"]["nodeName"], "n");
    assert_eq!(stored["status"]["conditions"].as_array().unwrap().last().unwrap()["type"], "PodScheduled");
    let marked = expect(delete(&client, &format!("{PODS}/bound")).await, StatusCode::OK);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    expect(get(&client, &format!("{PODS}/bound")).await, StatusCode::OK);
    expect(delete(&client, &format!("{PODS}/bound?gracePeriodSeconds=0")).await, StatusCode::OK);
    expect(get(&client, &format!("{PODS}/bound")).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn namespaces_end_through_finalize() {
    let (_server, client) = start().await;
    expect(post(&client, "/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await, StatusCode::CREATED);
    let maps = "/api/v1/namespaces/n/configmaps";
    expect(post(&client, maps, &json!({"metadata": {"name": "a"}})).await, StatusCode::CREATED);
    let ending = expect(delete(&client, "/api/v1/namespaces/n").await, StatusCode::OK);
    assert_eq!(ending["status"]["phase"], "Terminating");
    let refused = expect(post(&client, maps, &json!({"metadata": {"name": "b"}})).await, StatusCode::FORBIDDEN);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    assert_eq!(expect(delete(&client, maps).await, StatusCode::OK)["items"].as_array().unwrap().len(), 1);
    let mut last = ending.clone();
    last["spec"]["finalizers"] = json!([]);
    expect(put(&client, "/api/v1/namespaces/n/finalize", &last).await, StatusCode::OK);
    expect(get(&client, "/api/v1/namespaces/n").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn services_get_and_give_back_their_addresses() {
    let (_server, client) = start().await;
    let services = "/api/v1/namespaces/default/services";
    let body = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "clusterIP": "10.43.0.99",
                      "ports": [{"port": 80, "nodePort": 30333}]}});
    let made = expect(post(&client, services, &body).await, StatusCode::CREATED);
    assert_eq!(made["spec"]["clusterIPs"], json!(["10.43.0.99"]));
    let mut twin = body.clone();
    twin["metadata"]["name"] = json!("t");
    let refused = expect(post(&client, services, &twin).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused["message"].as_str().unwrap().contains("provided IP is already allocated"), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("provided port is already allocated"), "{refused}");
    // An update that leaves them out keeps them.
    let update = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "selector": {"a": "c"}, "ports": [{"port": 80}]}});
    let updated = expect(put(&client, &format!("{services}/s"), &update).await, StatusCode::OK);
    assert_eq!(updated["spec"]["clusterIP"], "10.43.0.99");
    assert_eq!(updated["spec"]["ports"][0]["nodePort"], 30333);
    expect(delete(&client, &format!("{services}/s")).await, StatusCode::OK);
    expect(post(&client, services, &twin).await, StatusCode::CREATED);
}

/// Whatever way a Service gets a port of the nodes, it is one of the range.
#[tokio::test]
async fn no_service_takes_a_port_of_the_nodes_own() {
    let (_server, client) = start().await;
    let services = "/api/v1/namespaces/default/services";
    let named = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let ports = |port: u16| json!([{"port": 80, "protocol": "TCP", "nodePort": port}]);
    let taking =
        |port: u16| json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports(port)});
    let asked = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}],
                       "externalTrafficPolicy": "Local", "healthCheckNodePort": 10250});
    let pretending = json!({"ports": [{"port": 80}], "healthCheckNodePort": 30333});
    expect(post(&client, services, &named("plain", json!({"ports": [{"port": 80}]}))).await, StatusCode::CREATED);
    let (invalid, failed) = (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::INTERNAL_SERVER_ERROR);
    let specs = [
        (taking(22), invalid),
        (taking(6443), invalid),
        (taking(10250), invalid),
        (asked, failed),
        (pretending, invalid),
    ];
    for (spec, code) in specs {
        for query in ["", "?dryRun=All"] {
            let made = post(&client, &format!("{services}{query}"), &named("made", spec.clone())).await;
            expect(made, code);
            let put_there = put(&client, &format!("{services}/made{query}"), &named("made", spec.clone())).await;
            expect(put_there, code);
            let changed = json!({ "spec": spec });
            let changed = patch(&client, &format!("{services}/plain{query}"), "merge-patch+json", &changed).await;
            expect(changed, code);
        }
    }
    // What is named is exclusive, and free again when its holder is gone.
    let theirs = json!({"type": "NodePort", "ports": ports(30333)});
    expect(post(&client, services, &named("theirs", theirs)).await, StatusCode::CREATED);
    let mine = async || post(&client, services, &named("mine", taking(30333))).await;
    expect(mine().await, StatusCode::UNPROCESSABLE_ENTITY);
    expect(delete(&client, &format!("{services}/theirs")).await, StatusCode::OK);
    expect(mine().await, StatusCode::CREATED);
}

#[tokio::test]
async fn an_eviction_asks_the_one_budget_that_selects_the_pod() {
    let (_server, client) = start().await;
    pod(&client, "p").await;
    let running = json!({"status": {"phase": "Running"}});
    expect(patch(&client, &format!("{PODS}/p/status"), "merge-patch+json", &running).await, StatusCode::OK);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let protect = async |name: &str, app: &str| {
        let selector = json!({"matchLabels": {"app": app}});
        let budget = json!({"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": selector}});
        expect(post(&client, budgets, &budget).await, StatusCode::CREATED);
    };
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let evict = async || post(&client, &format!("{PODS}/p/eviction"), &eviction).await;
    protect("a-other", "y").await;
    protect("mine", "x").await;
    protect("z-other", "y").await;
    let refused = expect(evict().await, StatusCode::TOO_MANY_REQUESTS);
    assert!(refused["details"]["causes"][0]["message"].as_str().unwrap().contains("budget mine "), "{refused}");
    for second in ["b", "c"] {
        protect(second, "x").await;
        expect(evict().await, StatusCode::INTERNAL_SERVER_ERROR);
    }
    for name in ["mine", "b", "c"] {
        expect(delete(&client, &format!("{budgets}/{name}")).await, StatusCode::OK);
    }
    expect(evict().await, StatusCode::CREATED);
}

#[tokio::test]
async fn a_dry_run_that_would_create_has_no_version() {
    let (_server, client) = start().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let path = "/api/v1/namespaces/default/services/s";
    let dry = expect(put(&client, &format!("{path}?dryRun=All"), &service).await, StatusCode::CREATED);
    assert_eq!(dry["metadata"].get("resourceVersion"), None);
    let made = expect(put(&client, path, &service).await, StatusCode::CREATED);
    assert!(made["metadata"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn concurrent_services_never_share_an_address() {
    let (_server, client) = start().await;
    let services = "/api/v1/namespaces/default/services";
    let made = (0..50).map(|n| {
        let client = client.clone();
        async move {
            let body = json!({"metadata": {"name": format!("s{n}")}, "spec": {"ports": [{"port": 80}]}});
            let made = expect(post(&client, services, &body).await, StatusCode::CREATED);
            made["spec"]["clusterIP"].as_str().unwrap().to_owned()
        }
    });
    let addresses: std::collections::HashSet<String> = futures::future::join_all(made).await.into_iter().collect();
    assert_eq!(addresses.len(), 50);
}

/// Each patch is small enough, and the object that they would make is not.
#[tokio::test]
async fn objects_do_not_grow_without_bound() {
    let (_server, client) = start().await;
    expect(post(&client, MAPS, &json!({"metadata": {"name": "grows"}})).await, StatusCode::CREATED);
    let more = |n: usize| {
        let labels: serde_json::Map<String, Value> =
            (0..20_000).map(|i| (format!("l{n}-{i}"), "x".repeat(40).into())).collect();
        json!({"metadata": {"labels": labels}})
    };
    let mut codes = Vec::new();
    for n in 0..4 {
        codes.push(patch(&client, &format!("{MAPS}/grows"), "merge-patch+json", &more(n)).await.0);
    }
    assert_eq!(codes, [200, 200, 413, 413]);
    let kept = expect(get(&client, &format!("{MAPS}/grows")).await, StatusCode::OK);
    assert_eq!(kept["metadata"]["labels"].as_object().unwrap().len(), 40_000);
}

#[tokio::test]
async fn scale_changes_replicas() {
    let (_server, client) = start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let body = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    expect(post(&client, path, &body).await, StatusCode::CREATED);
    let scale = expect(get(&client, &format!("{path}/d/scale")).await, StatusCode::OK);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let patched =
        patch(&client, &format!("{path}/d/scale"), "merge-patch+json", &json!({"spec": {"replicas": 5}})).await;
    assert_eq!(expect(patched, StatusCode::OK)["spec"]["replicas"], 5);
    let stored = expect(get(&client, &format!("{path}/d")).await, StatusCode::OK);
    assert_eq!((&stored["spec"]["replicas"], &stored["metadata"]["generation"]), (&json!(5), &json!(2)));
    let mut stale = scale.clone();
    stale["spec"]["replicas"] = json!(9);
    expect(put(&client, &format!("{path}/d/scale"), &stale).await, StatusCode::CONFLICT);
    let negative =
        patch(&client, &format!("{path}/d/scale"), "merge-patch+json", &json!({"spec": {"replicas": -5}})).await;
    expect(negative, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn patches_survive_contention() {
    let (_server, client) = start().await;
    expect(post(&client, MAPS, &json!({"metadata": {"name": "busy"}})).await, StatusCode::CREATED);
    let path = format!("{MAPS}/busy");
    let patches = (0..20).map(|n| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            loop {
                let key = format!("k{n}");
                let (code, answer) = patch(&client, &path, "merge-patch+json", &json!({"data": {key: "v"}})).await;
                match code {
                    200 => return,
                    // Five lost races; upstream gives up there too.
                    409 => {}
                    _ => panic!("{answer}"),
                }
            }
        }
    });
    futures::future::join_all(patches).await;
    let stored = expect(get(&client, &path).await, StatusCode::OK);
    assert_eq!(stored["data"].as_object().unwrap().len(), 20);
    let bad = patch(&client, &path, "json-patch+json", &json!([{"op": "remove", "path": "/data/none"}])).await;
    assert_eq!(expect(bad, StatusCode::UNPROCESSABLE_ENTITY)["reason"], "Invalid");
    let bad = patch(&client, &path, "json-patch+json", &json!({"op": "remove"})).await;
    expect(bad, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn status_and_spec_do_not_mix() {
    let (_server, client) = start().await;
    pod(&client, "p").await;
    let path = format!("{PODS}/p");
    let through_status = json!({"spec": {"activeDeadlineSeconds": 5}, "status": {"phase": "Running"}});
    let answer =
        expect(patch(&client, &format!("{path}/status"), "merge-patch+json", &through_status).await, StatusCode::OK);
    assert_eq!(answer["status"]["phase"], "Running");
    assert_eq!(answer["spec"].get("activeDeadlineSeconds"), None);
    let through_spec = expect(
        patch(&client, &path, "merge-patch+json", &json!({"status": {"phase": "Failed"}})).await,
        StatusCode::OK,
    );
    assert_eq!(through_spec["status"]["phase"], "Running");
}

#[tokio::test]
async fn events_are_one_thing_in_two_groups() {
    let (_server, client) = start().await;
    let core = "/api/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "reason": "Because", "message": "so",
                       "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "type": "Normal",
                       "source": {"component": "kubelet"}});
    expect(post(&client, core, &event).await, StatusCode::CREATED);
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let seen = expect(get(&client, &format!("{new}/e")).await, StatusCode::OK);
    assert_eq!((&seen["apiVersion"], &seen["note"]), (&json!("events.k8s.io/v1"), &json!("so")));
    let selected = expect(get(&client, &format!("{new}?fieldSelector=regarding.name%3Dp")).await, StatusCode::OK);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
    let selected = expect(
        get(&client, &format!("{core}?fieldSelector=involvedObject.name%3Dp,source%3Dkubelet")).await,
        StatusCode::OK,
    );
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pods_grow_and_gain_debuggers() {
    let (_server, client) = start().await;
    pod(&client, "other").await;
    let small = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}});
    let body = json!({"metadata": {"name": "p"}, "spec": {"containers": [small]}});
    expect(post(&client, PODS, &body).await, StatusCode::CREATED);
    let path = format!("{PODS}/p");
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}], "activeDeadlineSeconds": 9}});
    let kind = "strategic-merge-patch+json";
    let with = expect(patch(&client, &format!("{path}/ephemeralcontainers"), kind, &debugger).await, StatusCode::OK);
    assert_eq!(with["spec"]["ephemeralContainers"][0]["name"], "d");
    assert_eq!(with["spec"].get("activeDeadlineSeconds"), None);
    let without = json!({"spec": {"ephemeralContainers": null}});
    let refused = patch(&client, &format!("{path}/ephemeralcontainers"), "merge-patch+json", &without).await;
    expect(refused, StatusCode::UNPROCESSABLE_ENTITY);
    for debugger in [
        json!({"name": "../../../tmp/x"}),
        json!({"name": "e", "imagePullPolicy": "Sometimes"}),
        json!({"name": "e", "securityContext": {"runAsUser": -5}}),
        json!({"name": "e", "resources": {"limits": {"cpu": "1"}}}),
        json!({"name": "e", "targetContainerName": "nobody"}),
        json!({"name": "e", "volumeMounts": [{"name": "nothing", "mountPath": "/x"}]}),
    ] {
        let mut debugger = debugger;
        debugger["image"] = json!("i");
        let body = json!({"spec": {"ephemeralContainers": [debugger]}});
        let refused = patch(&client, &format!("{path}/ephemeralcontainers"), kind, &body).await;
        expect(refused, StatusCode::UNPROCESSABLE_ENTITY);
    }
    for policy in [
        json!([{"resourceName": "../x", "restartPolicy": "zz"}]),
        json!([{"resourceName": "memory", "restartPolicy": "NotRequired"}]),
    ] {
        let body = json!({"spec": {"containers": [{"name": "c", "resizePolicy": policy}]}});
        let refused = patch(&client, &format!("{path}/resize"), kind, &body).await;
        expect(refused, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    for part in ["", "/status"] {
        let refused = patch(&client, &format!("{path}{part}"), "merge-patch+json", &mirror).await;
        expect(refused, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let more =
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}, "image": "other"}]}});
    let resized = expect(patch(&client, &format!("{path}/resize"), kind, &more).await, StatusCode::OK);
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    assert_eq!(resized["spec"]["containers"][0]["image"], "i");
}

#[tokio::test]
async fn heartbeats_and_news_about_nodes() {
    let (_server, client) = start().await;
    expect(post(&client, "/api/v1/nodes", &json!({"metadata": {"name": "n"}})).await, StatusCode::CREATED);
    let beat = |time: &str, ready: &str| {
        json!({"status": {"conditions": [
        {"type": "Ready", "status": ready, "lastHeartbeatTime": time}]}})
    };
    let mut last = String::new();
    for (time, ready) in
        [("2026-01-01T00:00:00Z", "False"), ("2026-01-01T00:00:10Z", "False"), ("2026-01-01T00:00:10Z", "True")]
    {
        let kind = "strategic-merge-patch+json";
        let node = expect(patch(&client, "/api/v1/nodes/n/status", kind, &beat(time, ready)).await, StatusCode::OK);
        let version = node["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        assert_ne!(version, last);
        last = version;
        assert_eq!(node["status"]["conditions"][0]["lastHeartbeatTime"], time);
    }
}
