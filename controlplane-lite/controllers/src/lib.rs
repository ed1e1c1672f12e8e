//! The controllers of the bundled controller manager: ordinary API clients that
//! share one set of caches. Each is a folder with a pure plan and a thin sync.
//! None of them touches storage.

pub mod accounts;
pub mod bootstrap;
mod clients;
mod clusterroles;
mod csr;
mod deployment;
mod disruption;
mod endpoints;
mod garbage;
mod informers;
mod mirroring;
mod moment;
mod namespace;
pub mod nodeipam;
mod nodelifecycle;
mod ownership;
mod podgc;
mod protection;
mod replicaset;
mod resourcequota;

use std::sync::Arc;
use std::time::Duration;

pub use clients::Clients;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use client::Status;
use client::events::Recorder;
use client::workqueue::Runner;
use informers::Informers;
use nodeipam::Cidr;

/// What the controllers need to know of the cluster.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// The range pod networks are cut from, for example `10.42.0.0/16`. `None`
    /// leaves `spec.podCIDR` of nodes alone.
    pub cluster_cidr: Option<Cidr>,
    /// The range Services get their addresses from: no node gets a certificate for one of them.
    pub service_cidr: Option<Cidr>,
    /// Prefix length of one node's pod network.
    pub node_cidr_mask: u8,
    /// PEM of the cluster's CA, published as `kube-root-ca.crt` in each
    /// namespace. Empty: nothing is published.
    pub root_ca_pem: String,
    /// Who signs the tokens of accounts that Secrets ask for. `None` leaves such Secrets as they are.
    pub token_signer: Option<accounts::TokenSigner>,
    /// Who signs what was approved. `None` leaves signing to somebody else.
    pub signer: Option<Arc<dyn csr::CertificateSigner>>,
    /// Names and addresses under which clients know the API: no node gets a certificate for them.
    pub api_names: Vec<String>,
    /// How long a node may be silent before it counts as unreachable.
    pub node_monitor_grace_period: Duration,
    /// How long a node that has never reported may be silent.
    pub node_startup_grace_period: Duration,
    /// Nodes tainted NoExecute per second and zone.
    pub node_eviction_rate: f64,
    /// The same for zones where most nodes are not ready (zones over 50 nodes).
    pub secondary_node_eviction_rate: f64,
    /// Share of not-ready nodes from which a zone counts as disrupted.
    pub unhealthy_zone_threshold: f64,
    /// Finished pods kept in the cluster; 0 keeps all.
    pub terminated_pod_gc_threshold: usize,
    /// Workers of each of the busy controllers.
    pub workers: usize,
    /// Which controllers run, as upstream's `--controllers`: `*` for all, `name` for one more, `-name` for one less.
    pub controllers: Vec<String>,
    /// Where informers and workers report what they do.
    pub status: Status,
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            cluster_cidr: Some(Cidr::new([10, 42, 0, 0].into(), 16).expect("a /16 is a valid range")),
            service_cidr: None,
            node_cidr_mask: 24,
            root_ca_pem: String::new(),
            token_signer: None,
            signer: None,
            api_names: Vec::new(),
            node_monitor_grace_period: Duration::from_secs(40),
            node_startup_grace_period: Duration::from_secs(60),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            terminated_pod_gc_threshold: 12_500,
            workers: 5,
            controllers: vec!["*".to_owned()],
            status: Status::default(),
        }
    }
}

/// What every controller works with.
#[derive(Clone)]
pub(crate) struct Context {
    /// With the rights of this controller.
    pub(crate) client: Client,
    clients: Clients,
    pub(crate) informers: Arc<Informers>,
    pub(crate) events: Recorder,
    pub(crate) config: Arc<ControllersConfig>,
    pub(crate) tasks: TaskTracker,
    pub(crate) token: CancellationToken,
    /// The tasks, the token and the status, for workers.
    pub(crate) runner: Runner,
}

