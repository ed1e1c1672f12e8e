//! Quotas in a whole control plane: what is stored is charged, what goes is given back, and what was charged for nothing
//! is found. And what protects claims and volumes while they are used.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use apiserver::testing::{delete, get, post};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, LimitRange, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service,
};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, from_value, json};

use crate::cluster::{Cluster, config};

async fn used(c: &Cluster, name: &str) -> BTreeMap<String, String> {
    let quota = c.api::<ResourceQuota>().get(name).await.unwrap();
    let used = quota.status.and_then(|status| status.used).unwrap_or_default();
    used.into_iter().map(|(name, quantity)| (name, quantity.0)).collect()
}

async fn uses(c: &Cluster, name: &str, expect: Value) {
    let expect: BTreeMap<String, String> = from_value(expect).unwrap();
    c.wait_for(&format!("{name} uses {expect:?}"), || async { used(c, name).await == expect }).await;
}

async fn quota(c: &Cluster, name: &str, spec: Value) {
    c.create::<ResourceQuota>(json!({"metadata": {"name": name}, "spec": spec})).await;
}

fn pod(name: &str) -> Value {
    let resources = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}});
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_follows_the_life_of_what_it_counts() {
    let c = Cluster::start(config()).await;
    c.kubelets();
    c.node("n1").await;
    c.create::<ConfigMap>(json!({"metadata": {"name": "before"}})).await;
    let hard = json!({"pods": "2", "requests.cpu": "1", "count/leases.coordination.k8s.io": "1", "services": "3",
        "services.nodeports": "1", "configmaps": "10"});
    quota(&c, "q", json!({"hard": hard})).await;
    // The root certificate is there, too.
    let with = |pods: &str, cpu: &str, leases: &str, services: &str, ports: &str| {
        json!({"pods": pods, "requests.cpu": cpu, "count/leases.coordination.k8s.io": leases, "services": services,
            "services.nodeports": ports, "configmaps": "2"})
    };
    // The Service of the API itself.
    uses(&c, "q", with("0", "0", "0", "1", "0")).await;
    c.create::<Pod>(pod("a")).await;
    c.create::<Lease>(json!({"metadata": {"name": "l"}, "spec": {}})).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    c.create::<Service>(service).await;
    uses(&c, "q", with("1", "100m", "1", "2", "1")).await;
    let another = from_value(json!({"metadata": {"name": "m"}, "spec": {}})).unwrap();
    let refused = c.api::<Lease>().create(&PostParams::default(), &another).await.unwrap_err();
    assert!(
        refused.to_string().contains("exceeded quota: q, requested: count/leases.coordination.k8s.io=1"),
        "{refused}"
    );
    // What goes or shrinks is given back.
    c.patch::<Service>("s", json!({"spec": {"type": "ClusterIP"}})).await;
    c.api::<Lease>().delete("l", &DeleteParams::default()).await.unwrap();
    c.api::<Pod>().delete("a", &DeleteParams::default()).await.unwrap();
    uses(&c, "q", with("0", "0", "0", "2", "0")).await;
    c.create::<Lease>(another_lease()).await;
    // Another limit is in force when its usage is known.
    c.patch::<ResourceQuota>("q", json!({"spec": {"hard": {"secrets": "5", "configmaps": null}}})).await;
    c.wait_for("the new limits", || async {
        let now = used(&c, "q").await;
        now.get("secrets").is_some_and(|count| count == "0") && !now.contains_key("configmaps")
    })
    .await;
}

