//! `metadata.managedFields`: who owns which fields, and since when (`managedfields/internal/managedfields.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::set::Set;

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// It applied them.
    Apply,
    /// It created, updated or patched them otherwise.
    Update,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells one entry from another. Who applies has one for all versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// The name, by `fieldManager` or the client's `User-Agent`.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// The API version it updates; empty for who applies.
    pub version: String,
    /// The subresource it writes to.
    pub subresource: String,
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The fields.
    pub set: Set,
    /// The API version in whose terms they are.
    pub version: String,
    /// When that last changed, as the API writes times.
    pub time: Option<String>,
}

/// All managers of an object.
pub type Managers = BTreeMap<Manager, Owned>;

/// Reads the managers of an object. None where the list is not what a server writes.
pub fn decode(entries: &Value) -> Option<Managers> {
    let mut managers = Managers::new();
    for entry in entries.as_array().into_iter().flatten() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("");
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let version = text("apiVersion").to_owned();
        if version.is_empty() || text("fieldsType") != "FieldsV1" {
            return None;
        }
        let manager = Manager {
            name: text("manager").to_owned(),
            operation,
            version: if operation == Operation::Apply { String::new() } else { version.clone() },
            subresource: text("subresource").to_owned(),
        };
        let set = Set::from_json(entry.get("fieldsV1").unwrap_or(&Value::Null)).ok()?;
        let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
        managers.insert(manager, Owned { set, version, time });
    }
    Some(managers)
}

/// The managers as an object has them, sorted by operation, time and name; none where nobody owns anything.
pub fn encode(managers: Managers) -> Option<Value> {
    if managers.is_empty() {
        return None;
    }
    let mut managers: Vec<(Manager, Owned)> = managers.into_iter().collect();
    managers.sort_by(|(p, owned), (q, other)| {
        let order = p.operation.cmp(&q.operation).then_with(|| owned.time.cmp(&other.time));
        let order = order.then_with(|| p.name.cmp(&q.name)).then_with(|| owned.version.cmp(&other.version));
        order.then_with(|| p.subresource.cmp(&q.subresource))
    });
    Some(managers.into_iter().map(|(manager, owned)| entry(manager, &owned)).collect())
}

fn entry(manager: Manager, owned: &Owned) -> Value {
    let mut entry = Map::new();
    let mut set = |key: &str, value: Value| entry.insert(key.to_owned(), value);
    if !manager.name.is_empty() {
        set("manager", manager.name.into());
    }
    set("operation", manager.operation.text().into());
    set("apiVersion", owned.version.as_str().into());
    if let Some(time) = &owned.time {
        set("time", time.as_str().into());
    }
    set("fieldsType", json!("FieldsV1"));
    set("fieldsV1", owned.set.to_json());
    if !manager.subresource.is_empty() {
        set("subresource", manager.subresource.into());
    }
    Value::Object(entry)
}
