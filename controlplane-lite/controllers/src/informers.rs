//! The shared caches of the controllers: one list and watch per kind, however
//! many controllers read it. Does not decide anything.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Secret,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use client::events::Recorder;
use client::workqueue::Runner;
use client::{Filter, Objects, Observer, Store, reflect};

use super::{accounts, bootstrap};

/// The caches every controller may read. Reading a cache before
/// [`Informers::wait_synced`] has returned shows half a picture.
#[derive(Debug)]
pub struct Informers {
    /// All pods, indexed by controller.
    pub pods: Arc<Store<Pod>>,
    /// All nodes.
    pub nodes: Arc<Store<Node>>,
    /// All deployments.
    pub deployments: Arc<Store<Deployment>>,
    /// All replica sets, indexed by controller.
    pub replica_sets: Arc<Store<ReplicaSet>>,
    /// All disruption budgets of pods.
    pub disruption_budgets: Arc<Store<PodDisruptionBudget>>,
    /// All volumes.
    pub persistent_volumes: Arc<Store<PersistentVolume>>,
    /// All claims of volumes.
    pub persistent_volume_claims: Arc<Store<PersistentVolumeClaim>>,
    /// All quotas of resources.
    pub resource_quotas: Arc<Store<ResourceQuota>>,
    /// All services.
    pub services: Arc<Store<Service>>,
    /// All endpoints.
    pub endpoints: Arc<Store<Endpoints>>,
    /// All endpoint slices.
    pub endpoint_slices: Arc<Store<EndpointSlice>>,
    /// All namespaces.
    pub namespaces: Arc<Store<Namespace>>,
    /// All service accounts.
    pub service_accounts: Arc<Store<ServiceAccount>>,
    /// The config maps named `kube-root-ca.crt`, and no others.
    pub root_cas: Arc<Store<ConfigMap>>,
    /// All cluster roles.
    pub cluster_roles: Arc<Store<ClusterRole>>,
    /// All requests for certificates.
    pub signing_requests: Arc<Store<CertificateSigningRequest>>,
    /// The Secrets that are bootstrap tokens, and no others.
    pub bootstrap_tokens: Arc<Store<Secret>>,
    /// The Secrets that hold tokens of service accounts, and no others.
    pub account_tokens: Arc<Store<Secret>>,
    /// The config map `cluster-info`, and no other.
    pub cluster_info: Arc<Store<ConfigMap>>,
    /// The leases of nodes (namespace `kube-node-lease`).
    pub node_leases: Arc<Store<Lease>>,
}

impl Informers {
    /// Starts every watch on `tasks`.
    pub fn start(client: &Client, runner: &Runner, events: &Recorder) -> Arc<Self> {
        let observed = &Observed { runner, events };
        let root_ca = Filter { fields: format!("metadata.name={}", accounts::ROOT_CA_NAME), ..Filter::default() };
        let leases: Api<Lease> = Api::namespaced(client.clone(), super::nodelifecycle::LEASE_NAMESPACE);
        let of_tokens = Filter { fields: format!("type={}", bootstrap::TOKEN_TYPE), ..Filter::default() };
        let tokens: Api<Secret> = Api::namespaced(client.clone(), bootstrap::TOKEN_NAMESPACE);
        let of_accounts = Filter { fields: format!("type={}", accounts::TOKEN_TYPE), ..Filter::default() };
        let (info_in, info) = bootstrap::CLUSTER_INFO;
        let info = Filter { fields: format!("metadata.name={info}"), ..Filter::default() };
        Arc::new(Self {
            pods: cluster_wide(client, true, "pods", observed),
            nodes: cluster_wide(client, false, "nodes", observed),
            deployments: cluster_wide(client, false, "deployments", observed),
            replica_sets: cluster_wide(client, true, "replicasets", observed),
            disruption_budgets: cluster_wide(client, false, "poddisruptionbudgets", observed),
            persistent_volumes: cluster_wide(client, false, "persistentvolumes", observed),
            persistent_volume_claims: cluster_wide(client, false, "persistentvolumeclaims", observed),
            resource_quotas: cluster_wide(client, false, "resourcequotas", observed),
            services: cluster_wide(client, false, "services", observed),
            endpoints: cluster_wide(client, false, "endpoints", observed),
            endpoint_slices: cluster_wide(client, false, "endpointslices", observed),
            namespaces: cluster_wide(client, false, "namespaces", observed),
            service_accounts: cluster_wide(client, false, "serviceaccounts", observed),
            root_cas: spawn(Api::all(client.clone()), root_ca, false, "configmaps", observed),
            cluster_roles: cluster_wide(client, false, "clusterroles", observed),
            signing_requests: cluster_wide(client, false, "certificatesigningrequests", observed),
            bootstrap_tokens: spawn(tokens, of_tokens, false, "secrets", observed),
            account_tokens: spawn(Api::all(client.clone()), of_accounts, false, "secrets", observed),
            cluster_info: spawn(Api::namespaced(client.clone(), info_in), info, false, "configmaps", observed),
            node_leases: spawn(leases, Filter::default(), false, "leases", observed),
        })
    }

    /// Waits until every cache has its first complete list.
    pub async fn wait_synced(&self) {
        tokio::join!(
            self.pods.wait_synced(),
            self.nodes.wait_synced(),
            self.deployments.wait_synced(),
            self.replica_sets.wait_synced(),
            self.disruption_budgets.wait_synced(),
            self.persistent_volumes.wait_synced(),
            self.persistent_volume_claims.wait_synced(),
            self.resource_quotas.wait_synced(),
            self.services.wait_synced(),
            self.endpoints.wait_synced(),
            self.endpoint_slices.wait_synced(),
            self.namespaces.wait_synced(),
            self.service_accounts.wait_synced(),
            self.root_cas.wait_synced(),
            self.cluster_roles.wait_synced(),
            self.signing_requests.wait_synced(),
            self.bootstrap_tokens.wait_synced(),
            self.account_tokens.wait_synced(),
            self.cluster_info.wait_synced(),
            self.node_leases.wait_synced(),
        );
    }
}

/// Where watches run and what they report to.
struct Observed<'a> {
    runner: &'a Runner,
    events: &'a Recorder,
}

fn cluster_wide<K>(client: &Client, by_owner: bool, what: &'static str, observed: &Observed<'_>) -> Arc<Store<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    spawn(Api::all(client.clone()), Filter::default(), by_owner, what, observed)
}

fn spawn<K>(api: Api<K>, filter: Filter, by_owner: bool, what: &'static str, observed: &Observed<'_>) -> Arc<Store<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let store = Store::new(by_owner);
    let sink = store.clone();
    let Observed { runner, events } = observed;
    let name = if filter.fields.is_empty() { what.to_owned() } else { format!("{what}?{}", filter.fields) };
    let observer =
        Observer::named(what, name, &runner.status).with_events((*events).clone(), K::api_version(&()), K::kind(&()));
    let token = runner.token.clone();
    runner.tasks.spawn(async move { reflect(&Objects(api), &filter, &*sink, &observer, token).await });
    store
}
