//! The command line: every command and flag, parsed and nothing more.

mod cluster;
mod image;
mod token;

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::paths::Paths;
pub use cluster::ClusterCommand;
pub use image::{ImageCommand, ImageLoadArgs};
pub use token::{TokenCommand, TokenCreateArgs, TokenWhere};

/// Where a node keeps its files unless it is told otherwise.
pub const DATA_DIR: &str = "/var/lib/copepod";
pub const RUN_DIR: &str = "/run/copepod";
const POD_LOGS_DIR: &str = "/var/log/pods";

/// Seconds of the longest time that a duration of Go, as upstream's flags are, can hold.
const LONGEST_TIME: u64 = i64::MAX.cast_unsigned() / 1_000_000_000;

/// Heading of what every command takes.
const GLOBAL: &str = "Global options";

/// A Kubernetes node in one small binary, and a whole cluster in the same one.
#[derive(Debug, Parser)]
#[command(name = "copepod", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Log level or filter, such as `info` or `agent=debug`.
    #[arg(long, global = true, env = "COPEPOD_LOG", default_value = "info", help_heading = GLOBAL)]
    pub log: String,
    /// Form of the log.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, help_heading = GLOBAL)]
    pub log_format: LogFormat,
    /// Write the log to this file and not to standard error. At 10 MiB it is put aside as FILE.1.
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub log_file: Option<PathBuf>,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster of one node: control plane and agent in one process.
    Up(UpArgs),
    /// Run the control plane only.
    Server(ServerArgs),
    /// Run a node under any control plane: kubelet and kube-proxy.
    Agent(AgentArgs),
    /// End a node and leave nothing of it behind.
    Down(DownArgs),
    /// Local clusters of several nodes on this machine.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Images of the node.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Bootstrap tokens, with which nodes join.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print a kubeconfig for the administrator, or for another user.
    Kubeconfig(KubeconfigArgs),
    /// Say what this machine lacks to be a node, and what to do about it.
    Doctor,
    /// Process 1 of a local cluster's node.
    #[command(hide = true)]
    NodeInit(NodeInitArgs),
}

/// Where a node keeps what lives across restarts.
#[derive(Args, Clone, Debug)]
pub struct DataDir {
    /// Directory for what lives across restarts.
    #[arg(long, default_value = DATA_DIR)]
    pub data_dir: PathBuf,
}

impl DataDir {
    /// The files below it.
    pub fn paths(&self) -> Paths {
        Paths { data: self.data_dir.clone(), run: RUN_DIR.into(), log: POD_LOGS_DIR.into() }
    }
}

/// Where a copepod keeps its files.
#[derive(Args, Clone, Debug)]
pub struct Directories {
    #[command(flatten)]
    pub data: DataDir,
    /// Directory for sockets and process ids.
    #[arg(long, default_value = RUN_DIR)]
    pub run_dir: PathBuf,
}

impl Directories {
    /// The files below them.
    pub fn paths(&self) -> Paths {
        Paths { run: self.run_dir.clone(), ..self.data.paths() }
    }
}

/// Where a node keeps its files.
#[derive(Args, Clone, Debug)]
pub struct NodePaths {
    #[command(flatten)]
    pub directories: Directories,
    /// Directory for the pods' logs.
    #[arg(long, default_value = POD_LOGS_DIR)]
    pub pod_logs_dir: PathBuf,
}

impl NodePaths {
    /// The files below them.
    pub fn paths(&self) -> Paths {
        Paths { log: self.pod_logs_dir.clone(), ..self.directories.paths() }
    }
}

/// The pod network, unless it is named.
pub const CLUSTER_CIDR: &str = "10.42.0.0/16";

/// Addresses that every member of a cluster has to agree on.
#[derive(Args, Clone, Debug)]
pub struct ClusterNet {
    /// Network of all pods; every node gets a part of it.
    #[arg(long, default_value = CLUSTER_CIDR)]
    pub cluster_cidr: String,
    /// Network of Services' cluster IPs.
    #[arg(long, default_value = "10.43.0.0/16")]
    pub service_cluster_ip_range: String,
    /// Address of the cluster's DNS; the tenth of the Services' network by default.
    #[arg(long)]
    pub cluster_dns: Option<IpAddr>,
    /// Domain of the cluster's names.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
}

