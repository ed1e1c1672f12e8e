//! The schemas of custom resources, as `apiextensions.k8s.io/v1` has them: what makes one valid, and what an object's
//! is used for: unknown fields go, defaults come, and the rest is checked. Upstream has this in
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/{schema,validation}` and `k8s.io/kube-openapi/pkg/validation`.
//!
//! All of it is pure, and bounded: in depth, in steps and in what is told. Any JSON may be handed in.

mod check;
mod defaulting;
mod expressions;
mod formats;
mod listtype;
mod location;
mod node;
mod numbers;
mod objectmeta;
mod problem;
mod prune;
mod ratchet;
mod raw;
mod walk;

use std::sync::OnceLock;

use scheme::{FieldError, FieldErrorKind, FieldErrors};
use serde_json::Value;

pub use check::validate_schema;
pub use node::Rule;

use node::Node;
use problem::to_field_errors;
use walk::Walk;

/// Levels of schemas inside each other. JSON from the wire has no more.
pub const MAX_DEPTH: usize = 128;

/// A parsed schema. It holds no JSON but defaults and enums, and can be shared between threads.
#[derive(Debug)]
pub struct Structural {
    root: Node,
    /// The rules' programs, which are made when an object first asks.
    rules: OnceLock<Option<Box<expressions::Rules>>>,
}

impl Structural {
    /// Parses an `openAPIV3Schema`.
    ///
    /// # Errors
    /// The first keyword whose value is of the wrong type or that structural schemas do not have. Whether the schema is
    /// structural is another question: see [`validate_schema`].
    pub fn parse(schema: &Value) -> Result<Self, String> {
        raw::check(schema)?;
        Ok(Self { root: Node::parse(schema)?, rules: OnceLock::new() })
    }

    /// Removes the fields that the schema does not name, and tells their paths (`spec.list[0].x`), sorted.
    /// `apiVersion`, `kind` and `metadata` stay at the root and in embedded resources.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(object, &self.root, true)
    }

    /// Fills in the defaults. A null goes where the schema allows none: it becomes the default, or nothing.
    pub fn default(&self, object: &mut Value) {
        defaulting::default(object, &self.root);
        defaulting::prune_nulls(object, &self.root);
    }

    /// Checks a new object: its values, the metadata of embedded resources, and that lists which are sets or maps
    /// repeat nothing. The object's own metadata is checked elsewhere, as that of any kind.
    pub fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        to_field_errors(Walk::default().validate(&self.root, object, None), None, errors);
        objectmeta::validate(object, &self.root, &scheme::Path::ROOT, errors);
        listtype::validate(object, &self.root, errors);
    }

    /// Checks an object that replaces another. What is wrong with a value that stays as it was is not told, so that a
    /// schema may become stricter than the objects there are.
    pub fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        to_field_errors(Walk::default().validate(&self.root, new, Some(old)), None, errors);
        objectmeta::validate(new, &self.root, &scheme::Path::ROOT, errors);
        let mut before = FieldErrors::new();
        listtype::validate(old, &self.root, &mut before);
        if before.is_empty() {
            listtype::validate(new, &self.root, errors);
        }
    }

    /// Checks an object of which only the status replaces another: its status, and the lists of the whole.
    pub fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if let (Some(node), Some(status)) = (self.root.property("status"), new.get("status")) {
            let outcome = Walk::default().validate(node, status, old.get("status"));
            to_field_errors(outcome, Some(&scheme::Path::new("status")), errors);
        }
        let mut found = FieldErrors::new();
        listtype::validate(new, &self.root, &mut found);
        let mut before = FieldErrors::new();
        if !found.is_empty() {
            listtype::validate(old, &self.root, &mut before);
        }
        if before.is_empty() {
            errors.extend(found);
        }
    }

    /// Evaluates the CEL rules for an object that was checked, and says which do not hold. None is evaluated if what
    /// was found is of the object's form. What is part of something that stays as it was is not refused by a rule that
    /// looks at it alone.
    pub fn evaluate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let rules = self.rules.get_or_init(|| expressions::Rules::compile(&self.root, true).map(Box::new));
        let Some(rules) = rules else { return };
        let blocks = |error: &FieldError| {
            let FieldError { kind, .. } = error;
            matches!(
                kind,
                FieldErrorKind::Required
                    | FieldErrorKind::TooLong
                    | FieldErrorKind::TooMany
                    | FieldErrorKind::TypeInvalid
            )
        };
        if errors.0.iter().any(blocks) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing \
                       errors to complete validation";
            errors.invalid(&scheme::Path::new("<nil>"), &Value::Null, why);
        } else {
            expressions::Evaluation::new(errors).run(rules, &self.root, new, old);
        }
    }

    /// The CEL rules of the whole schema with the paths of their schemas (`spec.list[*].x`).
    #[must_use]
    pub fn rules(&self) -> Vec<(String, &Rule)> {
        let mut found = Vec::new();
        self.root.collect_rules(&mut String::new(), &mut found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared<T: Send + Sync>() {}

    #[test]
    fn schemas_are_small_and_shared() {
        shared::<Structural>();
        assert!(size_of::<Node>() <= 120, "{}", size_of::<Node>());
    }
}
