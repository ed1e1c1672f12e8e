//! What a CustomResourceDefinition says: of the kinds that it defines, and of the names that it asks for. Pure; whoever
//! publishes kinds, and checks and prunes their objects, is elsewhere.

use serde_json::Value;

use crate::access::{at, list_at, str_at};
use crate::field::{FieldErrors, Path};

mod columns;
mod common;
mod field_path;
mod kinds;
pub mod names;
mod openapi;

pub use columns::Columns;
pub(crate) use common::{COLUMNS, SCHEMA, SELECTABLE, SUBRESOURCES, Spec, any_schema, same};
pub use field_path::field_path;
pub use kinds::{Described, ScalePaths, is_terminating, kinds_of};
pub use openapi::definition;

pub use crate::validation::extensions::approval::condition as approval;

/// The group of CustomResourceDefinitions.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Holds a CustomResourceDefinition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A schema to check, and what its rules depend on.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'a> {
    /// `openAPIV3Schema`.
    pub schema: &'a Value,
    /// `spec` as it was before an update: upstream does not tighten some rules for what was stored against them.
    pub old: Option<&'a Value>,
    /// Whether an update leaves the schema as it was, so that the cost of its expressions is not counted again.
    pub unchanged: bool,
}

/// Says what is wrong with a schema at a path: upstream's `ValidateCustomResourceDefinitionOpenAPISchema` and the
/// checks of structural schemas and defaults around it. That `nullable` and some fields have no place at the root is
/// checked before.
pub type SchemaCheck = dyn Fn(Schema<'_>, &Path<'_>, &mut FieldErrors) + Send + Sync;

/// The version that objects are stored in.
#[must_use]
pub fn storage_version(crd: &Value) -> Option<&str> {
    let versions = list_at(crd, &["spec", "versions"]);
    versions.iter().find(|version| version["storage"] == true).map(|version| str_at(version, &["name"]))
}

/// Whether a condition of this type is true.
#[must_use]
pub fn condition_is_true(crd: &Value, ty: &str) -> bool {
    condition(crd, ty).is_some_and(|condition| str_at(condition, &["status"]) == "True")
}

/// The condition of this type.
#[must_use]
pub fn condition<'a>(crd: &'a Value, ty: &str) -> Option<&'a Value> {
    list_at(at(crd, &["status"]), &["conditions"]).iter().find(|condition| str_at(condition, &["type"]) == ty)
}
