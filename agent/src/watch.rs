//! Objects of the API that no object can spoil a list or watch for. What the API
//! takes has to be readable: Go's clients write a time that is not set as `null`,
//! and read that as the zero time. An object that cannot be read even so keeps
//! its name and is told of; whoever keeps objects keeps its last readable state,
//! since to act on that is mended by the next one, and to act as if it were gone
//! is not.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::Value;

/// A list item or the object of a watch event. Reading it never fails.
#[derive(Clone, Debug)]
pub struct Item<K> {
    /// What can be said even of an object that cannot be read.
    meta: ObjectMeta,
    content: Result<Box<K>, Arc<str>>,
}

/// An object that is there and cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unreadable {
    /// Its names, UID and version.
    pub meta: Box<ObjectMeta>,
    error: Arc<str>,
}

impl<K: DeserializeOwned> Item<K> {
    fn of(mut value: Value) -> Self {
        let meta = gojson::identity(&value);
        let content = K::deserialize(&value).or_else(|error| {
            gojson::normalize(&mut value);
            // What is wrong with the object as it came says more.
            K::deserialize(value).map_err(|_| error.to_string().into())
        });
        Self { meta, content: content.map(Box::new) }
    }

    /// The object, if it can be read.
    pub fn read(self) -> Result<K, Unreadable> {
        match self.content {
            Ok(object) => Ok(*object),
            Err(error) => Err(Unreadable { meta: Box::new(self.meta), error }),
        }
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(Value::deserialize(deserializer)?))
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Item<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// The objects of a kind that could not be read: each version is told of once.
#[derive(Debug)]
pub struct Skipped {
    resource: &'static str,
    /// The version that was told of, by UID.
    told: HashMap<String, String>,
}

/// So many objects are remembered.
const REMEMBERED: usize = 1024;

impl Skipped {
    /// Nothing was skipped so far.
    pub fn new(resource: &'static str) -> Self {
        Self { resource, told: HashMap::new() }
    }

    /// Says that an object is skipped; false when that was said before.
    pub fn say(&mut self, object: &Unreadable) -> bool {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &object.meta;
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        let version = text(&meta.resource_version);
        if self.told.insert(text(&meta.uid), version.clone()).as_ref() == Some(&version) {
            return false;
        }
        let name = format!("{}/{}", text(&meta.namespace), text(&meta.name));
        tracing::warn!(resource = self.resource, name, version, %object, "object cannot be read and is skipped");
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_that_go_wrote_as_null_is_the_zero_time() {
        let condition =
            json!({"type": "X", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": null});
        let service = json!({"metadata": {"name": "odd"}, "status": {"conditions": [condition]}});
        let service = Item::<Service>::of(service).read().unwrap();
        let conditions = service.status.unwrap().conditions.unwrap();
        assert_eq!(conditions[0].last_transition_time.0.to_string(), gojson::ZERO_TIME);
    }

    #[test]
    fn one_that_cannot_be_read_does_not_fail_the_list() {
        let odd = json!({"metadata": {"name": "b", "namespace": "ns", "uid": "u", "resourceVersion": "7"}, "data": 1});
        let items = [json!({"metadata": {"name": "a"}}), odd.clone(), json!(7), json!(null)];
        let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {}, "items": items});
        let list: ObjectList<Item<ConfigMap>> = serde_json::from_str(&list.to_string()).unwrap();
        let read: Vec<Result<ConfigMap, Unreadable>> = list.items.into_iter().map(Item::read).collect();
        assert_eq!(read[0].as_ref().unwrap().metadata.name.as_deref(), Some("a"));
        let b = read[1].as_ref().unwrap_err();
        assert_eq!((b.meta.name.as_deref(), b.meta.uid.as_deref()), (Some("b"), Some("u")));
        assert!(b.to_string().contains("invalid type"), "{b}");
        assert!(read[2].is_err() && read[3].is_err());

        let event = json!({"type": "MODIFIED", "object": odd}).to_string();
        let event: WatchEvent<Item<ConfigMap>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Modified(item) = event else { panic!("{event:?}") };
        assert_eq!(item.meta().resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn each_version_is_told_of_once() {
        let object = |version: &str| {
            let pod = json!({"metadata": {"name": "b", "uid": "u", "resourceVersion": version}, "spec": 1});
            Item::<Pod>::of(pod).read().unwrap_err()
        };
        let mut skipped = Skipped::new("pods");
        assert_eq!(
            [skipped.say(&object("1")), skipped.say(&object("1")), skipped.say(&object("2"))],
            [true, false, true]
        );
    }
}
