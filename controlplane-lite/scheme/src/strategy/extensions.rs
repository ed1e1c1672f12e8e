//! CustomResourceDefinition (k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition/strategy.go).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Context, Facts, Strategy};
use crate::access::{ensure_map, list_at};
use crate::crd::{self, SchemaCheck};
use crate::defaults::extensions as defaults;
use crate::field::FieldErrors;
use crate::validation::extensions as check;
use crate::warnings;

/// Its rules. Whether schemas are sound is somebody else's to say.
pub(crate) struct CustomResourceDefinition {
    check: Option<Arc<SchemaCheck>>,
}

impl CustomResourceDefinition {
    /// Takes any schema.
    pub(crate) const UNCHECKED: Self = Self { check: None };

    /// Has schemas checked.
    pub(crate) const fn new(check: Arc<SchemaCheck>) -> Self {
        Self { check: Some(check) }
    }
}

impl Strategy for CustomResourceDefinition {
    fn facts(&self) -> Facts {
        Facts {
            generation: true,
            unconditional_update: false,
            metadata_with_status: true,
            // Upstream warns of what an update adds.
            warns_on_update: false,
            ..Facts::PLAIN
        }
    }

    fn default(&self, object: &mut Value) {
        defaults::custom_resource_definition(object);
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        remember_storage(object);
    }

    fn prepare_update(&self, new: &mut Value, _: &Value, _: &Context<'_>) {
        remember_storage(new);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        check::create(object, self.check.as_deref(), errors);
    }

    /// Which rules hold depends on what was stored, so that nothing is checked without it.
    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::update(new, old, self.check.as_deref(), errors);
    }

    fn validate_status(&self, new: &Value, _: &Value, errors: &mut FieldErrors) {
        check::status(new, errors);
    }

    /// Its objects go first (pkg/registry/customresourcedefinition/etcd.go).
    fn prepare_delete(&self, object: &mut Value, now: &str) {
        let mut finalizers = list_at(object, &["metadata", "finalizers"]).to_vec();
        if !finalizers.iter().any(|known| known == crd::CLEANUP_FINALIZER) {
            finalizers.push(json!(crd::CLEANUP_FINALIZER));
            ensure_map(object, &["metadata"]).insert("finalizers".to_owned(), finalizers.into());
        }
        crd::names::Condition::terminating().set(object, now);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::definition(object)
    }
}

/// Adds the version that objects are stored in to those that they ever were.
fn remember_storage(object: &mut Value) {
    let Some(version) = crd::storage_version(object).map(str::to_owned) else { return };
    let mut stored = list_at(object, &["status", "storedVersions"]).to_vec();
    if !stored.iter().any(|known| *known == *version) {
        stored.push(json!(version));
        ensure_map(object, &["status"]).insert("storedVersions".to_owned(), stored.into());
    }
}
