//! The control plane: store, certificates, API server, scheduler and
//! controllers, built and started in order. Decides nothing itself.

use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use controlplane_lite::apiserver::admission::Selection;
use controlplane_lite::apiserver::{self, ApiServer, AuthOptions, Certificates};
use controlplane_lite::auth::authn::UserInfo;
use controlplane_lite::auth::authn::service_account::Reference;
use controlplane_lite::auth::authz::Mode;
use controlplane_lite::client::Status;
use controlplane_lite::controllers::accounts::{AccountToken, TokenSigner};
use controlplane_lite::controllers::{self, Clients, ControllersConfig};
use controlplane_lite::pki::{Pki, Subject};
use controlplane_lite::scheduler::{self, SchedulerConfig};
use controlplane_lite::storage::{self, DatastoreConfig, EtcdConfig, EtcdTls, RedbConfig};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use netproxy::cidr::Cidr4;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::{ClusterNet, ControlPlaneArgs};
use crate::components::ProcessComponents;
use crate::node::{Identity, UsageError};
use crate::paths::Paths;
use crate::server_lease::ServerLease;
use crate::tasks::Tasks;
use crate::{credentials, instance, kubeconfig, ports, sys};

mod publish;
mod renewal;

/// Ports that Services may claim on every node, as upstream has them.
const NODE_PORTS: (u16, u16) = (30000, 32767);

/// How long one etcd may take to accept a connection.
const ETCD_CONNECT: Duration = Duration::from_secs(5);
/// Says which nodes are the control plane's, as kubeadm.
const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";

/// What a control plane is built from.
#[derive(Clone, Debug)]
pub struct ControlPlaneInputs {
    pub paths: Paths,
    pub net: ClusterNet,
    pub args: ControlPlaneArgs,
    /// Where members of the cluster reach the API.
    pub address: IpAddr,
}

/// A running control plane, and the way to credentials for it.
#[derive(Debug)]
pub struct ControlPlane {
    api: ApiServer,
    pki: Arc<Pki>,
}

/// Starts everything of a control plane on `tasks`. The API answers when this
/// returns.
///
/// # Errors
/// Says which part did not start.
pub async fn start(inputs: ControlPlaneInputs, tasks: &Tasks) -> Result<ControlPlane> {
    let now = Timestamp::now();
    let pki = Arc::new(Pki::load_or_create(&inputs.paths.pki(), now).context("load the cluster's certificates")?);
    let listeners = listeners(&inputs.args)?;
    if inputs.args.datastore.is_none() {
        let size = std::fs::metadata(inputs.paths.store()).ok().map(|metadata| metadata.len());
        check_store(&inputs.paths, pki.directory().join("admin.crt").exists(), size)?;
    }
    if let Some(datastore) = &inputs.args.datastore {
        reach_etcd(datastore.strip_prefix("etcd://").unwrap_or(datastore)).await?;
    }
    let store = storage::open(&datastore(&inputs)?).await.context("open the store")?;
    let api = ApiServer::new(apiserver::Config {
        store,
        certificates: certificates(&pki, &inputs)?,
        service_cidr: inputs.net.service_cluster_ip_range.clone(),
        node_ports: NODE_PORTS,
        advertise: (inputs.address, inputs.args.secure_port),
        cluster_domain: inputs.net.cluster_domain.clone(),
        service_account_key: pki.service_account().clone(),
        auth: auth_options(&inputs.args)?,
        plugins: Vec::new(),
        admission: admission(&inputs.args),
    })
    .await
    .context("start the API server")?;
    // Before the first request is taken: two servers would hand out the same addresses.
    if inputs.args.datastore.is_some() {
        let client = api.client(UserInfo::new("system:apiserver", ["system:masters"]));
        let lease = ServerLease::take(client, instance::owner(&inputs.paths)?.id()).await?;
        tasks.spawn("server lease", |token| lease.keep(token));
    }
    for listener in listeners {
        let api = api.clone();
        tasks.spawn("API server", |token| async move { Ok(api.serve(listener, token).await?) });
    }
    let status = Status::default();
    if !inputs.args.disable_scheduler {
        start_scheduler(&api, status.of("scheduler/"), tasks);
    }
    start_controllers(&api, &pki, &inputs, status.clone(), tasks)?;
    api.add_component(Arc::new(ProcessComponents { status, tasks: tasks.states() }));
    publish::start(&api, &pki, &inputs, tasks).await;
    write_admin_kubeconfig(&pki, &inputs, now)?;
    renew_certificates(&api, &pki, &inputs, tasks);
    Ok(ControlPlane { api, pki })
}

/// Which admission plugins are asked for.
pub fn admission(args: &ControlPlaneArgs) -> Selection {
    Selection { enable: args.enable_admission_plugins.clone(), disable: args.disable_admission_plugins.clone() }
}

