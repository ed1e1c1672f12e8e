//! pods/log, exec, attach and portforward: finds the pod's kubelet and hands the request on. What a request becomes is
//! decided purely; nothing of the streams is interpreted.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::Value;

use super::connect_options;
use crate::body::{self, Body};
use crate::call::{Call, valid};
use crate::request_info::Query;
use crate::status::{ApiError, Subject};
use crate::tunnel::{self, Target};
use crate::websocket::{self, Outgoing};
use crate::write;
use scheme::access::{list_at, str_at};
use scheme::{FieldErrors, Path};

/// Longest error text of a kubelet that is passed on, in bytes.
const ERROR_TEXT: usize = 2048;

/// Answers a container's log, streamed.
///
/// # Errors
/// 400 for options and containers, 404 for the pod, what the kubelet refuses with.
pub async fn log(call: &Call, mut request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let over_websocket = websocket::is_request(request.headers());
    let protocol = if over_websocket { websocket::subprotocol(request.headers(), &LOG_PROTOCOLS)? } else { "" };
    let pod = call.resource.read_value(&call.info.namespace, &call.info.name).await?;
    valid(Subject::new("", "PodLogOptions"), &call.info.name, log_errors(&call.query))?;
    let container = container(&pod, call.query.get("container").unwrap_or(""))?;
    let node = str_at(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        let nothing = body::full("");
        return Ok(if over_websocket { log_socket(call, &mut request, protocol, nothing) } else { text(nothing) });
    }
    let mut path = format!("/containerLogs/{}/{}/{}", call.info.namespace, call.info.name, encode(&container));
    append_query(&mut path, log_params(&call.query));
    let target = kubelet(call, node, path).await?;
    let response = tunnel::get(&target).await?;
    let code = response.status();
    if code.is_success() {
        let log = response.into_body();
        return Ok(if over_websocket { log_socket(call, &mut request, protocol, log) } else { text(log) });
    }
    Err(refusal(call, code, response.into_body()).await)
}

/// Subprotocols of a log over WebSocket; without one it is binary.
const LOG_PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64];
const BASE64: &str = "base64.binary.k8s.io";

/// Who reads a log may pause so long before it ends.
const LOG_PAUSE: Duration = Duration::from_secs(600);

