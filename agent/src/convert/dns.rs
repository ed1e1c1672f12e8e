//! A pod's resolver configuration and host name, from its DNS policy.

use std::collections::HashSet;

use cri::types::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use super::spec;
use crate::config::DnsSettings;

/// Upstream's limits of a resolver configuration (pkg/apis/core/validation/validation.go: `MaxDNSNameservers`,
/// `MaxDNSSearchPaths`, `MaxDNSSearchListChars`).
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// Longest search domain: some resolvers abort on a longer one.
const MAX_SEARCH: usize = 253;
/// Search domains that the cluster adds to those of the node.
const CLUSTER_SEARCHES: usize = 3;
/// Longest host name the kernel takes.
const MAX_HOSTNAME: usize = 63;

/// A line of a resolv.conf that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nameserver list is empty")]
pub struct NoNameserver;

/// Reads a resolv.conf as upstream does (pkg/kubelet/network/dns/dns.go: `parseResolvConf`); lines it does not know are
/// skipped. The last `search` line counts, of each option the last value.
///
/// # Errors
/// For a `nameserver` line without an address.
pub fn parse_resolv_conf(text: &str) -> Result<DnsConfig, NoNameserver> {
    let mut out = DnsConfig::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => out.servers.push(words.next().ok_or(NoNameserver)?.to_owned()),
            // The root is searched anyway; with and without its last dot a domain is the same one.
            Some("search") => {
                let domains = words.filter(|word| *word != ".");
                out.searches = domains.map(|word| word.strip_suffix('.').unwrap_or(word).to_owned()).collect();
            }
            Some("options") => words.for_each(|option| set_option(&mut out.options, option.to_owned())),
            _ => {}
        }
    }
    Ok(out)
}

/// What of the node's search domains does not fit into a pod's resolver configuration, if anything; `path` is the file
/// they stand in (dns.go: `CheckLimitsForResolvConf`).
pub fn search_problem(host: &DnsConfig, path: &str, cluster_domain: &str) -> Option<String> {
    let most = if cluster_domain.is_empty() { MAX_SEARCHES } else { MAX_SEARCHES - CLUSTER_SEARCHES };
    let said = format!("resolv.conf file {path:?} has");
    if host.searches.len() > most {
        return Some(format!("{said} more than {most} search domains"));
    }
    if host.searches.iter().any(|search| search.len() > MAX_SEARCH) {
        return Some(format!("{said} a search domain of more than {MAX_SEARCH} characters"));
    }
    let whole = host.searches.join(" ").len() > MAX_SEARCH_CHARS;
    whole.then(|| format!("{said} a search line of more than {MAX_SEARCH_CHARS} characters"))
}

/// The node's part in the resolver configuration of pods.
#[derive(Clone, Copy, Debug)]
pub struct HostDns<'a> {
    /// What the node's resolv.conf says; `None` when pods are to have no resolver but one of their own.
    pub config: Option<&'a DnsConfig>,
    pub addresses: &'a [String],
}

/// A pod's resolver configuration, and what is to be said of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDns {
    pub config: DnsConfig,
    /// What was left out, one sentence each: warnings of reason `DNSConfigForming`.
    pub left_out: Vec<String>,
    /// A cluster's DNS is wanted that the node does not know: a warning of reason `MissingClusterDNS`.
    pub misses_cluster: bool,
}

/// The pod's resolver configuration over the node's (dns.go: `GetPodDNS`).
pub fn pod_dns(pod: &Pod, settings: &DnsSettings, host: HostDns<'_>) -> PodDns {
    let s = spec::spec(pod);
    let policy = s.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "None" | "Default" => false,
        "ClusterFirst" => !spec::host_network(pod),
        // `ClusterFirstWithHostNet`, and what no API server lets through.
        _ => true,
    };
    let misses_cluster = cluster && settings.servers.is_empty();
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        _ if cluster && !misses_cluster => cluster_first(pod, settings, host.config),
        _ => host.config.cloned().unwrap_or_else(|| own_resolver(host.addresses)),
    };
    if let Some(config) = &s.dns_config {
        merge(&mut dns, config);
    }
    let left_out = limit(&mut dns);
    PodDns { config: dns, left_out, misses_cluster }
}

/// Pods ask a resolver of their own: without any server the runtime would give them the node's.
fn own_resolver(addresses: &[String]) -> DnsConfig {
    let loopback = |address: &String| if address.contains(':') { "::1" } else { "127.0.0.1" }.to_owned();
    let mut servers: Vec<String> = addresses.iter().map(loopback).collect();
    if servers.is_empty() {
        servers.push("127.0.0.1".to_owned());
    }
    DnsConfig { servers, searches: vec![".".to_owned()], options: Vec::new() }
}