fn auth_options(args: &ControlPlaneArgs) -> Result<AuthOptions> {
    let modes = args.authorization_mode.iter().map(|word| word.parse::<Mode>());
    let modes =
        modes.collect::<Result<_, _>>().map_err(|error| UsageError(format!("--authorization-mode: {error}")))?;
    let policy_file = args.authorization_policy_file.clone();
    let (token_file, basic_file) = (args.token_auth_file.clone(), args.basic_auth_file.clone());
    Ok(AuthOptions { token_file, basic_file, modes, policy_file, ..AuthOptions::default() })
}

/// Fails unless one of the hosts takes connections: the client's own error would not say why.
async fn reach_etcd(hosts: &str) -> Result<()> {
    let mut problems = Vec::new();
    for host in hosts.split(',') {
        match tokio::time::timeout(ETCD_CONNECT, tokio::net::TcpStream::connect(host)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => problems.push(format!("{host}: {error}")),
            Err(_) => problems.push(format!("{host}: no answer within {} s", ETCD_CONNECT.as_secs())),
        }
    }
    bail!("etcd cannot be reached: {}", problems.join("; "))
}

/// A cluster that ran before has a store. One that is lost must not become a new, empty cluster, whose
/// controllers would end every pod of the old one.
fn check_store(paths: &Paths, ran_before: bool, size: Option<u64>) -> Result<()> {
    if ran_before && size.unwrap_or(0) == 0 {
        let state = if size.is_none() { "missing" } else { "empty" };
        bail!(
            "the cluster's store {} is {state}: put a backup of it there, or remove {} to begin a new cluster",
            paths.store().display(),
            paths.data.join("server").display()
        );
    }
    Ok(())
}

fn start_scheduler(api: &ApiServer, status: Status, tasks: &Tasks) {
    let client = api.client(UserInfo::new("system:kube-scheduler", [""; 0]));
    tasks.keep("scheduler", move |token| {
        let client = client.clone();
        let mut config = SchedulerConfig::default();
        config.status = status.clone();
        async move {
            scheduler::run(client, config, token).await;
            Ok(())
        }
    });
}

fn start_controllers(
    api: &ApiServer,
    pki: &Arc<Pki>,
    inputs: &ControlPlaneInputs,
    status: Status,
    tasks: &Tasks,
) -> Result<()> {
    let shared = api.client(UserInfo::new("system:kube-controller-manager", [""; 0]));
    let of_accounts = api.clone();
    let account = move |name: &str| of_accounts.client(UserInfo::service_account("kube-system", name));
    let clients = Clients::new(shared, account);
    let pods: Cidr4 =
        inputs.net.cluster_cidr.parse().map_err(|error| UsageError(format!("--cluster-cidr: {error}")))?;
    let range = controllers::nodeipam::Cidr::new(pods.addr(), pods.prefix_len());
    let services = &inputs.net.service_cluster_ip_range;
    let config = ControllersConfig {
        cluster_cidr: Some(range.with_context(|| format!("--cluster-cidr={pods} is no range"))?),
        service_cidr: Some(services.parse().with_context(|| format!("--service-cluster-ip-range={services}"))?),
        root_ca_pem: pki.ca().cert_pem().to_owned(),
        token_signer: Some(token_signer(api)),
        signer: Some(pki.clone()),
        api_names: inputs.args.tls_san.clone(),
        node_monitor_grace_period: Duration::from_secs(inputs.args.node_monitor_grace_period),
        controllers: inputs.args.controllers.clone(),
        status,
        ..ControllersConfig::default()
    };
    tasks.keep("controllers", move |token| {
        let (clients, config) = (clients.clone(), config.clone());
        async move {
            controllers::run(clients, config, token).await;
            Ok(())
        }
    });
    Ok(())
}

/// Signs the tokens of Secrets with the key that the API verifies them by.
fn token_signer(api: &ApiServer) -> TokenSigner {
    let issuer = api.server().access.issuer().clone();
    TokenSigner::new(move |of: AccountToken<'_>| {
        let account = Reference::new(of.account, of.uid);
        issuer.issue_for_secret(of.namespace, &account, of.secret).map_err(|error| error.to_string())
    })
}

