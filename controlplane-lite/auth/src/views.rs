//! What authentication and authorization need to know about the cluster, read from
//! the watch cache. Holds the index of roles and bindings, and what pods refer to, as
//! of their last change; everything else is looked up as it is asked for.

mod pod_references;
mod rbac_index;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::authn::{BoundKind, Found, Lookup};
use super::authz::node::NodeView;
use super::authz::rbac::{Binding, PolicyRule, RbacView};
use super::pod::Reference;
use pod_references::PodReferences;
pub use rbac_index::RbacIndex;
use rbac_index::{Caches, Sources};
use storage::Revision;
use storage::watch_cache::{Filter, WatchCache};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Views of one cluster, over its caches.
#[derive(Debug)]
pub struct ClusterViews {
    cache: WatchCache,
    rbac: Caches,
    index: Mutex<Memo>,
    references: PodReferences,
}

/// The index, what it was made from, and when that last changed.
#[derive(Debug, Default)]
struct Memo {
    changed: [Option<Revision>; 4],
    sources: Sources,
    index: Arc<RbacIndex>,
}

impl ClusterViews {
    /// Views over the caches of a cluster.
    pub fn new(cache: WatchCache) -> Arc<Self> {
        let rbac = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];
        let rbac = rbac.map(|resource| cache.resource(RBAC, resource));
        Arc::new(Self { cache, rbac, index: Mutex::default(), references: PodReferences::default() })
    }

    /// Roles and bindings as the cache shows them now.
    pub fn rbac(&self) -> Arc<RbacIndex> {
        let mut memo = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        // Read before the objects: a change in between is seen again next time.
        let changed = self.rbac.each_ref().map(|cache| cache.as_ref().map(|cache| cache.changed()));
        if memo.changed != changed {
            let memo = &mut *memo;
            memo.index = Arc::new(memo.sources.refresh(&self.rbac, &memo.index));
            memo.changed = changed;
        }
        memo.index.clone()
    }

    fn object<T>(
        &self,
        group: &str,
        resource: &str,
        (namespace, name): (&str, &str),
        read: impl FnOnce(&storage::Object) -> T,
    ) -> Option<T> {
        self.cache.resource(group, resource)?.get(namespace, name).map(|object| read(&object))
    }
}

impl RbacView for ClusterViews {
    fn snapshot(&self) -> Option<Arc<dyn RbacView>> {
        Some(self.rbac())
    }

    fn cluster_role(&self, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.rbac().cluster_role(name)
    }

    fn role(&self, namespace: &str, name: &str) -> Option<Arc<[PolicyRule]>> {
        self.rbac().role(namespace, name)
    }

    fn cluster_role_bindings(&self) -> Arc<[Binding]> {
        self.rbac().cluster_role_bindings()
    }

    fn role_bindings(&self, namespace: &str) -> Arc<[Binding]> {
        self.rbac().role_bindings(namespace)
    }
}

impl NodeView for ClusterViews {
    fn pod_node(&self, namespace: &str, pod: &str) -> Option<String> {
        let node = self.object("", "pods", (namespace, pod), |pod| pod.field("spec.nodeName").map(str::to_owned))?;
        node.filter(|node| !node.is_empty())
    }

    fn any_pod_refers(&self, node: &str, namespace: &str, what: Reference, name: &str) -> bool {
        let Some(pods) = self.cache.resource("", "pods") else { return false };
        let filter = Filter::all().in_namespace(namespace).with_field("spec.nodeName", node);
        let mut any = false;
        pods.for_each(&filter, |pod| any = any || self.references.has(&pods, pod, what, name));
        any
    }

    fn volume(&self, name: &str) -> Option<Value> {
        self.object("", "persistentvolumes", ("", name), storage::Object::value)
    }

    fn any_volume(&self, word: &str, wanted: &dyn Fn(&Value) -> bool) -> bool {
        let Some(volumes) = self.cache.resource("", "persistentvolumes") else { return false };
        let mut any = false;
        // Most volumes need not be decoded.
        volumes.for_each(&Filter::all(), |volume| any = any || (volume.mentions(word) && wanted(&volume.value())));
        any
    }

    fn attachment_node(&self, attachment: &str) -> Option<String> {
        let value = self.object("storage.k8s.io", "volumeattachments", ("", attachment), storage::Object::value)?;
        Some(value["spec"]["nodeName"].as_str()?.to_owned())
    }

    fn slice_node(&self, slice: &str) -> Option<String> {
        let value = self.object("resource.k8s.io", "resourceslices", ("", slice), storage::Object::value)?;
        Some(value["spec"]["nodeName"].as_str()?.to_owned())
    }
}

