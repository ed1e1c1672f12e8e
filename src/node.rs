//! A node: containerd, the pods' network, Services, DNS and the agent, built
//! and started in order. Decides nothing itself.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use agent::cgroup::CgroupTree;
use agent::config::CgroupDriver;
use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use netproxy::cidr::Cidr4;
use netproxy::cni::{self, CniConfig};
use netproxy::routes::NodeNetwork;
use netproxy::services::ServiceProxyConfig;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cli::{self, ClusterNet, Cni, NodeArgs};
use crate::paths::Paths;
use crate::tasks::Tasks;
use crate::{cgroups, kubeconfig, node_config, runtime};

/// The bridge that a node's pods hang on.
pub const BRIDGE: &str = "cni0";

/// What a node is built from.
#[derive(Clone)]
pub struct NodeInputs {
    pub paths: Paths,
    pub net: ClusterNet,
    pub node: NodeArgs,
    pub identity: Identity,
    /// The API as the node itself.
    pub client: Client,
    /// The API as the service proxy.
    pub proxy_client: Client,
    /// Whether somebody asked for just that client; else a configuration file may name another.
    pub proxy_client_is_chosen: bool,
    /// The authority whose client certificates the kubelet's server accepts.
    pub client_ca: PathBuf,
    /// A serving certificate and its key, where somebody issued one.
    pub serving: Option<(PathBuf, PathBuf)>,
}

/// Arguments or configuration that make no sense; the process exits with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Name and address of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub ip: IpAddr,
}

impl Identity {
    /// As given, else the host name and the address of the default route.
    ///
    /// # Errors
    /// When the machine has no address to be found under.
    pub fn new(args: &NodeArgs) -> Result<Self> {
        let name = match &args.node_name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname().context("read the host name")?.to_string_lossy().to_lowercase(),
        };
        let ip = args.node_ip.or_else(default_address);
        let ip = ip.context("this machine has no address beside loopback; name one with --node-ip")?;
        Ok(Self { name, ip })
    }
}

/// The address that packets to elsewhere carry, else any beside loopback.
pub fn default_address() -> Option<IpAddr> {
    // Connecting a datagram socket looks a route up and sends nothing.
    let elsewhere = (Ipv4Addr::new(198, 51, 100, 1), 9);
    let by_route = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(elsewhere).map(|()| socket))
        .and_then(|socket| socket.local_addr())
        .map(|address| address.ip());
    by_route.ok().or_else(|| {
        let addresses = nix::ifaddrs::getifaddrs().ok()?;
        let v4 = addresses.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
        v4.filter(|ip| !ip.is_loopback()).map(IpAddr::V4).next()
    })
}

/// Starts everything of a node on `tasks`, on a machine that was checked to
/// have what a node needs. `ready` turns true when the agent serves pods.
///
/// # Errors
/// Which part did not start.
pub async fn start(inputs: NodeInputs, tasks: &Tasks, ready: watch::Sender<bool>) -> Result<()> {
    let mut inputs = inputs;
    let mut config = agent_config(&inputs)?;
    let mut proxy = proxy_config(&inputs)?;
    let laid = node_config::lay_over(&inputs.node.config, &mut config, &mut proxy)?;
    if let Some(path) = laid.proxy_kubeconfig.filter(|_| !inputs.proxy_client_is_chosen) {
        inputs.proxy_client = kubeconfig::client(&path).await?;
    }
    // Found out once: agent and runtime have to agree.
    config.cgroups.driver = runtime::cgroup_driver(&inputs.node, config.cgroups.driver).await?;
    let driver = CgroupTree::detect(&config.cgroups).context("find the cgroups")?.driver();
    config.cgroups.driver = Some(driver);
    cgroups::note(&inputs.paths.cgroups_note(), &config.cgroups.root, driver == CgroupDriver::Systemd)?;
    let runtime = runtime::start(&inputs, driver, tasks).await?;
    if inputs.node.cni == Cni::Bridge {
        let note = inputs.paths.sysctls_note();
        // Loading a module may take its time.
        let prepared = tokio::task::spawn_blocking(move || cni::prepare_node(&note)).await?;
        prepared.context("prepare the kernel for pods' network")?;
        start_network(&inputs, tasks)?;
    }
    let client = inputs.proxy_client.clone();
    tasks.spawn("service proxy", |token| async move { Ok(netproxy::services::run(proxy, client, token).await?) });
    let agent = agent::app::Inputs {
        config,
        client: Some(inputs.client.clone()),
        runtime: Arc::new(runtime.clone()),
        images: Arc::new(runtime),
    };
    tasks.spawn("agent", |token| agent::app::run(agent, ready, token));
    Ok(())
}

