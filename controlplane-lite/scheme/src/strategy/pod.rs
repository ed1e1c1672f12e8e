//! Pod (`pkg/registry/core/pod/strategy.go`), and the pod templates of other kinds.

use std::collections::HashMap;

use serde_json::Value;

use super::subresource::{copy_path, keep_all_but};
use super::{Context, Deletes, Facts, Strategy};
use crate::access::{copy_field, int_at, list_at, str_at};
use crate::defaults::pod as defaults;
use crate::field::FieldErrors;
use crate::validation::{self as check, ephemeral, resize};
use crate::{meta, prepare, warnings};

/// Longer than a century is a mistake; the sum with the clock must not overflow.
const MAX_GRACE: i64 = 100 * 366 * 24 * 3600;

pub(crate) struct Pod;

impl Strategy for Pod {
    fn facts(&self) -> Facts {
        Facts {
            generation: true,
            deletes: Deletes::Gracefully,
            warns_on_update: false,
            returns_deleted: true,
            ..Facts::PLAIN
        }
    }

    fn default(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        prepare::pod_create(object);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value, _: &Context<'_>) {
        prepare::pod_status(new, old);
    }

    fn prepare_subresource(&self, name: &str, new: &mut Value, old: &Value, _: &Context<'_>) {
        keep_all_but(new, old, |new, kept| match name {
            "ephemeralcontainers" => copy_path(new, kept, ["spec", "ephemeralContainers"]),
            "resize" => {
                copy_resources(new, kept, "containers");
                copy_resources(new, kept, "initContainers");
            }
            _ => {}
        });
        meta::bump_generation(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::pod::pod(object, errors);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        check::pod::new_pod(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::update::pod_update(new, old, errors);
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::pod_status::update(new, old, errors);
    }

    fn validate_subresource(&self, name: &str, new: &Value, old: &Value, errors: &mut FieldErrors) {
        match name {
            "ephemeralcontainers" => ephemeral::update(new, old, errors),
            "resize" => resize::pod_resize(new, old, errors),
            _ => {}
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::pod(object)
    }

    /// What the request says, else the spec; nothing for pods no kubelet runs any more or yet (CheckGracefulDelete).
    fn grace_period(&self, pod: &Value, asked: Option<i64>) -> i64 {
        let asked = asked.or_else(|| int_at(pod, &["spec", "terminationGracePeriodSeconds"])).unwrap_or(30);
        let unscheduled = str_at(pod, &["spec", "nodeName"]).is_empty();
        let over = matches!(str_at(pod, &["status", "phase"]), "Failed" | "Succeeded");
        match asked {
            _ if unscheduled || over => 0,
            negative if negative < 0 => 1,
            seconds => seconds.min(MAX_GRACE),
        }
    }
}

pub(crate) struct PodTemplate;

impl Strategy for PodTemplate {
    fn facts(&self) -> Facts {
        Facts { create_on_update: true, returns_deleted: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        defaults::pod_template(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::workloads::pod_template(object, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, &["template"])
    }
}

fn copy_resources(from: &Value, to: &mut Value, list: &str) {
    let wanted: HashMap<&str, &Value> =
        list_at(from, &["spec", list]).iter().map(|c| (str_at(c, &["name"]), c)).collect();
    let Some(containers) = to["spec"].get_mut(list).and_then(Value::as_array_mut) else { return };
    for container in containers {
        let new = wanted.get(str_at(container, &["name"])).copied();
        if let Some(new) = new {
            copy_field(container, new, "resources");
            copy_field(container, new, "resizePolicy");
        }
    }
}
