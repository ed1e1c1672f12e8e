//! Starting, restarting and stopping, and clients built on kube's own runtime.

use std::sync::Arc;

use apiserver::{ApiServer, Config};
use futures::TryStreamExt;
use harness::time;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::watcher;
use serde_json::json;
use storage::{self, DatastoreConfig, RedbConfig};
use tokio_util::sync::CancellationToken;

use apiserver::testing::*;

#[tokio::test]
async fn a_restart_finds_everything() {
    let ca = Ca::default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let services = "/api/v1/namespaces/default/services";
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.43.0.77"}});
    let mut versions = Vec::new();
    for round in 0..2 {
        let store = storage::open(&DatastoreConfig::Redb(RedbConfig::new(&path))).await.unwrap();
        let server = ApiServer::new(Config { store: store.clone(), ..config(&ca) }).await.unwrap();
        let client = server.client(admin());
        let kubernetes = expect(get(&client, &format!("{services}/kubernetes")).await, StatusCode::OK);
        versions.push(kubernetes["metadata"]["resourceVersion"].clone());
        if round == 0 {
            expect(post(&client, services, &service("s")).await, StatusCode::CREATED);
        } else {
            expect(get(&client, &format!("{services}/s")).await, StatusCode::OK);
            // What the Service of before holds is still held.
            expect(post(&client, services, &service("t")).await, StatusCode::UNPROCESSABLE_ENTITY);
        }
        drop((server, client));
        store.close().await.unwrap();
        // The file's lock goes with the last handle.
        let released = async || Arc::strong_count(&store) == 1;
        time::eventually_true("a store that the server has let go of", released).await.unwrap();
    }
    assert_eq!(versions[0], versions[1], "the second start wrote what was there");
}

#[tokio::test]
async fn stopping_ends_watches() {
    let ca = Ca::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = ApiServer::new(config(&ca)).await.unwrap();
    let token = CancellationToken::new();
    let serving = tokio::spawn({
        let (server, token) = (server.clone(), token.clone());
        async move { server.serve(listener, token).await }
    });
    let (cert, key) = ca.issue("admin", "system:masters");
    let mut sender = connect(address, ca.pem(), Some((&cert, &key))).await;
    let request = Request::get("/api/v1/configmaps?watch=1").header("host", "localhost");
    let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    token.cancel();
    let ended = time::within("the end of the watch", response.into_body().collect()).await.unwrap();
    ended.expect("it ends cleanly");
    time::within("the end of serving", serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn typed_clients_and_watchers() {
    let (_server, client) = start().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = std::pin::pin!(watcher(maps.clone(), config));
        let mut seen = Vec::new();
        let done = async {
            while let Some(event) = events.try_next().await.unwrap() {
                match event {
                    watcher::Event::InitApply(map) => seen.push(map.metadata.name.unwrap()),
                    watcher::Event::InitDone => return,
                    _ => {}
                }
            }
        };
        time::within("the end of the initial list", done).await.unwrap();
        assert_eq!(seen, ["a"]);
    }
    let listed = maps.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    maps.delete("a", &DeleteParams::background()).await.unwrap();
    let gone = maps.get("a").await.unwrap_err();
    assert!(matches!(gone, kube::Error::Api(status) if status.code == 404));
}

#[tokio::test]
async fn a_new_namespace_takes_objects_at_once() {
    let (_server, client) = start().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for n in 0..50 {
        let name = format!("n{n}");
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let path = format!("/api/v1/namespaces/{name}/configmaps");
        expect(post(&client, &path, &json!({"metadata": {"name": "m"}})).await, StatusCode::CREATED);
    }
}
