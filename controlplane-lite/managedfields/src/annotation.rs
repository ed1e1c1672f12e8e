//! The annotation in which `kubectl apply` keeps what it applied on the client's side
//! (`managedfields/internal/lastapplied*.go`): it says what server-side apply may take over, and follows it afterwards.

use serde_json::Value;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager whose writes concern the annotation.
pub const KUBECTL: &str = "kubectl";
/// How large all annotations of an object may be together (`ValidateAnnotationsSize`), in bytes.
const TOTAL_SIZE: usize = 256 << 10;

/// The configuration of the annotation, if there is one of this version.
pub fn last_applied(object: &Value, version: &str) -> Option<Value> {
    let text = object["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    let config: Value = serde_json::from_str(text).ok()?;
    (config["apiVersion"] == version).then_some(config)
}

/// Writes what was applied into an object that has the annotation, unless that became too large: then it goes.
pub fn renew(object: &mut Value, config: &Value) {
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.to_owned(), format!("{config}\n").into());
    let size = |(name, value): (&String, &Value)| name.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > TOTAL_SIZE {
        annotations.remove(LAST_APPLIED);
    }
}
