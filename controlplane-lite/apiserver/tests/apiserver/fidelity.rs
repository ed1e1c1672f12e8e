//! What clients of upstream's server rely on, one thing after another.

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use apiserver::testing::*;

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const EVENTS: &str = "/api/v1/namespaces/default/events";

async fn account(client: &kube::Client) {
    let path = "/api/v1/namespaces/default/serviceaccounts";
    expect(post(client, path, &json!({"metadata": {"name": "default"}})).await, StatusCode::CREATED);
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

/// Answer and headers of a request.
async fn ask(client: &kube::Client, request: http::request::Builder, body: &Value) -> http::Response<Vec<u8>> {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let typed = request.headers_ref().is_some_and(|headers| headers.contains_key("content-type"));
    let request = if typed { request } else { request.header("content-type", "application/json") };
    let request = request.body(kube::client::Body::from(bytes)).unwrap();
    let (parts, body) = client.send(request).await.unwrap().into_parts();
    http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn a_dry_run_has_no_version() {
    let (_server, client) = start().await;
    let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let map = expect(post(&client, path, &json!({"metadata": {"name": "a"}})).await, StatusCode::CREATED);
    assert_eq!(map["metadata"].get("resourceVersion"), None);
    // So it can be created as it was answered.
    let path = "/api/v1/namespaces/default/configmaps";
    expect(post(&client, path, &map).await, StatusCode::CREATED);
}

/// A patch that names no version is tried again until it is the newest, however fast others write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_of_the_scale_do_not_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let store = storage::open(&storage::DatastoreConfig::Redb(storage::RedbConfig::new(dir.path().join("store"))))
        .await
        .unwrap();
    let config = apiserver::Config { store, ..config(&Ca::default()) };
    let server = apiserver::ApiServer::new(config).await.unwrap();
    let client = server.client(admin());
    expect(post(&client, DEPLOYMENTS, &deployment("d")).await, StatusCode::CREATED);
    let path = format!("{DEPLOYMENTS}/d");
    let scale = async {
        for n in 0..40 {
            let body = json!({"spec": {"replicas": n}});
            let answer = patch(&client, &format!("{path}/scale"), "merge-patch+json", &body).await;
            assert_eq!(answer.0, 200, "{}", answer.1);
        }
    };
    let status = async {
        for n in 0.. {
            let body = json!({"status": {"observedGeneration": n}});
            let answer = patch(&client, &format!("{path}/status"), "merge-patch+json", &body).await;
            assert_eq!(answer.0, 200, "{}", answer.1);
        }
    };
    tokio::select! {
        () = scale => {}
        () = status => {}
    }
}

#[tokio::test]
async fn an_approval_keeps_annotations() {
    let (_server, client) = start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, request);
    let spec = json!({"request": encoded, "signerName": "example.com/x", "usages": ["digital signature"]});
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let body = json!({"metadata": {"name": "r"}, "spec": spec});
    expect(post(&client, path, &body).await, StatusCode::CREATED);
    let approval = json!({"metadata": {"annotations": {"patchedapproval": "true"}}, "status": {"conditions": [
        {"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}});
    let path = format!("{path}/r/approval");
    let patched = expect(patch(&client, &path, "merge-patch+json", &approval).await, StatusCode::OK);
    assert_eq!(patched["metadata"]["annotations"]["patchedapproval"], "true");
    assert_eq!(patched["status"]["conditions"][0]["type"], "ApprovalPatch");
    assert_eq!(patched["spec"]["signerName"], "example.com/x");
}

#[tokio::test]
async fn events_are_found_by_their_source() {
    let (_server, client) = start().await;
    let event = |name: &str, more: Value| {
        let mut event = json!({"metadata": {"name": name}, "involvedObject": {"namespace": "default"}, "reason": "R"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    for (name, more) in [
        ("a", json!({"source": {"component": "kubelet"}})),
        ("b", json!({"reportingComponent": "kubelet", "reportingInstance": "x"})),
        ("c", json!({"source": {"component": "other"}})),
    ] {
        expect(post(&client, EVENTS, &event(name, more)).await, StatusCode::CREATED);
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|e| e["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let found = expect(get(&client, &format!("{EVENTS}?fieldSelector=source=kubelet")).await, StatusCode::OK);
    assert_eq!(names(&found), ["a", "b"]);
    let found = expect(get(&client, &format!("{EVENTS}?fieldSelector=source!=kubelet,reason=R")).await, StatusCode::OK);
    assert_eq!(names(&found), ["c"]);
}

#[tokio::test]
async fn pods_take_tolerations_later_and_keep_their_class() {
    let (_server, client) = start().await;
    account(&client).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let mut pod = expect(post(&client, PODS, &pod).await, StatusCode::CREATED);
    let path = format!("{PODS}/p");
    // As a client that knows nothing of the default tolerations.
    pod["spec"]["tolerations"] = json!([{"key": "foo", "operator": "Exists", "effect": "NoExecute"}]);
    let updated = expect(put(&client, &path, &pod).await, StatusCode::OK);
    assert_eq!(updated["spec"]["tolerations"].as_array().map(Vec::len), Some(3));
    assert_eq!(updated["metadata"]["generation"], 2);
    let selected = get(&client, &format!("{PODS}?fieldSelector=spec.hostNetwork=false")).await;
    assert_eq!(selected.1["items"].as_array().map(Vec::len), Some(1));
    let resize = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
    let refused = patch(&client, &format!("{path}/resize"), "strategic-merge-patch+json", &resize).await;
    assert_eq!(refused.0, 422, "{}", refused.1);
    assert!(refused.1["message"].as_str().unwrap().contains("Pod QOS Class may not change"), "{}", refused.1);
}

/// Owners that say the same are stored once and warned of, as upstream does it on each way.
#[tokio::test]
async fn equal_owners_are_stored_once() {
    let (_server, client) = start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    let map = |owners: &Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "ownerReferences": owners}})
    };
    let (two, other) = (json!([owner, owner]), json!({"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "v"}));
    let three = json!([owner, other, other]);
    let path = format!("{maps}/m");
    let after = "contains duplicate entries after mutating admission happens;";
    for (request, media, owners, found, uid) in [
        (Request::post(maps), "application/json", &two, "contains duplicate entries;", "u"),
        (Request::put(&path), "application/json", &three, after, "v"),
        (Request::patch(&path), "application/merge-patch+json", &two, after, "u"),
    ] {
        let answer = ask(&client, request.header("content-type", media), &map(owners)).await;
        let warning = answer.headers().get("warning").map(|warning| warning.to_str().unwrap().to_owned());
        let warning = warning.unwrap_or_default();
        assert!(warning.contains(found) && warning.contains(&format!("duplicate UID(s) observed: {uid}")), "{warning}");
        let stored: Value = serde_json::from_slice(answer.body()).unwrap();
        let expect = if owners == &two { json!([owner]) } else { json!([owner, other]) };
        assert_eq!(stored["metadata"]["ownerReferences"], expect, "{stored}");
    }
}

#[tokio::test]
async fn negative_grace_periods_warn() {
    let (_server, client) = start().await;
    let mut body = deployment("negative");
    body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(-1);
    let answer = ask(&client, Request::post(format!("{DEPLOYMENTS}?dryRun=All")), &body).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let warning = answer.headers()["warning"].to_str().unwrap();
    assert!(warning.contains("negative values are invalid and will be treated as 1"), "{warning}");
    let made: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 1);
}

/// As `kubectl get endpoints` and `kubectl get componentstatuses` show it (`APILifecycleDeprecated` in `k8s.io/api`).
#[tokio::test]
async fn deprecated_versions_warn() {
    let (_server, client) = start().await;
    for (path, words) in [
        (
            "/api/v1/namespaces/default/endpoints",
            "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"",
        ),
        ("/api/v1/componentstatuses", "299 - \"v1 ComponentStatus is deprecated in v1.19+\""),
    ] {
        let answer = ask(&client, Request::get(path), &Value::Null).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["warning"], words);
    }
    let answer = ask(&client, Request::get("/api/v1/namespaces/default/services"), &Value::Null).await;
    assert!(!answer.headers().contains_key("warning"));
}

#[tokio::test]
async fn tables_are_of_what_is_stored() {
    let (_server, client) = start().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let refused = ask(&client, Request::post(path).header("accept", table), &review).await;
    assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
    let both = format!("{table},application/json");
    let answered = ask(&client, Request::post(path).header("accept", both), &review).await;
    assert_eq!(answered.status(), StatusCode::CREATED);
    let statuses = Request::get("/api/v1/componentstatuses").header("accept", table);
    let statuses = ask(&client, statuses, &Value::Null).await;
    let statuses: Value = serde_json::from_slice(statuses.body()).unwrap();
    let columns: Vec<&str> =
        statuses["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Status", "Message", "Error"]);
}

/// A page of a version is of that version, even when more was written since.
#[tokio::test]
async fn a_page_of_a_version_is_exact() {
    let (_server, client) = start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let first = expect(post(&client, maps, &json!({"metadata": {"name": "a"}})).await, StatusCode::CREATED);
    let version = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    expect(post(&client, maps, &json!({"metadata": {"name": "b"}})).await, StatusCode::CREATED);
    let page = expect(get(&client, &format!("{maps}?resourceVersion={version}&limit=5")).await, StatusCode::OK);
    assert_eq!(page["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(page["metadata"]["resourceVersion"], version);
}

/// A list that took too long ends, and says how to go on without consistency.
#[tokio::test]
async fn continue_tokens_expire() {
    use base64::Engine as _;
    let (_server, client) = start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b", "c"] {
        expect(post(&client, maps, &json!({"metadata": {"name": name}})).await, StatusCode::CREATED);
    }
    let page = expect(get(&client, &format!("{maps}?limit=1")).await, StatusCode::OK);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut content: Value = serde_json::from_slice(&engine.decode(token).unwrap()).unwrap();
    content["t"] = json!(content["t"].as_i64().unwrap() - 600);
    let old = engine.encode(content.to_string());
    let expired = expect(get(&client, &format!("{maps}?limit=1&continue={old}")).await, StatusCode::GONE);
    assert_eq!(expired["reason"], "Expired");
    let fresh = expired["metadata"]["continue"].as_str().unwrap();
    let next = expect(get(&client, &format!("{maps}?limit=5&continue={fresh}")).await, StatusCode::OK);
    assert_eq!(next["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn documents_have_tags_and_are_compressed() {
    let (_server, client) = start().await;
    for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1"] {
        let plain = ask(&client, Request::get(path), &Value::Null).await;
        let tag = plain.headers()["etag"].clone();
        let again = ask(&client, Request::get(path).header("if-none-match", &tag), &Value::Null).await;
        assert_eq!((again.status(), again.body().len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        let packed = ask(&client, Request::get(path).header("accept-encoding", "gzip"), &Value::Null).await;
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.body()[..]), &mut unpacked).unwrap();
        assert!(unpacked == *plain.body(), "{path}");
    }
    // The hash of the address is the document's tag.
    let root: Value =
        serde_json::from_slice(ask(&client, Request::get("/openapi/v3"), &Value::Null).await.body()).unwrap();
    let address = root["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = ask(&client, Request::get(address), &Value::Null).await;
    let tag = document.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
    assert!(address.ends_with(&format!("hash={tag}")), "{address} {tag}");
    assert!(document.headers()["cache-control"].to_str().unwrap().contains("immutable"));
}

#[tokio::test]
async fn durations_of_go_are_read_and_long_watches_end_some_day() {
    let (_server, client) = start().await;
    for timeout in ["1m0s", "1m30s", "1.5s", "0"] {
        let answer = get(&client, &format!("{PODS}?timeout={timeout}")).await;
        assert_eq!(answer.0, 200, "{}", answer.1);
    }
    assert_eq!(get(&client, &format!("{PODS}?timeout=1x")).await.0, 400);
    let request = Request::get(format!("{PODS}?watch=1&timeoutSeconds={}", i64::MAX));
    let response = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
