//! Paths that are no resources: version, health, metrics, discovery, OpenAPI, OpenID discovery.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::body::{Body, json as json_response, raw};
use super::documents;
use super::negotiate;
use super::registry::Served;
use super::request_info::{Query, RequestInfo};
use super::respond;
use super::server::Server;
use super::status::ApiError;
use scheme::discovery::{self, AggregatedVersion};
use scheme::{Scheme, openapi};

/// What `/version` and nodes report.
pub const GIT_VERSION: &str = concat!("v1.36.0+copepod.", env!("CARGO_PKG_VERSION"));
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers a path.
///
/// # Errors
/// 404 for unknown paths, 405 for methods other than GET and HEAD.
pub async fn serve(
    server: &Arc<Server>,
    served: &Served,
    request: &Parts,
    info: &RequestInfo,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let headers = &request.headers;
    let parts: Vec<&str> = info.path.split('/').filter(|p| !p.is_empty()).collect();
    let found = match parts.as_slice() {
        [] => Some(json_response(StatusCode::OK, &index(server, &served.scheme))),
        ["version"] => Some(json_response(StatusCode::OK, &version())),
        ["healthz" | "livez" | "readyz", ..] => Some(health(server, &parts, query).await),
        ["metrics"] => {
            let figures = server.components.with_metrics(server.metrics.encode(&served.scheme));
            Some(raw(StatusCode::OK, "text/plain; version=0.0.4", figures))
        }
        ["openid", "v1", "jwks"] => {
            Some(raw(StatusCode::OK, "application/jwk-set+json", server.access.jwks().to_string()))
        }
        [".well-known", "openid-configuration"] => {
            Some(json_response(StatusCode::OK, &server.access.openid_configuration(&server.advertised())))
        }
        ["openapi", rest @ ..] => openapi_document(server, served, rest, headers, query).await?,
        ["api" | "apis", ..] => discover(server, &served.scheme, &parts, headers, query),
        _ => None,
    };
    Ok(found.unwrap_or_else(not_found))
}

/// Upstream's answer for paths nobody serves: plain text.
pub fn not_found() -> Response<Body> {
    raw(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": GIT_VERSION, "gitCommit": env!("CARGO_PKG_VERSION"),
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "go1.25",
        "compiler": "rustc", "platform": "linux/amd64",
        "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
    })
}

fn index(server: &Server, scheme: &Scheme) -> Value {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for group in scheme.groups().iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{v}", group.name)));
    }
    for there in server.aggregation.elsewhere() {
        paths.push(format!("/apis/{}", there.group));
        paths.push(format!("/apis/{}/{}", there.group, there.version));
    }
    paths.sort();
    paths.dedup();
    json!({ "paths": paths })
}

/// The checks of `/healthz`, `/livez` and `/readyz`, by name.
const CHECKS: [&str; 4] = ["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles"];

async fn health(server: &Server, parts: &[&str], query: &Query) -> Response<Body> {
    let endpoint = parts[0];
    let only = parts[1..].join("/");
    let mut names: Vec<&str> = CHECKS.to_vec();
    if endpoint == "readyz" {
        names.extend(["informer-sync", "shutdown"]);
    }
    let mut beside = server.components.checks();
    // The other endpoints judge the server alone, and its log, which the process writes.
    beside.retain(|(name, _)| endpoint == "healthz" || name == "log");
    names.extend(beside.iter().map(|(name, _)| name.as_str()).filter(|name| !CHECKS.contains(name)));
    if !only.is_empty() {
        if !names.contains(&only.as_str()) {
            return not_found();
        }
        names.retain(|name| *name == only);
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut text = String::new();
    let mut failed = 0;
    for name in names {
        let passed = match beside.iter().find(|(other, _)| other == name) {
            Some((_, failure)) => failure.is_none(),
            None => passes(server, name).await,
        };
        // Writing to a String cannot fail.
        let _ = match passed {
            _ if excluded.contains(&name) => writeln!(text, "[+]{name} excluded: ok"),
            true => writeln!(text, "[+]{name} ok"),
            false => {
                failed += 1;
                writeln!(text, "[-]{name} failed: reason withheld")
            }
        };
    }
    let plain = "text/plain; charset=utf-8";
    if failed > 0 {
        let _ = writeln!(text, "{endpoint} check failed");
        return raw(StatusCode::INTERNAL_SERVER_ERROR, plain, text);
    }
    if !query.has("verbose") || !only.is_empty() {
        return raw(StatusCode::OK, plain, "ok");
    }
    let _ = writeln!(text, "{endpoint} check passed");
    raw(StatusCode::OK, plain, text)
}

async fn passes(server: &Server, check: &str) -> bool {
    match check {
        "etcd" => {
            // A write, not a look at what is in memory: a store that only reads is not healthy.
            tokio::time::timeout(HEALTH_TIMEOUT, server.registry.check()).await.is_ok_and(|r| r.is_ok())
        }
        // The caches follow the store.
        "informer-sync" => tokio::time::timeout(HEALTH_TIMEOUT, server.registry.fresh()).await.is_ok_and(|r| r.is_ok()),
        "poststarthook/rbac/bootstrap-roles" => server.is_bootstrapped(),
        "shutdown" => !server.stopping.is_cancelled(),
        _ => true,
    }
}

/// The protobuf form of `/openapi/v2`, which kubectl up to 1.27 insists on.
const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Documents are JSON. In protobuf there is only the head of version 2: clients that ask for it stop without an answer,
/// but leave checking to the server and know how to patch built-in kinds by themselves.
async fn openapi_document(
    server: &Server,
    served: &Served,
    rest: &[&str],
    headers: &HeaderMap,
    query: &Query,
) -> Result<Option<Response<Body>>, ApiError> {
    let protobuf_only =
        headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).any(|text| {
            text.split(',').all(|clause| clause.trim().starts_with("application/com.github.proto-openapi"))
        });
    if protobuf_only && rest == ["v2"] {
        return Ok(Some(raw(StatusCode::OK, OPENAPI_V2_PROTOBUF, openapi::v2_head_protobuf())));
    }
    if protobuf_only {
        return Err(ApiError::not_acceptable(&negotiate::ACCEPTED[..1]));
    }
    documents::answer(server, served, rest, headers, query.has("hash")).await
}

