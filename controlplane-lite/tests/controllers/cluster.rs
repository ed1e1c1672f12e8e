//! A control plane in one process, nodes that exist on paper only, and waiting
//! for what ought to happen.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::sync::Mutex;

use controlplane_lite::apiserver::ApiServer;
use controlplane_lite::auth::authn::UserInfo;
use controlplane_lite::auth::authn::service_account::Reference;
use controlplane_lite::controllers::accounts::{AccountToken, TokenSigner};
use controlplane_lite::controllers::{self, Clients, ControllersConfig};
use controlplane_lite::scheduler::{self, SchedulerConfig};
use futures::StreamExt;
use harness::kubectl::Kubectl;
use harness::time;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use apiserver::testing::Served;

pub struct Cluster {
    /// As administrator.
    pub client: Client,
    /// As the controllers.
    pub manager: Clients,
    /// As the scheduler.
    pub scheduler: Client,
    signer: TokenSigner,
    server: Option<ApiServer>,
    tasks: TaskTracker,
    token: CancellationToken,
    controllers: Mutex<(TaskTracker, CancellationToken)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// What a real cluster's components are given by its server: clients with their identities and rights, and its key.
fn components(server: &ApiServer) -> (Clients, Client, TokenSigner) {
    let client = |name| server.client(UserInfo::new(name, ["system:authenticated"]));
    let of_accounts = server.clone();
    let account = move |name: &str| of_accounts.client(UserInfo::service_account("kube-system", name));
    let issuer = server.server().access.issuer().clone();
    let signer = TokenSigner::new(move |of: AccountToken<'_>| {
        let account = Reference::new(of.account, of.uid);
        issuer.issue_for_secret(of.namespace, &account, of.secret).map_err(|error| error.to_string())
    });
    (Clients::new(client("system:kube-controller-manager"), account), client("system:kube-scheduler"), signer)
}

pub fn config() -> ControllersConfig {
    ControllersConfig { root_ca_pem: "PEM".into(), ..ControllersConfig::default() }
}

impl Cluster {
    pub async fn start(config: ControllersConfig) -> Self {
        let (server, client) = apiserver::testing::start().await;
        let components = components(&server);
        Self::over(client, components, Some(server), config).await
    }

    /// The same behind a port, for kubectl.
    pub async fn serve(config: ControllersConfig) -> (Self, Served, Kubectl) {
        let served = apiserver::testing::serve().await;
        let kubectl = Kubectl::with_config(served.dir.path(), &served.dir.path().join("admin"));
        (Self::over(served.client.clone(), components(served.server()), None, config).await, served, kubectl)
    }

    async fn over(
        client: Client,
        (manager, scheduler, signer): (Clients, Client, TokenSigner),
        server: Option<ApiServer>,
        config: ControllersConfig,
    ) -> Self {
        let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
        let controllers = Mutex::new((TaskTracker::new(), token.child_token()));
        let cluster = Self { client, manager, scheduler, signer, server, tasks, token, controllers };
        cluster.start_controllers(config);
        // Pods need the account of their namespace.
        cluster.wait_for("default account", || cluster.exists::<ServiceAccount>("default")).await;
        cluster
    }

    pub fn start_controllers(&self, config: ControllersConfig) {
        let (tasks, token) = (TaskTracker::new(), self.token.child_token());
        let config = ControllersConfig { token_signer: Some(self.signer.clone()), ..config };
        tasks.spawn(controllers::run(self.manager.clone(), config, token.clone()));
        tasks.spawn(scheduler::run(self.scheduler.clone(), SchedulerConfig::default(), token.clone()));
        *self.controllers.lock().unwrap() = (tasks, token);
    }

    /// Ends controllers and scheduler; fails if they do not end.
    pub async fn stop_controllers(&self) {
        let (tasks, token) = self.controllers.lock().unwrap().clone();
        token.cancel();
        tasks.close();
        time::within("the controllers' end", tasks.wait()).await.unwrap();
    }

    /// Runs kubelets for all nodes: bound pods become ready, deleted pods end.
    pub fn kubelets(&self) {
        let (client, token) = (self.client.clone(), self.token.clone());
        self.tasks.spawn(async move {
            let mut events = Box::pin(watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()));
            let mut ip = 1;
            loop {
                let event = tokio::select! {
                    () = token.cancelled() => return,
                    event = events.next() => event.unwrap(),
                };
                if let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event {
                    ip += 1;
                    run_pod(&client, pod, ip).await;
                }
            }
        });
    }

    /// A client of somebody else.
    pub fn client_as(&self, user: UserInfo) -> Client {
        self.server.as_ref().expect("not behind a port").client(user)
    }

    pub async fn node(&self, name: &str) -> Node {
        let node: Node = from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}}
        }))
        .unwrap();
        let api: Api<Node> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &node).await.unwrap();
        self.set_ready(name, "True").await;
        self.wait_for("untainted node", || async {
            let node = api.get(name).await.unwrap();
            node.spec.and_then(|s| s.taints).unwrap_or_default().is_empty()
        })
        .await;
        api.get(name).await.unwrap()
    }

    pub async fn set_ready(&self, name: &str, status: &str) {
        let now = jiff::Timestamp::now().to_string();
        let condition = json!({"type": "Ready", "status": status, "reason": "Test", "lastHeartbeatTime": now, "lastTransitionTime": now});
        let patch = json!({"status": {
            "conditions": [condition],
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        self.api::<K>().create(&PostParams::default(), &from_value(value).unwrap()).await.unwrap()
    }

    pub async fn patch<K>(&self, name: &str, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&value)).await.unwrap()
    }

    pub async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().list(&Default::default()).await.unwrap().items
    }

    pub async fn exists<K>(&self, name: &str) -> bool
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        self.api::<K>().get_opt(name).await.unwrap().is_some()
    }

    /// Polls a condition until it holds.
    pub async fn wait_for<F, Fut>(&self, what: &str, mut check: F)
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = bool>,
    {
        time::eventually_true(what, async || check().await).await.unwrap();
    }

    pub async fn events(&self, reason: &str) -> Vec<String> {
        let events = self.list::<k8s_openapi::api::core::v1::Event>().await;
        events.into_iter().filter(|e| e.reason.as_deref() == Some(reason)).filter_map(|e| e.message).collect()
    }
}

async fn run_pod(client: &Client, pod: Pod, ip: u32) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
    let bound = pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_some();
    let started = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).is_some();
    let held = pod.annotations().contains_key("test/hold");
    if pod.metadata.deletion_timestamp.is_some() && bound && !held {
        let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
    } else if bound && !started {
        let ready = if pod.annotations().contains_key("test/broken") { "False" } else { "True" };
        let address = format!("10.42.{}.{}", ip / 250, ip % 250);
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": jiff::Timestamp::now().to_string()}]}});
        let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&status)).await;
    }
}

/// A Deployment of one container.
pub fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}
        }
    })
}
