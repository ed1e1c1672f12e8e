//! Where a port of a Service leads: one of its ready endpoints, each as likely as any other (`ResolveEndpoint` of
//! k8s.io/apiserver/pkg/util/proxy/proxy.go). A Service that is only another name leads there.

use std::net::IpAddr;

use serde_json::Value;

use super::kubelet::DialPolicy;
use super::server::Server;
use super::subresource::proxy::each_backend;
use scheme::access::{int_at, list_at, str_at};
use storage::watch_cache::Filter;

/// The address to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No such Service.
    #[error("service {0:?} not found")]
    NotFound(String),
    /// It has no such port.
    #[error("no service port {port} found for service {service:?}")]
    NoPort {
        /// The Service.
        service: String,
        /// The port.
        port: u16,
    },
    /// No endpoint is ready.
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
    /// Its name is not known.
    #[error("lookup {0}: no such host")]
    NoSuchHost(String),
    /// It leads where nothing may be sent.
    #[error("address not allowed: {0}")]
    NotAllowed(IpAddr),
}

/// The EndpointSlices of a Service.
pub fn slices(server: &Server, namespace: &str, service: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let Some(slices) = server.registry.get("discovery.k8s.io", "endpointslices") else { return found };
    let name = service.to_owned();
    let filter = Filter::all()
        .in_namespace(namespace)
        .matching(move |slice| slice.label("kubernetes.io/service-name") == Some(name.as_str()));
    slices.cache().for_each(&filter, |slice| found.push(slice.value()));
    found
}

/// The Service itself.
pub fn service(server: &Server, namespace: &str, name: &str) -> Option<Value> {
    Some(server.registry.get("", "services")?.cache().get(namespace, name)?.value())
}

/// Finds an endpoint.
///
/// # Errors
/// See [`Unresolved`].
pub async fn resolve(server: &Server, namespace: &str, name: &str, port: u16) -> Result<Backend, Unresolved> {
    let found = service(server, namespace, name).ok_or_else(|| Unresolved::NotFound(name.to_owned()))?;
    let policy = server.dial_policy();
    if str_at(&found, &["spec", "type"]) == "ExternalName" {
        return named(&policy, str_at(&found, &["spec", "externalName"]), port).await;
    }
    let mut ports = list_at(&found, &["spec", "ports"]).iter();
    let wanted = ports
        .find(|found| int_at(found, &["port"]) == Some(i64::from(port)))
        .ok_or_else(|| Unresolved::NoPort { service: name.to_owned(), port })?;
    let (mut seen, mut chosen) = (0_usize, None);
    for slice in slices(server, namespace, name) {
        each_backend(&slice, str_at(wanted, &["name"]), &mut |host, port| {
            seen += 1;
            if rand::random_range(0..seen) == 0 {
                chosen = host.parse().ok().map(|ip| Backend { ip, port });
            }
        });
    }
    allowed(&policy, chosen.ok_or_else(|| Unresolved::NoEndpoints(name.to_owned()))?)
}

async fn named(policy: &DialPolicy, host: &str, port: u16) -> Result<Backend, Unresolved> {
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(|_| Unresolved::NoSuchHost(host.to_owned()))?;
    let first = found.next().ok_or_else(|| Unresolved::NoSuchHost(host.to_owned()))?;
    allowed(policy, Backend { ip: first.ip(), port })
}

fn allowed(policy: &DialPolicy, backend: Backend) -> Result<Backend, Unresolved> {
    if policy.may_serve(backend.ip, backend.port) { Ok(backend) } else { Err(Unresolved::NotAllowed(backend.ip)) }
}
