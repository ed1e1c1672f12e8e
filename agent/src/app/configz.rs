//! The configuration in use, as `/configz` shows it. Pure.

use serde_json::{Value, json};

use crate::config::{AgentConfig, TlsMinVersion};

/// The answer, under upstream's names.
pub(super) fn configz(config: &AgentConfig) -> Value {
    let version = match config.server.tls_min_version {
        TlsMinVersion::Tls12 => "VersionTLS12",
        TlsMinVersion::Tls13 => "VersionTLS13",
    };
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "maxPods": config.node.max_pods,
        "clusterDNS": config.dns.servers,
        "clusterDomain": config.dns.domain,
        "containerLogMaxSize": config.logs.max_size.to_string(),
        "containerLogMaxFiles": config.logs.max_files,
        "podPidsLimit": config.cgroups.pod_pids_limit.unwrap_or(-1),
        "seccompDefault": config.seccomp_default,
        "serverTLSBootstrap": config.server.tls_bootstrap,
        "tlsMinVersion": version,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protections_show() {
        let mut config = AgentConfig::new("n", "/d");
        let shown = |config: &AgentConfig, name: &str| configz(config)["kubeletconfig"][name].clone();
        assert_eq!((shown(&config, "podPidsLimit"), shown(&config, "seccompDefault")), (json!(-1), json!(false)));
        config.cgroups.pod_pids_limit = Some(100);
        config.seccomp_default = true;
        assert_eq!((shown(&config, "podPidsLimit"), shown(&config, "seccompDefault")), (json!(100), json!(true)));
    }
}
