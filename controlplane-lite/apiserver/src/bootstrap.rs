//! What every cluster has from its first second: namespaces, default policy, priority classes, and the `kubernetes`
//! Service with its endpoints. All of it is created when missing and never overwritten, except what this server owns
//! (its own endpoints) and what stored default roles and bindings lack.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::{Value, json};
use tracing::warn;

use super::aggregation::{self, Moment, register};
use super::allocate::objects::{DEFAULT_SERVICE_CIDR, default_service_cidr, with_ready};
use super::priority;
use super::registry::{Change, RegistryError, Resource};
use super::server::Server;
use super::services::REPAIR_PERIOD;
use scheme::access::{ensure_map, str_at};
use scheme::{Kind, meta};

mod authentication;

/// Namespaces that always are.
pub const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Name and labels of the API's own Service.
const KUBERNETES: &str = "kubernetes";
const REPAIR_EVERY: Duration = Duration::from_secs(30);

/// Creates what is missing.
///
/// # Errors
/// When the store fails.
pub async fn run(server: &Arc<Server>) -> Result<(), RegistryError> {
    // All at once, so that the store commits them together.
    let namespaces = NAMESPACES.map(|name| ensure(server, "", "namespaces", namespace(name)));
    let classes = priority_classes().map(|object| ensure(server, "scheduling.k8s.io", "priorityclasses", object));
    let (namespaces, classes) = (try_join_all(namespaces), try_join_all(classes));
    let own = async { tokio::try_join!(priority::objects(server), register(server, Moment::Start)) };
    let services = async { tokio::try_join!(reconcile_service(server), reconcile_service_cidr(server)) };
    tokio::try_join!(namespaces, classes, policy(server), services, own)?;
    // In a namespace that is new itself.
    authentication::reconcile(server).await?;
    server.registry.fresh().await?;
    priority::sync(server).await?;
    aggregation::reload(server);
    server.bootstrapped.store(true, Ordering::Relaxed);
    Ok(())
}

/// Keeps the API's Service and endpoints in place until the server ends.
pub async fn keep(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(REPAIR_EVERY);
    ticks.tick().await;
    let mut repaired = tokio::time::Instant::now();
    loop {
        // Cancel-safe: a lost tick only delays a repair.
        tokio::select! {
            _ = ticks.tick() => {}
            () = server.stopping.cancelled() => return,
        }
        if let Err(error) = reconcile_service(&server).await {
            warn!(error = &error as &dyn Error, "cannot keep the kubernetes Service");
        }
        if let Err(error) = reconcile_service_cidr(&server).await {
            warn!(error = &error as &dyn Error, "cannot keep the default ServiceCIDR");
        }
        if let Err(error) = authentication::reconcile(&server).await {
            warn!(error = &error as &dyn Error, "cannot keep the ConfigMap for the authentication of other servers");
        }
        if repaired.elapsed() >= REPAIR_PERIOD {
            repaired = tokio::time::Instant::now();
            if let Err(error) = server.services.repair(&server.registry).await {
                warn!(error = &error as &dyn Error, "cannot repair what Services hold");
            }
        }
    }
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })
}

fn priority_classes() -> [Value; 2] {
    [("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
     ("system-cluster-critical", 2_000_000_000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.")]
    .map(|(name, value, description)| json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name, "generation": 1},
        "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
    }))
}

async fn policy(server: &Arc<Server>) -> Result<(), RegistryError> {
    let objects = auth::bootstrap_policy::objects().into_iter().map(|object| {
        let plural = match str_at(&object, &["kind"]) {
            "ClusterRole" => "clusterroles",
            "ClusterRoleBinding" => "clusterrolebindings",
            "Role" => "roles",
            _ => "rolebindings",
        };
        reconcile_policy(server, plural, object)
    });
    try_join_all(objects).await.map(drop)
}

