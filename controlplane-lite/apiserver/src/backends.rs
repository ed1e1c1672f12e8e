//! Where the endpoints of Services are, for those that this server calls itself: it knows them without the node's proxy
//! and without DNS (`ResolveEndpoint` in k8s.io/apiserver/pkg/util/proxy/proxy.go).

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::outbound::ServicePort;
use super::server::Server;
use super::subresource::proxy::{each_backend, service_port};
use scheme::access::str_at;
use storage::watch_cache::Filter;

/// The Service itself.
pub(super) fn service(server: &Server, of: &ServicePort) -> Option<Value> {
    Some(server.registry.get("", "services")?.cache().get(&of.namespace, &of.name)?.value())
}

/// Visits its EndpointSlices.
fn each_slice(server: &Server, of: &ServicePort, visit: &mut dyn FnMut(Value)) {
    let Some(slices) = server.registry.get("discovery.k8s.io", "endpointslices") else { return };
    let name = of.name.clone();
    let filter = Filter::all()
        .in_namespace(&of.namespace)
        .matching(move |slice| slice.label("kubernetes.io/service-name") == Some(name.as_str()));
    slices.cache().for_each(&filter, |slice| visit(slice.value()));
}

/// Its EndpointSlices.
pub(super) fn slices(server: &Server, of: &ServicePort) -> Vec<Value> {
    let mut found = Vec::new();
    each_slice(server, of, &mut |slice| found.push(slice));
    found
}

/// A ready endpoint of the Service's port, each as likely as any other.
pub(super) fn endpoint(server: &Server, wanted: &ServicePort) -> Result<SocketAddr, String> {
    let ServicePort { name, port, .. } = wanted;
    let service = service(server, wanted).ok_or_else(|| format!("service {name:?} not found"))?;
    match str_at(&service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        other => return Err(format!("unsupported service type {other:?}")),
    }
    let found = service_port(&service, &port.to_string());
    let found = found.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = str_at(&found, &["name"]);
    let (mut seen, mut chosen) = (0_usize, None);
    each_slice(server, wanted, &mut |slice| {
        each_backend(&slice, port_name, &mut |host, number| {
            seen += 1;
            if rand::random_range(0..seen) == 0 {
                chosen = host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, number));
            }
        });
    });
    allowed(server, chosen.ok_or_else(|| format!("no endpoints available for service {name:?}"))?)
}

/// The same; a Service that is only another name leads there (`ResolveCluster`).
pub(super) async fn resolve(server: &Server, wanted: &ServicePort) -> Result<SocketAddr, String> {
    let found = service(server, wanted).unwrap_or_default();
    if str_at(&found, &["spec", "type"]) != "ExternalName" {
        return endpoint(server, wanted);
    }
    let host = str_at(&found, &["spec", "externalName"]);
    let mut addresses = tokio::net::lookup_host((host, wanted.port)).await.map_err(|error| error.to_string())?;
    allowed(server, addresses.next().ok_or_else(|| format!("lookup {host}: no such host"))?)
}

fn allowed(server: &Server, address: SocketAddr) -> Result<SocketAddr, String> {
    if server.dial_policy().may_serve(address.ip(), address.port()) {
        Ok(address)
    } else {
        Err(format!("dial tcp {address}: address not allowed"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{expect, post, start};

    const SERVICES: &str = "/api/v1/namespaces/default/services";
    const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

    fn slice(name: &str, of: &str, endpoint: Value) -> Value {
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": of}}, "addressType": "IPv4",
            "ports": [{"name": "other", "port": 1}, {"name": "web", "port": 8443}], "endpoints": [endpoint]})
    }

    #[tokio::test]
    async fn a_service_is_where_its_ready_endpoints_are() {
        let (api, client) = start().await;
        let service = |name: &str, ports: Value| json!({"metadata": {"name": name}, "spec": {"ports": ports}});
        let ports = json!([{"name": "other", "port": 80}, {"name": "web", "port": 443}]);
        expect(post(&client, SERVICES, &service("a", ports.clone())).await, StatusCode::CREATED);
        expect(post(&client, SERVICES, &service("b", ports)).await, StatusCode::CREATED);
        let named =
            json!({"metadata": {"name": "c"}, "spec": {"type": "ExternalName", "externalName": "c.example.com"}});
        expect(post(&client, SERVICES, &named).await, StatusCode::CREATED);
        for slice in [
            slice("a1", "a", json!({"addresses": ["10.42.0.1"], "conditions": {"ready": false}})),
            slice("a2", "a", json!({"addresses": ["10.42.0.2"], "conditions": {"ready": true}})),
            // The API's own address.
            slice("b1", "b", json!({"addresses": ["192.0.2.1"], "conditions": {"ready": true}})),
        ] {
            expect(post(&client, SLICES, &slice).await, StatusCode::CREATED);
        }
        api.server().registry.fresh().await.unwrap();
        let found = |name: &str, port: u16| {
            let wanted = ServicePort { namespace: "default".into(), name: name.into(), port };
            endpoint(api.server(), &wanted)
        };
        assert_eq!(found("a", 443), Ok("10.42.0.2:8443".parse().unwrap()));
        for (name, port, why) in [
            ("a", 444, "no service port 444 found for service \"a\""),
            ("c", 443, "unsupported service type \"ExternalName\""),
            ("d", 443, "service \"d\" not found"),
        ] {
            assert_eq!(found(name, port), Err(why.to_owned()));
        }
        assert_eq!(found("b", 443), Ok("192.0.2.1:8443".parse().unwrap()), "another port of that machine");
        let mut api_port = slice("b2", "b", json!({"addresses": ["192.0.2.1"]}));
        api_port["ports"] = json!([{"name": "other", "port": 6443}]);
        expect(post(&client, SLICES, &api_port).await, StatusCode::CREATED);
        api.server().registry.fresh().await.unwrap();
        let told = (0..64).find_map(|_| found("b", 80).err());
        assert_eq!(told.as_deref(), Some("dial tcp 192.0.2.1:6443: address not allowed"));
        let bare = json!({"metadata": {"name": "e"}, "spec": {"ports": [{"name": "web", "port": 443}]}});
        expect(post(&client, SERVICES, &bare).await, StatusCode::CREATED);
        api.server().registry.fresh().await.unwrap();
        assert_eq!(found("e", 443), Err("no endpoints available for service \"e\"".to_owned()));
    }
}
