//! One kind's owners, as the API server keeps them.

use std::sync::Arc;

use managedfields::{ApplyError, FieldManager, Ownable, Place, Set, Versions};
use scheme::{Kind, builtin};
use serde_json::{Value, json};

/// A kind of one version.
pub struct Only {
    pub kind: Arc<Kind>,
    pub ownable: Ownable,
}

impl Only {
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self {
            kind: builtin().by_gvk(group, version, kind).unwrap().clone(),
            ownable: Ownable::AllBut(Set::of_fields(&[&["status"]])),
        }
    }

    pub fn manager<'a>(&'a self, version: &'a str, subresource: &'a str, now: &'a str) -> FieldManager<'a> {
        FieldManager { versions: self, version, kind: &self.kind.kind, subresource, now }
    }

    /// Writes an object as `manager` does with anything but an apply.
    pub fn update(&self, live: &Value, new: &Value, manager: &str, now: &str) -> Value {
        let version = self.kind.api_version();
        let mut new = new.clone();
        self.manager(&version, "", now).update(live, &mut new, manager);
        new
    }

    pub fn create(&self, object: &Value, manager: &str) -> Value {
        let mut object = self.update(&json!({}), object, manager, "2024-01-01T00:00:00Z");
        object["metadata"]["uid"] = json!("1");
        object
    }

    pub fn apply(&self, live: &Value, config: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
        let version = self.kind.api_version();
        let mut config = config.clone();
        config["apiVersion"] = json!(version);
        config["kind"] = json!(&*self.kind.kind);
        let mut object = self.manager(&version, "", "2024-02-02T00:00:00Z").apply(live, &config, manager, force)?;
        object["metadata"]["uid"] = json!("1");
        Ok(object)
    }
}

impl Versions for Only {
    fn place(&self, version: &str) -> Option<Place<'_>> {
        (version == self.kind.api_version()).then(|| Place::root(self.kind.schema()))
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        (from == to).then(|| object.clone())
    }

    fn ownable(&self) -> &Ownable {
        &self.ownable
    }
}

/// What a manager owns, as the object has it.
pub fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let entry = entries.into_iter().find(|entry| entry["manager"] == manager);
    entry.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

/// The managers of an object, in their order.
pub fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let named =
        |entry: &Value| format!("{} {}", entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap());
    entries.iter().map(named).collect()
}
