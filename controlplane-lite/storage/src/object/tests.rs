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

proptest! {
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
