//! What the fuzz targets call: the readers of what is on disk, with what holds of whatever they read.

use std::sync::Arc;

use serde_json::Value;

use crate::object::{EventKind, FieldPath, Object, encode_stored};
use crate::store::{Key, Revision};

pub use crate::redb::fuzzing::rows;

/// A stored object: what was stored comes back, and the header says what the whole of it says.
pub fn object(stored: &[u8]) {
    let fields: Arc<[FieldPath]> = [
        FieldPath::new("spec.nodeName"),
        FieldPath::new("spec.unschedulable").or("false"),
        FieldPath::at("source", "source.component").or_at("reportingComponent"),
    ]
    .into();
    let Ok(object) = Object::parse(stored, Revision(7), EventKind::Modified, &fields) else { return };
    assert_eq!(object.stored(), stored);
    for kind in [EventKind::Added, EventKind::Deleted] {
        let other = object.restamped(Revision(u64::MAX), kind).expect("the same bytes");
        assert_eq!(other.stored(), stored);
        assert_eq!((other.name(), other.namespace(), other.uid()), (object.name(), object.namespace(), object.uid()));
        let line = object.line(kind).whole();
        assert!(line.ends_with(b"}\n") && line.starts_with(br#"{"type":""#));
    }
    // What is nested too deeply is stored by nobody.
    let Ok(mut value) = serde_json::from_slice::<Value>(stored) else { return };
    assert_eq!(object.value()["metadata"]["resourceVersion"], "7");
    // Twice the same key is no object of the API: which one counts is told only once it is written anew.
    let written = encode_stored(&mut value);
    let object = Object::parse(&written, Revision(8), EventKind::Added, &fields).expect("what is encoded is an object");
    assert_eq!(object.stored(), written);
    agrees(&object, &value);
}

/// Both readers of an object say the same: the header's, and that of the whole.
fn agrees(object: &Object, value: &Value) {
    let metadata = &value["metadata"];
    let text = |name: &str| metadata[name].as_str().unwrap_or_default();
    assert_eq!(
        (object.name(), object.namespace(), object.uid(), object.deletion_timestamp().unwrap_or_default()),
        (text("name"), text("namespace"), text("uid"), text("deletionTimestamp"))
    );
    let labels = metadata["labels"].as_object().into_iter().flatten();
    let labels: Vec<(&str, &str)> =
        labels.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())).collect();
    assert_eq!(object.labels().count(), labels.len());
    assert!(labels.iter().all(|(name, value)| object.label(name) == Some(value)), "{labels:?}");
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let owners = owners.filter_map(|owner| owner["uid"].as_str()).filter(|uid| !uid.is_empty());
    assert!(owners.eq(object.owner_uids()));
    if let Some(node) = value["spec"]["nodeName"].as_str() {
        assert_eq!(object.field("spec.nodeName"), Some(node));
    }
    if let Some(set) = value["spec"]["unschedulable"].as_bool() {
        assert_eq!(object.field("spec.unschedulable"), Some(if set { "true" } else { "false" }));
    }
    let (first, second) = (&value["source"]["component"], value["reportingComponent"].as_str());
    if let Some(source) = first.as_str().filter(|text| !text.is_empty()).or(second.filter(|_| first.is_null())) {
        assert_eq!(object.field("source"), Some(source));
    }
}

/// A key and a revision as they come from other stores' keys and clients' requests.
pub fn key(text: &str) {
    if let Ok(key) = Key::new(text) {
        assert_eq!(key.as_str(), text);
    }
    if let Ok(revision) = text.parse::<Revision>() {
        assert!(text.bytes().all(|b| b.is_ascii_digit()), "{text:?}");
        assert_eq!(revision.to_string().parse(), Ok(revision));
    }
}
