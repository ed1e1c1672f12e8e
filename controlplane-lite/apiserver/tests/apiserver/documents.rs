//! Forms an answer can take: YAML, Tables, metadata only, compressed; and the paths that are no resources.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use apiserver::testing::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn ask(client: &kube::Client, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

async fn as_json(client: &kube::Client, path: &str, accept: &str) -> Value {
    let response = ask(client, path, &[("accept", accept)]).await;
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_slice(response.body()).unwrap()
}

#[tokio::test]
async fn objects_take_every_form() {
    let (_server, client) = start().await;
    expect(post(&client, MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await, StatusCode::CREATED);
    let yaml = ask(&client, &format!("{MAPS}/a"), &[("accept", "application/yaml")]).await;
    assert_eq!(yaml.headers()["content-type"], "application/yaml");
    assert!(std::str::from_utf8(yaml.body()).unwrap().contains("kind: ConfigMap"));
    let table = as_json(&client, MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let list = as_json(&client, MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0].get("data"), None);
    let refused = ask(&client, MAPS, &[("accept", "text/html")]).await;
    assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
    let pretty = ask(&client, &format!("{MAPS}/a?pretty=true"), &[]).await;
    assert!(std::str::from_utf8(pretty.body()).unwrap().contains("\n  \"kind\""));
}

#[tokio::test]
async fn long_lists_are_compressed_for_who_takes_it() {
    use std::io::Read;
    let (_server, client) = start().await;
    for n in 0..200 {
        let body = json!({"metadata": {"name": format!("m{n}")}, "data": {"k": "v".repeat(1000)}});
        expect(post(&client, MAPS, &body).await, StatusCode::CREATED);
    }
    let plain = ask(&client, MAPS, &[]).await;
    let packed = ask(&client, MAPS, &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert!(packed.body().len() < plain.body().len() / 4);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed.body()[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body()[..]);
    let short = ask(&client, &format!("{MAPS}?limit=2"), &[("accept-encoding", "gzip")]).await;
    assert_eq!(short.headers().get("content-encoding"), None);
}

#[tokio::test]
async fn paths_that_are_no_resources() {
    let (_server, client) = start().await;
    let version = as_json(&client, "/version", "application/json").await;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd", "/healthz/ping"] {
        let answer = ask(&client, path, &[]).await;
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::OK, &b"ok"[..]), "{path}");
    }
    let verbose = ask(&client, "/livez?verbose&exclude=etcd", &[]).await;
    let text = std::str::from_utf8(verbose.body()).unwrap();
    assert!(text.contains("[+]ping ok\n") && text.contains("[+]etcd excluded: ok\n"), "{text}");
    assert!(text.ends_with("livez check passed\n"), "{text}");
    get(&client, "/api/v1/pods").await;
    let metrics = ask(&client, "/metrics", &[]).await;
    let text = std::str::from_utf8(metrics.body()).unwrap();
    assert!(
        text.contains("apiserver_request_total{verb=\"LIST\",dry_run=\"\",group=\"\",version=\"v1\",resource=\"pods\""),
        "{text}"
    );
    assert!(text.contains("apiserver_request_duration_seconds_bucket"), "{text}");
    let keys = as_json(&client, "/openid/v1/jwks", "*/*").await;
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    let openid = as_json(&client, "/.well-known/openid-configuration", "*/*").await;
    assert_eq!(openid["issuer"], "https://kubernetes.default.svc.cluster.local");
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    assert_eq!(as_json(&client, "/apis", v2).await["kind"], "APIGroupDiscoveryList");
    assert_eq!(as_json(&client, "/apis", "application/json").await["kind"], "APIGroupList");
    assert_eq!(as_json(&client, "/api", "application/json").await["kind"], "APIVersions");
    let groups = as_json(&client, "/openapi/v3", "application/json").await;
    let apps = groups["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let response = ask(&client, &apps, &[]).await;
    assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    let document: Value = serde_json::from_slice(response.body()).unwrap();
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let protobuf = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    assert_eq!(ask(&client, "/openapi/v3", &protobuf).await.status(), StatusCode::NOT_ACCEPTABLE);
    // kubectl 1.27 gives up without an answer: it gets the document's head, whose first field says 2.0.
    let head = ask(&client, "/openapi/v2", &protobuf).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert!(head.body().starts_with(b"\x0a\x032.0\x12"), "{:?}", head.body());
}
