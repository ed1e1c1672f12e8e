//! An upstream `KubeProxyConfiguration` (`kubeproxy.config.k8s.io/v1alpha1`): read strictly, laid
//! over a [`ServiceProxyConfig`], all problems at once. Pure: it is given the document.
//!
//! Every field upstream has is known. What means nothing here (other proxy modes, Windows) is taken
//! and named in [`Applied::ignored`], so that a file made for upstream works and its reader is told
//! what does not count. What would be wrong to leave out, as another mode or IPv6, is a problem.
//!
//! What a file leaves out has upstream's default, with two exceptions. `minSyncPeriod` is 0, not
//! 1 s: changes cost so little that nothing has to be held back. And without `mode` a NodePort is
//! served on all local addresses, as in the mode that upstream then picks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cidr::Cidr4;
use crate::services::{DetectLocal, NodePortAddresses, ServiceProxyConfig};

/// `apiVersion` of the document.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// `kind` of the document.
pub const KIND: &str = "KubeProxyConfiguration";

/// What a document did beside changing the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Fields that are set and have no effect here.
    pub ignored: Vec<String>,
    /// `clientConnection.kubeconfig`: credentials to use for the proxy's watches.
    pub kubeconfig: Option<PathBuf>,
}

/// Fields of upstream's type that have no effect here. `logging` and `featureGates` hold anything.
const IGNORED: &[&str] = &[
    "clientConnection.acceptContentTypes",
    "clientConnection.burst",
    "clientConnection.contentType",
    "clientConnection.qps",
    "configSyncPeriod",
    "enableProfiling",
    "featureGates",
    "iptables.localhostNodePorts",
    "iptables.masqueradeAll",
    "iptables.masqueradeBit",
    "iptables.minSyncPeriod",
    "iptables.snatNodeInternalIP",
    "iptables.syncPeriod",
    "ipvs.excludeCIDRs",
    "ipvs.minSyncPeriod",
    "ipvs.scheduler",
    "ipvs.strictARP",
    "ipvs.syncPeriod",
    "ipvs.tcpFinTimeout",
    "ipvs.tcpTimeout",
    "ipvs.udpTimeout",
    "logging",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
    "windowsRunAsService",
    "winkernel.enableDSR",
    "winkernel.forwardHealthCheckVip",
    "winkernel.networkName",
    "winkernel.rootHnsEndpointName",
    "winkernel.sourceVip",
];

/// The configuration as it becomes, with what can be judged only when all is read.
#[derive(Debug)]
struct Draft {
    config: ServiceProxyConfig,
    mode: Option<String>,
    detect_local: Option<String>,
    bridge: Option<String>,
    prefix: Option<String>,
    bind_address: Option<IpAddr>,
    node_ports: Vec<String>,
    kubeconfig: Option<PathBuf>,
}

type Setter = fn(&mut Draft, Value) -> Result<(), String>;

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn text(value: Value) -> Result<Option<String>, String> {
    parse::<String>(value).map(Some)
}

/// A duration as Go writes it: `1h2m3.5s`, `100ms`. None below zero.
pub(crate) fn duration(value: Value) -> Result<Duration, String> {
    let text: String = parse(value)?;
    let nanoseconds = gojson::duration::parse(&text).ok().and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| format!("{text:?} is not a duration"))
}

/// The same; 0 leaves things as they are.
fn optional_duration(value: Value) -> Result<Option<Duration>, String> {
    duration(value).map(|duration| Some(duration).filter(|d| !d.is_zero()))
}

fn address(value: Value, default_port: u16) -> Result<Option<SocketAddr>, String> {
    let text: String = parse(value)?;
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let parsed = bare.map(|ip| SocketAddr::from((ip, default_port))).or_else(|| text.parse().ok());
    match parsed {
        Some(address) if address.port() != 0 => Ok(Some(address)),
        _ => Err(format!("{text:?} is not IP:port")),
    }
}

fn cidr(text: &str) -> Result<Cidr4, String> {
    text.parse().map_err(|error: crate::cidr::CidrError| format!("{error}; only IPv4 is spoken"))
}

