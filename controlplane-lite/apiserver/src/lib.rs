//! The Kubernetes API over a [`Store`](storage::Store): requests in, objects and watches out.
//!
//! The only module that touches storage. Knows nothing of scheduling, controllers or nodes' insides. A request passes
//! `serve` (the socket) or `inprocess`, then `service` (who, may they, how many), `router`, and one verb or
//! subresource, which reads through `registry` and writes through `write`. What decides is pure: `request_info`,
//! `options`, `negotiate`, `allocate`, `deletion`, and those plugins of `admission` that wait for nothing.

mod access;
pub mod admission;
pub mod aggregation;
mod allocate;
mod answer;
mod backends;
mod background;
pub mod body;
mod bootstrap;
pub mod call;
pub mod components;
mod deadline;
mod definitions;
mod deletion;
mod documents;
mod doubling;
pub mod endpoints;
mod expressions;
pub mod flow;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod gzip;
mod impersonation;
mod inprocess;
mod ip_addresses;
mod kubelet;
mod metrics;
mod negotiate;
pub mod options;
mod outbound;
mod owners;
mod params;
mod policy_status;
pub mod priority;
mod protobuf;
mod registry;
pub mod request_info;
mod respond;
mod reviews;
mod router;
pub mod serve;
mod server;
mod service;
mod service_cidrs;
mod services;
mod snapshots;
mod status;
mod subresource;
#[cfg(feature = "testing")]
pub mod testing;
mod tunnel;
pub mod verbs;
mod warnings;
mod websocket;
mod weigh;
mod write;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use access::{AccessError, Chains};
use allocate::{BadCidr, Cidr};
use auth::authn::UserInfo;
use pki::{Pki, PkiError, ServiceAccountKey, Subject};
use storage::{Store, StoreError};

pub use access::AuthOptions;
use inprocess::Transport;
pub use registry::{Change, RegistryError};
use serve::{ServingKey, TlsError};
use server::Server;

/// The certificates and keys the server presents, all PEM.
#[derive(Clone, Default)]
pub struct Certificates {
    /// Serving certificate chain.
    pub serving_cert: String,
    /// Its key.
    pub serving_key: String,
    /// CAs whose client certificates are users: the cluster's, and the front proxy's.
    pub client_cas: Vec<String>,
    /// Our certificate towards kubelets.
    pub kubelet_client_cert: String,
    /// Its key.
    pub kubelet_client_key: String,
    /// CA of kubelets' serving certificates; without one they are not verified, as upstream without
    /// `--kubelet-certificate-authority`.
    pub kubelet_ca: Option<String>,
    /// Our certificate towards servers of aggregated APIs.
    pub front_proxy_cert: String,
    /// Its key.
    pub front_proxy_key: String,
    /// The CA that issued it.
    pub front_proxy_ca: String,
}

impl Certificates {
    /// What the server needs out of the cluster's directory; certificates are issued or renewed there. `names` and
    /// `addresses` are those clients use beside the ones every cluster has.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn from_pki(
        pki: &Pki,
        service_cidr: &str,
        cluster_domain: &str,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Self, StartError> {
        let cidr: Cidr = service_cidr.parse()?;
        let mut dns: Vec<String> =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
        dns.push(format!("kubernetes.default.svc.{cluster_domain}"));
        dns.extend_from_slice(names);
        let mut ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(cidr.nth(1))];
        ips.extend(addresses.iter().filter(|a| !a.is_loopback()));
        let now = jiff::Timestamp::now();
        let serving = pki.leaf("apiserver", &Subject::server("kube-apiserver", dns, ips), now)?;
        // Upstream's name for it. The default policy lets it use kubelets' APIs, and nothing else.
        let to_kubelets = Subject::client(auth::bootstrap_policy::KUBELET_CLIENT, None);
        let to_kubelets = pki.leaf("apiserver-kubelet-client", &to_kubelets, now)?;
        let front_proxy = pki.front_proxy_client(now)?;
        Ok(Self {
            serving_cert: serving.cert_pem,
            serving_key: serving.key_pem,
            client_cas: vec![pki.ca().cert_pem().to_owned()],
            kubelet_client_cert: to_kubelets.cert_pem,
            kubelet_client_key: to_kubelets.key_pem,
            kubelet_ca: Some(pki.ca().cert_pem().to_owned()),
            front_proxy_cert: front_proxy.cert_pem,
            front_proxy_key: front_proxy.key_pem,
            front_proxy_ca: pki.front_proxy_ca().cert_pem().to_owned(),
        })
    }
}

