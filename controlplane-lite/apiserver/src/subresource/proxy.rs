//! proxy of nodes, pods and services: the request goes on to where the object lives.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::Value;

use self::links::Links;
use super::connect_options;
use super::node_connect::kubelet;
use crate::body::{self, Body};
use crate::call::Call;
use crate::status::ApiError;
use crate::tunnel::{self, Target};
use crate::write;
use scheme::access::{int_at, list_at, str_at};
use storage::watch_cache::Filter;

pub(crate) mod links;

/// `[scheme:]name[:port]` as proxy paths write it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    https: bool,
    name: String,
    port: String,
}

fn address(text: &str) -> Option<Address> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [scheme @ ("http" | "https"), name] => (*scheme, *name, ""),
        [name, port] => ("", *name, *port),
        [scheme @ ("" | "http" | "https"), name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (!name.is_empty()).then(|| Address { https: scheme == "https", name: name.to_owned(), port: port.to_owned() })
}

/// Forwards the request.
///
/// # Errors
/// 400 for names and ports that do not parse, 404 for the object, 503 without endpoints, 500 when nobody answers.
pub async fn proxy(call: &Call, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let raw_path = request.uri().path();
    // /api/v1/nodes/NAME/proxy/… or /api/v1/namespaces/NS/RESOURCE/NAME/proxy/…
    let skip = if call.info.namespace.is_empty() { 6 } else { 8 };
    let rest = raw_path.splitn(skip + 1, '/').nth(skip);
    if let Some(mut options) = connect_options::of(call, rest.unwrap_or("")) {
        write::ask_to_connect(call, &mut options).await?;
    }
    // A page needs the slash for its relative links; other requests mean the root.
    if rest.is_none() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(redirect(raw_path, request.uri().query()));
    }
    let rest = rest.unwrap_or("");
    let prefix = raw_path.strip_suffix(&format!("/{rest}")).unwrap_or(raw_path).to_owned();
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let path = format!("/{rest}{query}");
    let wanted = address(&call.info.name)
        .ok_or_else(|| ApiError::bad_request(format!("invalid proxy name {:?}", call.info.name)))?;
    let options = call.kind.subresource(&call.info.subresource).and_then(|proxy| proxy.body);
    let target = match options {
        Some((_, _, "NodeProxyOptions")) => node(call, &wanted, path).await?,
        Some((_, _, "PodProxyOptions")) => pod(call, &wanted, path).await?,
        Some((_, _, "ServiceProxyOptions")) => service(call, &wanted, path).await?,
        _ => return Err(ApiError::no_such_path()),
    };
    let called = request.headers().get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let links = Links { prefix, hosts: vec![target.authority(), called] };
    let response = tunnel::forward(request, &target).await?;
    Ok(if response.status() == StatusCode::SWITCHING_PROTOCOLS { response } else { links.apply(response) })
}

