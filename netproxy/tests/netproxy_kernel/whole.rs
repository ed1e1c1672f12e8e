//! The whole proxy as the composition root starts it, against a small API server on loopback in a
//! network namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use harness::api::Api;
use harness::{program, time};
use netproxy::backend::NftBackend;
use netproxy::backend::netlink::NetlinkBackend;
use netproxy::cluster::{Cluster, Subscription};
use netproxy::links::Owner;
use netproxy::services::{ServiceProxyConfig, ServiceProxyError, check, cleanup, run};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::net::{NODE_IP, Namespace};

async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    time::eventually_true(what, condition).await.unwrap();
}

fn service(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "resourceVersion": "2"},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}], "type": "LoadBalancer",
                 "externalTrafficPolicy": "Local", "healthCheckNodePort": 31999},
    })
}

fn slice(service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> = addresses.iter().map(|a| json!({"addresses": [a], "nodeName": "node"})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": format!("{service}-1"), "resourceVersion": "2",
                     "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

async fn http_get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn says(port: u16, path: &str, expected: &[&str]) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    until(&format!("{port}{path} says {expected:?}"), async || {
        http_get(address, path).await.is_ok_and(|answer| expected.iter().all(|part| answer.contains(part)))
    })
    .await;
}

fn table_contains(needle: &str) -> bool {
    let mut list = std::process::Command::new("nft");
    let listed = program::run(list.args(["list", "ruleset"]), None).unwrap();
    listed.success("nft list ruleset").unwrap().contains(needle)
}

/// An API with one Service of one endpoint, and a client of it.
async fn an_api() -> (Api, kube::Client, AbortOnDropHandle<()>) {
    let api = Api::default();
    api.put("services", service("web", "10.43.0.50"));
    api.put("endpointslices", slice("web", &["10.42.0.1"]));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(api.clone().serve(listener));
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    (api, client, AbortOnDropHandle::new(server))
}

/// What a proxy sees of a cluster that nobody watches.
fn nothing(client: &kube::Client) -> Subscription {
    Cluster::new(client.clone(), "node", Default::default()).subscribe()
}

/// What keeps a proxy from starting.
async fn refusals(client: &kube::Client) {
    let bad = ServiceProxyConfig { masquerade_bit: 32, ..ServiceProxyConfig::new("node", vec![]) };
    let refused = run(bad, nothing(client), CancellationToken::new()).await;
    assert!(matches!(refused, Err(ServiceProxyError::Config(_))), "{refused:?}");

    let _holder = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 10249)).await.unwrap();
    let hard = ServiceProxyConfig { bind_address_hard_fail: true, ..ServiceProxyConfig::new("node", vec![]) };
    let refused = run(hard, nothing(client), CancellationToken::new()).await;
    assert!(matches!(refused, Err(ServiceProxyError::Listen(..))), "{refused:?}");
}

/// What kube-proxy's ports say of a proxy with one Service.
async fn answers() {
    says(10256, "/healthz", &["200 OK", "\"nodeEligible\":true", "lastUpdated"]).await;
    says(10249, "/metrics", &["kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1"]).await;
    says(10249, "/metrics", &["kubeproxy_proxy_healthz_total{code=\"200\"}"]).await;
    says(10249, "/proxyMode", &["nftables"]).await;
    says(10249, "/configz", &["\"tcpEstablishedTimeout\":\"7777s\""]).await;
    says(31999, "/", &["200 OK", "\"localEndpoints\":1", "x-load-balancing-endpoint-weight: 1", "nosniff"]).await;
}

async fn scenario() {
    let (api, client, _server) = an_api().await;
    refusals(&client).await;
    check().unwrap();
    assert!(!table_contains("table ip copepod"), "checking changes nothing");

    let mut config = ServiceProxyConfig::new("node", vec![NODE_IP.into()]);
    config.conntrack.tcp_established = Some(Duration::from_secs(7777));
    // The limit is the machine's: from here it cannot be raised, which is told and lived with.
    config.conntrack.max_per_core = Some(1 << 30);
    let token = CancellationToken::new();
    let cluster = Cluster::new(client, "node", config.metrics.informer.clone());
    let proxy = tokio::spawn(run(config, cluster.subscribe(), token.clone()));
    let _watches = AbortOnDropHandle::new(tokio::spawn({
        let token = token.clone();
        async move { cluster.run(token).await }
    }));
    until("the first rules", async || table_contains("10.43.0.50 . tcp . 80 . 0 : 10.42.0.1 . 8080")).await;
    let query = |of: &str| api.query(of).unwrap();
    for all in ["services", "endpointslices"] {
        assert!(!query(all).contains("Selector="), "DNS wants all of them: {}", query(all));
    }
    assert!(query("nodes").contains("fieldSelector=metadata.name%3Dnode"), "{}", query("nodes"));
    answers().await;
    let timeout = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established").unwrap();
    assert_eq!(timeout.trim(), "7777");

    api.put("endpointslices", slice("web", &["10.42.0.1", "10.42.0.2"]));
    until("a new endpoint", async || table_contains(". 1 : 10.42.0.2 . 8080")).await;
    says(31999, "/", &["\"localEndpoints\":2"]).await;
    api.put("services", service("other", "10.43.0.51"));
    until("a new service", async || table_contains("10.43.0.51 . tcp . 80")).await;
    // An object that cannot be read stops nothing, and is counted.
    let mut odd = service("odd", "10.43.0.52");
    odd["spec"]["ports"] = json!("many");
    api.put("services", odd);
    let mut nulls = service("nulls", "10.43.0.53");
    nulls["metadata"]["creationTimestamp"] = Value::Null;
    nulls["spec"]["externalIPs"] = Value::Null;
    nulls["status"] = Value::Null;
    api.put("services", nulls);
    until("a service after that", async || table_contains("10.43.0.53 . tcp . 80")).await;
    says(10249, "/metrics", &["copepod_netproxy_unreadable_objects_total{resource=\"services\"} 1"]).await;
    let leaving = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node", "resourceVersion": "3"},
        "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}});
    api.put("nodes", leaving);
    says(10256, "/healthz", &["503", "\"nodeEligible\":false"]).await;
    says(10256, "/livez", &["200 OK"]).await;
    // Garbage on the wire ends that watch; the next one lists anew and goes on.
    assert!(api.garble("services", b"{\"type\": \"ADDED\", \"object\": 7}\n\xff\n") > 0);
    api.delete("services", "default/web");
    until("the service is gone", async || !table_contains("10.43.0.50 . tcp . 80 . 0")).await;

    token.cancel();
    proxy.await.unwrap().unwrap();
    assert!(table_contains("table ip copepod"), "stopping leaves the rules");
    assert!(http_get(SocketAddr::from((Ipv4Addr::LOCALHOST, 31999)), "/").await.is_err());
    let owner = Owner::new("instance-1").unwrap();
    cleanup(&owner).unwrap();
    cleanup(&owner).expect("cleaning up twice is fine");
    assert!(NetlinkBackend::new().unwrap().list().unwrap().table.is_none());
}

#[test]
fn follows_the_api_from_start_to_clean_up() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(scenario());
        runtime.shutdown_background();
    });
}