/// The node's side.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// Name of the Node object; the host name by default.
    #[arg(long)]
    pub node_name: Option<String>,
    /// The node's own address; the one of the default route by default.
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// CRI socket of a containerd that is already there. By default copepod
    /// starts and supervises a private one.
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// Who gives pods their network.
    #[arg(long, value_enum, default_value_t = Cni::Bridge)]
    pub cni: Cni,
    /// How packets travel between nodes, with the pod network of copepod's own. `auto` takes routes between nodes
    /// of one subnet; where the network drops packets with pods' sources, as many clouds do, choose `vxlan`.
    #[arg(long, value_enum, default_value_t = NodeNetwork::Auto)]
    pub node_network: NodeNetwork,
    /// Parent of the node's cgroups.
    #[arg(long, default_value = "/")]
    pub cgroup_root: String,
    /// `cgroupfs` or `systemd`; detected by default. What a foreign runtime says of itself counts more.
    #[arg(long)]
    pub cgroup_driver: Option<String>,
    /// Directory of static pods.
    #[arg(long)]
    pub pod_manifest_path: Option<PathBuf>,
    /// Resolver configuration to hand to pods and to forward to; empty for none.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: String,
    /// A file with a `KubeletConfiguration`, a `KubeProxyConfiguration`, or both, separated
    /// by `---`; may be given twice.
    #[arg(long)]
    pub config: Vec<PathBuf>,
    /// Labels of the Node object, `key=value`.
    #[arg(long, value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// Port of the kubelet's server.
    #[arg(long, default_value_t = 10250)]
    pub port: u16,
}

/// Who gives pods their network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cni {
    /// copepod itself: bridge, addresses, host ports, routes.
    Bridge,
    /// Somebody else: flannel, Calico, Cilium.
    None,
}

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NodeNetwork {
    /// Routes where nodes share a link, VXLAN where not.
    Auto,
    /// Routes only.
    Routes,
    /// VXLAN only.
    Vxlan,
    /// Somebody else sees to it.
    None,
}

/// The control plane's side.
#[derive(Args, Clone, Debug)]
pub struct ControlPlaneArgs {
    /// Port of the API.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address that the API listens on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Address under which members of the cluster reach the API.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Further names and addresses for the API's certificate.
    #[arg(long, value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// `etcd://host:port[,host:port…]`; an embedded file by default.
    #[arg(long)]
    pub datastore: Option<String>,
    /// CA that signs etcd's certificates (PEM); with it, etcd is spoken to by HTTPS.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate towards etcd (PEM).
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of the client certificate towards etcd (PEM).
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// Seconds that a node may be silent before it counts as unreachable.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=LONGEST_TIME))]
    pub node_monitor_grace_period: u64,
    /// Controllers to run: `*` for all, `name` for one, `-name` for all but that one. Names are those of
    /// upstream's kube-controller-manager.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    /// Leave scheduling to somebody else.
    #[arg(long)]
    pub disable_scheduler: bool,
    /// A file of `token,user,uid[,"group,…"]` lines.
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// A file of `password,user,uid[,"group,…"]` lines. Upstream has this no more since 1.19.
    #[arg(long)]
    pub basic_auth_file: Option<PathBuf>,
    /// Who is asked whether a request is allowed, in this order: AlwaysAllow, AlwaysDeny, ABAC, Node, RBAC.
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC")]
    pub authorization_mode: Vec<String>,
    /// A file of policies for ABAC, a line each.
    #[arg(long)]
    pub authorization_policy_file: Option<PathBuf>,
    /// Admission plugins that are on beside the default ones, by upstream's names.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins that are off although they are on by default.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// A listening socket inherited from the parent process.
    #[arg(long, hide = true)]
    pub listen_fd: Option<RawFd>,
}

/// `copepod up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    #[command(flatten)]
    pub paths: NodePaths,
    #[command(flatten)]
    pub net: ClusterNet,
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    pub control_plane: ControlPlaneArgs,
    /// Run in the background; return when the node is Ready.
    #[arg(long)]
    pub detach: bool,
}

/// `copepod server`.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    #[command(flatten)]
    pub paths: Directories,
    #[command(flatten)]
    pub net: ClusterNet,
    #[command(flatten)]
    pub control_plane: ControlPlaneArgs,
}

