//! A node: containerd, the pods' network, Services, DNS and the agent, built
//! and started in order. Decides nothing itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::answers::bounded;
use agent::cgroup::CgroupTree;
use agent::config::CgroupDriver;
use agent::ids::is_subdomain;
use anyhow::{Context, Result, bail};
use controlplane_lite::apiserver::endpoints;
use kube::Client;
use netproxy::cidr::Cidr4;
use netproxy::cluster::Cluster;
use netproxy::cni;
use netproxy::cni::hostports::mapping::ReservedPort;
use netproxy::network::{self, NetworkConfig, PodNetworkConfig};
use netproxy::routes::{NodeNetwork, TUNNEL_PORT};
use netproxy::services::{ServiceProxyConfig, ServiceProxyError};
use netproxy::snapshot::convert::protocol;
use tokio::sync::watch;

use crate::cli::{self, ClusterNet, Cni, NodeArgs};
use crate::paths::Paths;
use crate::status::Reporter;
use crate::tasks::{self, Tasks};
use crate::{address, cgroups, doctor, errors, flags, instance, kubeconfig, node_config, runtime};

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
    /// Whether the kubelet asks the API server for a serving certificate, unless a
    /// configuration file says otherwise.
    pub asks_serving: bool,
    /// TCP ports that other parts of this process listen on.
    pub own_ports: Vec<u16>,
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
    /// As given, else the host name and the address that packets to elsewhere carry. One that was found is followed.
    ///
    /// # Errors
    /// When the host name cannot be a node's.
    pub async fn find(args: &NodeArgs, tasks: &Tasks, reporter: &Reporter) -> Result<Self> {
        let name = match &args.node_name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname().context("read the host name")?.to_string_lossy().to_lowercase(),
        };
        if !is_subdomain(&name) {
            bail!(UsageError(format!("the host name {name:?} cannot be a node's name; choose one with --node-name")));
        }
        if let Some(ip) = args.node_ip {
            return Ok(Self { name, ip });
        }
        let ip = address::find("--node-ip", reporter).await?;
        tasks.spawn("node address", |token| async move {
            token.run_until_cancelled(address::follow(ip)).await.unwrap_or(Ok(()))
        });
        Ok(Self { name, ip })
    }
}

/// Starts everything of a node on `tasks`, on a machine that was checked to
/// have what a node needs. `reporter` tells when the agent serves pods.
///
/// # Errors
/// Which part did not start.
pub async fn start(inputs: NodeInputs, tasks: &Tasks, reporter: Reporter) -> Result<()> {
    let mut inputs = inputs;
    let mut config = agent_config(&inputs)?;
    let mut proxy = proxy_config(&inputs)?;
    let applied = node_config::apply_files(&inputs.node.config, &mut config, &mut proxy)?;
    follow_cluster_dns(&mut inputs.net, &config.dns)?;
    proxy.dns_address = Some(flags::dns_address(&inputs.net)?);
    config.node.own_ports = own_ports(&inputs, &proxy);
    // Whom the agent admits, the plugin must not refuse.
    let reserved_ports = reserved(&config.node.own_ports, config.server.port);
    if let Some(path) = applied.proxy_kubeconfig.filter(|_| !inputs.proxy_client_is_chosen) {
        inputs.proxy_client = proxy_client(&path).await?;
    }
    instance::note_logs(&inputs.paths, &config.paths.pod_logs)?;
    // Before the first link or rule: whoever ends the node has to know of them.
    instance::note_network(&inputs.paths)?;
    // Found out once: agent and runtime have to agree.
    config.cgroups.driver = runtime::cgroup_driver(&inputs.node, config.cgroups.driver).await?;
    let driver = CgroupTree::detect(&config.cgroups).context("find the cgroups")?.driver();
    config.cgroups.driver = Some(driver);
    cgroups::note(&inputs.paths.cgroups_note(), &config.cgroups.root, driver == CgroupDriver::Systemd)?;
    let runtime = runtime::start(&inputs, driver, tasks).await?;
    let informer_metrics = proxy.metrics.informer.clone();
    let cluster = Cluster::new(inputs.proxy_client.clone(), &*inputs.identity.name, informer_metrics);
    let cluster = cluster.with_namespaces();
    if inputs.node.cni == Cni::Bridge {
        let note = inputs.paths.sysctls_note();
        // Loading a module may take its time.
        let prepared = tokio::task::spawn_blocking(move || cni::prepare_node(&note)).await?;
        prepared.context("prepare the kernel for pods' network")?;
    }
    for other in doctor::neighbours::other_nodes() {
        tracing::warn!("{}", other.message);
    }
    proxy.owner = Some(instance::owner(&inputs.paths)?);
    proxy.conntrack_note = Some(inputs.paths.conntrack_note());
    start_network(&inputs, network_config(&inputs, reserved_ports, &proxy)?, proxy.metrics.informer.clone(), tasks);
    start_dns(&inputs, cluster.clone(), proxy.metrics.dns.clone(), tasks)?;
    start_services(proxy, cluster.clone(), tasks);
    tasks.keep("cluster informers", move |token| {
        let cluster = cluster.clone();
        async move {
            cluster.run(token).await;
            Ok(())
        }
    });
    let agent = agent::app::Inputs {
        config,
        client: Some(inputs.client.clone()),
        runtime: Arc::new(runtime.clone()),
        images: Arc::new(runtime),
    };
    let (ready, mut serves) = watch::channel(false);
    tasks.spawn("agent", |token| agent::app::run(agent, ready, token));
    let (token, mut states) = (tasks.token().clone(), tasks.states());
    tokio::spawn(async move {
        let told = async {
            if serves.wait_for(|serves| *serves).await.is_err() {
                return;
            }
            reporter.ready();
            // What fails afterwards, and what runs again.
            while states.changed().await.is_ok() {
                let states = states.borrow_and_update().clone();
                let problem = |(name, state): (_, tasks::State)| Some(format!("{name}: {}", state.problem?));
                reporter.problems(states.into_iter().filter_map(problem).collect());
            }
        };
        token.run_until_cancelled(told).await;
        token.cancelled().await;
        reporter.stopping();
    });
    Ok(())
}