/// A link's name, or the beginning of one; nothing that nft would take for a wildcard.
fn link_name(value: Value) -> Result<Option<String>, String> {
    let name: String = parse(value)?;
    let legal = |c: char| c.is_ascii_graphic() && !"/\"*\\:".contains(c);
    let fits = !name.is_empty() && name.len() <= 15 && name.chars().all(legal);
    if fits { Ok(Some(name)) } else { Err(format!("{name:?} is not the name of an interface")) }
}

macro_rules! set {
    ($draft:ident . $($path:ident).+ = $parse:expr) => {
        |$draft, value| {
            $draft.$($path).+ = $parse(value)?;
            Ok(())
        }
    };
}

/// The fields that have an effect.
const FIELDS: &[(&str, Setter)] = &[
    ("bindAddress", |d, value| {
        d.bind_address = Some(parse(value)?);
        Ok(())
    }),
    ("bindAddressHardFail", set!(d.config.bind_address_hard_fail = parse)),
    ("clientConnection.kubeconfig", |d, value| {
        d.kubeconfig = Some(parse(value)?);
        Ok(())
    }),
    ("clusterCIDR", |d, value| {
        let all: String = parse(value)?;
        d.config.cluster_cidrs = all.split(',').map(cidr).collect::<Result<_, _>>()?;
        Ok(())
    }),
    ("conntrack.maxPerCore", set!(d.config.conntrack.max_per_core = |v| parse::<u32>(v).map(Some))),
    ("conntrack.min", set!(d.config.conntrack.min = parse)),
    ("conntrack.tcpBeLiberal", set!(d.config.conntrack.tcp_be_liberal = parse)),
    ("conntrack.tcpCloseWaitTimeout", set!(d.config.conntrack.tcp_close_wait = optional_duration)),
    ("conntrack.tcpEstablishedTimeout", set!(d.config.conntrack.tcp_established = optional_duration)),
    ("conntrack.udpStreamTimeout", set!(d.config.conntrack.udp_stream = optional_duration)),
    ("conntrack.udpTimeout", set!(d.config.conntrack.udp = optional_duration)),
    ("detectLocal.bridgeInterface", set!(d.bridge = link_name)),
    ("detectLocal.interfaceNamePrefix", set!(d.prefix = link_name)),
    ("detectLocalMode", set!(d.detect_local = text)),
    ("healthzBindAddress", set!(d.config.healthz_bind_address = |v| address(v, 10256))),
    ("hostnameOverride", |d, value| {
        d.config.node_name = parse::<String>(value)?.trim().to_lowercase();
        Ok(())
    }),
    ("metricsBindAddress", set!(d.config.metrics_bind_address = |v| address(v, 10249))),
    ("mode", set!(d.mode = text)),
    ("nftables.masqueradeAll", set!(d.config.masquerade_all = parse)),
    ("nftables.masqueradeBit", |d, value| {
        d.config.masquerade_bit = parse(value)?;
        if d.config.masquerade_bit > 31 { Err("must be within 0 to 31".to_owned()) } else { Ok(()) }
    }),
    ("nftables.minSyncPeriod", set!(d.config.min_sync_period = duration)),
    ("nftables.syncPeriod", |d, value| {
        d.config.sync_period = optional_duration(value)?.unwrap_or(d.config.sync_period);
        Ok(())
    }),
    ("nodePortAddresses", set!(d.node_ports = parse)),
];