/// Runs every controller until the token is cancelled, then waits for the work
/// in hand. Starts before the API server answers are fine: watches retry.
pub async fn run(clients: Clients, config: ControllersConfig, token: CancellationToken) {
    // Its tasks end with it, however it ends: the next run has its own.
    let token = token.child_token();
    let _end = token.clone().drop_guard();
    let client = clients.shared().clone();
    let tasks = TaskTracker::new();
    let runner = Runner { tasks: tasks.clone(), token: token.clone(), status: config.status.clone() };
    let events = Recorder::start(client.clone(), "controller-manager", &tasks, token.clone());
    let informers = Informers::start(&client, &runner, &events);
    let config = Arc::new(config);
    let ctx =
        Context { client, clients, informers, events, config, tasks: tasks.clone(), token: token.clone(), runner };
    // No plan is made on half a picture.
    let synced = tokio::select! {
        () = token.cancelled() => false,
        () = ctx.informers.wait_synced() => true,
    };
    if synced {
        tracing::info!("controllers started");
        start(&ctx);
        token.cancelled().await;
    }
    tasks.close();
    tasks.wait().await;
}

impl Context {
    /// The same with the rights of another account, for what upstream's controllers do apart.
    pub(crate) fn acting_as(&self, account: &str) -> Self {
        Self { client: self.clients.of(account), ..self.clone() }
    }

    /// The same with the rights of the controller manager itself, for what upstream's does with its own client.
    pub(crate) fn as_manager(&self) -> Self {
        Self { client: self.clients.shared().clone(), ..self.clone() }
    }
}

type Start = fn(&Context);

/// Every controller under upstream's name, with the account in `kube-system` that it acts as.
const CONTROLLERS: [(&str, &str, Start); 18] = [
    ("serviceaccount-controller", "service-account-controller", accounts::start),
    ("serviceaccount-token-controller", "service-account-controller", accounts::start_tokens),
    ("bootstrap-signer-controller", "bootstrap-signer", bootstrap::start),
    ("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", clusterroles::start),
    ("certificatesigningrequest-controller", "certificate-controller", csr::start),
    ("node-ipam-controller", "node-controller", nodeipam::start),
    ("node-lifecycle-controller", "node-controller", nodelifecycle::start),
    ("deployment-controller", "deployment-controller", deployment::start),
    ("replicaset-controller", "replicaset-controller", replicaset::start),
    ("disruption-controller", "disruption-controller", disruption::start),
    ("endpointslice-controller", "endpointslice-controller", endpoints::start),
    ("endpointslice-mirroring-controller", "endpointslicemirroring-controller", mirroring::start),
    ("namespace-controller", "namespace-controller", namespace::start),
    ("persistentvolumeclaim-protection-controller", "pvc-protection-controller", protection::start_claims),
    ("persistentvolume-protection-controller", "pv-protection-controller", protection::start_volumes),
    ("resourcequota-controller", "resourcequota-controller", resourcequota::start),
    ("garbage-collector-controller", "generic-garbage-collector", garbage::start),
    ("pod-garbage-collector-controller", "pod-garbage-collector", podgc::start),
];

/// The names that `ControllersConfig::controllers` may have.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONTROLLERS.iter().map(|(name, ..)| *name)
}

/// Whether `name` runs: the first word about it counts, then `*`.
fn enabled(name: &str, controllers: &[String]) -> bool {
    for word in controllers {
        if word == name {
            return true;
        }
        if word.strip_prefix('-') == Some(name) {
            return false;
        }
    }
    controllers.iter().any(|word| word == "*")
}

fn start(ctx: &Context) {
    for (_, account, start) in CONTROLLERS.iter().filter(|(name, ..)| enabled(name, &ctx.config.controllers)) {
        start(&ctx.acting_as(account));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_as_upstream_chooses_them() {
        let chosen = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            names().filter(|name| enabled(name, &words)).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&["*"]), names().collect::<Vec<_>>());
        assert_eq!(chosen(&["replicaset-controller"]), ["replicaset-controller"]);
        assert_eq!(chosen(&["*", "-replicaset-controller"]).len(), CONTROLLERS.len() - 1);
        assert_eq!(chosen(&["-replicaset-controller", "replicaset-controller"]), [""; 0], "the first word counts");
        assert_eq!(chosen(&[]), [""; 0]);
    }
}