/// What this process answers on beside the kubelet's server, tunnels among it where there may be some.
fn own_ports(inputs: &NodeInputs, proxy: &ServiceProxyConfig) -> Vec<(&'static str, u16)> {
    let listening = [proxy.healthz_bind_address, proxy.metrics_bind_address].into_iter().flatten();
    let listening = inputs.own_ports.iter().copied().chain(listening.map(|address| address.port()));
    let routed = matches!(inputs.node.node_network, cli::NodeNetwork::Routes | cli::NodeNetwork::None);
    let tunnels = (inputs.node.cni == Cni::Bridge && !routed).then_some(("UDP", TUNNEL_PORT));
    listening.map(|port| ("TCP", port)).chain(tunnels).collect()
}

/// The same for the plugin, with the kubelet's.
fn reserved(own_ports: &[(&'static str, u16)], kubelet: u16) -> BTreeSet<ReservedPort> {
    let all = own_ports.iter().copied().chain([("TCP", kubelet)]);
    all.filter_map(|(name, port)| Some(ReservedPort(protocol(name)?, port))).collect()
}

/// Where somebody else gives pods their network, the cluster's DNS still is on this node.
fn network_config(
    inputs: &NodeInputs,
    reserved_ports: BTreeSet<ReservedPort>,
    proxy: &ServiceProxyConfig,
) -> Result<NetworkConfig> {
    let pods = PodNetworkConfig {
        service_cidr: cidr(&inputs.net.service_cluster_ip_range)?,
        cluster_cidr: cidr(&inputs.net.cluster_cidr)?,
        node_network: match inputs.node.node_network {
            cli::NodeNetwork::Auto => NodeNetwork::Auto,
            cli::NodeNetwork::Routes => NodeNetwork::Routes,
            cli::NodeNetwork::Vxlan => NodeNetwork::Vxlan,
            cli::NodeNetwork::None => NodeNetwork::None,
        },
        conf_dir: inputs.paths.cni_conf(),
        data_dir: inputs.paths.cni_data(),
        reserved_ports,
        masquerade_mark: proxy.masquerade_mark()?,
        sysctls_note: inputs.paths.sysctls_note(),
    };
    Ok(NetworkConfig {
        owner: instance::owner(&inputs.paths)?,
        node_name: inputs.identity.name.clone(),
        node_ip: v4(inputs.identity.ip)?,
        dns_address: Some(flags::dns_address(&inputs.net)?),
        pods: (inputs.node.cni == Cni::Bridge).then_some(pods),
    })
}

/// The pods' network: links, routes and the plugin's configuration.
fn start_network(inputs: &NodeInputs, network: NetworkConfig, metrics: netproxy::informer::Metrics, tasks: &Tasks) {
    let own_node = bounded(inputs.client.clone());
    let clients = network::Clients { nodes: inputs.proxy_client.clone(), own_node, metrics };
    tasks.keep("pod network", move |token| {
        let (network, clients) = (network.clone(), clients.clone());
        async move { Ok(network::run(network, clients, token).await?) }
    });
}

/// Services; each start sees everything the cluster has.
fn start_services(config: ServiceProxyConfig, cluster: Cluster, tasks: &Tasks) {
    tasks.keep("service proxy", move |token| {
        let (config, services) = (config.clone(), cluster.subscribe());
        async move {
            let ended = netproxy::services::run(config, services, token).await;
            ended.map_err(|error| match error {
                // What was asked for does not go, or an address that must be had is taken (`bindAddressHardFail`).
                ServiceProxyError::Config(_) | ServiceProxyError::Listen(..) => {
                    UsageError(errors::one_line(&error.into())).into()
                }
                ServiceProxyError::Unavailable(_) | ServiceProxyError::Cleanup(_) => error.into(),
            })
        }
    });
}

/// Cluster DNS; each start sees everything the cluster has.
fn start_dns(inputs: &NodeInputs, cluster: Cluster, metrics: netproxy::dns::Metrics, tasks: &Tasks) -> Result<()> {
    let dns = netproxy::dns::DnsConfig {
        address: flags::dns_address(&inputs.net)?,
        domain: inputs.net.cluster_domain.clone(),
        cluster_cidr: cidr(&inputs.net.cluster_cidr)?,
        service_cidr: cidr(&inputs.net.service_cluster_ip_range)?,
        resolv_conf: inputs.resolv_conf(),
        metrics,
    };
    tasks.keep("dns", move |token| {
        let (dns, names) = (dns.clone(), cluster.subscribe());
        async move {
            // All it fails for is a domain that is none.
            let ended = netproxy::dns::run(dns, names, token).await;
            ended.map_err(|error| UsageError(error.to_string()).into())
        }
    });
    Ok(())
}

/// The API as the service proxy that its configuration file names.
async fn proxy_client(kubeconfig: &Path) -> Result<Client> {
    Ok(bounded(kubeconfig::client(kubeconfig).await?))
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

/// What a `KubeletConfiguration` says of the cluster's DNS counts for who answers, too.
fn follow_cluster_dns(net: &mut ClusterNet, dns: &agent::config::DnsSettings) -> Result<()> {
    if let Some(server) = dns.servers.first() {
        let address = server.parse().map_err(|_| UsageError(format!("clusterDNS: {server} is not an address")))?;
        net.cluster_dns = Some(address);
    }
    net.cluster_domain.clone_from(&dns.domain);
    Ok(())
}

fn agent_config(inputs: &NodeInputs) -> Result<agent::config::AgentConfig> {
    let mut config = agent::config::AgentConfig::new(inputs.identity.name.clone(), inputs.paths.data.clone());
    config.paths.pod_logs = inputs.paths.log.clone();
    config.paths.resolv_conf = PathBuf::from(&inputs.node.resolv_conf);
    config.node.ips = vec![inputs.identity.ip];
    config.node.version = endpoints::GIT_VERSION.to_owned();
    config.dns.servers = vec![flags::dns_address(&inputs.net)?.to_string()];
    config.dns.domain = inputs.net.cluster_domain.clone();
    config.cgroups.root = inputs.node.cgroup_root.clone();
    let manifests = inputs.node.pod_manifest_path.clone();
    config.static_pods.directory = Some(manifests.unwrap_or_else(|| inputs.paths.manifests()));
    config.server.port = inputs.node.port;
    config.server.client_ca_file = Some(inputs.client_ca.clone());
    config.server.tls_bootstrap = inputs.asks_serving;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_nothing_is_not_waited_for_without_end() {
        // It takes connections, and leaves them at that.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let config = serde_json::json!({
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", silent.local_addr().unwrap())}}],
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
            "current-context": "c",
        });
        std::fs::write(&path, config.to_string()).unwrap();
        let client = proxy_client(&path).await.unwrap();
        let asked = tokio::time::timeout(std::time::Duration::from_secs(86_400), client.apiserver_version()).await;
        asked.expect("it ends").unwrap_err();
    }
}
