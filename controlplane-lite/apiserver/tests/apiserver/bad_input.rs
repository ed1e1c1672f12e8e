//! Bad requests get upstream's code, reason and causes, and leave nothing behind.

use http::StatusCode;
use serde_json::{Value, json};

use apiserver::testing::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

struct Case {
    method: &'static str,
    path: String,
    kind: &'static str,
    body: String,
    code: u16,
    reason: &'static str,
    says: &'static str,
}

fn case(
    method: &'static str,
    path: impl Into<String>,
    body: impl ToString,
    code: u16,
    reason: &'static str,
    says: &'static str,
) -> Case {
    let kind = if method == "GET" || method == "DELETE" { "" } else { "application/json" };
    Case { method, path: path.into(), kind, body: body.to_string(), code, reason, says }
}

fn deployment(spec: Value) -> Value {
    json!({"metadata": {"name": "d"}, "spec": spec})
}

fn cases() -> Vec<Case> {
    let strict = |path: &str| format!("{path}?fieldValidation=Strict");
    let map = |name: &str| json!({"metadata": {"name": name}});
    vec![
        case("POST", MAPS, "{\"metadata\": ", 400, "BadRequest", ""),
        case("POST", MAPS, "", 400, "BadRequest", ""),
        case("POST", MAPS, "[1]", 400, "BadRequest", ""),
        case("POST", MAPS, "\u{0}\u{1}garbage", 400, "BadRequest", ""),
        case("POST", MAPS, "[".repeat(100_000), 400, "BadRequest", ""),
        case("POST", MAPS, map("Bad_Name"), 422, "Invalid", "metadata.name: Invalid value: \"Bad_Name\""),
        case("POST", MAPS, json!({"metadata": {}}), 422, "Invalid", "name or generateName is required"),
        case(
            "POST",
            MAPS,
            json!({"metadata": {"name": "a", "namespace": "other"}}),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        case(
            "POST",
            "/api/v1/namespaces/nowhere/configmaps",
            map("a"),
            404,
            "NotFound",
            "namespaces \"nowhere\" not found",
        ),
        case(
            "POST",
            MAPS,
            json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}),
            400,
            "BadRequest",
            "Secret",
        ),
        case(
            "POST",
            MAPS,
            json!({"metadata": {"name": "a", "resourceVersion": "5"}}),
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ),
        case(
            "POST",
            DEPLOYMENTS,
            deployment(json!({"replicas": "three"})),
            400,
            "BadRequest",
            "cannot unmarshal string into Go struct field",
        ),
        case(
            "POST",
            strict(DEPLOYMENTS),
            deployment(json!({"replicants": 3})),
            400,
            "BadRequest",
            "unknown field \"spec.replicants\"",
        ),
        case("POST", strict(MAPS), r#"{"metadata": {"name": "a", "name": "b"}}"#, 400, "BadRequest", "duplicate field"),
        case("POST", format!("{MAPS}?dryRun=Some"), map("a"), 422, "Invalid", "dryRun"),
        case("POST", format!("{MAPS}?fieldValidation=Perhaps"), map("a"), 422, "Invalid", "fieldValidation"),
        case(
            "POST",
            MAPS,
            json!({"metadata": {"name": "a", "labels": {"a b": "c"}}}),
            422,
            "Invalid",
            "metadata.labels",
        ),
        case("GET", format!("{MAPS}/none"), "", 404, "NotFound", "configmaps \"none\" not found"),
        case("GET", format!("{MAPS}?labelSelector=a%20in%20"), "", 400, "BadRequest", "unable to parse requirement"),
        case("GET", format!("{MAPS}?fieldSelector=spec.what%3Dx"), "", 400, "BadRequest", ""),
        case("GET", format!("{MAPS}?limit=many"), "", 400, "BadRequest", ""),
        case("GET", format!("{MAPS}?resourceVersion=soon"), "", 422, "Invalid", "resourceVersion"),
        case("GET", format!("{MAPS}?resourceVersionMatch=Exact"), "", 422, "Invalid", "resourceVersionMatch"),
        case("GET", format!("{MAPS}?timeout=never"), "", 400, "BadRequest", "invalid timeout"),
        case(
            "PUT",
            format!("{MAPS}/other"),
            map("a"),
            400,
            "BadRequest",
            "the name of the object (a) does not match the name on the URL (other)",
        ),
        case("PUT", MAPS, map("a"), 405, "MethodNotAllowed", ""),
        case("POST", format!("{MAPS}/there"), map("there"), 405, "MethodNotAllowed", ""),
        case(
            "PUT",
            format!("{MAPS}/there"),
            json!({"metadata": {"name": "there", "resourceVersion": "1"}}),
            409,
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        case(
            "PUT",
            format!("{MAPS}/there"),
            json!({"metadata": {"name": "there", "uid": "no"}}),
            409,
            "Conflict",
            "UID in precondition",
        ),
        case("DELETE", format!("{MAPS}/none"), "", 404, "NotFound", ""),
        case("DELETE", format!("{MAPS}/there"), "{", 400, "BadRequest", ""),
        case(
            "DELETE",
            format!("{MAPS}/there"),
            json!({"propagationPolicy": "Sideways"}),
            422,
            "Invalid",
            "propagationPolicy",
        ),
        case(
            "DELETE",
            format!("{MAPS}/there"),
            json!({"preconditions": {"uid": "no"}}),
            409,
            "Conflict",
            "UID in precondition: no",
        ),
        case("DELETE", "/api/v1/namespaces/default", "", 403, "Forbidden", "this namespace may not be deleted"),
    ]
}

#[tokio::test]
async fn the_table() {
    let (_server, client) = start().await;
    expect(post(&client, MAPS, &json!({"metadata": {"name": "there"}})).await, StatusCode::CREATED);
    let before = expect(get(&client, MAPS).await, StatusCode::OK)["items"].clone();
    for c in cases() {
        let (code, answer) = send(&client, c.method, &c.path, c.kind, c.body.clone()).await;
        let short: String = c.body.chars().take(80).collect();
        let what = format!("{} {} {short}: {answer}", c.method, c.path);
        assert_eq!(code, c.code, "{what}");
        assert_eq!(answer["kind"], "Status", "{what}");
        assert_eq!(answer["reason"].as_str().unwrap_or(""), c.reason, "{what}");
        assert_eq!(answer["code"], c.code, "{what}");
        assert!(answer["message"].as_str().unwrap_or("").contains(c.says), "{what}");
    }
    assert_eq!(expect(get(&client, MAPS).await, StatusCode::OK)["items"], before);
}

#[tokio::test]
async fn media_types_and_sizes() {
    let (_server, client) = start().await;
    let (code, answer) = send(&client, "POST", MAPS, "application/cbor", "x").await;
    assert_eq!((code, answer["reason"].as_str()), (415, Some("UnsupportedMediaType")));
    let (code, _) = send(&client, "PATCH", &format!("{MAPS}/x"), "text/plain", "{}").await;
    assert_eq!(code, 415);
    let huge = json!({"metadata": {"name": "huge"}, "data": {"k": "v".repeat(3 * 1024 * 1024)}});
    let (code, answer) = post(&client, MAPS, &huge).await;
    assert_eq!((code, answer["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
    let (code, answer) =
        send(&client, "POST", MAPS, "application/yaml", "metadata: {name: from-yaml}\ndata: {a: b}\n").await;
    assert_eq!((code, answer["data"]["a"].as_str()), (201, Some("b")));
    let (code, _) = send(&client, "POST", MAPS, "application/yaml", "a: [b\n c: {").await;
    assert_eq!(code, 400);
    let (code, answer) = send(&client, "POST", MAPS, "application/vnd.kubernetes.protobuf", "k8s?").await;
    assert_eq!((code, answer["reason"].as_str()), (400, Some("BadRequest")));
}

#[tokio::test]
async fn causes_name_the_fields() {
    let (_server, client) = start().await;
    let body = json!({"metadata": {"name": "d"}, "spec": {
        "replicas": -1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": []}}}});
    let answer = expect(post(&client, DEPLOYMENTS, &body).await, StatusCode::UNPROCESSABLE_ENTITY);
    let fields: Vec<&str> =
        answer["details"]["causes"].as_array().unwrap().iter().filter_map(|c| c["field"].as_str()).collect();
    for field in ["spec.replicas", "spec.template.metadata.labels", "spec.template.spec.containers"] {
        assert!(fields.contains(&field), "{field} in {answer}");
    }
    assert!(answer["message"].as_str().unwrap().starts_with("Deployment.apps \"d\" is invalid: ["), "{answer}");
    assert_eq!(answer["details"]["kind"], "Deployment");
    assert_eq!(answer["details"]["group"], "apps");
}

#[tokio::test]
async fn unknown_fields_warn_by_default() {
    let (_server, client) = start().await;
    let body = json!({"metadata": {"name": "w"}, "datum": {"a": "b"}}).to_string();
    let request = http::Request::post(MAPS)
        .header("content-type", "application/json")
        .body(kube::client::Body::from(body.into_bytes()))
        .unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let warning = response.headers()["warning"].to_str().unwrap().to_owned();
    assert_eq!(warning, "299 - \"unknown field \\\"datum\\\"\"");
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let (_server, client) = start().await;
    for path in ["/api/v1/nothings", "/apis/nowhere/v1/things", "/nonsense", "/api/v1/namespaces/default/nodes"] {
        assert_eq!(get(&client, path).await.0, 404, "{path}");
    }
    assert_eq!(send(&client, "POST", "/version", "", "").await.0, 405);
    assert_eq!(get(&client, "/api/v1/namespaces/default/pods/p/nothing").await.0, 404);
    assert_eq!(get(&client, "/api/v1/namespaces/default/pods/p/binding").await.0, 405);
}