/// Lays a document's settings over `config`.
///
/// # Errors
/// Every problem, one a line; then nothing is changed.
pub fn apply_kube_proxy_configuration(
    config: &mut ServiceProxyConfig,
    document: Value,
) -> Result<Applied, Vec<String>> {
    let Value::Object(mut map) = document else { return Err(vec!["the document holds no object".to_owned()]) };
    let (mut ignored, mut problems) = (Vec::new(), Vec::new());
    for (key, expect) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        if map.remove(key).as_ref().and_then(Value::as_str) != Some(expect) {
            problems.push(format!("{key}: must be {expect}"));
        }
    }
    let mut draft = Draft {
        config: config.clone(),
        mode: None,
        detect_local: None,
        bridge: None,
        prefix: None,
        bind_address: None,
        node_ports: Vec::new(),
        kubeconfig: None,
    };
    draft.config.conntrack = crate::conntrack::tuning::ConntrackSettings::upstream();
    walk("", map, &mut draft, &mut ignored, &mut problems);
    problems.extend(resolve(&mut draft));
    if !problems.is_empty() {
        return Err(problems);
    }
    *config = draft.config;
    Ok(Applied { ignored, kubeconfig: draft.kubeconfig })
}

fn walk(
    prefix: &str,
    map: serde_json::Map<String, Value>,
    draft: &mut Draft,
    ignored: &mut Vec<String>,
    problems: &mut Vec<String>,
) {
    for (key, value) in map {
        let path = format!("{prefix}{key}");
        let inside = format!("{path}.");
        if let Some((_, set)) = FIELDS.iter().find(|(name, _)| *name == path) {
            // An empty text asks for the default, as everywhere in upstream's type.
            if !value.is_null()
                && value != ""
                && let Err(problem) = set(draft, value)
            {
                problems.push(format!("{path}: {problem}"));
            }
        } else if IGNORED.contains(&path.as_str()) {
            if !says_nothing(&value) {
                ignored.push(path);
            }
        } else if FIELDS.iter().map(|(name, _)| name).chain(IGNORED).any(|name| name.starts_with(&inside)) {
            match value {
                Value::Object(map) => walk(&inside, map, draft, ignored, problems),
                Value::Null => {}
                _ => problems.push(format!("{path}: must be an object")),
            }
        } else {
            problems.push(format!("{path}: unknown field"));
        }
    }
}

/// Whether a value is what Go writes for one that was never set.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0s",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(says_nothing),
    }
}

/// What follows from several fields together; returns what does not go together.
fn resolve(draft: &mut Draft) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |field: &str, result: Result<(), String>| {
        problems.extend(result.err().map(|problem| format!("{field}: {problem}")));
    };
    note("mode", check_mode(draft.mode.as_deref()));
    note("bindAddress", bind(draft));
    note("detectLocalMode", detect(draft));
    note("nodePortAddresses", node_ports(draft));
    if draft.config.min_sync_period > draft.config.sync_period {
        note("nftables.syncPeriod", Err("must not be shorter than nftables.minSyncPeriod".to_owned()));
    }
    problems
}

fn check_mode(mode: Option<&str>) -> Result<(), String> {
    match mode {
        None | Some("nftables") => Ok(()),
        Some(other @ ("iptables" | "ipvs" | "kernelspace")) => {
            Err(format!("{other} is not offered: Services are written with nftables"))
        }
        Some(other) => Err(format!("{other:?} is not a proxy mode; nftables is offered")),
    }
}

/// Upstream's `bindAddress` binds nothing: it names the node's address.
fn bind(draft: &mut Draft) -> Result<(), String> {
    match draft.bind_address {
        None => Ok(()),
        Some(IpAddr::V4(ip)) if ip.is_unspecified() => Ok(()),
        Some(IpAddr::V4(ip)) if ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() => {
            Err(format!("{ip} cannot be the node's address"))
        }
        Some(IpAddr::V4(ip)) => {
            draft.config.node_ips = vec![IpAddr::V4(ip)];
            Ok(())
        }
        Some(IpAddr::V6(ip)) => Err(format!("{ip}: only IPv4 is spoken")),
    }
}

fn detect(draft: &mut Draft) -> Result<(), String> {
    let missing = |field: &str| format!("needs detectLocal.{field}");
    draft.config.detect_local = match draft.detect_local.as_deref() {
        None => return Ok(()),
        Some("ClusterCIDR") => DetectLocal::ClusterCidr,
        Some("NodeCIDR") => DetectLocal::NodeCidr,
        Some("BridgeInterface") => {
            DetectLocal::BridgeInterface(draft.bridge.clone().ok_or_else(|| missing("bridgeInterface"))?)
        }
        Some("InterfaceNamePrefix") => {
            DetectLocal::InterfaceNamePrefix(draft.prefix.clone().ok_or_else(|| missing("interfaceNamePrefix"))?)
        }
        Some(other) => {
            return Err(format!("{other:?} is none of ClusterCIDR, NodeCIDR, BridgeInterface and InterfaceNamePrefix"));
        }
    };
    Ok(())
}

