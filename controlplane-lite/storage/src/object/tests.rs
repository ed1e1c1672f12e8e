//! Tests of `storage::object`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn paths() -> Arc<[FieldPath]> {
    [
        FieldPath::new("spec.nodeName"),
        FieldPath::new("status.phase"),
        FieldPath::at("host", "spec.hostNetwork").or("false"),
        FieldPath::new("involvedObject.name"),
        FieldPath::new("spec.count"),
    ]
    .into()
}

fn parse(value: &Value) -> Object {
    Object::parse(value.to_string().as_bytes(), Revision(77), EventKind::Added, &paths()).unwrap()
}

#[test]
fn header_is_found_and_the_revision_spliced() {
    let stored = json!({
        "apiVersion": "v1", "kind": "Pod", "involvedObject": {"name": "early"},
        "metadata": {
            "name": "web", "namespace": "default", "uid": "u-1", "labels": {"app": "web", "x/y": ""},
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"uid": "o-1", "name": "rs"}, {"uid": "o-2"}],
            "annotations": {"a": "quote \" and \u{e9}"},
        },
        "spec": {"nodeName": "n1", "hostNetwork": true, "count": 3, "list": [{"nodeName": "no"}]},
        "status": {"phase": null},
    });
    let object = parse(&stored);
    assert_eq!((object.namespace(), object.name(), object.uid()), ("default", "web", "u-1"));
    assert_eq!(object.deletion_timestamp(), Some("2026-01-01T00:00:00Z"));
    assert_eq!(object.label("app"), Some("web"));
    assert_eq!(object.label("x/y"), Some(""));
    assert_eq!(object.label("none"), None);
    assert_eq!(object.owner_uids().collect::<Vec<_>>(), ["o-1", "o-2"]);
    assert_eq!(object.field("spec.nodeName"), Some("n1"));
    assert_eq!(object.field("status.phase"), Some(""));
    assert_eq!(object.field("host"), Some("true"));
    assert_eq!(object.field("involvedObject.name"), Some("early"));
    assert_eq!(object.field("spec.count"), Some("3"));
    assert_eq!(object.field("spec.other"), None);
    assert_eq!(object.field("metadata.name"), Some("web"));

    let mut expected = stored.clone();
    expected["metadata"]["resourceVersion"] = json!("77");
    assert_eq!(object.value(), expected);
    assert_eq!(serde_json::from_slice::<Value>(&object.stored()).unwrap(), stored);
    let frame: Value = serde_json::from_slice(&object.line(EventKind::Added).whole()).unwrap();
    assert_eq!(frame, json!({"type": "ADDED", "object": expected}));
    let frame: Value = serde_json::from_slice(&object.line(EventKind::Modified).whole()).unwrap();
    assert_eq!(frame["type"], "MODIFIED");
}

/// A watch that nobody reads keeps what it was given: of a large object nothing of its own.
#[test]
fn a_large_object_is_never_copied() {
    let object = parse(&json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(SPLIT)}}));
    let buffer = object.json_bytes().as_ptr_range();
    for kind in [EventKind::Added, EventKind::Modified, EventKind::Deleted] {
        let parts: Vec<Bytes> = object.line(kind).into_parts().collect();
        let inside = |part: &&Bytes| buffer.contains(&part.as_ptr()) || part.as_ptr_range().contains(&buffer.start);
        assert!(parts.iter().filter(|part| !inside(part)).map(Bytes::len).sum::<usize>() < 64, "{kind:?}");
        let event: Value = serde_json::from_slice(&parts.concat()).unwrap();
        assert_eq!(event, json!({"type": kind.as_str(), "object": object.value()}));
    }
    let small = parse(&json!({"metadata": {"name": "a"}}));
    assert_eq!(small.line(EventKind::Modified).into_parts().count(), 1, "one write");
}

#[test]
fn natural_frame_shares_the_buffer() {
    let object = parse(&json!({"metadata": {"name": "a"}}));
    assert_eq!(object.line(EventKind::Added).whole().as_ptr(), object.line(EventKind::Added).whole().as_ptr());
    let deleted = object.restamped(Revision(80), EventKind::Deleted).unwrap();
    assert_eq!(deleted.value(), json!({"metadata": {"name": "a", "resourceVersion": "80"}}));
    assert_eq!(deleted.kind(), EventKind::Deleted);
}