/// `copepod agent`.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    #[command(flatten)]
    pub paths: NodePaths,
    #[command(flatten)]
    pub net: ClusterNet,
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    pub join: JoinArgs,
    /// Credentials for the service proxy and DNS; the node's own by default.
    #[arg(long)]
    pub proxy_kubeconfig: Option<PathBuf>,
}

/// How a node comes to its credentials.
#[derive(Args, Clone, Debug)]
pub struct JoinArgs {
    /// The node's credentials for its control plane. Where they are missing or
    /// over, they are asked for and written here when joining [default: below
    /// the data directory].
    #[arg(long, required_unless_present_any = ["bootstrap_kubeconfig", "server"])]
    pub kubeconfig: Option<PathBuf>,
    /// Credentials to ask for the node's own with.
    #[arg(long, conflicts_with = "server")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Join the cluster of this API server, `https://host:port`, with a token.
    #[arg(long, requires = "token")]
    pub server: Option<String>,
    /// The bootstrap token to join with.
    #[arg(long, requires = "server", env = "COPEPOD_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Hash of the public key of the cluster's CA, `sha256:…`; several allow any of them.
    #[arg(long, requires = "server")]
    pub ca_cert_hash: Vec<String>,
    /// Directory of the node's certificates; below the data directory by default.
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
}

/// `copepod down`.
#[derive(Args, Clone, Debug)]
pub struct DownArgs {
    #[command(flatten)]
    pub paths: Directories,
    /// Keep the store and the images.
    #[arg(long)]
    pub keep_data: bool,
}

/// `copepod kubeconfig`.
#[derive(Args, Clone, Debug)]
pub struct KubeconfigArgs {
    #[command(flatten)]
    pub paths: DataDir,
    /// User to issue a client certificate for, instead of the administrator.
    #[arg(long, requires = "server")]
    pub user: Option<String>,
    /// Group of that user.
    #[arg(long, requires = "user")]
    pub group: Option<String>,
    /// Address of the API, `https://host:port`.
    #[arg(long)]
    pub server: Option<String>,
}

/// `copepod node-init`.
#[derive(Args, Clone, Debug)]
pub struct NodeInitArgs {
    /// The node's specification.
    pub spec: PathBuf,
    /// Be process 1 itself.
    #[arg(long)]
    pub first: bool,
}

/// The flags of the command that were typed, as `--name=value`, but for those that say nothing about
/// what runs.
pub fn typed_flags(matches: &ArgMatches) -> Vec<String> {
    let Some((name, matches)) = matches.subcommand() else { return Vec::new() };
    let command = Cli::command();
    let arguments = command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments);
    let arguments = arguments.filter(|argument| !["detach", "listen_fd"].contains(&argument.get_id().as_str()));
    let typed = arguments.filter(|argument| {
        let source = matches.value_source(argument.get_id().as_str());
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    });
    let shown = typed.flat_map(|argument| {
        let values = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
        let name = argument.get_long().unwrap_or_default();
        values.map(move |value| format!("--{name}={}", value.to_string_lossy()))
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_flags_have_one_form() {
        let flags = |words: &[&str]| typed_flags(&Cli::command().get_matches_from([&["copepod"], words].concat()));
        assert_eq!(flags(&["up", "--detach", "--log=debug", "--port=10250"]), ["--port=10250"]);
        assert_eq!(flags(&["up", "--port", "10250"]), flags(&["up", "--port=10250"]));
        assert_eq!(flags(&["up", "--tls-san=a,b", "--tls-san=c"]), ["--tls-san=a", "--tls-san=b", "--tls-san=c"]);
        assert!(flags(&["up"]).is_empty());
    }

    /// Upstream's are durations of Go, whose longest has 292 years.
    #[test]
    fn no_time_is_longer_than_clocks_count() {
        let parsed = |seconds: &str| {
            let flag = format!("--node-monitor-grace-period={seconds}");
            Cli::command().try_get_matches_from(["copepod", "up", &flag]).is_ok()
        };
        assert_eq!(["1", "40", "9223372036"].map(parsed), [true; 3]);
        assert_eq!(["0", "9223372037", "18446744073709551615", "-1"].map(parsed), [false; 4]);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
