//! Who owns which field of an object: what a write says of it, in the versions of the kind, and server-side apply. The
//! rules are the `managedfields` crate's; here is what it has to know of kinds and requests.

use http::header::USER_AGENT;
use managedfields::{ApplyError, FieldManager, Ownable, Place, Set, Step, Versions};
use serde_json::Value;

use crate::call::Call;
use crate::options::WriteOptions;
use crate::registry::{MAX_OBJECT, RegistryError};
use crate::status::{ApiError, Cause};
use scheme::decode::size::encoded;
use scheme::field::is_print;
use scheme::meta::MANAGER_MAX;
use scheme::{Kind, Scheme, decode};

/// What one request says of owners.
#[derive(Debug)]
pub struct Owners<'c> {
    call: &'c Call,
    manager: String,
    version: String,
    now: String,
    ownable: Ownable,
    scheme: std::sync::Arc<Scheme>,
}

impl<'c> Owners<'c> {
    /// Those of a request. It writes under the name it gives, else under the first word of its client's `User-Agent`.
    pub fn of(call: &'c Call, options: &WriteOptions) -> Self {
        let manager = match options.field_manager.as_str() {
            "" => of_user_agent(call.headers.get(USER_AGENT).map_or(&[], |value| value.as_bytes())),
            name => name.to_owned(),
        };
        Self {
            call,
            manager,
            version: call.kind.api_version(),
            now: call.server.now_text(),
            ownable: ownable(&call.kind, &call.info.subresource),
            scheme: call.server.registry.served().scheme.clone(),
        }
    }

    fn fields(&self) -> FieldManager<'_> {
        FieldManager {
            versions: self,
            version: &self.version,
            kind: &self.call.kind.kind,
            subresource: &self.call.info.subresource,
            now: &self.now,
        }
    }

    /// Writes the owners of a new object into it.
    pub fn created(&self, object: &mut Value) {
        // What the system sets belongs to nobody (`rest.WipeObjectMetaSystemFields`).
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| !matches!(key.as_str(), "deletionTimestamp" | "deletionGracePeriodSeconds"));
        }
        self.fields().update(&Value::Object(serde_json::Map::new()), object, &self.manager);
    }

    /// Writes the owners of a changed object into it. Both are as this kind serves them.
    pub fn changed(&self, old: &Value, new: &mut Value) {
        self.fields().update(old, new, &self.manager);
    }

    /// The object that a configuration makes of `old`, as this kind serves it, defaulted; `None` where there is none
    /// yet.
    ///
    /// # Errors
    /// 400 for what can be applied to nothing of the kind, 409 for fields of others, 500 (as upstream) for what is not
    /// of the type.
    pub fn apply(&self, old: Option<&Value>, config: &Value, force: bool) -> Result<Value, ApiError> {
        let none = Value::Object(serde_json::Map::new());
        let applied =
            self.fields().apply(old.unwrap_or(&none), config, &self.manager, force).map_err(|e| refused(&e))?;
        let kind = &self.call.kind;
        let decoded = decode::decode_value(kind, applied, Vec::new(), true, scheme::FieldValidation::Ignore);
        let mut object = decoded.map_err(|error| ApiError::plain(500, error.to_string()))?.object;
        kind.default(&mut object);
        // What is applied is not stored without its owners: its next application would take it for somebody else's.
        if encoded(&object) > MAX_OBJECT {
            return Err(RegistryError::TooLarge.into());
        }
        Ok(object)
    }
}

impl Versions for Owners<'_> {
    fn place(&self, version: &str) -> Option<Place<'_>> {
        self.kind(version).map(|kind| Place::root(kind.schema()))
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.kind(from)?, self.kind(to)?);
        let stored = from.conversion.as_ref().map_or_else(|| object.clone(), |c| (*c.to_storage)(object.clone()));
        Some(to.conversion.as_ref().map_or_else(|| stored.clone(), |c| (*c.from_storage)(stored.clone())))
    }

    fn ownable(&self) -> &Ownable {
        &self.ownable
    }
}

impl Owners<'_> {
    /// The kind of a version, if it is one of the same objects.
    fn kind(&self, version: &str) -> Option<&Kind> {
        let ours = &self.call.kind;
        if version == self.version {
            return Some(ours);
        }
        let kind = self.scheme.by_api_version(version, &ours.kind)?;
        let place = |kind: &Kind| (kind.storage_group().to_owned(), kind.storage_plural().to_owned());
        (place(kind) == place(ours)).then_some(&**kind)
    }
}

/// Keeps the owners as they were where a write changed nothing but their times
/// (`k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager/equality.go`).
pub fn keep_times(new: &mut Value, old: &Value) {
    let (Some(entries), Some(before)) = (entries_of(new), entries_of(old)) else { return };
    if entries == before || !same_but(entries, before, same_but_time) || !same_elsewhere(new, old) {
        return;
    }
    let before = before.to_vec();
    new["metadata"]["managedFields"] = before.into();
}