fn another_lease() -> Value {
    json!({"metadata": {"name": "n"}, "spec": {}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_counted_from_when_there_are_any() {
    let c = Cluster::start(config()).await;
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(post(&c.client, definitions, &definition).await.0, 201);
    let gadgets = "/apis/example.com/v1/namespaces/default/gadgets";
    c.wait_for("gadgets", || async { get(&c.client, gadgets).await.0 == 200 }).await;
    let gadget = |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": name}});
    assert_eq!(post(&c.client, gadgets, &gadget("a")).await.0, 201);
    quota(&c, "q", json!({"hard": {"count/gadgets.example.com": "2"}})).await;
    uses(&c, "q", json!({"count/gadgets.example.com": "1"})).await;
    assert_eq!(post(&c.client, gadgets, &gadget("b")).await.0, 201);
    let (code, refused) = post(&c.client, gadgets, &gadget("c")).await;
    assert_eq!(code, 403, "{refused}");
    assert_eq!(delete(&c.client, &format!("{gadgets}/a")).await.0, 200);
    uses(&c, "q", json!({"count/gadgets.example.com": "1"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_tell_pods_apart() {
    let c = Cluster::start(config()).await;
    quota(&c, "ends", json!({"hard": {"pods": "5"}, "scopes": ["Terminating"]})).await;
    quota(&c, "stays", json!({"hard": {"pods": "5"}, "scopes": ["NotTerminating"]})).await;
    quota(&c, "best", json!({"hard": {"pods": "5"}, "scopes": ["BestEffort"]})).await;
    for name in ["ends", "stays", "best"] {
        uses(&c, name, json!({"pods": "0"})).await;
    }
    let mut ending = pod("e");
    ending["spec"]["activeDeadlineSeconds"] = json!(3600);
    c.create::<Pod>(ending).await;
    c.create::<Pod>(json!({"metadata": {"name": "b"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})).await;
    for (name, count) in [("ends", "1"), ("stays", "1"), ("best", "1")] {
        uses(&c, name, json!({"pods": count})).await;
    }
    // A pod that has ended uses nothing.
    let ended = json!({"status": {"phase": "Succeeded"}});
    c.api::<Pod>().patch_status("e", &PatchParams::default(), &Patch::Merge(&ended)).await.unwrap();
    uses(&c, "ends", json!({"pods": "0"})).await;
}

/// What is given back for objects that go must not be what others are charged for just then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_never_more_than_the_quota_allows() {
    const MOST: usize = 4;
    let c = Cluster::start(config()).await;
    // The root certificate is one of them.
    quota(&c, "q", json!({"hard": {"count/configmaps": MOST.to_string()}})).await;
    uses(&c, "q", json!({"count/configmaps": "1"})).await;
    let racing = (0..8).map(|task| {
        let api: Api<ConfigMap> = c.api();
        tokio::spawn(async move {
            let mut made = 0;
            for n in 0..60 {
                let map = from_value(json!({"metadata": {"name": format!("m{task}-{n}")}})).unwrap();
                match api.create(&PostParams::default(), &map).await {
                    Ok(map) => {
                        made += 1;
                        let there = api.list(&ListParams::default()).await.unwrap().items.len();
                        assert!(there <= MOST, "{there} where {MOST} are allowed");
                        api.delete(&map.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
                    }
                    Err(kube::Error::Api(status)) if status.code == 403 || status.code == 409 => {}
                    Err(error) => panic!("{error}"),
                }
            }
            made
        })
    });
    let mut made = 0;
    for task in futures::future::join_all(racing).await {
        made += task.unwrap();
    }
    assert!(made > MOST, "only {made} were made: nothing was given back");
    uses(&c, "q", json!({"count/configmaps": "1"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_charged_for_nothing_is_given_back() {
    let c = Cluster::start(config()).await;
    c.create::<ConfigMap>(json!({"metadata": {"name": "m"}})).await;
    quota(&c, "q", json!({"hard": {"count/configmaps": "5"}})).await;
    uses(&c, "q", json!({"count/configmaps": "2"})).await;
    let again = from_value::<ConfigMap>(json!({"metadata": {"name": "m"}})).unwrap();
    let refused = c.api::<ConfigMap>().create(&PostParams::default(), &again).await.unwrap_err();
    assert!(refused.to_string().contains("already exists"), "{refused}");
    assert_eq!(used(&c, "q").await["count/configmaps"], "3", "charged before the store was asked, as upstream's");
    uses(&c, "q", json!({"count/configmaps": "2"})).await;
    // Whatever somebody writes into the status.
    let odd = json!({"status": {"hard": {"count/configmaps": "900"}, "used": {"count/configmaps": "0"}}});
    c.api::<ResourceQuota>().patch_status("q", &PatchParams::default(), &Patch::Merge(&odd)).await.unwrap();
    uses(&c, "q", json!({"count/configmaps": "2"})).await;
    c.wait_for("the limits of the spec", || async {
        let status = c.api::<ResourceQuota>().get("q").await.unwrap().status.unwrap_or_default();
        status.hard.unwrap_or_default()["count/configmaps"].0 == "5"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_set_before_a_quota_counts() {
    let c = Cluster::start(config()).await;
    let limits = json!([{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}]);
    c.create::<LimitRange>(json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).await;
    quota(&c, "q", json!({"hard": {"limits.cpu": "900m"}})).await;
    uses(&c, "q", json!({"limits.cpu": "0"})).await;
    let plain = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = c.create::<Pod>(plain("a")).await;
    let resources = made.spec.unwrap().containers.remove(0).resources.unwrap();
    assert_eq!((&*resources.limits.unwrap()["cpu"].0, &*resources.requests.unwrap()["cpu"].0), ("500m", "100m"));
    let refused = c.api::<Pod>().create(&PostParams::default(), &from_value(plain("b")).unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("requested: limits.cpu=500m, used: limits.cpu=500m"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_and_volumes_stay_while_they_are_used() {
    let c = Cluster::start(config()).await;
    c.kubelets();
    c.node("n1").await;
    let volumes: Api<PersistentVolume> = Api::all(c.client.clone());
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
    let made = volumes.create(&PostParams::default(), &from_value(volume).unwrap()).await.unwrap();
    assert_eq!(made.metadata.finalizers.unwrap(), ["kubernetes.io/pv-protection"]);
    let bound = json!({"status": {"phase": "Bound"}});
    volumes.patch_status("v", &PatchParams::default(), &Patch::Merge(&bound)).await.unwrap();
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v",
        "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
    let made = c.create::<PersistentVolumeClaim>(claim).await;
    assert_eq!(made.metadata.finalizers.unwrap(), ["kubernetes.io/pvc-protection"]);
    let mut user = pod("p");
    user["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    user["spec"]["nodeName"] = "n1".into();
    c.create::<Pod>(user).await;
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    c.api::<PersistentVolumeClaim>().delete("c", &DeleteParams::default()).await.unwrap();
    // Something that comes after, so that both had their turn.
    c.create::<PersistentVolumeClaim>(json!({"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}))
        .await;
    c.api::<PersistentVolumeClaim>().delete("d", &DeleteParams::default()).await.unwrap();
    c.wait_for("the claim that nobody uses", || async { !c.exists::<PersistentVolumeClaim>("d").await }).await;
    assert!(c.exists::<PersistentVolumeClaim>("c").await);
    assert!(volumes.get_opt("v").await.unwrap().is_some());
    c.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    c.wait_for("the claim's end", || async { !c.exists::<PersistentVolumeClaim>("c").await }).await;
    let released = json!({"status": {"phase": "Released"}});
    volumes.patch_status("v", &PatchParams::default(), &Patch::Merge(&released)).await.unwrap();
    c.wait_for("the volume's end", || async { volumes.get_opt("v").await.unwrap().is_none() }).await;
}
