//! What the values of flags must be like: every problem of a command line at once, before anything
//! is touched. Pure.

use std::net::{IpAddr, Ipv4Addr};

use agent::ids::is_subdomain;
use controlplane_lite::auth::authz::Mode;
use controlplane_lite::controllers;
use netproxy::cidr::Cidr4;

use crate::cli::{
    AgentArgs, ClusterNet, Cni, ControlPlaneArgs, JoinArgs, KubeconfigArgs, NodeArgs, ServerArgs, UpArgs,
};
use crate::control_plane;
use crate::node::UsageError;

/// Which address of the Services' network is the DNS's, as with kubeadm.
const DNS_HOST: u32 = 10;
/// Prefix lengths of a Services' network: not larger than upstream takes, and with room for the DNS.
const SERVICE_PREFIX: std::ops::RangeInclusive<u8> = 12..=28;

/// Problems of a command line.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn check(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.0.push(problem());
        }
    }

    fn add<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.0.push(problem)).ok()
    }

    fn end(self) -> Result<(), UsageError> {
        if self.0.is_empty() { Ok(()) } else { Err(UsageError(self.0.join("\n"))) }
    }
}

/// Checks `copepod up`.
///
/// # Errors
/// All problems, a line each.
pub fn up(args: &UpArgs) -> Result<(), UsageError> {
    let mut problems = Problems::default();
    net(&args.net, &mut problems);
    node(&args.node, &mut problems);
    control_plane(&args.control_plane, &mut problems);
    problems.end()
}

/// Checks `copepod server`.
///
/// # Errors
/// All problems, a line each.
pub fn server(args: &ServerArgs) -> Result<(), UsageError> {
    let mut problems = Problems::default();
    net(&args.net, &mut problems);
    control_plane(&args.control_plane, &mut problems);
    problems.end()
}

/// Checks `copepod agent`.
///
/// # Errors
/// All problems, a line each.
pub fn agent(args: &AgentArgs) -> Result<(), UsageError> {
    let mut problems = Problems::default();
    net(&args.net, &mut problems);
    node(&args.node, &mut problems);
    join(&args.join, &mut problems);
    problems.end()
}

/// Checks `copepod kubeconfig`.
///
/// # Errors
/// All problems, a line each.
pub fn kubeconfig(args: &KubeconfigArgs) -> Result<(), UsageError> {
    let mut problems = Problems::default();
    if let Some(server) = &args.server {
        url("--server", server, &mut problems);
    }
    problems.end()
}

/// The address of the cluster's DNS: as given, else the tenth of the Services' network.
pub fn dns_address(net: &ClusterNet) -> Result<Ipv4Addr, UsageError> {
    match net.cluster_dns {
        Some(IpAddr::V4(address)) => Ok(address),
        Some(IpAddr::V6(address)) => Err(UsageError(format!("--cluster-dns={address}: only IPv4 is spoken so far"))),
        None => {
            let range = cidr("--service-cluster-ip-range", &net.service_cluster_ip_range).map_err(UsageError)?;
            Ok(Ipv4Addr::from_bits(range.addr().to_bits().saturating_add(DNS_HOST)))
        }
    }
}

fn net(net: &ClusterNet, problems: &mut Problems) {
    let pods = problems.add(cidr("--cluster-cidr", &net.cluster_cidr));
    let services = problems.add(cidr("--service-cluster-ip-range", &net.service_cluster_ip_range));
    if let Some(services) = services {
        let length = services.prefix_len();
        problems.check(SERVICE_PREFIX.contains(&length), || {
            format!("--service-cluster-ip-range={services}: a prefix of 12 to 28 bits is needed")
        });
        if let Some(address) = problems.add(dns_address(net).map_err(|error| error.0)) {
            problems.check(services.contains(address), || {
                format!("--cluster-dns={address} is not in --service-cluster-ip-range={services}")
            });
        }
        if let Some(pods) = pods.filter(|pods| pods.contains(services.addr()) || services.contains(pods.addr())) {
            problems.0.push(format!("--cluster-cidr={pods} and --service-cluster-ip-range={services} overlap"));
        }
    }
    problems.check(is_subdomain(&net.cluster_domain), || {
        format!("--cluster-domain={}: not a domain name such as cluster.local", net.cluster_domain)
    });
}

