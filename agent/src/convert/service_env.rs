//! Environment variables that describe Services, in the form Docker links had.

use std::collections::BTreeMap;

/// What the variables need of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceLink {
    pub namespace: String,
    pub name: String,
    pub cluster_ip: String,
    pub ports: Vec<LinkPort>,
}

/// One port of a [`ServiceLink`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPort {
    pub name: String,
    pub protocol: String,
    pub port: i32,
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// Variables for a pod of `namespace`: its own namespace's Services when
/// `links`, and always the API server's.
pub fn service_env<'a>(
    services: impl Iterator<Item = &'a ServiceLink>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &ServiceLink> = BTreeMap::new();
    for service in services {
        let master = service.namespace == "default" && service.name == "kubernetes";
        if service.namespace == namespace && (links || master) {
            chosen.insert(&service.name, service);
        } else if master {
            chosen.entry(&service.name).or_insert(service);
        }
    }
    let mut out = BTreeMap::new();
    for service in chosen.values() {
        add_links(service, &mut out);
    }
    out
}

fn add_links(service: &ServiceLink, out: &mut BTreeMap<String, String>) {
    let prefix = variable(&service.name);
    let ip = &service.cluster_ip;
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    out.insert(format!("{prefix}_SERVICE_HOST"), ip.clone());
    for (i, port) in service.ports.iter().enumerate() {
        let number = port.port.to_string();
        let url = format!("{}://{host}:{number}", port.protocol.to_lowercase());
        if i == 0 {
            out.insert(format!("{prefix}_SERVICE_PORT"), number.clone());
            out.insert(format!("{prefix}_PORT"), url.clone());
        }
        if !port.name.is_empty() {
            out.insert(format!("{prefix}_SERVICE_PORT_{}", variable(&port.name)), number.clone());
        }
        let base = format!("{prefix}_PORT_{number}_{}", port.protocol.to_uppercase());
        out.insert(base.clone(), url);
        out.insert(format!("{base}_PROTO"), port.protocol.to_lowercase());
        out.insert(format!("{base}_PORT"), number);
        out.insert(format!("{base}_ADDR"), ip.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(namespace: &str, name: &str, ip: &str) -> ServiceLink {
        let ports = vec![LinkPort { name: "http-x".into(), protocol: "TCP".into(), port: 80 }];
        ServiceLink { namespace: namespace.into(), name: name.into(), cluster_ip: ip.into(), ports }
    }

    #[test]
    fn own_namespace_and_the_master() {
        let all = [
            link("a", "my-web", "10.0.0.2"),
            link("b", "other", "10.0.0.3"),
            link("default", "kubernetes", "10.0.0.1"),
        ];
        let env = service_env(all.iter(), "a", true);
        let expect = [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("MY_WEB_SERVICE_HOST", "10.0.0.2"),
            ("MY_WEB_SERVICE_PORT", "80"),
            ("MY_WEB_SERVICE_PORT_HTTP_X", "80"),
            ("MY_WEB_PORT", "tcp://10.0.0.2:80"),
            ("MY_WEB_PORT_80_TCP", "tcp://10.0.0.2:80"),
            ("MY_WEB_PORT_80_TCP_PROTO", "tcp"),
            ("MY_WEB_PORT_80_TCP_PORT", "80"),
            ("MY_WEB_PORT_80_TCP_ADDR", "10.0.0.2"),
        ];
        for (key, value) in expect {
            assert_eq!(env.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(!env.contains_key("OTHER_SERVICE_HOST"));
        let without = service_env(all.iter(), "a", false);
        assert!(without.contains_key("KUBERNETES_SERVICE_HOST") && !without.contains_key("MY_WEB_SERVICE_HOST"));
    }
}
