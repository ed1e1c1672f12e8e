//! What a schema of a few letters may ask of a server: memory and work are bounded whatever it says.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use structural::Structural;

fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(values).sum(),
        Value::Object(map) => map.values().map(values).sum(),
        _ => 0,
    }
}

/// Each level of lists is some hundred times the one above; a few more and no machine could hold them.
#[test]
fn defaults_in_defaults_are_bounded() {
    let items = Value::Array(vec![json!({}); 200]);
    let mut schema = json!({"type": "object"});
    for _ in 0..3 {
        schema = json!({"type": "object", "properties": {
            "a": {"type": "array", "default": items, "items": schema},
        }});
    }
    let mut object = json!({});
    Structural::parse(&schema).unwrap().default(&mut object);
    assert!(values(&object) < 7_800_000, "{}", values(&object));
    // What is there is more than a store takes, so that nobody is given half of it.
    assert!(object.to_string().len() > 4 << 20);
    // Nothing more is filled in where there is no more room, and what is small is.
    let mut small = json!({"a": [{"a": []}]});
    Structural::parse(&schema).unwrap().default(&mut small);
    assert_eq!(small, json!({"a": [{"a": []}]}));
}
