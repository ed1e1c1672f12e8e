//! Which client owns which field of an object (`metadata.managedFields`), and server-side apply: what upstream has in
//! `k8s.io/apimachinery/pkg/util/managedfields` and `sigs.k8s.io/structured-merge-diff`. Pure: the caller brings the
//! objects, the time and the versions of the kind. Begin reading at [`FieldManager`].

use std::sync::LazyLock;

use serde_json::{Map, Value};
use thiserror::Error;

mod annotation;
mod cap;
mod conflict;
mod managed;
mod partial;
mod path;
mod schema;
mod set;
mod typed;
mod update;
mod value;

pub use conflict::{Cause, Conflicts};
use managed::{Manager, Managers, Operation};
pub use partial::merge;
pub use schema::Place;
pub use set::{Ownable, Set, Step};
use update::Updater;

/// What a manager without a name is called.
const UNKNOWN: &str = "unknown";
/// Who owns the fields that an object had before somebody applied it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The versions of a kind.
pub trait Versions {
    /// The type of objects of a version; none for one that is not served.
    fn place(&self, version: &str) -> Option<Place<'_>>;
    /// An object of the version `from` as one of the version `to`; none where either is not served.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
    /// The fields that a write like this one can own.
    fn ownable(&self) -> &Ownable;
}

/// Why a configuration is not applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The request is wrong: 400.
    #[error("{0}")]
    BadRequest(String),
    /// Others own what it changes: 409.
    #[error("{0}")]
    Conflict(Conflicts),
    /// The configuration is not of the type of the object, which upstream answers with 500.
    #[error("{0}")]
    Type(String),
}

/// Keeps the owners of one kind's objects, for writes of one version to the object or one of its subresources.
#[expect(missing_debug_implementations, reason = "it borrows a trait object")]
pub struct FieldManager<'a> {
    /// The versions of the kind.
    pub versions: &'a dyn Versions,
    /// The one that is written, e.g. `apps/v1`.
    pub version: &'a str,
    /// The kind, e.g. `Deployment`.
    pub kind: &'a str,
    /// The subresource, if it is one.
    pub subresource: &'a str,
    /// The time, as the API writes times.
    pub now: &'a str,
}

/// Whether a list of managed fields can be read: entries of a known operation, each with a version and paths
/// (`ValidateManagedFields`).
#[must_use]
pub fn readable(entries: &Value) -> bool {
    entries.is_array() && managed::decode(entries).is_some()
}

impl FieldManager<'_> {
    /// Writes the owners into an object that takes the place of `live`, an object without a uid where it is new. What
    /// cannot be told leaves the owners as they were: a write never fails by this.
    pub fn update(&self, live: &Value, new: &mut Value, manager: &str) {
        let managers = self.before_update(live, new);
        take_entries(new);
        let manager = self.manager(manager, Operation::Update);
        let managers = self.updated(live, new, managers, &manager);
        set_entries(new, managed::encode(managers));
    }

    /// Owners before an update. A client may write them; one that knows nothing of them changes nothing, and one that
    /// sends an empty list gives all of them up.
    fn before_update(&self, live: &Value, new: &Value) -> Managers {
        let of = |object: &Value| managed::decode(&object["metadata"]["managedFields"]).unwrap_or_default();
        if !self.subresource.is_empty() {
            return of(live);
        }
        let sent = &new["metadata"]["managedFields"];
        let reset = match sent.as_array().map(Vec::as_slice) {
            Some([]) => true,
            Some([only]) => only.as_object().is_some_and(|entry| entry.values().all(is_zero)),
            _ => false,
        };
        if reset {
            return Managers::new();
        }
        match managed::decode(sent) {
            Some(managers) if !managers.is_empty() => managers,
            _ => of(live),
        }
    }

    fn updated(&self, live: &Value, new: &Value, managers: Managers, manager: &Manager) -> Managers {
        let exists = live["metadata"]["uid"].as_str().is_some_and(|uid| !uid.is_empty());
        if managers.is_empty() && exists {
            return managers;
        }
        cap::cap(self.tracked(live, new, managers, manager))
    }

    /// Owners after an update. What was changed is looked at by itself, so that an update that changes nothing keeps
    /// its time.
    fn tracked(&self, live: &Value, new: &Value, managers: Managers, manager: &Manager) -> Managers {
        // No entry that a client can send is that of one who applies with a version.
        let this = Manager {
            name: "current-operation".to_owned(),
            operation: Operation::Apply,
            version: self.version.to_owned(),
            subresource: String::new(),
        };
        let mut managers = self.updater().update(live, new, managers, &this);
        strip(&mut managers, &this);
        if let Some(mut owned) = managers.remove(&this) {
            if let Some(before) = managers.get(manager) {
                owned.set.extend(&before.set);
            }
            owned.time = Some(self.now.to_owned());
            managers.insert(manager.clone(), owned);
        }
        managers
    }

    /// The object that `config` makes of `live`, with its owners. `live` is an empty object of the kind where there is
    /// none.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply(&self, live: &Value, config: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
        let mut managers = managed::decode(&live["metadata"]["managedFields"])
            .ok_or_else(|| ApplyError::Type("failed to decode managed fields".to_owned()))?;
        self.check(config)?;
        if managers.is_empty() {
            let before = self.manager(BEFORE_FIRST_APPLY, Operation::Update);
            managers = self.tracked(&Value::Object(Map::new()), live, managers, &before);
        }
        let applier = self.manager(manager, Operation::Apply);
        let apply = |force| self.updater().apply(live, config, managers.clone(), &applier, force);
        let (mut object, mut managers) = match apply(force) {
            Err(conflicts) => {
                self.upgraded(live, manager, conflicts).and_then(|()| apply(true).map_err(ApplyError::Conflict))?
            }
            Ok(applied) => applied,
        };
        strip(&mut managers, &applier);
        if value::same(live, &object) {
            object = live.clone();
        } else if let Some(owned) = managers.get_mut(&applier) {
            owned.time = Some(self.now.to_owned());
        }
        Ok(self.finish(object, config, manager, managers))
    }
}

