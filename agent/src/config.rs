//! The agent's configuration: validated, complete, one struct per subsystem.
//!
//! [`kubelet_config`] reads an upstream `KubeletConfiguration` file over the
//! defaults given here. Nothing in the crate reads the environment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::image::access::Verification;

pub mod eviction;
pub mod kubelet_config;

pub use eviction::{EvictionSettings, Signal, Threshold, ThresholdValue};
pub use kubelet_config::{Applied, ConfigError, apply_kubelet_configuration, apply_kubelet_document};

/// How cgroups are named and made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Plain directories, `kubepods/burstable/pod<uid>`.
    Cgroupfs,
    /// systemd slices, `kubepods-burstable-pod<uid>.slice`.
    Systemd,
}

/// Where files of the node live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The kubelet's root; pods are below `pods/<uid>`.
    pub root: PathBuf,
    /// Container logs, `<namespace>_<name>_<uid>/<container>/<n>.log`.
    pub pod_logs: PathBuf,
    /// The node's resolver configuration, the base of pods' own; empty for none.
    pub resolv_conf: PathBuf,
    /// Seccomp profiles named `localhostProfile` in pods.
    pub seccomp: PathBuf,
}

impl Paths {
    /// The layout below a data directory.
    pub fn below(data_dir: impl Into<PathBuf>) -> Self {
        let root = data_dir.into().join("kubelet");
        Self {
            seccomp: root.join("seccomp"),
            root,
            pod_logs: PathBuf::from("/var/log/pods"),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

/// Cluster DNS as pods see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Name servers of policy `ClusterFirst`.
    pub servers: Vec<String>,
    pub domain: String,
}

/// The node object.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSettings {
    pub name: String,
    /// The host name reported as address; usually the node name.
    pub hostname: String,
    /// Addresses to report; empty means: of the default route's link.
    pub ips: Vec<IpAddr>,
    pub register: bool,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub max_pods: u32,
    /// Quantities kept away from pods, by resource name (system and kube).
    pub reserved: BTreeMap<String, String>,
    pub lease_duration: Duration,
    /// How often changes of the node are looked for (local and cheap).
    pub status_update: Duration,
    /// How often an unchanged status is reported.
    pub status_report: Duration,
    /// Version to report as `kubeletVersion`.
    pub version: String,
    pub provider_id: Option<String>,
    /// Protocols and ports that this node beside the kubelet's server answers
    /// on: no pod gets them as host ports.
    pub own_ports: Vec<(&'static str, u16)>,
}

/// cgroups of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupSettings {
    /// Below which cgroup the tree `kubepods` hangs; "/" is the top.
    pub root: String,
    /// `None` picks systemd where it runs as init and cgroups are v2, else cgroupfs.
    pub driver: Option<CgroupDriver>,
    /// Whether pods get cgroups of their own.
    pub per_qos: bool,
    /// Whether CPU limits are enforced.
    pub cfs_quota: bool,
    /// Length of a CFS period.
    pub cfs_period: Duration,
    /// Processes allowed per pod; `None` is no limit.
    pub pod_pids_limit: Option<i64>,
    /// Whether only the process that a container's memory ran out for is killed,
    /// and not the whole container. `None` is what the kernel's cgroups suggest.
    pub single_process_oom_kill: Option<bool>,
    /// Whether all pods together are held to what is not reserved, and not only
    /// to what the machine has.
    pub enforce_node_allocatable: bool,
    /// Whether a machine with cgroups v1 is refused.
    pub fail_v1: bool,
}

/// Images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSettings {
    /// Pulls at a time; `None` is no limit.
    pub max_parallel_pulls: Option<usize>,
    /// Percent of the file system above which images are removed, and down to which.
    pub gc_high_percent: u8,
    pub gc_low_percent: u8,
    /// How long an unused image stays at least.
    pub min_age: Duration,
    /// Bytes that are enough to have free, whatever the percentages say.
    pub enough_free: u64,
}

/// Where static pods come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticPods {
    /// A directory, or one file.
    pub directory: Option<PathBuf>,
    /// How often it is read whatever is heard of it.
    pub file_interval: Duration,
    pub url: Option<String>,
    pub url_headers: Vec<(String, String)>,
    /// How often the URL is read.
    pub url_interval: Duration,
}

/// Who may use the HTTPS server on :10250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Everybody who is authenticated.
    AlwaysAllow,
    /// The API server decides (SubjectAccessReview).
    Webhook,
}