/// The aggregated version the Accept header prefers over plain discovery.
fn aggregated(headers: &HeaderMap) -> Option<AggregatedVersion> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    for clause in values.flat_map(|v| v.split(',')) {
        let compact: String = clause.chars().filter(|c| !c.is_whitespace()).collect();
        if compact.contains("as=APIGroupDiscoveryList") && compact.contains("g=apidiscovery.k8s.io") {
            if !compact.starts_with("application/json") {
                continue;
            }
            if compact.ends_with("v=v2") || compact.contains("v=v2;") {
                return Some(AggregatedVersion::V2);
            }
            if compact.contains("v=v2beta1") {
                return Some(AggregatedVersion::V2Beta1);
            }
        } else if compact.starts_with("application/json") || compact.starts_with("*/*") {
            return None;
        }
    }
    None
}

fn discover(
    server: &Server,
    scheme: &Scheme,
    parts: &[&str],
    headers: &HeaderMap,
    query: &Query,
) -> Option<Response<Body>> {
    let elsewhere = server.aggregation.elsewhere();
    let value = match parts {
        ["api" | "apis"] => match aggregated(headers) {
            Some(version) => {
                let document = discovery::aggregated(scheme, &elsewhere, parts[0] == "api", version);
                let mut response = raw(StatusCode::OK, version.content_type(), document.to_string());
                response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
                return Some(response);
            }
            None if parts[0] == "api" => discovery::api_versions(&server.advertised()),
            None => discovery::api_group_list(scheme, &elsewhere),
        },
        ["api", version] => discovery::api_resource_list(scheme, "", version)?,
        ["apis", group] => discovery::api_group(scheme, &elsewhere, group)?,
        ["apis", group, version] => discovery::api_resource_list(scheme, group, version)?,
        _ => return None,
    };
    let format = negotiate::accept(headers).map_or(negotiate::Format::Json, |accept| accept.format);
    Some(respond::encode(StatusCode::OK, format, &value, query))
}

/// `kubectl get componentstatuses`: deprecated upstream, answered from what is known here.
///
/// # Errors
/// 404 for other names, 406 for forms nobody speaks.
pub fn component_statuses(info: &RequestInfo, headers: &HeaderMap, query: &Query) -> Result<Response<Body>, ApiError> {
    let one = |name: &str| {
        json!({
            "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
            "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
        })
    };
    let names = ["scheduler", "controller-manager", "etcd-0"];
    let accept = negotiate::accept(headers)?;
    let format = accept.format;
    let kind = scheme::builtin().by_gvk("", "v1", "ComponentStatus").ok_or_else(ApiError::no_such_path)?;
    let table = |items: &[Value]| {
        let include = scheme::table::IncludeObject::from_query(query.get("includeObject").unwrap_or(""));
        let now = jiff::Timestamp::now();
        let table = scheme::table::table(kind, json!({}), items, include.unwrap_or_default(), true, now);
        respond::encode(StatusCode::OK, format, &table, query)
    };
    let in_table = accept.shape == negotiate::Shape::Table;
    if !info.name.is_empty() {
        let Some(name) = names.iter().find(|n| **n == info.name) else {
            let subject = super::status::Subject::new("", "componentstatuses");
            return Err(ApiError::not_found(subject, &info.name));
        };
        let found = one(name);
        return Ok(if in_table { table(&[found]) } else { respond::encode(StatusCode::OK, format, &found, query) });
    }
    let items: Vec<Value> = names.iter().map(|n| one(n)).collect();
    if in_table {
        return Ok(table(&items));
    }
    let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items});
    Ok(respond::encode(StatusCode::OK, format, &list, query))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn discovery_form_follows_the_accept_header() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, text.parse().unwrap());
            aggregated(&headers)
        };
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        assert_eq!(of(&format!("{v2},{beta},application/json")), Some(AggregatedVersion::V2));
        assert_eq!(of(&format!("{beta},application/json")), Some(AggregatedVersion::V2Beta1));
        assert_eq!(of("application/json"), None);
        assert_eq!(of(&format!("application/json,{v2}")), None);
        assert_eq!(of("application/vnd.kubernetes.protobuf;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io"), None);
    }
}