impl FieldManager<'_> {
    fn updater(&self) -> Updater<'_> {
        Updater { versions: self.versions, version: self.version }
    }

    fn manager(&self, name: &str, operation: Operation) -> Manager {
        Manager {
            name: if name.is_empty() { UNKNOWN } else { name }.to_owned(),
            operation,
            version: if operation == Operation::Apply { String::new() } else { self.version.to_owned() },
            subresource: self.subresource.to_owned(),
        }
    }

    /// Whether the configuration can be applied to an object of this kind at all.
    fn check(&self, config: &Value) -> Result<(), ApplyError> {
        let text = |key: &str| config[key].as_str().unwrap_or("");
        let type_name = |version: &str, kind: &str| match version.contains('/') {
            true => format!("{version}, Kind={kind}"),
            false => format!("/{version}, Kind={kind}"),
        };
        let sent = type_name(text("apiVersion"), text("kind"));
        if sent != type_name(self.version, self.kind) {
            return Err(ApplyError::BadRequest(format!("invalid object type: {sent}")));
        }
        let metadata = &config["metadata"];
        if !metadata["managedFields"].is_null() {
            return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
        }
        let Some(at) = self.versions.place(self.version) else { return Ok(()) };
        typed::validate(config, at).map_err(|errors| {
            let (namespace, name) = (metadata["namespace"].as_str(), metadata["name"].as_str());
            let object = format!("{}/{}; {sent}", namespace.unwrap_or(""), name.unwrap_or(""));
            ApplyError::Type(format!("failed to create typed patch object ({object}): {errors}"))
        })
    }

    /// Whether `kubectl apply --server-side` may take over what it applied before on the client's side: all that is in
    /// conflict is in the annotation, and still is as it was applied.
    fn upgraded(&self, live: &Value, manager: &str, conflicts: Conflicts) -> Result<(), ApplyError> {
        let last = if manager == annotation::KUBECTL { annotation::last_applied(live, self.version) } else { None };
        let Some((last, at)) = last.zip(self.versions.place(self.version)) else {
            return Err(ApplyError::Conflict(conflicts));
        };
        if typed::validate(&last, at).is_err() {
            return Err(ApplyError::Conflict(conflicts));
        }
        let compared = typed::compare(&last, live, at);
        let changed = compared.changed.union(compared.removed);
        let ours = typed::field_set(&last, at).difference(&changed);
        conflicts.outside(&ours).map_or(Ok(()), |left| Err(ApplyError::Conflict(left)))
    }

    fn finish(&self, mut object: Value, config: &Value, manager: &str, managers: Managers) -> Value {
        if manager == annotation::KUBECTL {
            annotation::renew(&mut object, config);
        }
        set_entries(&mut object, managed::encode(managers));
        object
    }
}

/// What no manager owns: what names an object, and what the system sets.
static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// Takes [`NOBODYS`] out of an entry.
fn strip(managers: &mut Managers, manager: &Manager) {
    let Some(owned) = managers.get_mut(manager) else { return };
    owned.set = std::mem::take(&mut owned.set).difference(&NOBODYS);
    if owned.set.is_empty() {
        managers.remove(manager);
    }
}

fn take_entries(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn set_entries(object: &mut Value, entries: Option<Value>) {
    take_entries(object);
    let Some((entries, object)) = entries.zip(object.as_object_mut()) else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert("managedFields".to_owned(), entries);
    }
}

fn is_zero(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}
