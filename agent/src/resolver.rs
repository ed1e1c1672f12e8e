//! The node's resolver configuration as pods are to see it, read anew for each:
//! it changes with DHCP and VPNs while the agent runs.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use cri::types::DnsConfig;

use crate::convert::dns::parse_resolv_conf;
use crate::read;

/// Where systemd-resolved writes the servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Reads `path`. Where that names nothing but a resolver on this machine's
/// loopback, which pods cannot reach, systemd-resolved's own servers are taken.
///
/// # Errors
/// When the file cannot be read: a pod must not start without a resolver.
pub fn host_dns(path: &Path) -> io::Result<DnsConfig> {
    host_dns_or(path, Path::new(RESOLVED))
}

fn host_dns_or(path: &Path, resolved: &Path) -> io::Result<DnsConfig> {
    let text = read::text(path, read::MUCH)
        .map_err(|error| io::Error::new(error.kind(), format!("read {}: {error}", path.display())))?;
    let dns = parse_resolv_conf(&text);
    if !is_stub(&dns) {
        return Ok(dns);
    }
    match read::text(resolved, read::MUCH) {
        Ok(text) => Ok(parse_resolv_conf(&text)),
        Err(_) => Ok(dns),
    }
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
    }
}