impl Lookup for ClusterViews {
    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<Found> {
        let resource = match kind {
            BoundKind::ServiceAccount => "serviceaccounts",
            BoundKind::Pod => "pods",
            BoundKind::Secret => "secrets",
            BoundKind::Node => "nodes",
        };
        self.object("", resource, (namespace, name), |object| Found {
            uid: object.uid().to_owned(),
            // A deletion time that cannot be read has come.
            deleted: object.deletion_timestamp().map(|at| at.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH)),
        })
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Value> {
        self.object("", "secrets", (namespace, name), storage::Object::value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::authn::{UNAUTHENTICATED, UserInfo};
    use crate::authz::node::NodeAuthorizer;
    use crate::authz::rbac::RbacAuthorizer;
    use crate::authz::{Attributes, Authorizer};
    use crate::bootstrap_policy;
    use storage::memory::MemoryStore;
    use storage::watch_cache::ResourceSpec;
    use storage::{FieldPath, Put, Store};

    struct World {
        store: Arc<MemoryStore>,
        cache: WatchCache,
        views: Arc<ClusterViews>,
        _token: tokio_util::sync::DropGuard,
    }

    async fn world() -> World {
        let store = Arc::new(MemoryStore::new());
        let token = CancellationToken::new();
        let specs = vec![
            ResourceSpec::new(RBAC, "clusterroles", false),
            ResourceSpec::new(RBAC, "roles", true),
            ResourceSpec::new(RBAC, "clusterrolebindings", false),
            ResourceSpec::new(RBAC, "rolebindings", true),
            ResourceSpec::new("", "pods", true).with_fields([FieldPath::new("spec.nodeName")]),
            ResourceSpec::new("", "serviceaccounts", true),
        ];
        let cache = WatchCache::start(store.clone(), specs, token.clone()).await.unwrap();
        let views = ClusterViews::new(cache.clone());
        World { store, cache, views, _token: token.drop_guard() }
    }

    impl World {
        async fn put(&self, group: &str, resource: &str, object: &Value) {
            let cache = self.cache.resource(group, resource).unwrap();
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let key = cache.spec().key(&text("namespace"), &text("name")).unwrap();
            let revision = self.store.put(Put::overwrite(key, object.to_string())).await.unwrap();
            self.cache.wait_until_fresh(revision).await.unwrap();
        }

        async fn bootstrap(&self) {
            for object in bootstrap_policy::objects() {
                let resource = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
                self.put(RBAC, &resource, &object).await;
            }
        }

        fn can(&self, user: &UserInfo, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
            let request = Attributes::resource(user.clone(), verb, group, resource, namespace);
            RbacAuthorizer::new(self.views.clone()).authorize(&request).allowed()
        }
    }

    /// Of the others, nodes and users, the API server's table of all resources says what they may.
    #[tokio::test]
    async fn the_default_policy_lets_components_work() {
        let world = world().await;
        world.bootstrap().await;
        let admin = UserInfo::new("root", ["system:masters"]);
        let manager = UserInfo::new("system:kube-controller-manager", [""]);
        let scheduler = UserInfo::new("system:kube-scheduler", [""]);
        assert!(world.can(&admin, "delete", "apps", "deployments", "ns"));
        assert!(world.can(&manager, "watch", "example.com", "widgets", ""));
        assert!(!world.can(&manager, "create", "", "pods", "ns"), "its controllers have accounts of their own");
        let controller = |name: &str| UserInfo::service_account("kube-system", name);
        assert!(world.can(&controller("replicaset-controller"), "create", "", "pods", "ns"));
        assert!(!world.can(&controller("replicaset-controller"), "update", "apps", "deployments/status", "ns"));
        assert!(world.can(
            &controller("endpointslice-controller"),
            "update",
            "discovery.k8s.io",
            "endpointslices",
            "ns"
        ));
        assert!(!world.can(&controller("endpointslice-controller"), "get", "", "secrets", "ns"));
        assert!(world.can(&scheduler, "watch", "", "pods", ""));
        assert!(!world.can(&scheduler, "create", "", "pods", "ns"));
        let version = Attributes::non_resource(UserInfo::anonymous(), "get", "/version");
        assert!(UserInfo::anonymous().in_group(UNAUTHENTICATED));
        assert!(RbacAuthorizer::new(world.views.clone()).authorize(&version).allowed());
    }

    #[tokio::test]
    async fn changes_count_at_once() {
        let world = world().await;
        world.bootstrap().await;
        let jane = UserInfo::new("jane", [""]);
        assert!(!world.can(&jane, "get", "", "pods", "ns"));
        world.put(RBAC, "rolebindings", &bind_jane("ns", "view")).await;
        assert!(world.can(&jane, "get", "", "pods", "ns"));
        assert!(!world.can(&jane, "get", "", "pods", "other"));
        assert!(!world.can(&jane, "get", "example.com", "widgets", "ns"));
        // A role that adds itself to "view" by its label.
        let widgets = json!({
            "metadata": {"name": "widgets", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]}],
        });
        world.put(RBAC, "clusterroles", &widgets).await;
        assert!(world.can(&jane, "get", "example.com", "widgets", "ns"));
        let broken = json!({"metadata": {"name": "broken", "namespace": "ns"}, "roleRef": 7});
        world.put(RBAC, "rolebindings", &broken).await;
        assert!(world.can(&jane, "get", "", "pods", "ns"), "a broken object breaks nothing else");
    }

