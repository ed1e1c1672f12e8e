//! Where the endpoints of Services are, for those that this server calls itself: it knows them without the node's proxy
//! and without DNS (`ResolveEndpoint` in k8s.io/apiserver/pkg/util/proxy/proxy.go).

use std::net::{IpAddr, SocketAddr};

use super::outbound::ServicePort;
use super::server::Server;
use super::subresource::proxy::{each_backend, service_port};
use scheme::access::str_at;
use storage::watch_cache::Filter;

/// A ready endpoint of the Service's port, each as likely as any other.
pub(super) fn endpoint(server: &Server, wanted: &ServicePort) -> Result<SocketAddr, String> {
    let ServicePort { namespace, name, port } = wanted;
    let services = server.registry.get("", "services");
    let service = services.and_then(|services| services.cache().get(namespace, name));
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?.value();
    match str_at(&service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        other => return Err(format!("unsupported service type {other:?}")),
    }
    let found = service_port(&service, &port.to_string());
    let found = found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = str_at(&found, &["name"]);
    let of = name.clone();
    let filter = Filter::all()
        .in_namespace(namespace)
        .matching(move |slice| slice.label("kubernetes.io/service-name") == Some(of.as_str()));
    let (mut seen, mut chosen) = (0_usize, None);
    if let Some(slices) = server.registry.get("discovery.k8s.io", "endpointslices") {
        slices.cache().for_each(&filter, |slice| {
            each_backend(&slice.value(), port_name, &mut |host, number| {
                seen += 1;
                if rand::random_range(0..seen) == 0 {
                    chosen = host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, number));
                }
            });
        });
    }
    let chosen = chosen.ok_or_else(|| format!("no endpoints available for service {name:?}"))?;
    if server.dial_policy().may_dial(chosen.ip(), chosen.port()) {
        Ok(chosen)
    } else {
        Err(format!("dial tcp {chosen}: address not allowed"))
    }
}
