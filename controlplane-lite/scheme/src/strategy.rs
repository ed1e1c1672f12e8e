//! What is particular about a kind when it is created, changed and deleted: upstream's `RESTCreateStrategy`,
//! `RESTUpdateStrategy` and `RESTDeleteStrategy` (`k8s.io/apiserver/pkg/registry/rest`, `pkg/registry/*/strategy.go`).
//!
//! A strategy is pure: who asks, the time and a fresh uid are handed in. What all kinds have in common is in
//! [`Kind`](crate::Kind)'s methods, which call these.

use std::collections::BTreeMap;

use serde_json::Value;

use super::field::FieldErrors;
use super::meta::NameRule;

mod admission;
mod apiregistration;
mod certificates;
mod core;
mod extensions;
mod flowcontrol;
mod network;
mod pod;
mod policy;
mod resource;
mod storage;
mod subresource;
mod workloads;

pub(crate) use admission::*;
pub(crate) use apiregistration::*;
pub(crate) use certificates::*;
pub(crate) use core::*;
pub(crate) use extensions::*;
pub(crate) use flowcontrol::*;
pub(crate) use network::*;
pub(crate) use pod::*;
pub(crate) use policy::*;
pub(crate) use resource::*;
pub(crate) use storage::*;
pub(crate) use workloads::*;

/// Who asks for a write.
#[derive(Debug, Clone, Copy)]
pub struct Requester<'a> {
    /// Name.
    pub username: &'a str,
    /// Uid, empty when the authenticator knows none.
    pub uid: &'a str,
    /// Groups.
    pub groups: &'a [String],
    /// Whatever else the authenticator says.
    pub extra: &'a BTreeMap<String, Vec<String>>,
}

/// What a strategy is told of the request.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// On whose behalf.
    pub user: Requester<'a>,
    /// The time as objects carry it.
    pub now: &'a str,
    /// The uid of the object, should it be new.
    pub uid: &'a str,
}

/// What becomes of the objects that a deleted one owns, when the request does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GarbageCollection {
    /// They go, too.
    DeleteDependents,
    /// They stay.
    OrphanDependents,
    /// The kind takes no part in it.
    Unsupported,
}

/// How an object of a kind goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletes {
    /// At once, unless finalizers hold it.
    AtOnce,
    /// After the time that [`Strategy::grace_period`] gives.
    Gracefully,
    /// When what it contains is gone: when `spec.finalizers` are.
    AfterContent,
}

/// What holds for all objects of a kind, whatever is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which names are allowed.
    pub name: NameRule,
    /// Whether PUT may create a missing object.
    pub create_on_update: bool,
    /// Whether PUT without resourceVersion is allowed.
    pub unconditional_update: bool,
    /// Whether `metadata.generation` counts spec changes.
    pub generation: bool,
    /// Whether a client may create the object with a status (nodes).
    pub keep_status: bool,
    /// Whether a write through `/status` takes finalizers and owners along, as upstream lets it for
    /// CustomResourceDefinitions.
    pub metadata_with_status: bool,
    /// Whether objects hold cluster addresses and ports, which a write has to be granted.
    pub holds_addresses: bool,
    /// What a delete does to dependents by default.
    pub garbage_collection: GarbageCollection,
    /// How objects go.
    pub deletes: Deletes,
    /// Whether an update warns of what a create does: of Pods, which are written often, it does not.
    pub warns_on_update: bool,
    /// Whether a delete answers the object rather than a Status.
    pub returns_deleted: bool,
}

impl Facts {
    /// Plain data: DNS-1123 subdomain names, unconditional update allowed.
    pub const PLAIN: Self = Self {
        name: NameRule::Dns1123Subdomain,
        create_on_update: false,
        unconditional_update: true,
        generation: false,
        keep_status: false,
        metadata_with_status: false,
        holds_addresses: false,
        garbage_collection: GarbageCollection::DeleteDependents,
        deletes: Deletes::AtOnce,
        warns_on_update: true,
        returns_deleted: false,
    };
}

/// The kind's own rules. What is not overridden is as for plain data.
pub trait Strategy: Send + Sync {
    /// What holds for every object.
    fn facts(&self) -> Facts {
        Facts::PLAIN
    }

    /// Takes out of an object what its schema does not know, and tells the paths; asked of custom resources alone.
    fn prune(&self, _object: &mut Value) -> Vec<String> {
        Vec::new()
    }

    /// Fills in defaults, as upstream does when it decodes any object of the kind.
    fn default(&self, _object: &mut Value) {}

    /// Drops or sets fields on create, after defaulting.
    fn prepare_create(&self, _object: &mut Value, _context: &Context<'_>) {}

    /// Drops or sets fields of `new` on update, given the stored object.
    fn prepare_update(&self, _new: &mut Value, _old: &Value, _context: &Context<'_>) {}

    /// The same for an update through `/status`, beyond keeping everything but status.
    fn prepare_status(&self, _new: &mut Value, _old: &Value, _context: &Context<'_>) {}

    /// The same for another subresource whose body is the object itself. By default it changes nothing.
    fn prepare_subresource(&self, _name: &str, new: &mut Value, old: &Value, _context: &Context<'_>) {
        new.clone_from(old);
    }

    /// Everything but metadata; runs on create and on update.
    fn validate(&self, _object: &Value, _errors: &mut FieldErrors) {}

    /// What only a new object may not have.
    fn validate_create(&self, _object: &Value, _errors: &mut FieldErrors) {}

    /// What an update may not change (new, old).
    fn validate_update(&self, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    /// Checks an update through `/status` (new, old).
    fn validate_status(&self, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    /// Checks an update through another subresource (new, old).
    fn validate_subresource(&self, _name: &str, _new: &Value, _old: &Value, _errors: &mut FieldErrors) {}

    /// What a person should know about an object as the client sent it, although it is accepted.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Whether an update only says "still alive", so that the next one repairs a lost one. Anything else must survive
    /// a crash like every other write.
    fn is_heartbeat(&self, _subresource: &str, _new: &Value, _old: &Value) -> bool {
        false
    }

    /// Adds to an object that is asked to go for the first time what has to happen before it does; `now` is the time as
    /// objects carry it.
    fn prepare_delete(&self, _object: &mut Value, _now: &str) {}

    /// Seconds until an object that [goes gracefully](Deletes::Gracefully) is gone; `asked` is what the request says.
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> i64 {
        0
    }
}

/// Any content.
#[derive(Debug)]
pub struct Plain;

impl Strategy for Plain {}

/// Bodies of requests: their names are those of other objects, or none.
pub(crate) struct Body;

impl Strategy for Body {
    fn facts(&self) -> Facts {
        Facts { name: NameRule::Any, ..Facts::PLAIN }
    }
}

/// Whether two objects have the same metadata but for the version, and for when its fields' owners wrote last.
fn same_metadata(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut metadata = object["metadata"].clone();
        if let Some(map) = metadata.as_object_mut() {
            map.remove("resourceVersion");
            let entries = map.get_mut("managedFields").and_then(Value::as_array_mut);
            for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut) {
                entry.remove("time");
            }
        }
        metadata
    };
    rest(new) == rest(old)
}

#[cfg(test)]
mod tests;
