//! Access to devices that others use: only in namespaces that an administrator has marked. Upstream asks this in the
//! registry (`AuthorizedForAdmin` and `AuthorizedForAdminStatus` of pkg/registry/resource), which sees no namespaces here.

use serde_json::Value;

use super::{Operation, Refusal, Request, View};
use scheme::access::{bool_at, list_at, str_at};
use scheme::field::{FieldErrors, Path};

const LABEL: &str = "resource.kubernetes.io/admin-access";
const RESULTS: [&str; 4] = ["status", "allocation", "devices", "results"];

pub(super) fn validate(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let Some(object) = object.filter(|_| request.kind.group == "resource.k8s.io") else { return Ok(()) };
    let place = match (request.kind.plural.as_ref(), request.subresource, request.operation) {
        ("resourceclaims", "", Operation::Create) => asked(object, &["spec", "devices", "requests"]),
        ("resourceclaimtemplates", "", Operation::Create) => asked(object, &["spec", "spec", "devices", "requests"]),
        ("resourceclaims", "status", _) if request.old.and_then(granted).is_none() => granted(object),
        _ => None,
    };
    let Some(place) = place else { return Ok(()) };
    let namespace = view.get("", "namespaces", "", request.namespace).unwrap_or_default();
    if str_at(&namespace, &["metadata", "labels", LABEL]) == "true" {
        return Ok(());
    }
    let spec = Path::new("spec");
    let spec = spec.child("devices");
    let requests = spec.child("requests");
    let status = Path::new("status");
    let status = status.child("allocation");
    let status = status.child("devices");
    let results = status.child("results");
    let list = if request.subresource.is_empty() { requests } else { results };
    let mut errors = FieldErrors::default();
    let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    errors.forbidden(&list.index(place).child("adminAccess"), why);
    let name = request.name.to_owned();
    Err(Refusal::Invalid { group: "resource.k8s.io", kind: kind_of(request), name, errors })
}

fn kind_of(request: &Request<'_>) -> &'static str {
    if request.kind.plural == "resourceclaims" { "ResourceClaim" } else { "ResourceClaimTemplate" }
}

/// The first request for it.
fn asked(object: &Value, requests: &[&str]) -> Option<usize> {
    list_at(object, requests).iter().position(|request| bool_at(request, &["exactly", "adminAccess"]))
}

/// The first device that was allocated so.
fn granted(object: &Value) -> Option<usize> {
    list_at(object, &RESULTS).iter().position(|result| bool_at(result, &["adminAccess"]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;
    use serde_json::json;

    use crate::testing::{expect, patch, post, start};

    const MERGE: &str = "merge-patch+json";

    #[tokio::test]
    async fn only_marked_namespaces_have_it() {
        let (_api, client) = start().await;
        let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
        let claim = |name: &str, admin: bool| {
            json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [
                {"name": "gpu", "exactly": {"deviceClassName": "class", "adminAccess": admin}}]}}})
        };
        let template = json!({"metadata": {"name": "t"}, "spec": {"spec": claim("t", true)["spec"]}});
        let templates = claims.replace("resourceclaims", "resourceclaimtemplates");
        let allocation = json!({"status": {"allocation": {"devices": {"results": [{"request": "gpu", "driver": "d.example.com",
            "pool": "p", "device": "d", "adminAccess": true}]}}}});
        expect(post(&client, claims, &claim("plain", false)).await, StatusCode::CREATED);
        let status = format!("{claims}/plain/status");
        let why = "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing \
                   namespace";
        for (answer, path) in [
            (post(&client, claims, &claim("a", true)).await, "spec.devices.requests[0].adminAccess"),
            (post(&client, &templates, &template).await, "spec.devices.requests[0].adminAccess"),
            (patch(&client, &status, MERGE, &allocation).await, "status.allocation.devices.results[0].adminAccess"),
        ] {
            let told = expect(answer, StatusCode::UNPROCESSABLE_ENTITY);
            let message = told["message"].as_str().unwrap();
            assert!(message.ends_with(&format!("{path}: Forbidden: {why}")), "{message}");
        }
        let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
        expect(patch(&client, "/api/v1/namespaces/default", MERGE, &label).await, StatusCode::OK);
        expect(post(&client, claims, &claim("a", true)).await, StatusCode::CREATED);
        expect(post(&client, &templates, &template).await, StatusCode::CREATED);
        expect(patch(&client, &status, MERGE, &allocation).await, StatusCode::OK);
    }
}