impl std::fmt::Debug for Certificates {
    /// Keys stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("client_cas", &self.client_cas.len()).finish_non_exhaustive()
    }
}

/// What a server is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where objects are.
    pub store: Arc<dyn Store>,
    /// Certificates and keys.
    pub certificates: Certificates,
    /// Service addresses, such as `10.43.0.0/16`; the first is the API's own.
    pub service_cidr: String,
    /// Node ports, both ends included.
    pub node_ports: (u16, u16),
    /// Where the `kubernetes` Service leads.
    pub advertise: (IpAddr, u16),
    /// DNS domain of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
    /// Signs service-account tokens.
    pub service_account_key: ServiceAccountKey,
    /// How users are known and judged.
    pub auth: AuthOptions,
    /// Admission beyond the built-in plugins, in the place of upstream's webhooks.
    pub plugins: Vec<admission::Plugin>,
    /// Which plugins are on.
    pub admission: admission::Selection,
}

impl Config {
    /// A configuration with the usual ranges: Services in 10.43.0.0/16, node ports 30000 to 32767, `cluster.local`.
    ///
    /// # Errors
    /// When the directory of certificates cannot be used.
    pub fn new(store: Arc<dyn Store>, pki: &Pki, advertise: (IpAddr, u16)) -> Result<Self, StartError> {
        let (service_cidr, cluster_domain) = ("10.43.0.0/16", "cluster.local");
        Ok(Self {
            store,
            certificates: Certificates::from_pki(pki, service_cidr, cluster_domain, &[], &[advertise.0])?,
            service_cidr: service_cidr.into(),
            node_ports: (30000, 32767),
            advertise,
            cluster_domain: cluster_domain.into(),
            service_account_key: pki.service_account().clone(),
            auth: AuthOptions::default(),
            plugins: Vec::new(),
            admission: admission::Selection::default(),
        })
    }
}