#[test]
fn escapes_and_nulls_are_read() {
    let text = r#"{"metadata":{"labels":{"k\u0041":"v\n","z":null},"name":"n\u0061me","ownerReferences":null}}"#;
    let object = Object::parse(text.as_bytes(), Revision(1), EventKind::Added, &paths()).unwrap();
    assert_eq!(object.name(), "name");
    assert_eq!(object.labels().collect::<Vec<_>>(), [("kA", "v\n"), ("z", "")]);
    let null = Object::parse(br#"{"metadata":{"labels":null,"name":"a"}}"#, Revision(1), EventKind::Added, &paths());
    assert_eq!(null.unwrap().labels().count(), 0);
}

/// A list asks each of hundreds of terms of an object with hundreds of thousands of labels.
#[test]
fn labels_are_found_among_many() {
    let labels: serde_json::Map<String, Value> =
        (0..100_000).map(|n| (format!("l{n}"), format!("{n}").into())).collect();
    let object = parse(&json!({"metadata": {"name": "a", "labels": labels}}));
    for n in 0..100_000 {
        assert_eq!(object.label(&format!("l{n}")), Some(format!("{n}").as_str()));
        assert_eq!(object.label(&format!("l{n}x")), None);
    }
    let unsorted = r#"{"metadata":{"labels":{"b":"1","a":"2","c":"3"},"name":"a"}}"#;
    let object = Object::parse(unsorted.as_bytes(), Revision(1), EventKind::Added, &paths()).unwrap();
    assert_eq!(["a", "b", "c", "d"].map(|l| object.label(l)), [Some("2"), Some("1"), Some("3"), None]);
}

#[test]
fn garbage_is_an_error() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for bad in [
        "",
        "null",
        "[]",
        "{}",
        "1",
        "{\"metadata\":",
        r#"{"metadata":{}}"#,
        r#"{"metadata":{"name":""}}"#,
        r#"{"metadata":{"name":1}}"#,
        r#"{"metadata":"x"}"#,
        r#"{"metadata":["a"]}"#,
        r#"[{"name":"a"}]"#,
        r#"{"metadata":{"name":"a","ownerReferences":[["u"]]}}"#,
        r#"{"metadata":{"name":"a","resourceVersion":3}}"#,
        r#"{"metadata":{"name":"a","labels":[]}}"#,
        r#"{"metadata":{"name":"a","resourceVersion":"3"}}"#,
        "\u{0}\u{1}",
        &deep,
    ] {
        let parsed = Object::parse(bad.as_bytes(), Revision(1), EventKind::Added, &paths());
        assert!(parsed.is_err(), "{}", &bad[..bad.len().min(60)]);
    }
    assert!(Object::parse(&[0xff, 0xfe, 0x7b], Revision(1), EventKind::Added, &paths()).is_err());
}

#[test]
fn bookmarks_are_json() {
    let mark: Value = serde_json::from_slice(&bookmark_frame("v1", "Pod", Revision(5), true)).unwrap();
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["object"]["metadata"]["resourceVersion"], "5");
}

