//! The controllers of the bundled controller manager: ordinary API clients that
//! share one set of caches. Each is a folder with a pure plan and a thin sync.
//! None of them touches storage.

pub mod accounts;
pub mod bootstrap;
pub mod csr;
pub mod deployment;
pub mod endpoints;
pub mod garbage;
pub mod informers;
pub mod namespace;
pub mod nodeipam;
pub mod nodelifecycle;
mod ownership;
pub mod podgc;
pub mod replicaset;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use client::events::Recorder;
use informers::Informers;
use nodeipam::Cidr;

/// What the controllers need to know of the cluster.
#[derive(Debug, Clone)]
pub struct ControllersConfig {
    /// The range pod networks are cut from, for example `10.42.0.0/16`. `None`
    /// leaves `spec.podCIDR` of nodes alone.
    pub cluster_cidr: Option<Cidr>,
    /// Prefix length of one node's pod network.
    pub node_cidr_mask: u8,
    /// PEM of the cluster's CA, published as `kube-root-ca.crt` in each
    /// namespace. Empty: nothing is published.
    pub root_ca_pem: String,
    /// Who signs what was approved. `None` leaves signing to somebody else.
    pub signer: Option<Arc<dyn csr::CertificateSigner>>,
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
}

impl Default for ControllersConfig {
    fn default() -> Self {
        Self {
            cluster_cidr: Some(Cidr::new([10, 42, 0, 0].into(), 16).expect("a /16 is a valid range")),
            node_cidr_mask: 24,
            root_ca_pem: String::new(),
            signer: None,
            node_monitor_grace_period: Duration::from_secs(40),
            node_startup_grace_period: Duration::from_secs(60),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            terminated_pod_gc_threshold: 12_500,
            workers: 5,
        }
    }
}

/// What every controller works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) informers: Arc<Informers>,
    pub(crate) events: Recorder,
    pub(crate) config: Arc<ControllersConfig>,
    pub(crate) tasks: TaskTracker,
    pub(crate) token: CancellationToken,
}

/// Runs every controller until the token is cancelled, then waits for the work
/// in hand. Starts before the API server answers are fine: watches retry.
pub async fn run(client: Client, config: ControllersConfig, token: CancellationToken) {
    let tasks = TaskTracker::new();
    let informers = Informers::start(&client, &tasks, &token);
    let events = Recorder::start(client.clone(), "controller-manager", &tasks, token.clone());
    let config = Arc::new(config);
    let ctx = Context { client, informers, events, config, tasks: tasks.clone(), token: token.clone() };
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

fn start(ctx: &Context) {
    accounts::start(ctx);
    bootstrap::start(ctx);
    csr::start(ctx);
    nodeipam::start(ctx);
    nodelifecycle::start(ctx);
    deployment::start(ctx);
    replicaset::start(ctx);
    endpoints::start(ctx);
    namespace::start(ctx);
    garbage::start(ctx);
    podgc::start(ctx);
}
