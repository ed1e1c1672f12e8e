//! Objects of the API as Go reads them, for clients whose typed model is stricter. What the API accepts has to be
//! readable: Go's clients write a time that is not set as `null`, and read that as the zero time. Pure; it makes no
//! requests and keeps nothing. Whoever watches decides what becomes of an object that cannot be read even so. Beside
//! them the [`duration`]s of Go, and [`yaml`] as Kubernetes reads it.

pub mod duration;
pub mod yaml;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Go's zero time.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The times that the typed model demands, by the field that holds the objects with them: `conditions` (a list of
/// `metav1.Condition`) and `series` (of `events.k8s.io`).
const REQUIRED_TIMES: [(&str, &str); 2] = [("conditions", "lastTransitionTime"), ("series", "lastObservedTime")];

/// The field whose items are whole objects in Go, too, so that the API takes whatever `kind` they say they are, while
/// the typed model insists on its own.
const EMBEDDED: &str = "volumeClaimTemplates";

/// Makes an object what Go reads in it: a null is an absent field, in a map of values the zero value; a time that must
/// be there and is not is the zero time.
pub fn normalize(object: &mut Value) {
    normalize_field(object, "");
}

fn normalize_field(value: &mut Value, field: &str) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            if field == EMBEDDED {
                fields.retain(|name, _| name != "kind" && name != "apiVersion");
            }
            if let Some((_, time)) = REQUIRED_TIMES.iter().find(|(holder, _)| *holder == field) {
                fields.entry(*time).or_insert_with(|| ZERO_TIME.into());
            }
            for (name, value) in fields.iter_mut() {
                normalize_field(value, name);
            }
        }
        Value::Array(items) => {
            for item in items {
                normalize_field(item, field);
            }
        }
        _ => {}
    }
}

/// What can be said even of an object that cannot be read: its names, UID and version, where it has them.
#[must_use]
pub fn identity(object: &Value) -> ObjectMeta {
    let text = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_are_absent_and_missing_times_are_zero() {
        let mut object = json!({
            "metadata": {"name": "a", "creationTimestamp": null},
            "status": {"conditions": [{"type": "X", "lastTransitionTime": null}], "items": [{"x": null}]},
            "series": {"count": 1},
            "spec": {"volumeClaimTemplates": [{"apiVersion": "v2", "kind": "Claim", "metadata": {"name": "data"}}]},
        });
        normalize(&mut object);
        let expect = json!({
            "metadata": {"name": "a"},
            "status": {"conditions": [{"type": "X", "lastTransitionTime": ZERO_TIME}], "items": [{}]},
            "series": {"count": 1, "lastObservedTime": ZERO_TIME},
            "spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
        });
        assert_eq!(object, expect);
        let read = object.clone();
        normalize(&mut object);
        assert_eq!(object, read, "once is enough");
    }

    #[test]
    fn whatever_it_is_it_may_have_a_name() {
        let named = json!({"metadata": {"name": "b", "namespace": "", "uid": 7, "resourceVersion": "9"}, "data": 1});
        let meta = identity(&named);
        assert_eq!((meta.name.as_deref(), meta.namespace, meta.uid), (Some("b"), None, None));
        assert_eq!(meta.resource_version.as_deref(), Some("9"));
        for garbage in [json!(null), json!(7), json!([]), json!({"metadata": []})] {
            assert_eq!(identity(&garbage), ObjectMeta::default(), "{garbage}");
        }
    }
}