/// Lowest version of TLS that is spoken. Older ones than 1.2 never are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMinVersion {
    #[default]
    Tls12,
    Tls13,
}

/// The HTTPS server on :10250.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    pub enabled: bool,
    pub address: IpAddr,
    /// 0 picks a free port, which the node object then reports.
    pub port: u16,
    /// PEM files; without them a self-signed certificate is made.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Whether the certificate is asked for at the API server, where no files are given.
    pub tls_bootstrap: bool,
    pub tls_min_version: TlsMinVersion,
    /// Suites of TLS 1.2 by their IANA names; empty allows all that are spoken.
    pub cipher_suites: Vec<String>,
    /// PEM bundle that client certificates must chain to.
    pub client_ca_file: Option<PathBuf>,
    pub authorization: Authorization,
    /// Whether bearer tokens are checked by TokenReview.
    pub webhook_authentication: bool,
    /// Whether requests without credentials pass as `system:anonymous`.
    pub anonymous: bool,
}

/// Container logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Bytes after which a log is rotated.
    pub max_size: u64,
    /// Files kept per container.
    pub max_files: u32,
}

/// How many events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSettings {
    /// In a second, on the whole; 0 is no limit.
    pub record_qps: u32,
    /// At once, after a while without any.
    pub burst: u32,
}

/// Everything the agent has to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    pub node: NodeSettings,
    pub paths: Paths,
    pub dns: DnsSettings,
    pub cgroups: CgroupSettings,
    pub images: ImageSettings,
    /// When a pod has to show that it may use an image that is here.
    pub image_verification: Verification,
    pub static_pods: StaticPods,
    pub server: ServerSettings,
    pub logs: LogSettings,
    pub events: EventSettings,
    pub eviction: EvictionSettings,
    /// Safety net: how often everything is looked at without a cause.
    pub relist: Duration,
    /// Longest wait of CrashLoopBackOff.
    pub max_crash_backoff: Duration,
    /// Sysctls pods may set beside the safe ones; a trailing `*` matches a prefix.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Whether containers without a seccomp profile get the runtime's.
    pub seccomp_default: bool,
    /// Whether the node may have swap; reported only.
    pub fail_swap_on: bool,
}

impl AgentConfig {
    /// Upstream's defaults for a node of that name below `data_dir`.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let name = node_name.into();
        Self {
            node: NodeSettings {
                hostname: name.clone(),
                name,
                ips: Vec::new(),
                register: true,
                labels: BTreeMap::new(),
                taints: Vec::new(),
                max_pods: 110,
                reserved: BTreeMap::new(),
                lease_duration: Duration::from_secs(40),
                status_update: Duration::from_secs(10),
                status_report: Duration::from_secs(300),
                version: "v1.36.0".to_owned(),
                provider_id: None,
                own_ports: Vec::new(),
            },
            paths: Paths::below(data_dir),
            dns: DnsSettings { servers: Vec::new(), domain: "cluster.local".to_owned() },
            cgroups: CgroupSettings {
                root: "/".to_owned(),
                driver: None,
                per_qos: true,
                cfs_quota: true,
                cfs_period: Duration::from_millis(100),
                pod_pids_limit: None,
                single_process_oom_kill: None,
                enforce_node_allocatable: true,
                fail_v1: false,
            },
            images: ImageSettings {
                max_parallel_pulls: Some(5),
                gc_high_percent: 85,
                gc_low_percent: 80,
                min_age: Duration::from_secs(120),
                enough_free: 10 << 30,
            },
            image_verification: Verification::default(),
            static_pods: StaticPods {
                file_interval: Duration::from_secs(20),
                url_interval: Duration::from_secs(20),
                ..StaticPods::default()
            },
            server: ServerSettings {
                enabled: true,
                address: IpAddr::from([0, 0, 0, 0]),
                port: 10250,
                cert_file: None,
                key_file: None,
                client_ca_file: None,
                authorization: Authorization::Webhook,
                tls_bootstrap: false,
                tls_min_version: Default::default(),
                cipher_suites: Vec::new(),
                webhook_authentication: true,
                anonymous: false,
            },
            logs: LogSettings { max_size: 10 << 20, max_files: 5 },
            events: EventSettings { record_qps: 50, burst: 100 },
            eviction: EvictionSettings::default(),
            relist: Duration::from_secs(60),
            max_crash_backoff: Duration::from_secs(300),
            allowed_unsafe_sysctls: Vec::new(),
            seccomp_default: false,
            fail_swap_on: false,
        }
    }
}
