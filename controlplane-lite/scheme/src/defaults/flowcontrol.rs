//! FlowSchemas and PriorityLevelConfigurations (pkg/apis/flowcontrol/v1/defaults.go).

use serde_json::{Map, Value};

use crate::access::{ensure_map, map_at_mut, set_default};

/// A number that Go holds without a pointer.
fn set_default_int(map: &mut Map<String, Value>, key: &str, value: i64) {
    if map.get(key).is_none_or(|v| v.is_null() || v.as_i64() == Some(0)) {
        map.insert(key.to_owned(), value.into());
    }
}

/// FlowSchema: in the middle of what is matched.
pub fn flow_schema(object: &mut Value) {
    set_default_int(ensure_map(object, &["spec"]), "matchingPrecedence", 1000);
}

/// PriorityLevelConfiguration: shares, nothing lent, and the sizes of its queues.
pub fn priority_level(object: &mut Value) {
    for (field, shares) in [("exempt", 0), ("limited", 30)] {
        if let Some(level) = map_at_mut(object, &["spec", field]) {
            set_default(level, "nominalConcurrencyShares", shares);
            set_default(level, "lendablePercent", 0);
        }
    }
    if let Some(queuing) = map_at_mut(object, &["spec", "limited", "limitResponse", "queuing"]) {
        set_default_int(queuing, "handSize", 8);
        set_default_int(queuing, "queues", 64);
        set_default_int(queuing, "queueLengthLimit", 50);
    }
}