fn node(node: &NodeArgs, problems: &mut Problems) {
    if let Some(name) = &node.node_name {
        problems.check(is_subdomain(name), || {
            format!("--node-name={name}: lower case letters, digits, '-' and '.' make a node's name")
        });
    }
    if let Some(address @ IpAddr::V6(_)) = node.node_ip {
        problems.0.push(format!("--node-ip={address}: only IPv4 is spoken so far"));
    }
    if let Some(endpoint) = &node.container_runtime_endpoint {
        problems.check(endpoint.strip_prefix("unix://").unwrap_or(endpoint).starts_with('/'), || {
            format!("--container-runtime-endpoint={endpoint}: a path or unix:///path is needed")
        });
        problems.check(node.cni == Cni::None, || {
            "--container-runtime-endpoint: that containerd has CNI directories of its own: \
             add --cni none, and give it a CNI plugin"
                .to_owned()
        });
    }
    if let Some(driver) = &node.cgroup_driver {
        problems.check(["cgroupfs", "systemd"].contains(&driver.as_str()), || {
            format!("--cgroup-driver={driver}: cgroupfs and systemd are known")
        });
    }
    for label in &node.node_labels {
        problems.check(label.split_once('=').is_some_and(|(key, value)| is_label(key, value)), || {
            format!("--node-labels={label}: not a label such as example.com/zone=a")
        });
    }
}

fn control_plane(args: &ControlPlaneArgs, problems: &mut Problems) {
    for san in &args.tls_san {
        let name = san.strip_prefix("*.").unwrap_or(san);
        problems.check(san.parse::<IpAddr>().is_ok() || is_subdomain(name), || {
            format!("--tls-san={san}: neither an address nor a domain name")
        });
    }
    for word in &args.controllers {
        let name = word.strip_prefix('-').unwrap_or(word);
        problems.check(word == "*" || controllers::names().any(|known| known == name), || {
            let known: Vec<_> = controllers::names().collect();
            format!("--controllers: {name:?} is none of {}", known.join(", "))
        });
    }
    authorization(args, problems);
    for problem in control_plane::admission(args).problems() {
        problems.check(false, || problem);
    }
    if let Some(datastore) = &args.datastore {
        let hosts = datastore.strip_prefix("etcd://").filter(|hosts| hosts.split(',').all(is_host_and_port));
        problems.check(hosts.is_some(), || format!("--datastore={datastore}: etcd://host:port[,host:port…] is needed"));
    }
    let (certificate, key) = (args.etcd_certfile.is_some(), args.etcd_keyfile.is_some());
    problems.check(certificate == key, || "--etcd-certfile and --etcd-keyfile belong together".to_owned());
    let tls = certificate || key || args.etcd_cafile.is_some();
    problems.check(!tls || args.datastore.is_some(), || "--etcd-…file: only with --datastore=etcd://…".to_owned());
}

/// As upstream judges them (`pkg/kubeapiserver/options/authorization.go`).
fn authorization(args: &ControlPlaneArgs, problems: &mut Problems) {
    for (at, word) in args.authorization_mode.iter().enumerate() {
        problems.add(word.parse::<Mode>().map_err(|error| format!("--authorization-mode: {error}")));
        problems.check(!args.authorization_mode[..at].contains(word), || {
            format!("--authorization-mode: {word} is there twice")
        });
    }
    let abac = args.authorization_mode.iter().any(|word| word == Mode::Abac.name());
    problems.check(abac == args.authorization_policy_file.is_some(), || {
        "--authorization-mode=ABAC and --authorization-policy-file belong together".to_owned()
    });
}

fn join(args: &JoinArgs, problems: &mut Problems) {
    if let Some(server) = &args.server {
        url("--server", server, problems);
    }
    if let Some(token) = &args.token {
        let parsed = token.parse::<agent::bootstrap::Token>();
        problems.add(parsed.map_err(|error| format!("--token: {error}")));
    }
    for hash in &args.ca_cert_hash {
        let digits = hash.strip_prefix("sha256:").unwrap_or_default();
        problems.check(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), || {
            format!("--ca-cert-hash={hash}: sha256: and 64 hexadecimal digits are needed")
        });
    }
}

fn url(flag: &str, server: &str, problems: &mut Problems) {
    let rest = server.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    problems.check(rest.is_some_and(|rest| is_host_and_port(rest) || is_host(rest)), || {
        format!("{flag}={server}: https://host:port is needed")
    });
}

fn cidr(flag: &str, text: &str) -> Result<Cidr4, String> {
    text.parse().map_err(|error| format!("{flag}: {error}"))
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| port.parse::<u16>().is_ok() && is_host(host))
}

fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().is_ok() || is_subdomain(text)
}

fn is_label(key: &str, value: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_qualified(name) && is_qualified(value)
}

