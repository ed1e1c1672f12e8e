//! ResourceClaims and their templates (pkg/apis/resource/v1/defaults.go).

use serde_json::Value;

use crate::access::{at_mut, list_at_mut, set_default_str};

/// One device, unless a request says another number or all.
fn request(request: &mut Value) {
    let Some(request) = request.as_object_mut() else { return };
    set_default_str(request, "allocationMode", "ExactCount");
    let is_unset = request.get("count").is_none_or(|count| count.is_null() || *count == 0);
    if request["allocationMode"] == "ExactCount" && is_unset {
        request.insert("count".to_owned(), 1.into());
    }
}

fn requests(spec: &mut Value) {
    for each in list_at_mut(spec, &["devices", "requests"]) {
        if let Some(exactly) = at_mut(each, &["exactly"]) {
            request(exactly);
        }
        list_at_mut(each, &["firstAvailable"]).iter_mut().for_each(request);
    }
}

/// ResourceClaim.
pub fn claim(object: &mut Value) {
    if let Some(spec) = at_mut(object, &["spec"]) {
        requests(spec);
    }
}

/// ResourceClaimTemplate.
pub fn template(object: &mut Value) {
    if let Some(spec) = at_mut(object, &["spec", "spec"]) {
        requests(spec);
    }
}