fn node_ports(draft: &mut Draft) -> Result<(), String> {
    let primary = || {
        let v4 = draft.config.node_ips.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(Cidr4::host(*ip)),
            IpAddr::V6(_) => None,
        });
        v4.take(1)
    };
    let mut within = Vec::new();
    let mut all = false;
    for word in &draft.node_ports {
        match word.as_str() {
            "primary" => within.extend(primary()),
            "all" => all = true,
            "localhost" => return Err("NodePorts are not served on loopback".to_owned()),
            text => within.push(cidr(text)?),
        }
    }
    if let Some(net) = within.iter().find(|net| net.addr().is_loopback() && net.prefix_len() >= 8) {
        return Err(format!("{net}: NodePorts are not served on loopback"));
    }
    all |= within.iter().any(|net| net.prefix_len() == 0);
    if draft.node_ports.is_empty() {
        match draft.mode.as_deref() {
            Some("nftables") => within.extend(primary()),
            _ => return Ok(()),
        }
    }
    draft.config.node_port_addresses =
        if all { NodePortAddresses::AllLocal } else { NodePortAddresses::Within(within) };
    Ok(())
}

/// The configuration in force, in upstream's form, for `/configz`.
#[must_use]
pub fn effective(config: &ServiceProxyConfig) -> Value {
    let go = |duration: Duration| format!("{}s", duration.as_secs_f64());
    let timeout = |duration: Option<Duration>| go(duration.unwrap_or_default());
    let joined = |nets: &[Cidr4]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
    let listens = |address: Option<SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    let (mode, bridge, prefix) = match &config.detect_local {
        DetectLocal::ClusterCidr => ("ClusterCIDR", "", ""),
        DetectLocal::NodeCidr => ("NodeCIDR", "", ""),
        DetectLocal::BridgeInterface(name) => ("BridgeInterface", name.as_str(), ""),
        DetectLocal::InterfaceNamePrefix(prefix) => ("InterfaceNamePrefix", "", prefix.as_str()),
    };
    let node_ports = match &config.node_port_addresses {
        NodePortAddresses::AllLocal => vec!["all".to_owned()],
        NodePortAddresses::Within(nets) => joined(nets),
    };
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "mode": "nftables",
        "hostnameOverride": config.node_name,
        "bindAddress": config.node_ips.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_string(),
        "bindAddressHardFail": config.bind_address_hard_fail,
        "healthzBindAddress": listens(config.healthz_bind_address),
        "metricsBindAddress": listens(config.metrics_bind_address),
        "clusterCIDR": joined(&config.cluster_cidrs).join(","),
        "detectLocalMode": mode,
        "detectLocal": {"bridgeInterface": bridge, "interfaceNamePrefix": prefix},
        "nodePortAddresses": node_ports,
        "nftables": {
            "masqueradeAll": config.masquerade_all,
            "masqueradeBit": config.masquerade_bit,
            "syncPeriod": go(config.sync_period),
            "minSyncPeriod": go(config.min_sync_period),
        },
        "conntrack": {
            "maxPerCore": config.conntrack.max_per_core,
            "min": config.conntrack.min,
            "tcpEstablishedTimeout": timeout(config.conntrack.tcp_established),
            "tcpCloseWaitTimeout": timeout(config.conntrack.tcp_close_wait),
            "tcpBeLiberal": config.conntrack.tcp_be_liberal,
            "udpTimeout": timeout(config.conntrack.udp),
            "udpStreamTimeout": timeout(config.conntrack.udp_stream),
        },
    })
}

#[cfg(test)]
mod tests;
