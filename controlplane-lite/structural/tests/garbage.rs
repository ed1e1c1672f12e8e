//! Any JSON may be a schema, and any an object: nothing panics, and nothing takes long.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use scheme::{FieldErrors, Path};
use serde_json::{Map, Value, json};
use structural::{Structural, validate_schema};

const KEYWORDS: &[&str] = &[
    "additionalProperties",
    "allOf",
    "anyOf",
    "default",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minProperties",
    "multipleOf",
    "not",
    "nullable",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "type",
    "uniqueItems",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
const WORDS: &[&str] = &[
    "a",
    "b",
    "object",
    "array",
    "string",
    "integer",
    "number",
    "map",
    "set",
    "metadata",
    "kind",
    "apiVersion",
    "name",
    "labels",
    "date-time",
    "uri",
    "hostname",
    "email",
    "duration",
    "cidr",
    "int32",
    "^a+$",
    "(",
    "[",
    "é",
    "",
];

/// Keywords with a schema inside.
const NESTING: &[&str] = &["items", "not", "additionalProperties"];

fn scalars() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::sample::select(WORDS).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ]
}

/// JSON whose keys are often keywords or names of fields.
fn anything() -> impl Strategy<Value = Value> {
    let key = || prop_oneof![prop::sample::select(KEYWORDS), prop::sample::select(WORDS)];
    scalars().prop_recursive(5, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..5).prop_map(|entries| {
                Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

/// Schemas most of whose keywords have values of their types.
fn schemas() -> impl Strategy<Value = Value> {
    let word = || prop::sample::select(WORDS).prop_map(Value::from);
    let leaf = prop::collection::vec(
        prop_oneof![
            word().prop_map(|word| ("type", word)),
            word().prop_map(|word| ("format", word)),
            word().prop_map(|word| ("pattern", word)),
            word().prop_map(|word| ("x-kubernetes-list-type", word)),
            Just(("x-kubernetes-list-map-keys", json!(["a", "b"]))),
            any::<bool>().prop_map(|flag| ("nullable", flag.into())),
            any::<bool>().prop_map(|flag| ("x-kubernetes-int-or-string", flag.into())),
            Just(("x-kubernetes-embedded-resource", true.into())),
            Just(("x-kubernetes-preserve-unknown-fields", true.into())),
            any::<f64>().prop_map(|number| ("maximum", number.into())),
            any::<f64>().prop_map(|number| ("multipleOf", number.into())),
            any::<i64>().prop_map(|number| ("maxLength", number.into())),
            (-1_i64..3).prop_map(|number| ("maxItems", number.into())),
            anything().prop_map(|value| ("default", value)),
            prop::collection::vec(anything(), 0..3).prop_map(|list| ("enum", list.into())),
        ],
        0..4,
    )
    .prop_map(|entries| Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()));
    leaf.prop_recursive(4, 40, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..3);
        let map = prop::collection::vec((prop::sample::select(WORDS), inner.clone()), 0..4);
        let key = prop::sample::select(
            &["items", "additionalProperties", "not", "allOf", "anyOf", "oneOf", "properties"][..],
        );
        (inner.clone(), key, inner, list, map).prop_map(|(mut schema, key, one, list, map)| {
            let value = match key {
                "allOf" | "anyOf" | "oneOf" => list.into(),
                "properties" => Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
                _ => one,
            };
            schema[key] = value;
            schema
        })
    })
}

/// Does everything there is with a schema and two objects.
fn exercise(schema: &Value, new: &Value, old: &Value) {
    let mut errors = FieldErrors::new();
    validate_schema(schema, &Path::ROOT, &mut errors);
    let Ok(structural) = Structural::parse(schema) else { return };
    let mut object = new.clone();
    structural.prune(&mut object);
    assert!(structural.prune(&mut object).is_empty(), "{schema} {new}");
    structural.default(&mut object);
    let once = object.clone();
    structural.default(&mut object);
    assert_eq!(object, once, "{schema} {new}");
    let mut created = FieldErrors::new();
    structural.validate(&object, &mut created);
    structural.validate(new, &mut errors);
    structural.validate_update(new, old, &mut errors);
    let _ = structural.rules();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn anything_may_be_a_schema(schema in anything(), new in anything(), old in anything()) {
        exercise(&schema, &new, &old);
    }

    #[test]
    fn anything_may_be_an_object(schema in schemas(), new in anything(), old in anything()) {
        exercise(&schema, &new, &old);
    }

    /// An object that stays as it is has nothing new wrong with its values, if its schema describes all of it.
    #[test]
    fn unchanged_objects_have_no_new_problems(schema in schemas(), object in anything()) {
        let Ok(structural) = Structural::parse(&json!({"properties": {"a": schema}})) else { return Ok(()) };
        let object = json!({ "a": object });
        let mut created = FieldErrors::new();
        structural.validate(&object, &mut created);
        let mut updated = FieldErrors::new();
        structural.validate_update(&object, &object, &mut updated);
        prop_assert!(updated.0.len() <= created.0.len());
    }

    /// Lists in lists, and schemas in schemas.
    #[test]
    fn depth_is_bounded(levels in 1_usize..400, key in prop::sample::select(NESTING)) {
        let mut schema = json!({"type": "array"});
        let mut object = json!(1);
        for _ in 0..levels {
            schema = Value::Object(Map::from_iter([(key.to_owned(), schema)]));
            object = Value::Array(vec![object]);
        }
        exercise(&schema, &object, &object);
        exercise(&json!({}), &object, &object);
        exercise(&json!({"additionalProperties": true}), &json!({"a": object}), &json!({"a": object}));
    }
}

/// Many alternatives of many items, each of which fails: more than is looked at, and more than can be told.
#[test]
fn steps_and_problems_are_bounded() {
    let node = json!({"allOf": vec![json!({"minimum": 2}); 5000]});
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": node}}});
    let object = json!({"a": vec![1; 5000]});
    let structural = Structural::parse(&schema).unwrap();
    let mut errors = FieldErrors::new();
    structural.validate(&object, &mut errors);
    assert!(!errors.is_empty());
    errors = FieldErrors::new();
    structural.validate_update(&object, &json!({"a": [2]}), &mut errors);
    assert!(!errors.is_empty());
}

/// Lists of a many items take no longer than their length.
#[test]
fn lists_are_not_compared_item_by_item() {
    let items: Vec<Value> = (0..50_000).map(|n| json!({"k": n, "v": {"w": n}})).collect();
    let list = |list_type: &str| {
        json!({"type": "object", "properties": {"a": {
            "type": "array", "uniqueItems": true,
            "x-kubernetes-list-type": list_type, "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {
                "k": {"type": "integer"},
                "v": {"type": "object", "properties": {"w": {"type": "integer"}}},
            }},
        }}})
    };
    let new = json!({ "a": items });
    let mut turned = items;
    turned.reverse();
    let old = json!({ "a": turned });
    for list_type in ["set", "map"] {
        let mut errors = FieldErrors::new();
        Structural::parse(&list(list_type)).unwrap().validate_update(&new, &old, &mut errors);
        assert!(errors.is_empty());
    }
}
