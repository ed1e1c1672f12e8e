//! What all kinds have in common when they are created and changed; the strategy of each is asked in its place.

use serde_json::Value;

use super::Kind;
use crate::field::{FieldErrors, Path};
use crate::strategy::Context;
use crate::{access, meta};

impl Kind {
    /// Fills in defaults. Runs on every decoded object before anything else.
    pub fn default(&self, object: &mut Value) {
        self.strategy.default(object);
    }

    /// Upstream's `FillObjectMetaSystemFields` and `PrepareForCreate`: what the system sets, an empty status, the first
    /// generation, then the kind's own rule. Expects a defaulted object with name and namespace.
    pub fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        meta::fill_create(object, context.uid, context.now);
        if self.has_status() {
            // A custom resource has no struct whose zero would be written, whatever its definition is called.
            let definition = if self.custom { "" } else { self.definition() };
            crate::schema::status::begin(object, definition, self.facts.keep_status);
        }
        if self.facts.generation {
            meta::set_generation(object, 1);
        }
        self.strategy.prepare_create(object, context);
    }

    /// What a person should know about a change, which upstream says for the main resource alone.
    #[must_use]
    pub fn warnings_on_update(&self, subresource: &str, object: &Value) -> Vec<String> {
        let warns = subresource.is_empty() && self.facts.warns_on_update;
        if warns { self.strategy.warnings(object) } else { Vec::new() }
    }

    /// Everything wrong with a new object, metadata first.
    #[must_use]
    pub fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = FieldErrors::new();
        meta::validate(object, self.namespaced, self.facts.name, &Path::new("metadata"), &mut errors);
        self.strategy.validate(object, &mut errors);
        self.strategy.validate_create(object, &mut errors);
        errors
    }

    /// Upstream's `PrepareForUpdate` of the main resource (an empty name) or of a subresource whose body is the object:
    /// restores what a write there may not change.
    pub fn prepare_update(&self, subresource: &str, new: &mut Value, old: &Value, context: &Context<'_>) {
        match subresource {
            "" => self.prepare_main(new, old, context),
            "status" => self.prepare_status(new, old, context),
            other => {
                // Who owns what was told of what is written there, and is the system's to say.
                let owners = new["metadata"]["managedFields"].take();
                self.strategy.prepare_subresource(other, new, old, context);
                let metadata = access::ensure_map(new, &["metadata"]);
                if owners.is_null() {
                    metadata.remove("managedFields");
                } else {
                    metadata.insert("managedFields".to_owned(), owners);
                }
            }
        }
    }

    /// Keeps status and the system's metadata, then the kind's own rule, then counts the generation when something
    /// besides metadata and status changed.
    fn prepare_main(&self, new: &mut Value, old: &Value, context: &Context<'_>) {
        meta::keep_system_fields(new, old);
        if self.has_status() {
            access::copy_field(new, old, "status");
        }
        self.strategy.prepare_update(new, old, context);
        if self.facts.generation {
            if self.custom && !self.has_status() {
                meta::bump_generation_with_status(new, old);
            } else {
                meta::bump_generation(new, old);
            }
        }
    }

    /// An update through `/status`: only status and (as upstream) labels, annotations and managed
    /// metadata change; everything else stays as stored.
    fn prepare_status(&self, new: &mut Value, old: &Value, context: &Context<'_>) {
        if self.custom {
            return keep_all_but_status(new, old);
        }
        meta::keep_system_fields(new, old);
        if let (Some(map), Some(old_map)) = (new.as_object_mut(), old.as_object()) {
            map.retain(|key, _| matches!(key.as_str(), "status" | "metadata" | "kind" | "apiVersion"));
            for (key, value) in old_map {
                if !matches!(key.as_str(), "status" | "metadata" | "kind" | "apiVersion") {
                    map.insert(key.clone(), value.clone());
                }
            }
        }
        if !self.facts.metadata_with_status {
            meta::keep_on_status_update(new, old);
        }
        self.strategy.prepare_status(new, old, context);
    }

    /// Everything wrong with an update of the main resource (an empty name) or of a subresource whose body is the
    /// object.
    #[must_use]
    pub fn validate_update(&self, subresource: &str, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = FieldErrors::new();
        meta::validate_update(new, old, self.namespaced, &Path::new("metadata"), &mut errors);
        match subresource {
            "" => {
                let mut found = FieldErrors::new();
                self.strategy.validate(new, &mut found);
                if !found.is_empty() && same_content(new, old) {
                    // What was stored under other rules can still be labelled, deleted and let go.
                    let mut before = FieldErrors::new();
                    self.strategy.validate(old, &mut before);
                    found.0.retain(|error| !before.0.contains(error));
                }
                errors.extend(found);
                self.strategy.validate_update(new, old, &mut errors);
            }
            "status" => self.strategy.validate_status(new, old, &mut errors),
            other => self.strategy.validate_subresource(other, new, old, &mut errors),
        }
        errors
    }
}

/// What a write to the status of a custom resource may change: its status, and who owns what
/// (`statusStrategy.PrepareForUpdate` of `k8s.io/apiextensions-apiserver/pkg/registry/customresource`).
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let mut sent = std::mem::replace(new, old.clone());
    access::copy_field(new, &sent, "status");
    let sent = sent["metadata"].take();
    if let Some(metadata) = access::at_mut(new, &["metadata"]) {
        access::copy_field(metadata, &sent, "managedFields");
    }
}

/// Whether two objects are the same but for metadata and status.
fn same_content(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let is_content = |key: &str| !matches!(key, "metadata" | "status");
    let kept = new.iter().filter(|(key, _)| is_content(key)).all(|(key, value)| old.get(key) == Some(value));
    kept && old.keys().filter(|key| is_content(key)).all(|key| new.contains_key(key))
}