    #[tokio::test]
    async fn a_change_costs_what_it_changed() {
        let world = world().await;
        world.bootstrap().await;
        for n in 0..200 {
            world.put(RBAC, "rolebindings", &bind_jane(&format!("ns{n}"), "view")).await;
        }
        let before = world.views.rbac();
        let reads = || world.views.index.lock().unwrap().sources.reads();
        let read_before = reads();
        world.put(RBAC, "rolebindings", &bind_jane("ns7", "edit")).await;
        let after = world.views.rbac();
        assert_eq!(reads() - read_before, 1);
        assert_eq!(after.role_bindings("ns7")[0].role_ref.name, "edit");
        assert!(Arc::ptr_eq(&before.role_bindings("ns8"), &after.role_bindings("ns8")), "shared");
        let key = world.cache.resource(RBAC, "rolebindings").unwrap().spec().key("ns8", "viewers").unwrap();
        let (gone, _) = world.store.delete(&key, storage::Precondition::Any).await.unwrap();
        world.cache.wait_until_fresh(gone).await.unwrap();
        assert!(world.views.rbac().role_bindings("ns8").is_empty());
        assert_eq!(reads() - read_before, 1, "a deletion needs no reading");
    }

    /// Kubelets ask before anything limits them: what a pod refers to is read once, however often they do.
    #[tokio::test]
    async fn a_pod_is_read_once_for_every_change() {
        let world = world().await;
        let put = async |name: &str, secret: &str| {
            let secret = json!({"secret": {"secretName": secret}});
            let spec = json!({"nodeName": "n1", "volumes": [secret, {"name": "scratch", "ephemeral": {}}]});
            world.put("", "pods", &json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec})).await;
        };
        for n in 0..20 {
            put(&format!("p{n}"), "first").await;
        }
        let refers = |what, name: &str| world.views.any_pod_refers("n1", "ns", what, name);
        let reads = || world.views.references.reads();
        for _ in 0..3 {
            assert!(!refers(Reference::Secret, "none") && !refers(Reference::ConfigMap, "first"));
            assert!(refers(Reference::Secret, "first"));
            assert!(refers(Reference::PersistentVolumeClaim, "p7-scratch"), "named after pod and volume");
        }
        assert_eq!(reads(), 20);
        assert_eq!(world.views.pod_node("ns", "p7").as_deref(), Some("n1"));
        put("p7", "second").await;
        assert!(refers(Reference::Secret, "second") && !refers(Reference::Secret, "none"));
        assert_eq!(reads(), 21, "only what changed");
        // A node's own pods tell it nothing.
        let mirror = json!({"metadata": {"name": "p7", "namespace": "ns", "annotations": {crate::pod::MIRROR: "x"}},
            "spec": {"nodeName": "n1", "volumes": [{"secret": {"secretName": "second"}}]}});
        world.put("", "pods", &mirror).await;
        assert!(!refers(Reference::Secret, "second"));
    }

    #[tokio::test]
    async fn pods_that_are_gone_are_forgotten() {
        let world = world().await;
        let pods = world.cache.resource("", "pods").unwrap();
        for n in 0..100 {
            let name = format!("p{n}");
            let pod = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"nodeName": "n1"}});
            world.put("", "pods", &pod).await;
            assert!(!world.views.any_pod_refers("n1", "ns", Reference::Secret, "none"));
            let (gone, _) =
                world.store.delete(&pods.spec().key("ns", &name).unwrap(), storage::Precondition::Any).await.unwrap();
            world.cache.wait_until_fresh(gone).await.unwrap();
        }
        let kept = world.views.references.len();
        assert!(kept < 40, "{kept}");
    }

    fn bind_jane(namespace: &str, role: &str) -> Value {
        json!({
            "metadata": {"name": "viewers", "namespace": namespace},
            "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [{"kind": "User", "name": "jane"}],
        })
    }

    #[tokio::test]
    async fn nodes_and_tokens_are_looked_up() {
        let world = world().await;
        let pod = json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "u1"},
            "spec": {"nodeName": "n1", "volumes": [{"secret": {"secretName": "tls"}}]},
        });
        world.put("", "pods", &pod).await;
        let node = NodeAuthorizer::new(world.views.clone());
        let ask = |node_name: &str, name: &str| {
            let user = UserInfo::node(node_name);
            let request = Attributes { name: name.into(), ..Attributes::resource(user, "get", "", "secrets", "ns") };
            node.authorize(&request).allowed()
        };
        assert!(ask("n1", "tls"));
        assert!(!ask("n2", "tls") && !ask("n1", "other"));
        let get = |node_name: &str, name: &str| {
            let user = UserInfo::node(node_name);
            let request = Attributes { name: name.into(), ..Attributes::resource(user, "get", "", "pods", "ns") };
            node.authorize(&request).allowed()
        };
        assert!(get("n1", "web") && !get("n2", "web") && !get("n1", "tls") && !get("", "web"));
        assert_eq!(world.views.find(BoundKind::Pod, "ns", "web").unwrap().uid, "u1");
        assert!(world.views.find(BoundKind::Node, "", "n1").is_none());
    }
}