/// The secure port, and the socket that was left to us, if one was.
fn listeners(args: &ControlPlaneArgs) -> Result<Vec<TcpListener>> {
    let address = (args.bind_address, args.secure_port);
    let mut listeners = vec![TcpListener::bind(address).map_err(|error| listen_error(error, args))?];
    if let Some(fd) = args.listen_fd {
        listeners.push(sys::inherited_listener(fd).with_context(|| format!("take over descriptor {fd}"))?);
    }
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

/// Why the API cannot listen; a port that is taken is named with who has it.
fn listen_error(error: std::io::Error, args: &ControlPlaneArgs) -> anyhow::Error {
    let port = args.secure_port;
    match ports::holder(port).filter(|_| error.kind() == std::io::ErrorKind::AddrInUse) {
        Some(holder) => anyhow::anyhow!("port {port} is taken by {holder}: end it, or choose another --secure-port"),
        None => anyhow::Error::new(error).context(format!("listen on {}:{port}", args.bind_address)),
    }
}

fn datastore(inputs: &ControlPlaneInputs) -> Result<DatastoreConfig> {
    let Some(endpoint) = &inputs.args.datastore else {
        return Ok(DatastoreConfig::Redb(RedbConfig::new(inputs.paths.store())));
    };
    let Some(hosts) = endpoint.strip_prefix("etcd://").filter(|hosts| !hosts.is_empty()) else {
        bail!(UsageError(format!("--datastore={endpoint}: etcd://host:port[,host:port…] is needed")));
    };
    let tls = etcd_tls(&inputs.args)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoints = hosts.split(',').map(|host| format!("{scheme}://{host}")).collect();
    Ok(DatastoreConfig::Etcd(EtcdConfig { tls, ..EtcdConfig::new(endpoints) }))
}

/// What `--etcd-cafile`, `--etcd-certfile` and `--etcd-keyfile` say, upstream's flags.
fn etcd_tls(args: &ControlPlaneArgs) -> Result<Option<EtcdTls>> {
    let read = |flag: &str, path: &Option<PathBuf>| {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("{flag}={}", path.display()));
        path.as_ref().map(read).transpose()
    };
    let ca = read("--etcd-cafile", &args.etcd_cafile)?;
    let certificate = read("--etcd-certfile", &args.etcd_certfile)?;
    let identity = certificate.zip(read("--etcd-keyfile", &args.etcd_keyfile)?);
    Ok((ca.is_some() || identity.is_some()).then_some(EtcdTls { ca, identity, domain: None }))
}

/// The certificates of the API, by every name and address it may be called by.
fn certificates(pki: &Pki, inputs: &ControlPlaneInputs) -> Result<Certificates> {
    let mut names = Vec::new();
    let mut addresses = vec![inputs.address];
    for san in &inputs.args.tls_san {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    let (services, domain) = (&inputs.net.service_cluster_ip_range, &inputs.net.cluster_domain);
    Certificates::from_pki(pki, services, domain, &names, &addresses).context("issue the API's certificates")
}

/// Renews what the API and its administrator show, while the process runs.
fn renew_certificates(api: &ApiServer, pki: &Arc<Pki>, inputs: &ControlPlaneInputs, tasks: &Tasks) {
    let (api, pki, inputs) = (api.clone(), pki.clone(), inputs.clone());
    let renew = move || {
        api.renew(&certificates(&pki, &inputs)?)?;
        renew_admin_kubeconfig(&inputs.paths.admin_kubeconfig(), &admin_kubeconfig(&pki, &inputs, Timestamp::now())?)
    };
    tasks.keep("API certificates", move |token| renewal::keep("the API's certificates", renew.clone(), token));
}

fn write_admin_kubeconfig(pki: &Pki, inputs: &ControlPlaneInputs, now: Timestamp) -> Result<()> {
    kubeconfig::write(&inputs.paths.admin_kubeconfig(), &admin_kubeconfig(pki, inputs, now)?)
}

fn admin_kubeconfig(pki: &Pki, inputs: &ControlPlaneInputs, now: Timestamp) -> Result<Value> {
    let subject = Subject::client("copepod-admin", Some("system:masters"));
    let admin = pki.leaf("admin", &subject, now).context("issue the administrator's certificate")?;
    let server = format!("https://127.0.0.1:{}", inputs.args.secure_port);
    Ok(credentials::render("copepod", &server, pki.ca().cert_pem(), &admin))
}

/// Puts a renewed certificate into the administrator's kubeconfig. Nothing else of it is touched while the process
/// runs: people set namespaces and contexts in it. One that was removed stays away.
fn renew_admin_kubeconfig(path: &Path, renewed: &Value) -> Result<()> {
    let now = kubeconfig::read(path)?;
    let user = |config: &Value| {
        let users = config["users"].as_array().into_iter().flatten();
        users.into_iter().find(|user| user["name"] == renewed["users"][0]["name"]).cloned()
    };
    if user(&now).is_none_or(|user| user == renewed["users"][0]) {
        return Ok(());
    }
    let changed = json!({"users": renewed["users"], "current-context": now["current-context"]});
    kubeconfig::write(path, &kubeconfig::merge(now, &changed)?)
}

/// Labels the node as soon as it has registered. A node may not do that itself.
async fn label_node(client: Client, name: String, token: CancellationToken) -> Result<()> {
    let nodes = Api::<Node>::all(client);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = watcher(nodes.clone(), only).default_backoff().applied_objects().boxed();
    while let Some(change) = token.run_until_cancelled(changes.next()).await.flatten() {
        let has = |node: &Node| node.metadata.labels.iter().flatten().any(|(label, _)| label == CONTROL_PLANE_LABEL);
        if change.is_ok_and(|node| !has(&node)) {
            let patch = json!({"metadata": {"labels": {CONTROL_PLANE_LABEL: ""}}});
            if let Err(error) = nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                tracing::warn!(%error, "the control plane's node is not labelled");
            }
        }
    }
    Ok(())
}

