//! The strategic merge patch from the status the API shows to the one it shall
//! show: only what changed, other writers' conditions untouched. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::{DISRUPTION_TARGET, RESIZE_PENDING, TERMINATION_BY_KUBELET, is_own};

/// Lists merged by key on the server: (field, key).
const KEYED: &[(&str, &str)] = &[("hostIPs", "ip"), ("podIPs", "ip")];
/// Fields of the status that are not ours to touch.
const FOREIGN: &[&str] = &["nominatedNodeName", "resourceClaimStatuses", "resize", "extendedResourceClaimStatus"];

/// Fields that go away again; others the server filled in by itself stay.
const REMOVABLE: &[&str] = &["reason", "message", "podIP", "podIPs", "ephemeralContainerStatuses"];

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status).map(normalized) {
        Ok(Some(Value::Object(map))) => map,
        _ => Map::new(),
    }
}

/// Without nulls and empty objects, which servers write and leave out at will.
fn normalized(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(map) => {
            let map: Map<String, Value> = map.into_iter().filter_map(|(k, v)| Some((k, normalized(v)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(normalized).collect())),
        other => Some(other),
    }
}

/// The patch for the `status` subresource, or `None` when nothing differs. It
/// carries the UID, so that it never hits a pod of the same name.
pub fn status_patch(uid: &str, old: Option<&PodStatus>, new: &PodStatus) -> Option<Value> {
    let old = old.map(object).unwrap_or_default();
    let new = object(new);
    let mut out = Map::new();
    let fields: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for field in fields {
        if FOREIGN.contains(&field.as_str()) {
            continue;
        }
        let (before, after) = (old.get(field), new.get(field));
        if before == after {
            continue;
        }
        if field == "conditions" {
            let changed = changed_conditions(before, after);
            if !changed.is_empty() {
                out.insert(field.clone(), Value::Array(changed));
            }
        } else if let Some((_, key)) = KEYED.iter().find(|(f, _)| f == field) {
            if let Some(list) = keyed(before, after, key) {
                out.insert(field.clone(), list);
            }
        } else if after.is_some() || REMOVABLE.contains(&field.as_str()) {
            out.insert(field.clone(), after.cloned().unwrap_or(Value::Null));
        }
    }
    if out.is_empty() {
        return None;
    }
    Some(json!({ "metadata": { "uid": uid }, "status": out }))
}

fn items(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn changed_conditions(before: Option<&Value>, after: Option<&Value>) -> Vec<Value> {
    let text = |c: &Value, field: &str| c.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    // Others announce disruptions too: only the one of this node is ours.
    let evicted = |c: &Value| text(c, "type") == DISRUPTION_TARGET && text(c, "reason") == TERMINATION_BY_KUBELET;
    let own = |c: &&Value| is_own(&text(c, "type")) || evicted(c);
    let gone = items(before).iter().filter(|b| {
        text(b, "type") == RESIZE_PENDING && !items(after).iter().any(|a| text(a, "type") == RESIZE_PENDING)
    });
    let gone = gone.map(|c| json!({ "type": text(c, "type"), "$patch": "delete" }));
    let changed = items(after).iter().filter(own).filter(|c| !items(before).contains(c));
    changed
        .map(|c| without_leftovers(items(before).iter().find(|b| text(b, "type") == text(c, "type")), c))
        .chain(gone)
        .collect()
}

/// The condition with a null for each field that `before` has and it lacks: the
/// server merges conditions by type, so that a field left out would stay.
fn without_leftovers(before: Option<&Value>, after: &Value) -> Value {
    let mut out = after.as_object().cloned().unwrap_or_default();
    for field in before.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        out.entry(field.clone()).or_insert(Value::Null);
    }
    Value::Object(out)
}

fn keyed(before: Option<&Value>, after: Option<&Value>, key: &str) -> Option<Value> {
    let (before, after) = (items(before), items(after));
    let mut list: Vec<Value> = after.iter().filter(|a| !before.contains(a)).cloned().collect();
    for gone in before.iter().filter(|b| !after.iter().any(|a| a.get(key) == b.get(key))) {
        list.push(json!({ key: gone.get(key), "$patch": "delete" }));
    }
    (!list.is_empty()).then_some(Value::Array(list))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status(text: &str) -> PodStatus {
        serde_norway::from_str(text).unwrap()
    }

    #[test]
    fn only_what_changed() {
        let old = status(
            "{phase: Pending, nominatedNodeName: n, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], reason: R, conditions: [{type: Ready, status: 'False'}, {type: Initialized, status: 'True'}, {type: x/gate, status: 'True'}]}",
        );
        let new = status(
            "{phase: Running, podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}], conditions: [{type: Ready, status: 'True'}, {type: Initialized, status: 'True'}]}",
        );
        let patch = status_patch("u", Some(&old), &new).unwrap();
        assert_eq!(
            patch,
            json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running",
                "podIP": "10.0.0.2",
                "reason": null,
                "podIPs": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "$patch": "delete"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            }})
        );
        assert_eq!(status_patch("u", Some(&new), &new), None);
    }

    #[test]
    fn a_condition_loses_the_reason_it_had() {
        let old = status("{conditions: [{type: Ready, status: 'False', reason: R, message: m}]}");
        let new = status("{conditions: [{type: Ready, status: 'True'}]}");
        let patch = status_patch("u", Some(&old), &new).unwrap();
        let ready = json!({"type": "Ready", "status": "True", "reason": null, "message": null});
        assert_eq!(patch["status"], json!({"conditions": [ready]}));
        // Until the server shows it without them, it is written again.
        let stale = status("{conditions: [{type: Ready, status: 'True', reason: R}]}");
        let patch = status_patch("u", Some(&stale), &new).unwrap();
        assert_eq!(patch["status"]["conditions"][0]["reason"], Value::Null);
        assert!(patch["status"]["conditions"][0].as_object().unwrap().contains_key("reason"));
    }

    #[test]
    fn a_resize_that_is_withdrawn_is_pending_no_more() {
        let old = status("{conditions: [{type: PodResizePending, status: 'True'}, {type: x, status: 'True'}]}");
        let patch = status_patch("u", Some(&old), &status("{}")).unwrap();
        assert_eq!(patch["status"], json!({"conditions": [{"type": "PodResizePending", "$patch": "delete"}]}));
    }

    #[test]
    fn everything_is_new_to_an_empty_status() {
        let old = status(
            "{phase: Pending, resize: x, hostIPs: [{ip: 1.1.1.1}], containerStatuses: [{name: a, image: i, imageID: '', ready: true, restartCount: 0, lastState: {}}]}",
        );
        let same = status(
            "{phase: Pending, hostIPs: [{ip: 1.1.1.1}], containerStatuses: [{name: a, image: i, imageID: '', ready: true, restartCount: 0}]}",
        );
        assert_eq!(status_patch("u", Some(&old), &same), None, "what servers fill in is no difference");
        let new = status("{phase: Pending, hostIPs: [{ip: 1.1.1.1}]}");
        let patch = status_patch("u", None, &new).unwrap();
        assert_eq!(patch["status"], json!({"phase": "Pending", "hostIPs": [{"ip": "1.1.1.1"}]}));
    }
}