/// The name of a label, or its value, which may be empty.
fn is_qualified(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && bytes.iter().copied().all(inner) && outer(bytes.first()) && outer(bytes.last())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn problems(words: &[&str]) -> Vec<String> {
        let result = match Cli::parse_from([&["copepod"], words].concat()).command {
            Command::Up(args) => up(&args),
            Command::Server(args) => server(&args),
            Command::Agent(args) => agent(&args),
            Command::Kubeconfig(args) => kubeconfig(&args),
            other => panic!("{other:?}"),
        };
        result.err().map(|error| error.0.lines().map(str::to_owned).collect()).unwrap_or_default()
    }

    #[test]
    fn defaults_and_usual_values_pass() {
        for words in [
            &["up"][..],
            &["up", "--service-cluster-ip-range=10.96.0.0/12", "--cluster-cidr=192.168.0.0/16"],
            &["up", "--tls-san=*.example.com,192.0.2.1", "--node-labels=a=,example.com/b=c-d"],
            &["up", "--container-runtime-endpoint=unix:///run/c.sock", "--cni=none"],
            &["server", "--datastore=etcd://192.0.2.1:2379,etcd-1:2379"],
            &["server", "--datastore=etcd://a:1", "--etcd-cafile=ca", "--etcd-certfile=crt", "--etcd-keyfile=key"],
            &["server", "--datastore=etcd://a:1", "--etcd-cafile=ca"],
            &["server", "--controllers=-deployment-controller,*", "--disable-scheduler"],
            &["server", "--authorization-mode=Node,RBAC,ABAC", "--authorization-policy-file=policies"],
            &["up", "--authorization-mode=AlwaysAllow"],
            &["up", "--enable-admission-plugins=AlwaysPullImages", "--disable-admission-plugins=PodSecurity"],
            &["kubeconfig", "--server=https://[2001:db8::1]:6443"],
            &["kubeconfig", "--server=https://api.example.com"],
        ] {
            assert_eq!(problems(words), [""; 0], "{words:?}");
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        let found = problems(&[
            "up",
            "--cluster-domain=bad domain",
            "--node-name=Bad_Name",
            "--tls-san=bad san!",
            "--cluster-cidr=10.43.0.0/17",
            "--cluster-dns=10.44.0.10",
            "--node-labels=x",
            "--cgroup-driver=other",
            "--datastore=mysql://x",
            "--container-runtime-endpoint=tcp://1.2.3.4:5",
        ]);
        for problem in [
            "--cluster-domain=bad domain: not",
            "--node-name=Bad_Name: lower",
            "--tls-san=bad san!: neither",
            "--cluster-cidr=10.43.0.0/17 and --service-cluster-ip-range=10.43.0.0/16 overlap",
            "--cluster-dns=10.44.0.10 is not in",
            "--node-labels=x: not",
            "--cgroup-driver=other: cgroupfs",
            "--datastore=mysql://x: etcd://",
            "--container-runtime-endpoint=tcp://1.2.3.4:5: a path",
            "add --cni none",
        ] {
            assert_eq!(found.iter().filter(|line| line.contains(problem)).count(), 1, "{problem} in {found:?}");
        }
        assert_eq!(found.len(), 10, "{found:?}");
    }

    #[test]
    fn odd_values_are_refused() {
        for words in [
            &["kubeconfig", "--server=nope"][..],
            &["kubeconfig", "--server=https://"],
            &["kubeconfig", "--server=https://a b:1"],
            &["agent", "--server=http://a:1", "--token=abcdef.0123456789abcdef"],
            &["agent", "--server=https://a:1", "--token=garbage"],
            &["agent", "--server=https://a:1", "--token=abcdef.0123456789abcdef", "--ca-cert-hash=x"],
            &["up", "--cluster-cidr=fd00::/64"],
            &["up", "--cluster-dns=fd00::a"],
            &["up", "--service-cluster-ip-range=11.0.0.0/8"],
            &["up", "--node-ip=::1"],
            &["up", "--node-name="],
            &["server", "--controllers=nope"],
            &["server", "--datastore=etcd://"],
            &["server", "--datastore=etcd://a:1,"],
            &["server", "--datastore=etcd://a:1", "--etcd-certfile=crt"],
            &["server", "--datastore=etcd://a:1", "--etcd-keyfile=key"],
            &["server", "--etcd-cafile=ca"],
            &["server", "--authorization-mode=Webhook"],
            &["server", "--authorization-mode="],
            &["server", "--authorization-mode=Node,RBAC,Node"],
            &["server", "--authorization-mode=Node,ABAC"],
            &["server", "--authorization-policy-file=policies"],
            &["server", "--enable-admission-plugins=Nope"],
            &["server", "--disable-admission-plugins=Nope"],
            &["up", "--enable-admission-plugins=PodSecurity", "--disable-admission-plugins=PodSecurity"],
        ] {
            assert_eq!(problems(words).len(), 1, "{words:?}: {:?}", problems(words));
        }
    }

    #[test]
    fn the_dns_address_follows_the_range() {
        let address = |words: &[&str]| {
            let Command::Up(args) = Cli::parse_from([&["copepod", "up"], words].concat()).command else { panic!() };
            dns_address(&args.net).unwrap().to_string()
        };
        assert_eq!(address(&[]), "10.43.0.10");
        assert_eq!(address(&["--service-cluster-ip-range=10.96.0.0/12"]), "10.96.0.10");
        assert_eq!(address(&["--service-cluster-ip-range=10.96.0.0/12", "--cluster-dns=10.100.0.1"]), "10.100.0.1");
    }
}