impl ControlPlane {
    /// Keeps the label of the node that this control plane runs on.
    pub fn keep_label(&self, node: &str, tasks: &Tasks) {
        let (client, node) = (self.api.client(UserInfo::new("system:apiserver", ["system:masters"])), node.to_owned());
        tasks.keep("node label", move |token| label_node(client.clone(), node.clone(), token));
    }

    /// The API as a node, over no socket.
    pub fn node_client(&self, node: &str) -> Client {
        self.api.client(UserInfo::new(format!("system:node:{node}"), ["system:nodes"]))
    }

    /// The API as a node's service proxy, over no socket.
    pub fn proxy_client(&self) -> Client {
        self.api.client(UserInfo::new("system:kube-proxy", [""; 0]))
    }

    /// The file of the authority that issued all client certificates.
    pub fn ca_file(&self) -> PathBuf {
        self.pki.directory().join("ca.crt")
    }

    /// A serving certificate for the kubelet of this machine, and its key. The files are kept good; who serves with
    /// them reads them again.
    ///
    /// # Errors
    /// When it cannot be issued or stored.
    pub fn kubelet_serving(&self, identity: &Identity, tasks: &Tasks) -> Result<(PathBuf, PathBuf)> {
        let name = format!("system:node:{}", identity.name);
        let subject = Subject::server(&name, vec![identity.name.clone()], vec![identity.ip]);
        let pki = self.pki.clone();
        let renew = move || {
            let issued = pki.leaf("kubelet", &subject, Timestamp::now());
            issued.map(drop).context("issue the kubelet's serving certificate")
        };
        renew()?;
        tasks
            .keep("kubelet certificate", move |token| renewal::keep("the kubelet's certificate", renew.clone(), token));
        let directory = self.pki.directory();
        Ok((directory.join("kubelet.crt"), directory.join("kubelet.key")))
    }
}

#[cfg(test)]
mod tests {
    use controlplane_lite::pki::CertifiedKey;

    use super::*;

    #[test]
    fn a_renewal_changes_nothing_else_of_the_administrators_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.kubeconfig");
        let of = |cert_pem: &str| {
            let identity = CertifiedKey { cert_pem: cert_pem.to_owned(), key_pem: "key".to_owned() };
            credentials::render("copepod", "https://127.0.0.1:6443", "ca", &identity)
        };
        renew_admin_kubeconfig(&path, &of("new")).expect("nothing to do");
        assert!(!path.exists(), "it was removed");
        let other = kubeconfig::render(&kubeconfig::Entry {
            name: "other",
            server: "https://192.0.2.1",
            ca_pem: "ca",
            client_cert_pem: "cert",
            client_key_pem: "key",
        });
        let mut own = kubeconfig::merge(of("old"), &other).expect("both");
        own["contexts"][0]["context"]["namespace"] = json!("mine");
        kubeconfig::write(&path, &own).expect("written");
        renew_admin_kubeconfig(&path, &of("new")).expect("renewed");
        let renewed = kubeconfig::read(&path).expect("a kubeconfig");
        for section in ["clusters", "contexts", "current-context"] {
            assert_eq!(renewed[section], own[section], "{section}");
        }
        let user = |config: &Value, name: &str| {
            config["users"].as_array().and_then(|users| users.iter().find(|user| user["name"] == name).cloned())
        };
        assert_eq!(user(&renewed, "copepod"), user(&of("new"), "copepod"));
        assert_eq!(user(&renewed, "other"), user(&own, "other"));
    }

    #[test]
    fn a_lost_store_is_not_a_new_cluster() {
        let paths = Paths { data: "/d".into(), run: "/r".into(), log: "/l".into() };
        let check = |ran_before, size| check_store(&paths, ran_before, size).map_err(|error| error.to_string());
        for (size, word) in [(None, "missing"), (Some(0), "empty")] {
            let told = check(true, size).expect_err("a lost store");
            assert!(told.contains(&format!("/d/server/store.redb is {word}")), "{told}");
            // The first start may have been interrupted anywhere.
            assert_eq!(check(false, size), Ok(()));
        }
        assert_eq!(check(true, Some(4096)), Ok(()));
    }
}