/// A stored object without who owns its fields.
pub fn without_owners(stored: &storage::Object) -> Value {
    let mut object = stored.value();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

fn entries_of(object: &Value) -> Option<&[Value]> {
    object["metadata"]["managedFields"].as_array().map(Vec::as_slice)
}

fn same_but(one: &[Value], other: &[Value], same: fn(&Value, &Value) -> bool) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

fn same_but_time(one: &Value, other: &Value) -> bool {
    same_fields(one, other, |key| key == "time", |_, one, other| one == other)
}

/// Whether two states are the same but for owners, version and generation.
fn same_elsewhere(new: &Value, old: &Value) -> bool {
    let passed = |key: &str| matches!(key, "managedFields" | "resourceVersion" | "generation");
    same_fields(
        new,
        old,
        |_| false,
        |key, new, old| match key {
            "metadata" => same_fields(new, old, passed, |_, new, old| new == old),
            _ => new == old,
        },
    )
}

fn same_fields(
    one: &Value,
    other: &Value,
    passed: impl Fn(&str) -> bool,
    same: impl Fn(&str, &Value, &Value) -> bool,
) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return one == other };
    let count = |map: &serde_json::Map<String, Value>| map.keys().filter(|key| !passed(key)).count();
    let told = one.iter().filter(|(key, _)| !passed(key));
    count(one) == count(other)
        && told.into_iter().all(|(key, value)| other.get(key).is_some_and(|other| same(key, value, other)))
}

/// What a write there can own (`GetResetFields` and `GetResetFieldsFilter` in `pkg/registry/*/*/strategy.go`).
fn ownable(kind: &Kind, subresource: &str) -> Ownable {
    use Step::{Any, Field};
    // What `scheme` restores whatever is written to a subresource.
    const OWNERS: &[&str] = &["metadata", "ownerReferences"];
    const FINALIZERS: &[&str] = &["metadata", "finalizers"];
    const DELETION: &[&str] = &["metadata", "deletionTimestamp"];
    let but = |fields: &[&[&str]]| Ownable::AllBut(Set::of_fields(fields));
    match (subresource, &*kind.kind) {
        ("", _) if kind.has_status() => but(&[&["status"]]),
        ("status", "VolumeAttachment") => but(&[&["spec"], &["metadata"]]),
        ("status", _) if kind.custom => but(&[&["spec"], &["metadata"]]),
        ("status", "Pod") => but(&[&["spec"], DELETION, OWNERS, FINALIZERS]),
        ("status", "Deployment") => but(&[&["spec"], &["metadata", "labels"], OWNERS, FINALIZERS]),
        ("status", _) => but(&[&["spec"], OWNERS, FINALIZERS]),
        ("approval", _) => but(&[&["spec"], &["status", "certificate"], OWNERS, FINALIZERS]),
        ("finalize", _) => Ownable::Only(&[&[Field("spec"), Field("finalizers")]]),
        // Wherever its definition says that the replicas are: a Scale changes nothing else.
        ("scale", _) if kind.custom => but(&[]),
        ("scale", _) => Ownable::Only(&[&[Field("spec"), Field("replicas")]]),
        ("ephemeralcontainers", _) => Ownable::Only(&[&[Field("spec"), Field("ephemeralContainers")]]),
        ("resize", _) => Ownable::Only(&[
            &[Field("spec"), Field("containers"), Any, Field("resources")],
            &[Field("spec"), Field("containers"), Any, Field("resizePolicy")],
            &[Field("spec"), Field("initContainers"), Any, Field("resources")],
            &[Field("spec"), Field("initContainers"), Any, Field("resizePolicy")],
        ]),
        _ => but(&[]),
    }
}

/// The manager that a client is by its `User-Agent`: what stands before the first slash, without what cannot be
/// printed.
fn of_user_agent(agent: &[u8]) -> String {
    let agent = String::from_utf8_lossy(agent);
    let mut name = String::new();
    for letter in agent.split('/').next().unwrap_or("").chars().filter(|letter| is_print(*letter)) {
        if name.len() + letter.len_utf8() > MANAGER_MAX {
            break;
        }
        name.push(letter);
    }
    name
}

fn refused(error: &ApplyError) -> ApiError {
    match error {
        ApplyError::BadRequest(text) => ApiError::bad_request(text),
        ApplyError::Type(text) => ApiError::plain(500, text),
        ApplyError::Conflict(conflicts) => {
            let causes = conflicts.causes().into_iter().map(|cause| Cause {
                reason: "FieldManagerConflict".into(),
                message: cause.message,
                field: cause.field,
            });
            ApiError::apply_conflict(conflicts.to_string(), causes.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of upstream's `managerOrUserAgent` (`endpoints/handlers/create_test.go`).
    #[test]
    fn clients_are_named_by_their_agent() {
        let long = "a".repeat(200);
        for (agent, expect) in [
            ("", ""),
            ("kubectl/v1.36.0 (linux/amd64)", "kubectl"),
            ("default", "default"),
            ("/", ""),
            ("a\u{7}b/x", "ab"),
            ("a\u{a0}\u{200b}\u{2028}b \u{301}\u{e9}\"\\'", "ab \u{301}\u{e9}\"\\'"),
            (&long, &long[..128]),
        ] {
            assert_eq!(of_user_agent(agent.as_bytes()), expect);
        }
        assert_eq!(of_user_agent(b"\xff\xfea/b"), "\u{fffd}\u{fffd}a");
    }
}
