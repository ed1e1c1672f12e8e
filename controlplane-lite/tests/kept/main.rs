//! Objects that the API server keeps by itself: who holds which address, from which range, and whom it believes.
#![allow(clippy::unwrap_used)]

use anyhow::ensure;
use harness::time;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{from_value, json};

/// Polls until the IPAddress of this name is there, or gone.
async fn settles(addresses: &Api<IPAddress>, name: &str, there: bool) -> Option<IPAddress> {
    let settled = async || {
        let found = addresses.get_opt(name).await.unwrap();
        ensure!(found.is_some() == there, "it is {found:?}");
        Ok(found)
    };
    time::eventually(&format!("{name} there: {there}"), settled).await.unwrap()
}

#[tokio::test]
async fn every_cluster_ip_has_an_object() {
    let (_server, client) = apiserver::testing::start().await;
    let addresses: Api<IPAddress> = Api::all(client.clone());
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let own = services.get("kubernetes").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    settles(&addresses, &own, true).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let made = services.create(&PostParams::default(), &from_value(service).unwrap()).await.unwrap();
    let ip = made.spec.unwrap().cluster_ip.unwrap();
    let object = settles(&addresses, &ip, true).await.unwrap();
    let parent = object.spec.parent_ref;
    assert_eq!((parent.resource.as_str(), parent.name.as_str()), ("services", "web"));
    assert_eq!(object.metadata.labels.unwrap()["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    // What somebody removes while a Service holds it comes back; what nobody holds any more goes.
    addresses.delete(&ip, &DeleteParams::default()).await.unwrap();
    settles(&addresses, &ip, true).await;
    services.delete("web", &DeleteParams::default()).await.unwrap();
    settles(&addresses, &ip, false).await;
    // Those of others are left alone, whatever their family.
    let foreign = json!({"metadata": {"name": "2001:db8::1"},
        "spec": {"parentRef": {"group": "example.com", "resource": "things", "name": "x"}}});
    addresses.create(&PostParams::default(), &from_value(foreign).unwrap()).await.unwrap();
    assert!(addresses.get_opt("2001:db8::1").await.unwrap().is_some());
}

/// Who changes a Service without an address makes nobody look at all others.
#[tokio::test]
async fn a_lost_address_is_given_up_without_looking_at_all() {
    let (_server, client) = apiserver::testing::start().await;
    let addresses: Api<IPAddress> = Api::all(client.clone());
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let make = async |name: &str| {
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        let made = services.create(&PostParams::default(), &from_value(service).unwrap()).await.unwrap();
        made.spec.unwrap().cluster_ip.unwrap()
    };
    // The first look at all has begun when the server's own Service has its object.
    let own = services.get("kubernetes").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    settles(&addresses, &own, true).await;
    let ip = make("web").await;
    settles(&addresses, &ip, true).await;
    // One that the next look at all removes.
    let left = json!({
        "metadata": {"name": "10.43.0.250", "labels": {
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io", "ipaddress.kubernetes.io/ip-family": "IPv4"}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "gone"}},
    });
    addresses.create(&PostParams::default(), &from_value(left).unwrap()).await.unwrap();
    let external = json!({"spec": {"type": "ExternalName", "externalName": "x.example"}});
    services.patch("web", &PatchParams::default(), &Patch::Merge(external)).await.unwrap();
    settles(&addresses, &ip, false).await;
    let renamed = json!({"spec": {"externalName": "y.example"}});
    services.patch("web", &PatchParams::default(), &Patch::Merge(renamed)).await.unwrap();
    // Changes are followed in their order: this one comes after the two.
    settles(&addresses, &make("next").await, true).await;
    assert!(addresses.get_opt("10.43.0.250").await.unwrap().is_some());
}

#[tokio::test]
async fn the_range_and_the_trusted_authorities_can_be_read() {
    let (_server, client) = apiserver::testing::start().await;
    let range = Api::<ServiceCIDR>::all(client.clone()).get("kubernetes").await.unwrap();
    assert_eq!(range.metadata.finalizers.unwrap(), ["networking.k8s.io/service-cidr-finalizer"]);
    assert_eq!(range.spec.unwrap().cidrs.unwrap().len(), 1);
    let conditions = range.status.unwrap().conditions.unwrap();
    assert_eq!((conditions[0].type_.as_str(), conditions[0].status.as_str()), ("Ready", "True"));
    let maps: Api<ConfigMap> = Api::namespaced(client, "kube-system");
    let map = maps.get("extension-apiserver-authentication").await.unwrap();
    assert!(map.data.unwrap().contains_key("client-ca-file"));
}
