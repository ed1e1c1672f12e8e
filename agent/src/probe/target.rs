//! What a probe does, with names and ports resolved. Pure.

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::url;
use crate::convert::expansion;

/// One resolved probe or lifecycle action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Exec(Vec<String>),
    Http(HttpTarget),
    Tcp { host: String, port: u16 },
    Grpc { host: String, port: u16, service: String },
}

/// A GET request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Path and query as they are sent.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// Resolves what `probe` of `container` is about. `pod_host` is the pod's
/// address, or the node's for pods on the node's network.
pub fn resolve(probe: &Probe, container: &Container, pod_host: &str) -> Result<Target, String> {
    if let Some(exec) = &probe.exec {
        let words = exec.command.iter().flatten();
        return Ok(Target::Exec(
            words.map(|word| expansion::expand(word, |name| static_env(container, name))).collect(),
        ));
    }
    if let Some(http) = &probe.http_get {
        return resolve_http(http, container, pod_host).map(Target::Http);
    }
    let host = |host: Option<&str>| host.filter(|h| !h.is_empty()).unwrap_or(pod_host).to_owned();
    if let Some(tcp) = &probe.tcp_socket {
        return Ok(Target::Tcp { host: host(tcp.host.as_deref()), port: port(&tcp.port, container)? });
    }
    if let Some(grpc) = &probe.grpc {
        let port = checked(grpc.port)?;
        return Ok(Target::Grpc { host: host(None), port, service: grpc.service.clone().unwrap_or_default() });
    }
    Err("missing probe handler".into())
}

/// Resolves an HTTP action, of a probe or a lifecycle hook.
pub fn resolve_http(
    http: &k8s_openapi::api::core::v1::HTTPGetAction,
    container: &Container,
    pod_host: &str,
) -> Result<HttpTarget, String> {
    let host = http.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_host);
    let path = url::request_target(http.path.as_deref().unwrap_or("/"));
    let headers = http.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
    Ok(HttpTarget {
        https: http.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
        host: host.to_owned(),
        port: port(&http.port, container)?,
        path,
        headers: headers.collect(),
    })
}

/// A number, or the container's port of that name.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(number) => checked(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            match (named, name.parse()) {
                (Some(port), _) => checked(port.container_port),
                (None, Ok(number)) => checked(number),
                (None, Err(_)) => Err(format!("couldn't find port: {name:?} in container {:?}", container.name)),
            }
        }
    }
}

fn checked(number: i32) -> Result<u16, String> {
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Variables with a literal value; others are not known without the API.
fn static_env(container: &Container, name: &str) -> Option<String> {
    let found = container.env.iter().flatten().rev().find(|var| var.name == name && var.value_from.is_none())?;
    Some(found.value.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn container() -> Container {
        serde_json::from_value(json!({"name": "c", "env": [{"name": "X", "value": "1"}],
            "ports": [{"name": "web", "containerPort": 8080}, {"name": "bad", "containerPort": 0}]}))
        .unwrap()
    }

    fn check(probe: serde_json::Value, expect: Result<Target, &str>) {
        let probe: Probe = serde_json::from_value(probe).unwrap();
        assert_eq!(resolve(&probe, &container(), "10.0.0.1"), expect.map_err(str::to_owned));
    }

    #[test]
    fn resolves_each_handler() {
        let host = || "10.0.0.1".to_owned();
        check(
            json!({"exec": {"command": ["a", "$(X)", "$(Y)"]}}),
            Ok(Target::Exec(["a", "1", "$(Y)"].map(str::to_owned).into())),
        );
        check(json!({"tcpSocket": {"port": "web"}}), Ok(Target::Tcp { host: host(), port: 8080 }));
        check(json!({"tcpSocket": {"port": 1, "host": "h"}}), Ok(Target::Tcp { host: "h".into(), port: 1 }));
        check(
            json!({"grpc": {"port": 5, "service": "s"}}),
            Ok(Target::Grpc { host: host(), port: 5, service: "s".into() }),
        );
        check(
            json!({"httpGet": {"port": "web", "path": "x?y=1", "scheme": "HTTPS",
                "httpHeaders": [{"name": "Host", "value": "v"}]}}),
            Ok(Target::Http(HttpTarget {
                https: true,
                host: host(),
                port: 8080,
                path: "/x?y=1".into(),
                headers: vec![("Host".into(), "v".into())],
            })),
        );
    }

    #[test]
    fn names_what_is_wrong() {
        check(json!({}), Err("missing probe handler"));
        check(json!({"tcpSocket": {"port": "none"}}), Err("couldn't find port: \"none\" in container \"c\""));
        check(json!({"tcpSocket": {"port": "bad"}}), Err("invalid port number: 0"));
        check(json!({"tcpSocket": {"port": 70000}}), Err("invalid port number: 70000"));
        check(json!({"grpc": {"port": -1}}), Err("invalid port number: -1"));
    }
}
