//! ConfigMap, Event, LimitRange, Namespace, Node, ResourceQuota, Secret, ServiceAccount (`pkg/registry/core`).

use serde_json::Value;

use super::subresource::{copy_path, keep_all_but};
use super::{Context, Deletes, Facts, GarbageCollection, Strategy, same_metadata};
use crate::access::list_at_mut;
use crate::defaults::cluster;
use crate::field::FieldErrors;
use crate::meta::NameRule;
use crate::prepare;
use crate::validation as check;

pub(crate) struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::cluster::config_map(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::cluster::config_map_update(new, old, errors);
    }
}

pub(crate) struct Event;

impl Strategy for Event {
    fn facts(&self) -> Facts {
        Facts { create_on_update: true, garbage_collection: GarbageCollection::Unsupported, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::cluster::event(object, errors);
    }
}

pub(crate) struct EventV1;

impl Strategy for EventV1 {
    fn facts(&self) -> Facts {
        Facts { create_on_update: true, garbage_collection: GarbageCollection::Unsupported, ..Facts::PLAIN }
    }
}

pub(crate) struct LimitRange;

impl Strategy for LimitRange {
    fn facts(&self) -> Facts {
        Facts { create_on_update: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        cluster::limit_range(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::quota::limit_range(object, errors);
    }
}

pub(crate) struct Namespace;

impl Strategy for Namespace {
    fn facts(&self) -> Facts {
        Facts { name: NameRule::Dns1123Label, deletes: Deletes::AfterContent, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        cluster::namespace(object);
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        prepare::namespace_create(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _: &Context<'_>) {
        prepare::namespace_update(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::cluster::namespace(object, errors);
    }

    fn validate_subresource(&self, _: &str, new: &Value, _: &Value, errors: &mut FieldErrors) {
        check::cluster::namespace(new, errors);
    }

    /// Only the finalizers of its content change through `finalize`.
    fn prepare_subresource(&self, name: &str, new: &mut Value, old: &Value, _: &Context<'_>) {
        keep_all_but(new, old, |new, kept| {
            if name == "finalize" {
                copy_path(new, kept, ["spec", "finalizers"]);
            }
        });
    }
}

/// The kubelet registers it with its status.
pub(crate) struct Node;

impl Strategy for Node {
    fn facts(&self) -> Facts {
        Facts { keep_status: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        cluster::node(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::cluster::node(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::cluster::node_update(new, old, errors);
    }

    fn validate_status(&self, new: &Value, _: &Value, errors: &mut FieldErrors) {
        check::cluster::node_status(new, errors);
    }

    /// The kubelet says with the status that its node lives.
    fn is_heartbeat(&self, subresource: &str, new: &Value, old: &Value) -> bool {
        let still = |node: &Value| {
            let mut status = node["status"].clone();
            for condition in list_at_mut(&mut status, &["conditions"]).iter_mut().filter_map(Value::as_object_mut) {
                condition.remove("lastHeartbeatTime");
            }
            status
        };
        subresource == "status" && same_metadata(new, old) && still(new) == still(old)
    }
}

pub(crate) struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn facts(&self) -> Facts {
        Facts { returns_deleted: true, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::quota::resource_quota(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::quota::resource_quota_update(new, old, errors);
    }

    fn validate_status(&self, new: &Value, _: &Value, errors: &mut FieldErrors) {
        check::quota::resource_quota_status(new, errors);
    }
}

pub(crate) struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        cluster::secret(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _: &Context<'_>) {
        prepare::secret_update(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::cluster::secret(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::cluster::secret_update(new, old, errors);
    }
}

pub(crate) struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn facts(&self) -> Facts {
        Facts { returns_deleted: true, ..Facts::PLAIN }
    }
}