/// The pods' network: the plugin's configuration, routes and DNS.
fn start_network(inputs: &NodeInputs, tasks: &Tasks) -> Result<()> {
    let client = inputs.client.clone();
    let (paths, name) = (inputs.paths.clone(), inputs.identity.name.clone());
    let (pod_mtu, known_mtu) = watch::channel(None);
    tasks.spawn("pod network", |token| configure_pods(client, name, paths, known_mtu, token));
    let routes = netproxy::routes::RoutesConfig {
        node_name: inputs.identity.name.clone(),
        bridge: BRIDGE.to_owned(),
        service_cidr: cidr(&inputs.net.service_cluster_ip_range)?,
        cluster_cidr: cidr(&inputs.net.cluster_cidr)?,
        node_ip: v4(inputs.identity.ip)?,
        network: match inputs.node.node_network {
            cli::NodeNetwork::Auto => NodeNetwork::Auto,
            cli::NodeNetwork::Routes => NodeNetwork::Routes,
            cli::NodeNetwork::Vxlan => NodeNetwork::Vxlan,
            cli::NodeNetwork::None => NodeNetwork::None,
        },
    };
    let (client, node_client) = (inputs.proxy_client.clone(), inputs.client.clone());
    let parties = netproxy::routes::Parties { client, node_client, pod_mtu };
    tasks.spawn("routes", |token| async move { Ok(netproxy::routes::run(routes, parties, token).await?) });
    let dns = netproxy::dns::DnsConfig {
        address: v4(inputs.net.cluster_dns)?,
        domain: inputs.net.cluster_domain.clone(),
        cluster_cidr: cidr(&inputs.net.cluster_cidr)?,
        service_cidr: cidr(&inputs.net.service_cluster_ip_range)?,
        link: BRIDGE.to_owned(),
        resolv_conf: inputs.resolv_conf(),
    };
    let client = inputs.proxy_client.clone();
    tasks.spawn("dns", |token| async move { Ok(netproxy::dns::run(dns, client, token).await?) });
    Ok(())
}

fn proxy_config(inputs: &NodeInputs) -> Result<ServiceProxyConfig> {
    let mut config = ServiceProxyConfig::new(inputs.identity.name.clone(), vec![inputs.identity.ip]);
    config.cluster_cidrs = vec![cidr(&inputs.net.cluster_cidr)?];
    config.service_cidrs = vec![cidr(&inputs.net.service_cluster_ip_range)?];
    if inputs.node.cni == Cni::Bridge {
        config.masquerade_outbound = config.cluster_cidrs.clone();
    }
    Ok(config)
}

/// Writes the plugin's configuration as soon as the node has its part of the
/// pod network and it is known how large its packets may be, and again should
/// either change.
async fn configure_pods(
    client: Client,
    node: String,
    paths: Paths,
    mut known_mtu: watch::Receiver<Option<u32>>,
    token: CancellationToken,
) -> Result<()> {
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let changes = watcher(Api::<Node>::all(client), config).default_backoff().applied_objects();
    let mut changes = std::pin::pin!(changes);
    // The present network, and what keeps its host ports: dropping that ends it.
    let mut present: Option<(CniConfig, DropGuard)> = None;
    let mut pod_cidr = None;
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            // Dropping a watch's future between two events loses nothing.
            change = changes.try_next() => match change {
                Ok(Some(node)) => pod_cidr = node.spec.and_then(|spec| spec.pod_cidr),
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "the node cannot be watched");
                    continue;
                }
            },
            // A change that nobody waits for stays to be seen.
            Ok(()) = known_mtu.changed() => {}
        }
        let (Some(pod_cidr), Some(mtu)) = (&pod_cidr, *known_mtu.borrow_and_update()) else { continue };
        let config =
            CniConfig { bridge: BRIDGE.to_owned(), pod_cidr: cidr(pod_cidr)?, mtu, data_dir: paths.cni_data() };
        if present.as_ref().is_some_and(|(present, _)| *present == config) {
            continue;
        }
        cni::write_conflist(&paths.cni_conf(), &config).context("write the CNI configuration")?;
        let keeping = token.child_token();
        tokio::spawn(cni::keep_host_ports(config.clone(), cni::CHECK_PERIOD, keeping.clone()));
        present = Some((config, keeping.drop_guard()));
    }
}

fn agent_config(inputs: &NodeInputs) -> Result<agent::config::AgentConfig> {
    let mut config = agent::config::AgentConfig::new(inputs.identity.name.clone(), inputs.paths.data.clone());
    config.paths.pod_logs = inputs.paths.log.clone();
    config.paths.resolv_conf = inputs.resolv_conf().unwrap_or_else(|| "/dev/null".into());
    config.node.ips = vec![inputs.identity.ip];
    config.dns.servers = vec![inputs.net.cluster_dns.to_string()];
    config.dns.domain = inputs.net.cluster_domain.clone();
    config.cgroups.root = inputs.node.cgroup_root.clone();
    let manifests = inputs.node.pod_manifest_path.clone();
    config.static_pods.directory = Some(manifests.unwrap_or_else(|| inputs.paths.manifests()));
    config.server.port = inputs.node.port;
    config.server.client_ca_file = Some(inputs.client_ca.clone());
    if let Some((cert, key)) = &inputs.serving {
        config.server.cert_file = Some(cert.clone());
        config.server.key_file = Some(key.clone());
    }
    config.cgroups.driver = match inputs.node.cgroup_driver.as_deref() {
        None => None,
        Some("cgroupfs") => Some(CgroupDriver::Cgroupfs),
        Some("systemd") => Some(CgroupDriver::Systemd),
        Some(other) => bail!(UsageError(format!("--cgroup-driver={other}: cgroupfs and systemd are known"))),
    };
    for label in &inputs.node.node_labels {
        let Some((key, value)) = label.split_once('=') else {
            bail!(UsageError(format!("--node-labels: {label} is not key=value")));
        };
        config.node.labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(config)
}

impl NodeInputs {
    /// The resolver configuration, unless the node is to have none.
    fn resolv_conf(&self) -> Option<PathBuf> {
        (!self.node.resolv_conf.is_empty()).then(|| PathBuf::from(&self.node.resolv_conf))
    }
}

fn cidr(text: &str) -> Result<Cidr4> {
    Ok(text.parse::<Cidr4>().map_err(|error| UsageError(error.to_string()))?)
}

fn v4(address: IpAddr) -> Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!(UsageError(format!("{address}: only IPv4 is spoken so far"))),
    }
}
