//! A pod's resolver configuration and host name, from its DNS policy.

use cri::types::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use super::spec;
use crate::config::DnsSettings;

/// resolv.conf's own limits, which upstream keeps to.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// Longest host name the kernel takes.
const MAX_HOSTNAME: usize = 63;

/// Reads a resolv.conf; lines it does not know are skipped.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut out = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => out.servers.extend(words.next().map(str::to_owned)),
            // The last search line counts; a trailing dot means nothing there.
            Some("search") => {
                out.searches = words.map(|w| if w == "." { w } else { w.trim_end_matches('.') }.to_owned()).collect();
            }
            Some("options") => out.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    out
}

/// The pod's resolver configuration over the node's.
pub fn pod_dns(pod: &Pod, settings: &DnsSettings, host: &DnsConfig) -> DnsConfig {
    let s = spec::spec(pod);
    let policy = s.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !spec::host_network(pod),
        _ => false,
    };
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        _ if cluster && !settings.servers.is_empty() => cluster_first(pod, settings, host),
        _ => host.clone(),
    };
    if let Some(config) = &s.dns_config {
        merge(&mut dns, config);
    }
    limit(&mut dns);
    dns
}

fn cluster_first(pod: &Pod, settings: &DnsSettings, host: &DnsConfig) -> DnsConfig {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = settings.domain.trim_end_matches('.');
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    }
    for search in &host.searches {
        if !searches.contains(search) {
            searches.push(search.clone());
        }
    }
    DnsConfig { servers: settings.servers.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn merge(dns: &mut DnsConfig, config: &PodDNSConfig) {
    let push = |list: &mut Vec<String>, items: &Option<Vec<String>>| {
        for item in items.iter().flatten() {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
    };
    push(&mut dns.servers, &config.nameservers);
    push(&mut dns.searches, &config.searches);
    for option in config.options.iter().flatten() {
        let Some(name) = option.name.as_deref().filter(|n| !n.is_empty()) else { continue };
        dns.options.retain(|o| o.split(':').next() != Some(name));
        dns.options.push(match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        });
    }
}

fn limit(dns: &mut DnsConfig) {
    dns.servers.truncate(MAX_SERVERS);
    dns.searches.truncate(MAX_SEARCHES);
    let mut chars = 0;
    dns.searches.retain(|s| {
        chars += s.len() + 1;
        chars <= MAX_SEARCH_CHARS + 1
    });
}

/// The resolver file's text.
pub fn render_resolv_conf(dns: &DnsConfig) -> String {
    let mut out = String::new();
    if !dns.searches.is_empty() {
        out.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        out.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        out.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    out
}

/// Host name and domain of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostName {
    pub name: String,
    /// `subdomain.namespace.svc.cluster-domain`, or empty.
    pub domain: String,
}

impl HostName {
    /// Name and domain joined, or the name alone.
    pub fn fqdn(&self) -> String {
        if self.domain.is_empty() { self.name.clone() } else { format!("{}.{}", self.name, self.domain) }
    }
}

/// The pod's host name and domain.
pub fn host_name(pod: &Pod, cluster_domain: &str) -> HostName {
    let s = spec::spec(pod);
    if let Some(name) = s.hostname_override.as_deref().filter(|n| !n.is_empty()) {
        return HostName { name: name.to_owned(), domain: String::new() };
    }
    let own = s.hostname.as_deref().filter(|n| !n.is_empty());
    let name = own.unwrap_or(pod.metadata.name.as_deref().unwrap_or_default());
    let cut: String = name.chars().take(MAX_HOSTNAME).collect();
    let name = if own.is_some() { name.to_owned() } else { cut.trim_end_matches(['-', '.']).to_owned() };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = match s.subdomain.as_deref().filter(|d| !d.is_empty()) {
        Some(sub) => format!("{sub}.{namespace}.svc.{}", cluster_domain.trim_end_matches('.')),
        None => String::new(),
    };
    HostName { name, domain }
}

/// What `uname -n` says inside: the name, or the whole when the pod asks for it.
/// `Err` when the whole is longer than the kernel allows.
pub fn kernel_hostname(pod: &Pod, name: &HostName) -> Result<String, String> {
    if spec::spec(pod).set_hostname_as_fqdn != Some(true) || name.domain.is_empty() {
        return Ok(name.name.clone());
    }
    let fqdn = name.fqdn();
    if fqdn.len() > 64 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {} characters requested)",
            fqdn.len()
        ));
    }
    Ok(fqdn)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(text: &str) -> Pod {
        serde_norway::from_str(&format!("metadata: {{name: web-0, namespace: ns}}\nspec:\n  containers: []\n{text}"))
            .unwrap()
    }

    fn settings() -> DnsSettings {
        DnsSettings { servers: vec!["10.43.0.10".into()], domain: "cluster.local".into() }
    }

    #[test]
    fn policies() {
        let host = parse_resolv_conf("# c\nnameserver 1.1.1.1\nsearch corp.example. lan\noptions edns0\nfoo bar\n");
        let cases = [
            (
                "",
                "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example lan\nnameserver 10.43.0.10\noptions ndots:5\n",
            ),
            ("  hostNetwork: true", "search corp.example lan\nnameserver 1.1.1.1\noptions edns0\n"),
            ("  dnsPolicy: Default", "search corp.example lan\nnameserver 1.1.1.1\noptions edns0\n"),
            (
                "  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet",
                "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example lan\nnameserver 10.43.0.10\noptions ndots:5\n",
            ),
            (
                "  dnsPolicy: None\n  dnsConfig: {nameservers: [9.9.9.9], searches: [x.y], options: [{name: ndots, value: '2'}, {name: debug}]}",
                "search x.y\nnameserver 9.9.9.9\noptions ndots:2 debug\n",
            ),
        ];
        for (text, expect) in cases {
            assert_eq!(render_resolv_conf(&pod_dns(&pod(text), &settings(), &host)), expect, "{text}");
        }
        let merged = pod_dns(&pod("  dnsConfig: {options: [{name: ndots, value: '1'}]}"), &settings(), &host);
        assert_eq!(merged.options, ["ndots:1"]);
    }

    #[test]
    fn limits_hold() {
        let many: String = (0..50).map(|i| format!(" s{i}.example")).collect();
        let host = parse_resolv_conf(&format!("search{many}\nnameserver a\nnameserver b\nnameserver c\nnameserver d"));
        let dns = pod_dns(&pod("  dnsPolicy: Default"), &settings(), &host);
        assert_eq!((dns.servers.len(), dns.searches.len()), (3, 32));
    }

    #[test]
    fn host_names() {
        let p = pod("  hostname: h\n  subdomain: sub");
        let name = host_name(&p, "cluster.local");
        assert_eq!(name.fqdn(), "h.sub.ns.svc.cluster.local");
        assert_eq!(kernel_hostname(&p, &name).unwrap(), "h");
        let p = pod("  subdomain: sub\n  setHostnameAsFQDN: true");
        assert_eq!(kernel_hostname(&p, &host_name(&p, "cluster.local")).unwrap(), "web-0.sub.ns.svc.cluster.local");
        let mut long = pod("");
        long.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(20)));
        assert_eq!(host_name(&long, "x").name, "a".repeat(62));
        let p = pod(&format!("  subdomain: {}\n  setHostnameAsFQDN: true", "s".repeat(60)));
        assert!(kernel_hostname(&p, &host_name(&p, "cluster.local")).is_err());
    }
}