fn cluster_first(pod: &Pod, settings: &DnsSettings, host: Option<&DnsConfig>) -> DnsConfig {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = settings.domain.trim_end_matches('.');
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    }
    searches.extend(host.iter().flat_map(|host| host.searches.iter().cloned()));
    if !domain.is_empty() {
        omit_duplicates(&mut searches);
    }
    DnsConfig { servers: settings.servers.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn omit_duplicates(list: &mut Vec<String>) {
    let mut known = HashSet::new();
    list.retain(|item| known.insert(item.clone()));
}

fn merge(dns: &mut DnsConfig, config: &PodDNSConfig) {
    dns.servers.extend(config.nameservers.iter().flatten().cloned());
    dns.searches.extend(config.searches.iter().flatten().cloned());
    omit_duplicates(&mut dns.servers);
    omit_duplicates(&mut dns.searches);
    for option in config.options.iter().flatten() {
        let Some(name) = option.name.as_deref().filter(|n| !n.is_empty()) else { continue };
        let value = option.value.as_deref().filter(|value| !value.is_empty());
        set_option(&mut dns.options, value.map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
    }
}

/// Sets an option, `name` or `name:value`, whatever it was before.
fn set_option(options: &mut Vec<String>, option: String) {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    let own = name(&option);
    options.retain(|other| name(other) != own);
    options.push(option);
}

/// Leaves out what does not fit, and says so (dns.go: `formDNSConfigFitsLimits`).
fn limit(dns: &mut DnsConfig) -> Vec<String> {
    let mut left_out = Vec::new();
    let mut say = |what: &str, left: &[String]| {
        left_out.push(format!("{what} limits exceeded, the rest is left out of: {}", left.join(" ")));
    };
    if dns.servers.len() > MAX_SERVERS {
        dns.servers.truncate(MAX_SERVERS);
        say("Nameserver", &dns.servers);
    }
    let before = dns.searches.len();
    dns.searches.truncate(MAX_SEARCHES);
    dns.searches.retain(|search| search.len() <= MAX_SEARCH);
    let mut chars = 0_usize;
    dns.searches.retain(|search| {
        chars = chars.saturating_add(search.len() + 1);
        chars <= MAX_SEARCH_CHARS + 1
    });
    if dns.searches.len() < before {
        say("Search line", &dns.searches);
    }
    left_out
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

    fn parsed(text: &str) -> DnsConfig {
        parse_resolv_conf(text).unwrap()
    }

    /// The configuration of a pod with this spec, on a node with this one.
    fn dns_of(text: &str, host: &DnsConfig) -> PodDns {
        pod_dns(&pod(text), &settings(), HostDns { config: Some(host), addresses: &[] })
    }

    #[test]
    fn a_file_is_read_as_upstream_reads_it() {
        let searches = |line: &str| parsed(line).searches;
        assert_eq!(searches("search ."), [""; 0]);
        assert_eq!(searches("search .."), ["."]);
        assert_eq!(searches("search a. . b.. c"), ["a", "b.", "c"]);
        assert_eq!(searches("search a\nsearch\n"), [""; 0], "the last line counts");
        assert_eq!(searches("  search a # b ;c"), ["a", "#", "b", ";c"], "a comment is a line of its own");
        assert_eq!(searches("#search a\n # search b\n;search c\nsearch,d"), [""; 0]);
        assert_eq!(parsed("nameserver 1.1.1.1 # one\r\n\tnameserver\t::1 2.2.2.2").servers, ["1.1.1.1", "::1"]);
        assert_eq!(parsed("options a:1 b a:2\noptions c b:3").options, ["a:2", "c", "b:3"]);
        for text in ["nameserver", "nameserver 1.1.1.1\n nameserver \t"] {
            assert_eq!(parse_resolv_conf(text), Err(NoNameserver), "{text:?}");
        }
    }

    #[test]
    fn policies() {
        let host = parsed("# c\nnameserver 1.1.1.1\nsearch corp.example. lan\noptions edns0\nfoo bar\n");
        let own = "search corp.example lan\nnameserver 1.1.1.1\noptions edns0\n";
        let cluster = "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example lan\n\
            nameserver 10.43.0.10\noptions ndots:5\n";
        let config = "nameservers: [9.9.9.9], searches: [x.y], options: [{name: ndots, value: '2'}, {name: debug}]";
        let cases = [
            (String::new(), cluster),
            ("  hostNetwork: true".to_owned(), own),
            ("  dnsPolicy: Default".to_owned(), own),
            ("  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet".to_owned(), cluster),
            ("  dnsPolicy: Odd".to_owned(), cluster),
            (
                format!("  dnsPolicy: None\n  dnsConfig: {{{config}}}"),
                "search x.y\nnameserver 9.9.9.9\noptions ndots:2 debug\n",
            ),
        ];
        for (text, expect) in cases {
            let dns = dns_of(&text, &host);
            assert_eq!(render_resolv_conf(&dns.config), expect, "{text}");
            assert_eq!((dns.left_out, dns.misses_cluster), (Vec::new(), false), "{text}");
        }
        let merged = dns_of("  dnsConfig: {options: [{name: ndots, value: '1'}]}", &host);
        assert_eq!(merged.config.options, ["ndots:1"]);
        let twice = parsed("nameserver 1.1.1.1\nnameserver 1.1.1.1\nsearch a a");
        let merged = dns_of("  dnsPolicy: Default\n  dnsConfig: {searches: [b, a]}", &twice);
        assert_eq!((merged.config.servers.len(), merged.config.searches), (1, vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn without_what_is_wanted_there_is_something_else() {
        let host = parsed("nameserver 1.1.1.1");
        let unknown = DnsSettings { servers: Vec::new(), ..settings() };
        let found = |text: &str| pod_dns(&pod(text), &unknown, HostDns { config: Some(&host), addresses: &[] });
        assert_eq!(found(""), PodDns { config: host.clone(), misses_cluster: true, ..PodDns::default() });
        assert!(!found("  dnsPolicy: Default").misses_cluster && !found("  hostNetwork: true").misses_cluster);
        // No resolv.conf is wanted: then pods have no resolver but themselves.
        for (addresses, servers) in
            [(vec![], vec!["127.0.0.1"]), (vec!["10.0.0.1", "fd00::1"], vec!["127.0.0.1", "::1"])]
        {
            let addresses: Vec<String> = addresses.into_iter().map(str::to_owned).collect();
            let none = HostDns { config: None, addresses: &addresses };
            let own = pod_dns(&pod("  dnsPolicy: Default"), &settings(), none).config;
            assert_eq!(
                (own.servers, own.searches),
                (servers.iter().map(|s| (*s).to_owned()).collect(), vec![".".into()])
            );
            let cluster = pod_dns(&pod(""), &settings(), none).config;
            assert_eq!((cluster.servers, cluster.searches.len()), (vec!["10.43.0.10".to_owned()], 3));
        }
    }

    #[test]
    fn limits_hold() {
        let many: String = (0..50).map(|i| format!(" s{i}.example")).collect();
        let host = parsed(&format!("search{many}\nnameserver a\nnameserver b\nnameserver c\nnameserver d"));
        let PodDns { config, left_out, .. } = dns_of("  dnsPolicy: Default", &host);
        assert_eq!((config.servers.len(), config.searches.len()), (3, 32));
        assert_eq!(left_out.len(), 2);
        assert!(left_out[0].ends_with("left out of: a b c"), "{left_out:?}");
        assert!(left_out[1].starts_with("Search line limits") && left_out[1].ends_with(" s31.example"), "{left_out:?}");
        for (line, left) in [
            (format!("{} b", "a".repeat(MAX_SEARCH + 1)), 1),
            (format!("{} b", "a".repeat(MAX_SEARCH)), 2),
            (vec!["a".repeat(227); 9].join(" "), 8),
            (vec!["a".repeat(226); 9].join(" "), 9),
            (format!("{} b", vec!["a".repeat(250); 9].join(" ")), 8),
        ] {
            let host = parsed(&format!("search {line}"));
            let found = dns_of("  dnsPolicy: Default", &host);
            assert_eq!(found.config.searches.len(), left, "{line}");
            assert_eq!(found.left_out.is_empty(), left == host.searches.len(), "{line}");
        }
    }

    #[test]
    fn what_does_not_fit_of_the_node_is_told() {
        let problem = |searches: &[String], domain: &str| {
            let host = DnsConfig { searches: searches.to_vec(), ..DnsConfig::default() };
            search_problem(&host, "/etc/resolv.conf", domain)
        };
        let names = |count: usize, length: usize| vec!["a".repeat(length); count];
        assert_eq!(problem(&names(29, 5), "cluster.local"), None);
        let told = problem(&names(30, 5), "cluster.local").unwrap();
        assert_eq!(told, r#"resolv.conf file "/etc/resolv.conf" has more than 29 search domains"#);
        assert_eq!((problem(&names(32, 5), ""), problem(&names(33, 5), "").is_some()), (None, true));
        assert!(problem(&names(1, 254), "").unwrap().contains("more than 253 characters"));
        assert!(problem(&names(9, 250), "").unwrap().contains("search line of more than 2048"));
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