/// A log as WebSocket messages, after an empty one that says the log begins, as upstream.
fn log_socket(call: &Call, request: &mut Request<Body>, protocol: &str, log: Body) -> Response<Body> {
    use base64::Engine as _;
    use http_body_util::BodyExt as _;
    let encode = protocol == BASE64;
    let message = move |bytes: Bytes| {
        if encode {
            Outgoing::text([base64::engine::general_purpose::STANDARD.encode(&bytes).into()])
        } else {
            Outgoing::binary(bytes)
        }
    };
    // A kubelet that goes away ends the log.
    let parts = log.into_data_stream().take_while(|part| std::future::ready(part.is_ok()));
    let parts = parts.filter_map(|part| std::future::ready(part.ok()));
    let first = futures::stream::once(async { Outgoing::binary(Bytes::new()) });
    let end = call.server.stopping.clone().cancelled_owned().boxed();
    let timeouts = websocket::Timeouts { unread: LOG_PAUSE, end };
    websocket::answer(request, protocol, first.chain(parts.map(message)).boxed(), timeouts)
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

async fn refusal(call: &Call, code: StatusCode, body: Body) -> ApiError {
    use http_body_util::BodyExt as _;
    let bytes =
        http_body_util::Limited::new(body, ERROR_TEXT).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let name = &call.info.name;
    match code.as_u16() {
        400 => ApiError::bad_request(text),
        404 => ApiError::upstream(404, format!("the server could not find the requested resource ( pods/log {name})")),
        500 => ApiError::internal(text),
        other => ApiError::upstream(other, text),
    }
}

/// Opens exec, attach or portforward.
///
/// # Errors
/// 400 for options and containers, 404 for the pod, 500 when the kubelet cannot be reached.
pub async fn connect(call: &Call, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    if let Some(mut options) = connect_options::of(call, "") {
        write::ask_to_connect(call, &mut options).await?;
    }
    let pod = call.resource.read_value(&call.info.namespace, &call.info.name).await?;
    let path = connect_path(&call.info.subresource, &call.info.namespace, &pod, &call.query)?;
    let node = str_at(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", call.info.name)));
    }
    let target = kubelet(call, node, path).await?;
    tunnel::forward(request, &target).await
}

/// The kubelet's path of a connection.
fn connect_path(subresource: &str, namespace: &str, pod: &Value, query: &Query) -> Result<String, ApiError> {
    let name = str_at(pod, &["metadata", "name"]);
    let mut params: Vec<(&str, String)> = Vec::new();
    if subresource == "portforward" {
        let mut path = format!("/portForward/{namespace}/{name}");
        for port in query.all("ports").flat_map(|list| list.split(',')) {
            if port.parse::<u16>().ok().filter(|p| *p > 0).is_none() {
                return Err(ApiError::bad_request(format!("invalid port {port:?}")));
            }
            params.push(("port", port.to_owned()));
        }
        append_query(&mut path, params);
        return Ok(path);
    }
    let container = container(pod, query.get("container").unwrap_or(""))?;
    if !["stdin", "stdout", "stderr"].iter().any(|stream| query.flag(stream)) {
        return Err(ApiError::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    if subresource == "exec" && query.get("command").is_none() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    for (from, to) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(from) {
            params.push((to, "1".to_owned()));
        }
    }
    if subresource == "exec" {
        params.extend(query.all("command").map(|c| ("command", c.to_owned())));
    }
    let mut path = format!("/{subresource}/{namespace}/{name}/{}", encode(&container));
    append_query(&mut path, params);
    Ok(path)
}

/// The container a request means: the one named, or the only one.
fn container(pod: &Value, wanted: &str) -> Result<String, ApiError> {
    let names =
        |list: &str| -> Vec<&str> { list_at(pod, &["spec", list]).iter().filter_map(|c| c["name"].as_str()).collect() };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = str_at(pod, &["metadata", "name"]);
    if !wanted.is_empty() {
        let known = [&main, &init, &ephemeral].iter().any(|list| list.contains(&wanted));
        return if known {
            Ok(wanted.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
        };
    }
    match main.as_slice() {
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {pod_name}"))),
        [only] => Ok((*only).to_owned()),
        many => {
            let mut text =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", many.join(" "));
            for (what, list) in [("init", &init), ("ephemeral", &ephemeral)] {
                if !list.is_empty() {
                    // Writing to a String cannot fail.
                    let _ = write!(text, " or one of the {what} containers: [{}]", list.join(" "));
                }
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// Where a node's kubelet listens, with our client certificate.
///
/// # Errors
/// 404 when the node is gone, 400 for an address that no kubelet may have, 500 when it has none.
pub async fn kubelet(call: &Call, node: &str, path_and_query: String) -> Result<Target, ApiError> {
    let server = &call.server;
    let nodes = server.registry.get("", "nodes").ok_or_else(ApiError::no_such_path)?;
    let (host, port) = crate::kubelet::endpoint(&nodes.read_value("", node).await?)?;
    let address = crate::kubelet::resolve(&server.dial_policy(), (&host, port)).await?;
    let tls = server.kubelet_tls.for_node(node).map_err(ApiError::internal)?;
    Ok(Target { host: address.to_string(), port, tls: Some(tls), server_name: None, path_and_query })
}

fn log_params(query: &Query) -> Vec<(&'static str, String)> {
    const NAMES: [&str; 8] =
        ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];
    NAMES
        .iter()
        .filter_map(|name| match *name {
            flag @ ("follow" | "previous" | "timestamps") => query.flag(flag).then(|| (flag, "true".to_owned())),
            other => query.get(other).map(|value| (other, value.to_owned())),
        })
        .collect()
}

/// Everything wrong with PodLogOptions.
fn log_errors(query: &Query) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (field, least) in [("tailLines", 0i64), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let Some(text) = query.get(field) else { continue };
        let path = Path::new(field);
        match text.parse::<i64>() {
            Ok(number) if number < least => {
                let why = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
                errors.invalid(&path, number, why);
            }
            Ok(_) => {}
            Err(_) => errors.invalid(&path, text, "must be a number"),
        }
    }
    if query.has("sinceSeconds") && query.has("sinceTime") {
        errors.forbidden(&Path::ROOT, "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if let Some(time) = query.get("sinceTime")
        && time.parse::<jiff::Timestamp>().is_err()
    {
        errors.invalid(&Path::new("sinceTime"), time, "must be an RFC 3339 time");
    }
    errors
}

fn append_query<'a>(path: &mut String, params: impl IntoIterator<Item = (&'a str, String)>) {
    for (index, (key, value)) in params.into_iter().enumerate() {
        path.push(if index == 0 { '?' } else { '&' });
        path.push_str(key);
        path.push('=');
        path.push_str(&encode(&value));
    }
}

/// Percent-encodes everything but unreserved characters.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(containers: &[&str]) -> Value {
        let list: Vec<Value> = containers.iter().map(|n| json!({"name": n})).collect();
        json!({"metadata": {"name": "p"}, "spec": {"containers": list, "initContainers": [{"name": "i"}]}})
    }

    fn path(subresource: &str, pod: &Value, query: &str) -> String {
        connect_path(subresource, "ns", pod, &Query::parse(Some(query))).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn connections_become_kubelet_paths() {
        let one = pod(&["a"]);
        assert_eq!(
            path("exec", &one, "command=sh&command=-c&command=ls%20%2F&stdout=true&stderr=1&tty=false"),
            "/exec/ns/p/a?output=1&error=1&command=sh&command=-c&command=ls%20%2F"
        );
        assert_eq!(path("attach", &one, "container=i&stdin=true"), "/attach/ns/p/i?input=1");
        assert_eq!(path("portforward", &one, "ports=80,81"), "/portForward/ns/p?port=80&port=81");
        assert_eq!(path("portforward", &one, ""), "/portForward/ns/p");
        assert_eq!(path("portforward", &one, "ports=x"), "invalid port \"x\"");
        assert_eq!(path("exec", &one, "command=a"), "you must specify at least one of stdin, stdout, stderr");
        assert_eq!(path("exec", &one, "stdout=1"), "you must specify at least one command for the container");
        assert_eq!(path("exec", &one, "container=x&stdout=1"), "container x is not valid for pod p");
        assert_eq!(
            path("exec", &pod(&["a", "b"]), "stdout=1&command=x"),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
    }

    #[test]
    fn log_options_are_checked() {
        for (query, bad) in [
            ("tailLines=0&limitBytes=1&sinceSeconds=1", 0),
            ("tailLines=-1", 1),
            ("limitBytes=0", 1),
            ("sinceSeconds=0", 1),
            ("tailLines=x", 1),
            ("sinceTime=yesterday", 1),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 1),
        ] {
            assert_eq!(log_errors(&Query::parse(Some(query))).0.len(), bad, "{query}");
        }
    }
}
