//! PodSpec → the sandbox the runtime is asked for.

use std::path::Path;

use cri::types::{
    DnsConfig, LinuxContainerResources, PortMapping, Protocol, SandboxConfig, SandboxMetadata, StringMap,
};
use k8s_openapi::api::core::v1::Pod;

use super::quantity::{milli, value};
use super::resources::{PodCgroupLimits, quota, shares};
use super::{dns, labels, security, spec};

/// What a sandbox needs beside its pod.
#[derive(Clone, Debug)]
pub struct SandboxContext<'a> {
    pub attempt: u32,
    /// The pod's resolver configuration.
    pub dns: DnsConfig,
    /// The cluster's domain, for the pod's host name.
    pub cluster_domain: &'a str,
    /// Directory of all pods' logs.
    pub pod_logs: &'a Path,
    /// The pod's cgroup in the form of the runtime's driver.
    pub cgroup_parent: String,
    pub limits: PodCgroupLimits,
}

/// Why no sandbox can be made for a pod as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    #[error("{0}")]
    HostName(String),
    #[error("hostUsers is false, but this node does not support user namespaces")]
    UserNamespace,
}

/// The directory of a pod's logs below `pod_logs`.
pub fn log_directory(pod: &Pod) -> String {
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    let meta = &pod.metadata;
    format!("{}_{}_{}", text(&meta.namespace), text(&meta.name), text(&meta.uid))
}

/// The sandbox of a pod.
pub fn sandbox_config(pod: &Pod, ctx: &SandboxContext<'_>) -> Result<SandboxConfig, SandboxError> {
    if security::user_namespace(pod) {
        // A pod that asks for this protection does not run without it.
        return Err(SandboxError::UserNamespace);
    }
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let hostname = if spec::host_network(pod) {
        String::new()
    } else {
        let name = dns::host_name(pod, ctx.cluster_domain);
        dns::kernel_hostname(pod, &name).map_err(SandboxError::HostName)?
    };
    Ok(SandboxConfig {
        metadata: SandboxMetadata {
            name: text(&meta.name),
            uid: text(&meta.uid),
            namespace: text(&meta.namespace),
            attempt: ctx.attempt,
        },
        hostname,
        log_directory: ctx.pod_logs.join(log_directory(pod)).to_string_lossy().into_owned(),
        dns: Some(ctx.dns.clone()),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        cgroup_parent: ctx.cgroup_parent.clone(),
        sysctls: sysctls(pod),
        security: security::sandbox_security(pod),
        overhead: overhead(pod),
        resources: Some(LinuxContainerResources {
            cpu_shares: ctx.limits.cpu_shares,
            cpu_quota: ctx.limits.cpu_quota.unwrap_or(0),
            cpu_period: ctx.limits.cpu_period,
            memory_limit: ctx.limits.memory.unwrap_or(0),
            ..LinuxContainerResources::default()
        }),
    })
}