#[test]
fn encoding_drops_the_revision() {
    let mut value = json!({"metadata": {"name": "a", "resourceVersion": "4"}});
    assert_eq!(encode_stored(&mut value), Bytes::from(r#"{"metadata":{"name":"a"}}"#));
}

/// What the API's decoder leaves out, or takes the last of, is so for who looks at the header.
#[test]
fn nulls_are_absent_and_the_last_of_a_key_counts() {
    for text in [
        r#"{"metadata":{"name":"a","resourceVersion":null}}"#,
        r#"{"metadata":{"resourceVersion":"","name":"a"}}"#,
        r#"{"metadata":{"r\u0065sourceVersion":null,"name":"a"}}"#,
        r#"{"metadata":{"name":"b","resourceVersion":"3"},"metadata":{"name":"a"}}"#,
        r#"{"metadata":{"name":"a","resourceVersion":"3","resourceVersion":null}}"#,
        r#"{"metadata":{"name":"b","name":"a","uid":null,"namespace":null,"deletionTimestamp":null}}"#,
        r#"{"metadata":{"name":"a","ownerReferences":[null,{"uid":null}]}}"#,
        r#"{"metadata":{"name":"a","labels":{"k":"1","k":"2"}}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"nodeName":"n"},"spec":{"count":1}}"#,
        r#"{"metadata":{"name":"a"},"status":{"phase":"P","phase":null}}"#,
    ] {
        let object = as_decoded(text).unwrap();
        // Of a key that stands there twice, not every reader takes the last.
        let json = String::from_utf8(object.json().to_vec()).unwrap();
        assert_eq!(json.matches("\"resourceVersion\"").count(), 1, "{json}");
    }
}

/// The header says what a decoder says, and what the decoder cannot take for an object is none.
fn as_decoded(text: &str) -> Option<Object> {
    let parsed = Object::parse(text.as_bytes(), Revision(77), EventKind::Added, &paths());
    let mut value: Value = serde_json::from_str(text).unwrap();
    let Some(expected) = Expected::of(&value) else {
        assert!(parsed.is_err(), "{text}");
        return None;
    };
    let object = parsed.unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let found = Expected {
        names: [object.namespace(), object.name(), object.uid()].map(str::to_owned),
        deletion: object.deletion_timestamp().map(str::to_owned),
        labels: object.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        owners: object.owner_uids().map(str::to_owned).collect(),
        fields: (0..paths().len()).map(|n| object.field_at(n).unwrap().to_owned()).collect(),
    };
    assert_eq!(found, expected, "{text}");
    for (key, label) in &found.labels {
        assert_eq!(object.label(key), Some(&**label), "{text}");
    }
    value["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(serde_json::from_slice::<Value>(&object.stored()).unwrap(), value, "{text}");
    value["metadata"]["resourceVersion"] = json!("77");
    assert_eq!(object.value(), value, "{text}");
    Some(object)
}

/// What a header has to say of a decoded object.
#[derive(Debug, PartialEq)]
struct Expected {
    names: [String; 3],
    deletion: Option<String>,
    labels: Vec<(String, String)>,
    owners: Vec<String>,
    fields: Vec<String>,
}

impl Expected {
    /// Nothing when it is none that the API could have stored.
    fn of(value: &Value) -> Option<Self> {
        let metadata = value.get("metadata")?.as_object()?;
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => Some(String::new()),
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => None,
        };
        let of = |key: &str| text(metadata.get(key));
        let mut labels = Vec::new();
        match metadata.get("labels") {
            None | Some(Value::Null) => {}
            Some(map) => {
                for (key, value) in map.as_object()? {
                    labels.push((key.clone(), text(Some(value))?));
                }
            }
        }
        labels.sort();
        let mut owners = Vec::new();
        match metadata.get("ownerReferences") {
            None | Some(Value::Null) => {}
            Some(list) => {
                for owner in list.as_array()? {
                    owners.push(if owner.is_null() { String::new() } else { text(owner.as_object()?.get("uid"))? });
                }
            }
        }
        owners.retain(|uid| !uid.is_empty());
        let [namespace, name, uid, deletion] = [of("namespace")?, of("name")?, of("uid")?, of("deletionTimestamp")?];
        if name.is_empty() || !of("resourceVersion")?.is_empty() {
            return None;
        }
        let deletion = Some(deletion).filter(|time| !time.is_empty());
        Some(Self { names: [namespace, name, uid], deletion, labels, owners, fields: Self::fields(value) })
    }

    fn fields(value: &Value) -> Vec<String> {
        let scalar = |path: &str| match value.pointer(path)? {
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(value.pointer(path)?.to_string()),
            _ => None,
        };
        let fields = ["/spec/nodeName", "/status/phase", "/spec/hostNetwork", "/involvedObject/name", "/spec/count"];
        let texts = fields.iter().map(|path| scalar(path));
        let default = |path: &str| if path == "/spec/hostNetwork" { "false" } else { "" };
        texts.zip(fields).map(|(text, path)| text.unwrap_or_else(|| default(path).to_owned())).collect()
    }
}

/// Text of a string as JSON, with some of it escaped.
fn written(texts: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (texts, any::<u64>()).prop_map(|(text, escaped)| {
        let one = |(n, c): (usize, char)| match c {
            '"' | '\\' | '\0'..='\x1f' => format!("\\u{:04x}", u32::from(c)),
            c if u32::from(c) < 0x10000 && escaped >> (n % 64) & 7 == 0 => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        };
        format!("\"{}\"", text.chars().enumerate().map(one).collect::<String>())
    })
}

/// Text of a JSON object with these keys, of which some may stand there twice.
fn object_of(fields: &[(&str, BoxedStrategy<String>)]) -> BoxedStrategy<String> {
    let entries: Vec<_> = fields
        .iter()
        .map(|(key, value)| {
            (written(Just((*key).to_owned())), value.clone()).prop_map(|(key, value)| format!("{key}: {value}")).boxed()
        })
        .collect();
    let entries = proptest::collection::vec(proptest::strategy::Union::new(entries), 0..fields.len() + 3);
    entries.prop_map(|entries| format!("{{ {} }}", entries.join(","))).boxed()
}

/// Text of any JSON value.
fn any_json() -> BoxedStrategy<String> {
    let text = written(any::<String>());
    let leaf =
        prop_oneof![Just("null".to_owned()), Just("true".into()), any::<i64>().prop_map(|n| n.to_string()), text];
    leaf.prop_recursive(4, 16, 4, |inner| {
        let keys =
            prop_oneof!["[a-c]", Just("metadata".to_owned()), Just("name".into()), Just("resourceVersion".into())];
        let entry = (written(keys), inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec(entry, 0..4).prop_map(|entries| format!("{{{}}}", entries.join(","))),
        ]
    })
    .boxed()
}

/// Text of something like an object of the API.
fn nearly_object() -> BoxedStrategy<String> {
    let null = || Just("null".to_owned());
    let or_else = |value: BoxedStrategy<String>| prop_oneof![16 => value, 3 => null(), 1 => any_json()].boxed();
    let text =
        || or_else(prop_oneof![3 => written("[a-z\"\\\\\u{e9}\u{1F600}]{1,5}"), 1 => Just("\"\"".to_owned())].boxed());
    let owner = || or_else(object_of(&[("uid", text()), ("name", text()), ("kind", any_json())]));
    let owners = proptest::collection::vec(owner(), 0..3).prop_map(|owners| format!("[{}]", owners.join(",")));
    let labels = object_of(&[("a", text()), ("b\u{e9}", text()), ("x/y", text())]);
    let metadata = object_of(&[
        ("name", text()),
        ("name", written("[a-z]{1,4}").boxed()),
        ("namespace", text()),
        ("uid", text()),
        ("deletionTimestamp", text()),
        ("resourceVersion", null().boxed()),
        ("labels", or_else(labels)),
        ("ownerReferences", or_else(owners.boxed())),
        ("annotations", any_json()),
    ]);
    let scalar = || prop_oneof![4 => text(), 1 => any_json()].boxed();
    let named = written("[a-z]{1,4}").prop_map(|name| format!("{{\"name\":{name}}}"));
    object_of(&[
        ("metadata", prop_oneof![8 => metadata, 8 => named, 1 => any_json()].boxed()),
        ("spec", or_else(object_of(&[("nodeName", scalar()), ("hostNetwork", scalar()), ("count", scalar())]))),
        ("status", or_else(object_of(&[("phase", scalar()), ("other", any_json())]))),
        ("involvedObject", or_else(object_of(&[("name", scalar())]))),
        ("data", any_json()),
    ])
}

proptest! {
    #[test]
    fn headers_say_what_decoders_say(text in nearly_object()) {
        as_decoded(&text);
    }

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Object::parse(&bytes, Revision(1), EventKind::Added, &paths());
    }

    #[test]
    fn names_survive(name in "\\PC{1,20}", key in "\\PC{0,9}", value in "\\PC{0,9}", node in "\\PC{0,9}") {
        let object = parse(&json!({"metadata": {"name": name, "labels": {&key: value}}, "spec": {"nodeName": node}}));
        prop_assert_eq!(object.name(), &name);
        prop_assert_eq!(object.label(&key), Some(value.as_str()));
        prop_assert_eq!(object.field("spec.nodeName"), Some(node.as_str()));
    }
}