fn redirect(path: &str, query: Option<&str>) -> Response<Body> {
    let location = format!("{path}/{}", query.map(|q| format!("?{q}")).unwrap_or_default());
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

fn target(call: &Call, host: &str, port: u16, https: bool, path_and_query: String) -> Result<Target, ApiError> {
    let allowed = host.parse().is_ok_and(|ip| call.server.dial_policy().may_dial(ip, port));
    if !allowed {
        return Err(ApiError::bad_request("address not allowed"));
    }
    let tls = https.then(|| call.server.unverified_tls.clone());
    Ok(Target { host: host.to_owned(), port, tls, server_name: None, path_and_query })
}

/// A node's kubelet, or another port of the node, to which nothing of ours is shown.
async fn node(call: &Call, wanted: &Address, path: String) -> Result<Target, ApiError> {
    let kubelet = kubelet(call, &wanted.name, path).await?;
    match wanted.port.parse::<u16>() {
        _ if wanted.port.is_empty() => Ok(kubelet),
        Ok(port) if port == kubelet.port => Ok(kubelet),
        Ok(port) => target(call, &kubelet.host, port, wanted.https, kubelet.path_and_query),
        Err(_) => Err(ApiError::bad_request(format!("node {:?} has no port {:?}", wanted.name, wanted.port))),
    }
}

async fn pod(call: &Call, wanted: &Address, path: String) -> Result<Target, ApiError> {
    let pod = call.resource.read_value(&call.info.namespace, &wanted.name).await?;
    let port = pod_port(&pod, &wanted.port)
        .ok_or_else(|| ApiError::bad_request(format!("pod {:?} has no port {:?}", wanted.name, wanted.port)))?;
    target(call, str_at(&pod, &["status", "podIP"]), port, wanted.https, path)
}

/// The port asked for by number or name; the first declared one, or 80, when none is.
fn pod_port(pod: &Value, wanted: &str) -> Option<u16> {
    if let Ok(number) = wanted.parse() {
        return Some(number);
    }
    let ports = list_at(pod, &["spec", "containers"]).iter().flat_map(|c| list_at(c, &["ports"]));
    let mut matching = ports.filter(|p| wanted.is_empty() || p["name"] == wanted);
    match matching.next().and_then(|p| int_at(p, &["containerPort"])) {
        Some(port) => u16::try_from(port).ok(),
        None if wanted.is_empty() => Some(80),
        None => None,
    }
}

async fn service(call: &Call, wanted: &Address, path: String) -> Result<Target, ApiError> {
    let service = call.resource.read_value(&call.info.namespace, &wanted.name).await?;
    let port = service_port(&service, &wanted.port).ok_or_else(|| {
        ApiError::unavailable(format!("no service port {:?} found for service {:?}", wanted.port, wanted.name))
    })?;
    let port_name = str_at(&port, &["name"]);
    let mut found = Vec::new();
    if let Some(slices) = call.server.registry.get("discovery.k8s.io", "endpointslices") {
        let name = wanted.name.clone();
        let filter = Filter::all()
            .in_namespace(&call.info.namespace)
            .matching(move |slice| slice.label("kubernetes.io/service-name") == Some(name.as_str()));
        slices.cache().for_each(&filter, |slice| found.push(slice.clone()));
    }
    // One of all endpoints, each as likely as any other, with one slice decoded at a time.
    let (mut seen, mut chosen) = (0_usize, None);
    for slice in found {
        each_backend(&slice.value(), port_name, &mut |host, number| {
            seen += 1;
            if rand::random_range(0..seen) == 0 {
                chosen = Some((host.to_owned(), number));
            }
        });
        tokio::task::yield_now().await;
    }
    let Some((host, number)) = chosen else {
        return Err(ApiError::unavailable(format!("no endpoints available for service {:?}", wanted.name)));
    };
    target(call, &host, number, wanted.https, path)
}

pub(crate) fn service_port(service: &Value, wanted: &str) -> Option<Value> {
    let ports = list_at(service, &["spec", "ports"]);
    let found = match wanted.parse::<i64>() {
        _ if wanted.is_empty() => ports.first().filter(|_| ports.len() == 1),
        Ok(number) => ports.iter().find(|p| int_at(p, &["port"]) == Some(number)),
        Err(_) => ports.iter().find(|p| p["name"] == wanted),
    };
    found.cloned()
}

/// Shows the address and port of each ready endpoint.
pub(crate) fn each_backend(slice: &Value, port_name: &str, visit: &mut impl FnMut(&str, u16)) {
    let ports = list_at(slice, &["ports"]).iter().filter(|p| p["name"].as_str().unwrap_or("") == port_name);
    for port in ports.filter_map(|p| int_at(p, &["port"])).filter_map(|p| u16::try_from(p).ok()) {
        for endpoint in list_at(slice, &["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false) {
            if let Some(address) = list_at(endpoint, &["addresses"]).first().and_then(Value::as_str) {
                visit(address, port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn names_carry_scheme_and_port() {
        let check = |text: &str, https: bool, name: &str, port: &str| {
            assert_eq!(address(text), Some(Address { https, name: name.into(), port: port.into() }), "{text}");
        };
        check("web", false, "web", "");
        check("web:http", false, "web", "http");
        check("https:web:443", true, "web", "443");
        check("https:web:", true, "web", "");
        check(":web:", false, "web", "");
        for bad in ["", ":", "a:b:c", "a:b:c:d"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn ports_are_found_by_number_and_name() {
        let pod = json!({"spec": {"containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]}});
        assert_eq!(pod_port(&pod, ""), Some(8080));
        assert_eq!(pod_port(&pod, "web"), Some(8080));
        assert_eq!(pod_port(&pod, "99"), Some(99));
        assert_eq!(pod_port(&pod, "nope"), None);
        assert_eq!(pod_port(&json!({}), ""), Some(80));
        let service = json!({"spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
        assert_eq!(service_port(&service, "2").unwrap()["name"], "b");
        assert_eq!(service_port(&service, ""), None);
    }
}
