//! What a request weighs beside its body: the stored objects that the server has to decode for it. A request of a few
//! bytes may be about an object, or a whole resource, of megabytes.

use http::HeaderMap;

use super::body::MAX_BODY;
use super::flow::LARGE_BODY;
use super::negotiate::{self, Format, Shape};
use super::registry::Resource;
use super::request_info::{Query, RequestInfo};
use super::server::Server;
use scheme::Kind;
use scheme::kind::Serving;
use scheme::strategy::Deletes;
use storage::watch_cache::Filter;

/// Selectors of this many bytes are asked apart from other requests.
const LONG_SELECTOR: usize = 512;

/// Bytes of the stored objects that a request makes the server decode, as far as the caches know, and at most as much
/// as the largest body weighs.
pub fn stored(server: &Server, info: &RequestInfo, query: &Query, headers: &HeaderMap) -> usize {
    if !info.is_resource {
        return 0;
    }
    let served = server.registry.served();
    let Some(kind) = served.scheme.by_gvr(&info.group, &info.version, &info.resource) else { return 0 };
    let resource = match kind.serving {
        Serving::Binding => served.get("", "pods"),
        _ => served.resource(kind),
    };
    let Some(resource) = resource else { return 0 };
    let bytes_suffice = is_plain(kind, query, headers);
    let bytes = match info.verb.as_str() {
        "get" if bytes_suffice && matches!(info.subresource.as_str(), "" | "status") => 0,
        "list" if bytes_suffice => selectors(query),
        "list" | "deletecollection" => all(resource, &info.namespace).max(selectors(query)),
        "create" if info.name.is_empty() => posted(server, kind, resource, info),
        _ if info.name.is_empty() => 0,
        verb => one(resource, info) + of_namespace(server, kind, verb, &info.name) + beside(server, info),
    };
    bytes.min(MAX_BODY)
}

/// Whether the client takes the bytes as they are stored.
fn is_plain(kind: &Kind, query: &Query, headers: &HeaderMap) -> bool {
    let plain = negotiate::accept(headers).is_ok_and(|a| a.shape == Shape::Object && a.format == Format::Json);
    plain && kind.conversion.is_none() && !query.flag("pretty")
}

fn one(resource: &Resource, info: &RequestInfo) -> usize {
    resource.cache().get(&info.namespace, &info.name).map_or(0, |object| object.json_bytes().len())
}

fn all(resource: &Resource, namespace: &str) -> usize {
    let mut sum = 0;
    resource.cache().for_each(&Filter::all().in_namespace(namespace), |object| sum += object.json_bytes().len());
    sum
}

/// As much as any object of the namespace: which one it will be, only the body says.
fn largest(resource: &Resource, namespace: &str) -> usize {
    let mut most = 0;
    let filter = Filter::all().in_namespace(namespace);
    resource.cache().for_each(&filter, |object| most = most.max(object.json_bytes().len()));
    most
}

/// What is read for a body that names it: the pod of a binding, the account of a new pod.
fn posted(server: &Server, kind: &Kind, resource: &Resource, info: &RequestInfo) -> usize {
    match kind.serving {
        Serving::Binding => largest(resource, &info.namespace),
        _ if (info.group.as_str(), info.resource.as_str()) == ("", "pods") => accounts(server, &info.namespace),
        _ => 0,
    }
}

fn accounts(server: &Server, namespace: &str) -> usize {
    server.registry.get("", "serviceaccounts").map_or(0, |accounts| largest(&accounts, namespace))
}

/// What is read beside a pod through its subresources: an eviction asks all disruption budgets, a new container the
/// account.
fn beside(server: &Server, info: &RequestInfo) -> usize {
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("pods", "eviction") => {
            let budgets = server.registry.get("policy", "poddisruptionbudgets");
            budgets.map_or(0, |budgets| all(&budgets, &info.namespace))
        }
        ("pods", "ephemeralcontainers") => accounts(server, &info.namespace),
        _ => 0,
    }
}

/// Who changes what a namespace asks of its pods has all of them judged.
fn of_namespace(server: &Server, kind: &Kind, verb: &str, name: &str) -> usize {
    if !matches!(verb, "update" | "patch") || kind.facts.deletes != Deletes::AfterContent {
        return 0;
    }
    server.registry.get("", "pods").map_or(0, |pods| all(&pods, name))
}

