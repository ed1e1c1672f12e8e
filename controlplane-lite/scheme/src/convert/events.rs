//! events.k8s.io/v1 Event ↔ core/v1 Event. Stored in the core form.

use serde_json::{Map, Value};

use crate::kind::ConversionInfo;

/// How events.k8s.io events are stored.
pub const EVENTS: ConversionInfo = ConversionInfo {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    to_storage: to_core,
    from_storage: from_core,
    stored_field,
};

/// (events.k8s.io field, core field); what is not named is equal in both.
const RENAMED: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn rename(event: Value, pairs: impl Iterator<Item = (&'static str, &'static str)>, api_version: &str) -> Value {
    let Value::Object(map) = event else { return event };
    let pairs: Vec<_> = pairs.collect();
    let mut out: Map<String, Value> = map
        .into_iter()
        .map(|(key, value)| match pairs.iter().find(|(from, _)| *from == key) {
            Some((_, to)) => ((*to).to_owned(), value),
            None => (key, value),
        })
        .collect();
    out.insert("apiVersion".to_owned(), api_version.into());
    out.insert("kind".to_owned(), "Event".into());
    Value::Object(out)
}

/// What hangs below a renamed field has the new name before it.
fn stored_field(served: &str) -> String {
    let (field, rest) = served.split_once('.').map_or((served, ""), |(field, _)| (field, &served[field.len()..]));
    let stored = RENAMED.iter().find(|(from, _)| *from == field).map_or(field, |(_, to)| to);
    format!("{stored}{rest}")
}

fn to_core(event: Value) -> Value {
    rename(event, RENAMED.iter().copied(), "v1")
}

fn from_core(event: Value) -> Value {
    rename(event, RENAMED.iter().map(|(a, b)| (*b, *a)), "events.k8s.io/v1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_and_back() {
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "x", "namespace": "a"},
            "regarding": {"kind": "Pod", "name": "p"}, "note": "hello", "reason": "Started",
            "reportingController": "c", "reportingInstance": "i", "action": "Start",
            "deprecatedCount": 2, "eventTime": "2026-01-01T00:00:00.000000Z",
        });
        let core = to_core(event.clone());
        assert_eq!(core["involvedObject"]["name"], "p");
        assert_eq!(core["message"], "hello");
        assert_eq!(core["reportingComponent"], "c");
        assert_eq!(core["count"], 2);
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(from_core(core), event);
        for (served, stored) in
            [("regarding.kind", "involvedObject.kind"), ("reportingController", "reportingComponent"), ("type", "type")]
        {
            assert_eq!(stored_field(served), stored);
        }
    }
}