/// Creates a default role or binding, or adds what the stored one lacks.
async fn reconcile_policy(server: &Server, plural: &str, wanted: Value) -> Result<(), RegistryError> {
    let group = "rbac.authorization.k8s.io";
    let Some(resource) = server.registry.get(group, plural) else { return Ok(()) };
    let text = |field: &str| str_at(&wanted, &["metadata", field]).to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let lacks = |stored: &Value| auth::bootstrap_policy::reconcile(stored, &wanted);
    match resource.cache().get(&namespace, &name) {
        None => return ensure(server, group, plural, wanted).await,
        Some(stored) if lacks(&stored.value()).is_none() => return Ok(()),
        Some(_) => {}
    }
    let written = resource
        .change::<_, RegistryError>(&namespace, &name, false, |old| Ok(lacks(old).map_or(Change::Keep, Change::Write)))
        .await;
    match written {
        Ok(_) => tracing::info!(plural, name, "default policy completed"),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Creates an object unless one of its name is there.
pub(super) async fn ensure(server: &Server, group: &str, plural: &str, object: Value) -> Result<(), RegistryError> {
    let Some(resource) = server.registry.get(group, plural) else { return Ok(()) };
    let name = str_at(&object, &["metadata", "name"]).to_owned();
    let namespace = str_at(&object, &["metadata", "namespace"]).to_owned();
    if resource.cache().get(&namespace, &name).is_some() {
        return Ok(());
    }
    match create(server, &resource, &namespace, &name, object).await {
        Err(error) if error.is_already_exists() => Ok(()),
        result => result,
    }
}

async fn create(
    server: &Server,
    resource: &Resource,
    namespace: &str,
    name: &str,
    mut object: Value,
) -> Result<(), RegistryError> {
    complete(server, &resource.kind, &mut object);
    resource.create(namespace, name, object, false).await.map(drop)
}

fn complete(server: &Server, kind: &Kind, object: &mut Value) {
    kind.default(object);
    let generation = object["metadata"]["generation"].clone();
    meta::fill_create(object, &server.new_uid(), &server.now_text());
    if !generation.is_null() {
        ensure_map(object, &["metadata"]).insert("generation".into(), generation);
    }
}

/// Creates the ServiceCIDR of this server's range, or says that the stored one is ready.
async fn reconcile_service_cidr(server: &Arc<Server>) -> Result<(), RegistryError> {
    let (group, plural) = ("networking.k8s.io", "servicecidrs");
    let Some(resource) = server.registry.get(group, plural) else { return Ok(()) };
    let (cidr, now) = (server.service_cidr, server.now_text());
    let Some(stored) = resource.cache().get("", DEFAULT_SERVICE_CIDR) else {
        return ensure(server, group, plural, default_service_cidr(cidr, &now)).await;
    };
    if with_ready(&stored.value(), cidr, &now).is_none() {
        return Ok(());
    }
    let change = |old: &Value| Ok(with_ready(old, cidr, &now).map_or(Change::Keep, Change::Write));
    match resource.change::<_, RegistryError>("", DEFAULT_SERVICE_CIDR, false, change).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Makes the Service, its Endpoints and its EndpointSlice what this server's address says.
async fn reconcile_service(server: &Arc<Server>) -> Result<(), RegistryError> {
    let (address, port) = server.advertise;
    let service_ip = server.service_cidr.nth(1);
    let metadata = json!({
        "name": KUBERNETES, "namespace": "default",
        "labels": {"component": "apiserver", "provider": "kubernetes"},
    });
    if let Some(services) = server.registry.get("", "services")
        && services.cache().get("default", KUBERNETES).is_none()
    {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {
                "type": "ClusterIP", "clusterIP": service_ip.to_string(), "clusterIPs": [service_ip.to_string()],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            },
        });
        match server.services.fill(&services.kind, &mut service, None) {
            Ok(mut grant) => {
                grant.sent();
                let made = create(server, &services, "default", KUBERNETES, service).await;
                grant.answered(&made, false);
                made.or_else(|error| if error.is_already_exists() { Ok(()) } else { Err(error) })?;
            }
            Err(refused) => warn!(?refused, "cannot give the kubernetes Service its address"),
        }
    }
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": KUBERNETES, "namespace": "default",
                     "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    own(server, "", "endpoints", endpoints, &["subsets"]).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": KUBERNETES, "namespace": "default",
                     "labels": {"kubernetes.io/service-name": KUBERNETES}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    own(server, "discovery.k8s.io", "endpointslices", slice, &["endpoints", "ports"]).await
}

/// Creates an object, or makes the given fields of the stored one equal.
async fn own(
    server: &Server,
    group: &str,
    plural: &str,
    mut wanted: Value,
    fields: &[&str],
) -> Result<(), RegistryError> {
    let Some(resource) = server.registry.get(group, plural) else { return Ok(()) };
    resource.kind.default(&mut wanted);
    let Some(current) = resource.cache().get("default", KUBERNETES) else {
        return ensure(server, group, plural, wanted).await;
    };
    let current = current.value();
    if fields.iter().all(|field| current[*field] == wanted[*field]) {
        return Ok(());
    }
    let written = resource
        .change::<_, RegistryError>("default", KUBERNETES, false, |old| {
            let mut new = old.clone();
            for field in fields {
                new[*field] = wanted[*field].clone();
            }
            Ok(Change::Write(new))
        })
        .await;
    match written {
        Err(error) if error.is_not_found() => ensure(server, group, plural, wanted).await,
        result => result.map(drop),
    }
}
