//! The text of a pod's /etc/hosts.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::HostAlias;

use super::dns::HostName;

/// The file of a pod with a network of its own.
pub fn managed_hosts(ips: &[String], name: &HostName, aliases: &[HostAlias]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let _ = if name.domain.is_empty() {
            writeln!(out, "{ip}\t{}", name.name)
        } else {
            writeln!(out, "{ip}\t{}\t{}", name.fqdn(), name.name)
        };
    }
    add_aliases(&mut out, aliases);
    out
}

/// The file of a pod with the node's network: the node's own, with a header.
pub fn host_network_hosts(node_file: &str, aliases: &[HostAlias]) -> String {
    let mut out = format!("# Kubernetes-managed hosts file (host network).\n{node_file}");
    add_aliases(&mut out, aliases);
    out
}

fn add_aliases(out: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let _ = writeln!(out, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let name = HostName { name: "web-0".into(), domain: "sub.ns.svc.cluster.local".into() };
        let alias = HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) };
        let text = managed_hosts(&["10.42.0.5".into()], &name, std::slice::from_ref(&alias));
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.42.0.5\tweb-0.sub.ns.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        let text = host_network_hosts("127.0.0.1 localhost", &[alias]);
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        );
    }
}
