//! The node's resolver configuration as pods are to see it, read anew for each:
//! it changes with DHCP and VPNs while the agent runs.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use cri::types::DnsConfig;

use crate::convert::dns::{parse_resolv_conf, search_problem};
use crate::read;

/// Where systemd-resolved writes the servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Longest resolver configuration that is read, as upstream (pkg/kubelet/network/dns/dns.go: `maxResolveConfLength`).
const LONGEST: u64 = 10 << 20;

/// Reads `path`; `None` when that is empty, and pods are to have nothing of the node's. Where that names nothing but a
/// resolver on this machine's loopback, which pods cannot reach, systemd-resolved's own servers are taken.
///
/// # Errors
/// When the file cannot be read, or not understood: a pod must not start without a resolver.
pub fn host_dns(path: &Path) -> io::Result<Option<DnsConfig>> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    host_dns_or(path, Path::new(RESOLVED)).map(Some)
}

/// What is wrong with the file for pods of a cluster with this domain, whatever a pod asks for (dns.go:
/// `CheckLimitsForResolvConf`).
pub fn problem(path: &Path, cluster_domain: &str) -> Option<String> {
    match host_dns(path) {
        Ok(host) => search_problem(&host?, &path.to_string_lossy(), cluster_domain),
        Err(error) => Some(error.to_string()),
    }
}

fn read_resolv_conf(path: &Path) -> io::Result<DnsConfig> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("read {}: {error}", path.display()));
    let text = read::text(path, LONGEST).map_err(failed)?;
    parse_resolv_conf(&text).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

fn host_dns_or(path: &Path, resolved: &Path) -> io::Result<DnsConfig> {
    let dns = read_resolv_conf(path)?;
    if !is_stub(&dns) {
        return Ok(dns);
    }
    Ok(read_resolv_conf(resolved).unwrap_or(dns))
}

fn is_stub(dns: &DnsConfig) -> bool {
    let loopback = |server: &String| server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !dns.servers.is_empty() && dns.servers.iter().all(loopback)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_is_followed_and_a_stub_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, resolved) = (dir.path().join("resolv.conf"), dir.path().join("resolved"));
        let servers = || host_dns_or(&path, &resolved).unwrap().servers;
        assert!(host_dns_or(&path, &resolved).unwrap_err().to_string().contains("resolv.conf"));
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(servers(), ["192.0.2.1"]);
        std::fs::write(&path, "nameserver 192.0.2.2\nnameserver 127.0.0.1\n").unwrap();
        assert_eq!(servers(), ["192.0.2.2", "127.0.0.1"], "changed, and not only a stub");
        std::fs::write(&path, "nameserver 127.0.0.53\nsearch lan\n").unwrap();
        assert_eq!(servers(), ["127.0.0.53"], "nothing better is known");
        std::fs::write(&resolved, "nameserver 192.0.2.3\n").unwrap();
        assert_eq!(servers(), ["192.0.2.3"]);
        std::fs::write(&path, "").unwrap();
        assert!(servers().is_empty());
        std::fs::write(&path, "nameserver\n").unwrap();
        let said = host_dns_or(&path, &resolved).unwrap_err().to_string();
        assert!(said.ends_with("resolv.conf: nameserver list is empty"), "{said}");
    }

    #[test]
    fn what_is_wrong_for_every_pod_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let told = || problem(&path, "cluster.local").unwrap_or_default();
        assert!(told().starts_with("read "), "{}", told());
        std::fs::write(&path, format!("search {}\n", "a ".repeat(30))).unwrap();
        assert!(told().ends_with("has more than 29 search domains"), "{}", told());
        std::fs::write(&path, format!("search {}\n", "a ".repeat(29))).unwrap();
        assert_eq!(told(), "");
        assert_eq!((problem(Path::new(""), "cluster.local"), host_dns(Path::new("")).unwrap()), (None, None));
    }
}