/// Why a server does not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The Service range is no range.
    #[error("service CIDR")]
    ServiceCidr(#[from] BadCidr),
    /// The cluster's certificates cannot be made or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A certificate or key is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Users or keys cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The store cannot be read.
    #[error("read the store")]
    Store(#[from] StoreError),
    /// The objects every cluster has cannot be created.
    #[error("create the cluster's first objects")]
    Bootstrap(#[source] RegistryError),
}

/// Gives up what nobody takes, as long as the server exists.
async fn sweep(server: std::sync::Weak<Server>) {
    loop {
        tokio::time::sleep(answer::SWEEP).await;
        let Some(server) = server.upgrade() else { return };
        server.flow.answers.sweep();
        server.watch_frames.clear();
    }
}

/// Starts what the server does beside its requests. It ends with the server.
fn spawn_tasks(server: &Arc<Server>) {
    let (panics, kept) = (server.metrics.task_panics(), server.clone());
    let work = move || bootstrap::keep(kept.clone());
    tokio::spawn(background::keep("bootstrap", panics.clone(), work));
    let kept = server.clone();
    let work = move || ip_addresses::keep(kept.clone());
    tokio::spawn(background::keep("IP addresses", panics.clone(), work));
    let kept = server.clone();
    let work = move || policy_status::keep(kept.clone());
    tokio::spawn(background::keep("policy status", panics.clone(), work));
    let kept = server.clone();
    let work = move || definitions::keep(kept.clone());
    tokio::spawn(background::keep("definitions", panics.clone(), work));
    let kept = server.clone();
    let work = move || definitions::cleanup::keep(kept.clone());
    tokio::spawn(background::keep("definitions that go", panics.clone(), work));
    let kept = server.clone();
    let work = move || aggregation::keep(kept.clone());
    tokio::spawn(background::keep("APIServices", panics.clone(), work));
    let kept = server.clone();
    let work = move || priority::keep(kept.clone());
    tokio::spawn(background::keep("FlowSchemas", panics.clone(), work));
    let kept = server.clone();
    let work = move || service_cidrs::keep(kept.clone());
    tokio::spawn(background::keep("ServiceCIDRs", panics.clone(), work));
    let swept = Arc::downgrade(server);
    tokio::spawn(background::keep("sweep", panics, move || sweep(swept.clone())));
}

/// A running API server. Cheap to clone; the last handle (clients count) that goes ends its tasks.
#[derive(Debug, Clone)]
pub struct ApiServer {
    server: Arc<Server>,
    tls: Arc<rustls::ServerConfig>,
    serving: Arc<ServingKey>,
    running: Arc<DropGuard>,
}

impl ApiServer {
    /// Loads the store, creates what every cluster has, and is ready to answer.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let cidr: Cidr = config.service_cidr.parse()?;
        let certificates = &config.certificates;
        let cas: Vec<&str> = certificates.client_cas.iter().map(String::as_str).collect();
        let serving = Arc::new(ServingKey::new(&certificates.serving_cert, &certificates.serving_key)?);
        let tls = serve::server_tls(serving.clone(), &cas)?;
        let kubelet_tls = kubelet::KubeletTls::new(
            &certificates.kubelet_client_cert,
            &certificates.kubelet_client_key,
            certificates.kubelet_ca.as_deref(),
        )?;
        let unverified_tls = tunnel::unverified_tls()?;
        let aggregation = aggregation::Aggregation::new(&certificates.front_proxy_cert, &certificates.front_proxy_key)?;
        let running = CancellationToken::new();
        let scheme = scheme::builtin_with(&definitions::schema_check());
        let scheme = scheme::with_expressions(&scheme, &expressions::check());
        let registry = registry::Registry::start(config.store.clone(), scheme, running.clone()).await?;
        let services = services::Services::new(cidr, config.node_ports);
        if let Some(stored) = registry.get("", "services") {
            services.occupy(&stored);
        }
        let Chains { authn, authz, access } = access::build(&config, &registry)?;
        let metrics = metrics::Metrics::default();
        let policies = admission::policies::plugins(&registry);
        let webhooks = admission::webhooks::plugins(&registry, metrics.webhooks());
        let chain = admission::Chain::selected(
            config.plugins.into_iter().chain(admission::in_order(policies, webhooks)),
            &config.admission,
        );
        let server = Arc::new(Server {
            registry,
            admission: chain.timed(metrics.admission()),
            services,
            metrics,
            authn,
            authz,
            access,
            kubelet_tls,
            unverified_tls,
            aggregation,
            stopping: running.child_token(),
            flow: flow::Flow::default(),
            priority: priority::Priority::default(),
            watch_frames: verbs::watch::shared::Shared::default(),
            service_cidr: cidr,
            client_cas: certificates.client_cas.concat(),
            front_proxy_ca: certificates.front_proxy_ca.clone(),
            advertise: config.advertise,
            components: components::Components::default(),
            definitions: definitions::Definitions::default(),
            cleanup: tokio::sync::Notify::new(),
            bootstrapped: false.into(),
        });
        service_cidrs::load(&server);
        let running = Arc::new(running.drop_guard());
        bootstrap::run(&server).await.map_err(StartError::Bootstrap)?;
        definitions::load(&server).await;
        spawn_tasks(&server);
        Ok(Self { server, tls, serving, running })
    }

    /// Serves HTTPS on a bound listener until `token` is cancelled; open watches end then, other requests have ten
    /// seconds.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(&self, listener: std::net::TcpListener, token: CancellationToken) -> std::io::Result<()> {
        let server = self.server.clone();
        let handler = move |request| service::handle(server.clone(), request);
        let serving = serve::serve(listener, self.tls.clone(), handler, token.clone());
        tokio::pin!(serving);
        // Cancel-safe: serving is polled on, and a cancelled token stays cancelled.
        tokio::select! {
            ended = serving.as_mut() => return ended,
            () = token.cancelled() => self.server.stopping.cancel(),
        }
        serving.await
    }

    /// Shows clients and kubelets these certificates from the next connection on. Whom the server trusts stays.
    ///
    /// # Errors
    /// When a certificate or key is not usable; then the old one stays.
    pub fn renew(&self, certificates: &Certificates) -> Result<(), TlsError> {
        self.serving.replace(&certificates.serving_cert, &certificates.serving_key)?;
        self.server.kubelet_tls.replace(&certificates.kubelet_client_cert, &certificates.kubelet_client_key)?;
        self.server.aggregation.replace(&certificates.front_proxy_cert, &certificates.front_proxy_key)
    }

    /// Lets `component` answer under this server's `/healthz` and `/metrics`.
    pub fn add_component(&self, component: Arc<dyn components::Component>) {
        self.server.components.add(component);
    }

    /// A client without a socket, acting as `user`.
    pub fn client(&self, user: UserInfo) -> kube::Client {
        let running = self.running.clone();
        let transport = Transport::new(self.server.clone(), user);
        // The guard lives as long as the transport, so a client keeps the server's tasks running.
        let transport = transport.map_response(move |response| {
            let _ = &running;
            response
        });
        kube::Client::new(transport, "default")
    }

    /// The server's state, for the composition root's metrics and tests.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}
