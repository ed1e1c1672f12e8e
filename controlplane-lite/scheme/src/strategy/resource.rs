//! resource.k8s.io (`pkg/registry/resource`).

use std::collections::HashSet;

use serde_json::Value;

use super::{Context, Facts, Strategy};
use crate::access::{ensure_map, is_empty, list_at, list_at_mut, str_at};
use crate::defaults::resource as defaults;
use crate::field::{FieldErrors, Path};
use crate::validation::{immutable, resource as check};

fn spec_stays(new: &Value, old: &Value, errors: &mut FieldErrors) {
    immutable(&new["spec"], &old["spec"], &Path::new("spec"), errors);
}

pub(crate) struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn facts(&self) -> Facts {
        Facts { returns_deleted: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        defaults::claim(object);
    }

    /// What is said of devices goes with them.
    fn prepare_status(&self, new: &mut Value, old: &Value, _: &Context<'_>) {
        let id = |of: &Value| ["driver", "pool", "device"].map(|field| str_at(of, &[field]).to_owned());
        let results = |of: &Value| -> HashSet<[String; 3]> {
            list_at(of, &["status", "allocation", "devices", "results"]).iter().map(id).collect()
        };
        let (before, after) = (results(old), results(new));
        let status = ensure_map(new, &["status"]);
        if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
            devices.retain(|device| !before.contains(&id(device)) || after.contains(&id(device)));
        }
        if status.get("devices").is_some_and(is_empty) {
            status.remove("devices");
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        check::claim(object, errors);
    }

    /// Nothing else is looked at of what cannot change.
    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        spec_stays(new, old, errors);
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::claim_status(new, old, errors);
    }
}

pub(crate) struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn facts(&self) -> Facts {
        Facts { returns_deleted: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        defaults::template(object);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        check::template(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        spec_stays(new, old, errors);
    }
}

pub(crate) struct DeviceClass;

impl Strategy for DeviceClass {
    fn facts(&self) -> Facts {
        Facts { generation: true, returns_deleted: true, ..Facts::PLAIN }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        check::class(object, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::class(new, Some(old), errors);
    }
}

pub(crate) struct ResourceSlice;

impl ResourceSlice {
    /// When taints were added; upstream's defaults ask the clock.
    fn date(object: &mut Value, now: &str) {
        for device in list_at_mut(object, &["spec", "devices"]) {
            for taint in list_at_mut(device, &["taints"]) {
                if let Some(taint) = taint.as_object_mut() {
                    crate::access::set_default(taint, "timeAdded", now);
                }
            }
        }
    }
}

impl Strategy for ResourceSlice {
    fn facts(&self) -> Facts {
        Facts { generation: true, returns_deleted: true, ..Facts::PLAIN }
    }

    fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        Self::date(object, context.now);
    }

    fn prepare_update(&self, new: &mut Value, _: &Value, context: &Context<'_>) {
        Self::date(new, context.now);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::slice(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::slice_update(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let driver = str_at(object, &["spec", "driver"]);
        if driver == driver.to_lowercase() {
            return Vec::new();
        }
        let driver = crate::field::go_quote(driver);
        vec![format!("spec.driver: driver names should be lowercase; {driver} contains uppercase characters")]
    }
}