fn selectors(query: &Query) -> usize {
    let length: usize = ["labelSelector", "fieldSelector"].iter().filter_map(|of| query.get(of)).map(str::len).sum();
    if length > LONG_SELECTOR { LARGE_BODY } else { 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request_info;
    use crate::testing::{expect, post, start};
    use http::{Method, StatusCode, header};
    use serde_json::json;
    use std::ops::Range;

    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    const PODS: &str = "/api/v1/namespaces/default/pods";
    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

    #[tokio::test]
    async fn requests_weigh_what_has_to_be_decoded() {
        let (api, client) = start().await;
        let account = json!({"metadata": {"name": "default", "annotations": {"note": "x".repeat(30_000)}}});
        expect(post(&client, "/api/v1/namespaces/default/serviceaccounts", &account).await, StatusCode::CREATED);
        let note = "x".repeat(40_000);
        for name in ["a", "b"] {
            let metadata = json!({"name": name, "annotations": {"note": note}});
            let pod = json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}]}});
            expect(post(&client, PODS, &pod).await, StatusCode::CREATED);
        }
        let event = json!({
            "metadata": {"name": "e", "annotations": {"note": note}}, "involvedObject": {"namespace": "default"},
        });
        expect(post(&client, "/api/v1/namespaces/default/events", &event).await, StatusCode::CREATED);
        for name in ["a", "b"] {
            let metadata = json!({"name": name, "annotations": {"note": "x".repeat(10_000)}});
            let budget = json!({"metadata": metadata, "spec": {"selector": {"matchLabels": {"app": name}}}});
            let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
            expect(post(&client, budgets, &budget).await, StatusCode::CREATED);
        }
        api.server.registry.fresh().await.unwrap();
        let weigh = |method: Method, path: &str, accept: &'static str| {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let query = Query::parse(Some(query));
            let info = request_info::parse(&method, path, &query);
            let headers = [(header::ACCEPT, http::HeaderValue::from_static(accept))].into_iter().collect();
            stored(&api.server, &info, &query, &headers)
        };
        let (one, two) = (40_000..60_000, 80_000..120_000);
        let (account, budgets) = (30_000..32_000, 20_000..22_000);
        let with = |a: &Range<usize>, b: &Range<usize>| a.start + b.start..a.end + b.end;
        let pod = &format!("{PODS}/a");
        for (method, path, accept, expect) in [
            (Method::GET, pod.as_str(), "", 0..1),
            (Method::GET, &format!("{pod}/status"), "", 0..1),
            (Method::GET, &format!("{pod}?pretty=true"), "", one.clone()),
            (Method::GET, pod, TABLE, one.clone()),
            (Method::GET, pod, "application/yaml", one.clone()),
            (Method::GET, PODS, "", 0..1),
            (Method::GET, PODS, TABLE, two.clone()),
            (Method::GET, "/api/v1/pods", "application/yaml", two.clone()),
            (Method::GET, &format!("{PODS}?labelSelector={}", "!z,".repeat(300)), "", LARGE_BODY..LARGE_BODY + 1),
            (Method::PATCH, pod, "", one.clone()),
            (Method::DELETE, pod, "", one.clone()),
            (Method::DELETE, PODS, "", two.clone()),
            (Method::POST, PODS, "", account.clone()),
            (Method::PATCH, &format!("{pod}/ephemeralcontainers"), "", with(&one, &account)),
            (Method::POST, "/api/v1/namespaces/default/bindings", "", one.clone()),
            (Method::POST, "/api/v1/namespaces/other/bindings", "", 0..1),
            (Method::POST, "/api/v1/namespaces/default/configmaps", "", 0..1),
            (Method::POST, &format!("{pod}/eviction"), "", with(&one, &budgets)),
            (Method::POST, &format!("{pod}/binding"), "", one.clone()),
            (Method::PATCH, &format!("{EVENTS}/e"), "", one.clone()),
            (Method::GET, &format!("{EVENTS}/e"), "", one),
            (Method::PATCH, "/api/v1/namespaces/default", "", two),
            (Method::PATCH, &format!("{PODS}/none"), "", 0..1),
            (Method::GET, "/healthz", "", 0..1),
        ] {
            let weight = weigh(method.clone(), path, accept);
            assert!(expect.contains(&weight), "{method} {} {accept}: {weight}", &path[..path.len().min(80)]);
        }
    }
}