/// Host ports of main containers and sidecars. With the node's network there is
/// nothing to map.
pub fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if spec::host_network(pod) {
        return Vec::new();
    }
    let sidecars = spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c));
    let ports = spec::containers(pod).iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let host_port = u16::try_from(p.host_port?).ok().filter(|p| *p != 0)?;
            Some(PortMapping {
                protocol: match p.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                container_port: u16::try_from(p.container_port).ok()?,
                host_port,
                host_ip: p.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// Sysctls by name with dots, as the kernel's /proc/sys names them.
fn sysctls(pod: &Pod) -> StringMap {
    let list = spec::spec(pod).security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    list.into_iter().flatten().map(|s| (s.name.replace('/', "."), s.value.clone())).collect()
}

fn overhead(pod: &Pod) -> Option<LinuxContainerResources> {
    let overhead = spec::spec(pod).overhead.as_ref()?;
    let cpu = overhead.get("cpu").map_or(0, milli);
    Some(LinuxContainerResources {
        cpu_shares: shares(cpu),
        cpu_quota: quota(cpu, 100_000),
        cpu_period: 100_000,
        memory_limit: overhead.get("memory").map_or(0, value),
        ..LinuxContainerResources::default()
    })
}

/// Sysctls that are namespaced and harmless, as upstream lists them.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The first sysctl of the pod that this node does not allow.
pub fn forbidden_sysctl(pod: &Pod, allowed_unsafe: &[String]) -> Option<String> {
    let host_network = spec::host_network(pod);
    sysctls(pod).into_keys().find(|name| {
        let safe = SAFE_SYSCTLS.contains(&name.as_str());
        let allowed = allowed_unsafe.iter().any(|a| match a.strip_suffix('*') {
            Some(prefix) => name.starts_with(&prefix.replace('/', ".")),
            None => a.replace('/', ".") == *name,
        });
        let of_network = name.starts_with("net.");
        (of_network && host_network) || !(safe || allowed)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(text: &str) -> Pod {
        serde_norway::from_str(&format!(
            "metadata: {{name: web, namespace: ns, uid: u1, labels: {{app: web}}, annotations: {{a: b}}}}\nspec:\n{text}"
        ))
        .unwrap()
    }

    fn config(pod: &Pod) -> SandboxConfig {
        let ctx = SandboxContext {
            attempt: 2,
            dns: DnsConfig { servers: vec!["10.43.0.10".into()], ..DnsConfig::default() },
            cluster_domain: "cluster.local",
            pod_logs: Path::new("/var/log/pods"),
            cgroup_parent: "/kubepods/burstable/podu1".into(),
            limits: PodCgroupLimits { cpu_shares: 2, ..PodCgroupLimits::default() },
        };
        sandbox_config(pod, &ctx).unwrap()
    }

    #[test]
    fn a_sandbox() {
        let c = config(&pod(
            "  containers: [{name: a, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 53, protocol: UDP}, {containerPort: 1, hostPort: 70000}]}]
  securityContext: {sysctls: [{name: net/ipv4/tcp_fin_timeout, value: '30'}]}",
        ));
        assert_eq!(
            c.metadata,
            SandboxMetadata { name: "web".into(), uid: "u1".into(), namespace: "ns".into(), attempt: 2 }
        );
        assert_eq!((c.hostname.as_str(), c.log_directory.as_str()), ("web", "/var/log/pods/ns_web_u1"));
        assert_eq!(c.labels["io.kubernetes.pod.uid"], "u1");
        assert_eq!((c.labels["app"].as_str(), c.annotations["a"].as_str()), ("web", "b"));
        assert_eq!(c.port_mappings.len(), 1);
        assert_eq!((c.port_mappings[0].host_port, c.port_mappings[0].container_port), (8080, 80));
        assert_eq!(c.sysctls["net.ipv4.tcp_fin_timeout"], "30");
        assert_eq!(c.cgroup_parent, "/kubepods/burstable/podu1");
        assert_eq!(c.dns.unwrap().servers, ["10.43.0.10"]);
    }

    #[test]
    fn the_nodes_network_has_no_host_name_and_ports() {
        let c =
            config(&pod("  hostNetwork: true\n  containers: [{name: a, ports: [{containerPort: 80, hostPort: 80}]}]"));
        assert!(c.hostname.is_empty() && c.port_mappings.is_empty());
    }

    #[test]
    fn sysctls_are_checked() {
        let with = |name: &str, host: bool| {
            pod(&format!(
                "  hostNetwork: {host}\n  containers: []\n  securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}"
            ))
        };
        assert_eq!(forbidden_sysctl(&with("net.ipv4.tcp_syncookies", false), &[]), None);
        assert!(forbidden_sysctl(&with("net.ipv4.tcp_syncookies", true), &[]).is_some());
        assert!(forbidden_sysctl(&with("kernel.msgmax", false), &[]).is_some());
        assert_eq!(forbidden_sysctl(&with("kernel.msgmax", false), &["kernel.msg*".into()]), None);
    }
}
