//! Objects of the API as the typed model reads them, one at a time. Whatever
//! the API accepts has to be readable: Go's clients write a time that is not set
//! as `null` and read that as the zero time, where the typed model knows neither.
//! A property over all kinds (`tests/informers`) looks for more of the sort.
//! What still cannot be read keeps its name, so that the others can go on.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::store::ObjectKey;
use crate::text;

/// One list item or watch event: the object, or what is known of one that the
/// typed model cannot read. Reading it never fails.
#[derive(Debug, Clone)]
pub enum Decoded<K> {
    /// The object.
    Object(K),
    /// Only this is known.
    Unreadable(Box<Unreadable>),
}

/// An object that is there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its uid; may be empty.
    pub uid: String,
    /// Its resource version; 0 when unknown.
    pub revision: u64,
    /// What the typed model says.
    pub error: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at resource version {}: {}", self.key, self.revision, self.error)
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(decode(raw.get()))
    }
}

/// Reads one object.
pub fn decode<K: DeserializeOwned>(json: &str) -> Decoded<K> {
    let error = match serde_json::from_str(json) {
        Ok(object) => return Decoded::Object(object),
        // It quotes what it does not like, however long that is.
        Err(error) => text::cut(error.to_string(), text::EVENT_MESSAGE),
    };
    let mut value: Value = serde_json::from_str(json).unwrap_or_default();
    gojson::normalize(&mut value);
    match K::deserialize(&value) {
        Ok(object) => Decoded::Object(object),
        Err(_) => Decoded::Unreadable(Box::new(Unreadable::new(&value, error))),
    }
}

impl Unreadable {
    fn new(object: &Value, error: String) -> Self {
        let meta = gojson::identity(object);
        Self {
            key: ObjectKey::of(&meta),
            uid: meta.uid.unwrap_or_default(),
            revision: meta.resource_version.and_then(|version| version.parse().ok()).unwrap_or(0),
            error,
        }
    }

    /// As much of the metadata as is known, for events about the object.
    pub fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            namespace: Some(self.key.namespace.clone()).filter(|n| !n.is_empty()),
            name: Some(self.key.name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: Some(self.revision.to_string()),
            ..ObjectMeta::default()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Service};
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::json;

    fn odd() -> Value {
        let condition =
            json!({"type": "X", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": null});
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "odd", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
            "status": {"conditions": [condition], "loadBalancer": {}},
        })
    }

    #[test]
    fn a_time_that_go_wrote_as_null_is_the_zero_time() {
        let Decoded::Object(service) = decode::<Service>(&odd().to_string()) else { panic!("it can be read") };
        let conditions = service.status.unwrap().conditions.unwrap();
        assert_eq!(conditions[0].last_transition_time.0.to_string(), gojson::ZERO_TIME);
    }

    #[test]
    fn what_a_claim_template_says_it_is_does_not_count() {
        let template = json!({"apiVersion": "v2", "kind": "Claim", "metadata": {"name": "data"}, "spec": {}});
        let set = json!({"metadata": {"name": "db"}, "spec": {"volumeClaimTemplates": [template]}});
        let decoded = decode::<k8s_openapi::api::apps::v1::StatefulSet>(&set.to_string());
        let Decoded::Object(set) = decoded else { panic!("{decoded:?}") };
        let templates = set.spec.unwrap().volume_claim_templates.unwrap();
        assert_eq!(templates[0].metadata.name.as_deref(), Some("data"));
    }

    #[test]
    fn one_item_that_cannot_be_read_does_not_fail_the_list() {
        let items = [json!({"metadata": {"name": "a"}}), json!({"metadata": {"name": "b", "uid": "u"}, "data": 1})];
        let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {}, "items": items});
        let list: ObjectList<Decoded<ConfigMap>> = serde_json::from_str(&list.to_string()).unwrap();
        let [Decoded::Object(a), Decoded::Unreadable(b)] = list.items.as_slice() else { panic!("{list:?}") };
        assert_eq!((a.metadata.name.as_deref(), b.key.name.as_str(), b.uid.as_str()), (Some("a"), "b", "u"));
        assert!(b.error.contains("invalid type"), "{}", b.error);
    }

    #[test]
    fn what_was_wrong_is_told_in_few_words() {
        let odd = json!({"metadata": {"name": "b"}, "data": "x".repeat(1_000_000)});
        let Decoded::Unreadable(odd) = decode::<ConfigMap>(&odd.to_string()) else { panic!("unreadable") };
        assert_eq!((odd.error.len(), odd.error.starts_with("invalid type: string")), (1024, true));
    }

    #[test]
    fn a_watch_event_that_cannot_be_read_names_its_object() {
        let event = r#"{"type":"MODIFIED","object":{"metadata":{"name":"b","resourceVersion":"9"},"data":1}}"#;
        let event: WatchEvent<Decoded<ConfigMap>> = serde_json::from_str(event).unwrap();
        let WatchEvent::Modified(Decoded::Unreadable(odd)) = event else { panic!("{event:?}") };
        assert_eq!((odd.key.to_string(), odd.revision), ("b".to_owned(), 9));
    }
}
