//! The kinds that a definition defines: what upstream's handler of custom resources and its discovery make of one
//! (k8s.io/apiextensions-apiserver/pkg/apiserver/{customresource_handler,customresource_discovery_controller}.go).

use serde_json::Value;

use super::columns::Columns;
use super::condition_is_true;
use super::names::TERMINATING;
use crate::access::{at, bool_at, list_at, str_at};
use crate::kind::{ALL_VERBS, Names, STATUS_VERBS, Subresource, Text};
use crate::scheme::Priority;

/// Verbs of a kind whose definition is being deleted: nothing new is made.
const TERMINATING_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];

/// Where a custom resource keeps what its Scale says, as paths with a dot before each name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// The number that is asked for.
    pub spec_replicas: String,
    /// The number that there is.
    pub status_replicas: String,
    /// The selector, as text.
    pub label_selector: Option<String>,
}

/// What a kind is made of.
#[derive(Debug, Clone)]
pub struct Described {
    /// The names that the definition was given.
    pub names: Names,
    /// The kind of lists.
    pub list_kind: Text,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs, sorted.
    pub verbs: &'static [&'static str],
    /// Whether the definition is being deleted, so that no object is made.
    pub terminating: bool,
    /// Subresources, sorted.
    pub subresources: Vec<Subresource>,
    /// Where the Scale is, when there is one.
    pub scale: Option<ScalePaths>,
    /// How objects are printed.
    pub printer: Columns,
    /// Names of the fields that selectors may name.
    pub fields: Vec<Text>,
    /// What every answer warns of, where the version is deprecated.
    pub deprecated: Option<Text>,
    /// Its name in the OpenAPI documents.
    pub definition: String,
    /// `openAPIV3Schema`; null where a definition of before has none.
    pub schema: Value,
    /// Whether what is in no schema is kept all the same (`spec.preserveUnknownFields`).
    pub preserves_unknown: bool,
    /// Whether the version is served.
    pub served: bool,
    /// Whether objects are stored in this version.
    pub storage: bool,
}

/// The kinds of all versions that are served or stored, in the order of the definition; none as long as it has no
/// names. Whether it is established is not looked at.
#[must_use]
pub fn kinds_of(crd: &Value) -> Vec<Described> {
    let accepted = at(crd, &["status", "acceptedNames"]);
    if ["plural", "singular", "kind", "listKind"].iter().any(|field| str_at(accepted, &[field]).is_empty()) {
        return Vec::new();
    }
    let versions = list_at(crd, &["spec", "versions"]);
    let counts = |version: &&Value| bool_at(version, &["served"]) || bool_at(version, &["storage"]);
    versions.iter().filter(counts).map(|version| described(crd, version)).collect()
}

/// Whether a definition is being deleted.
#[must_use]
pub fn is_terminating(crd: &Value) -> bool {
    condition_is_true(crd, TERMINATING) || !at(crd, &["metadata", "deletionTimestamp"]).is_null()
}

fn described(crd: &Value, version: &Value) -> Described {
    let accepted = at(crd, &["status", "acceptedNames"]);
    let owned = |text: &str| Text::Owned(text.to_owned());
    let texts = |field: &str| list_at(accepted, &[field]).iter().filter_map(Value::as_str).map(owned).collect();
    let names = Names {
        group: owned(str_at(crd, &["spec", "group"])),
        version: owned(str_at(version, &["name"])),
        kind: owned(str_at(accepted, &["kind"])),
        plural: owned(str_at(accepted, &["plural"])),
        singular: owned(str_at(accepted, &["singular"])),
        short_names: texts("shortNames"),
        categories: texts("categories"),
    };
    let fields = list_at(version, &["selectableFields"]).iter().map(|field| str_at(field, &["jsonPath"]));
    let scale = scale(version);
    let mut subresources = Vec::new();
    if scale.is_some() {
        subresources.push(Subresource::of("scale", ("autoscaling", "v1", "Scale"), STATUS_VERBS));
    }
    if !at(version, &["subresources", "status"]).is_null() {
        subresources.push(Subresource::own("status", STATUS_VERBS));
    }
    Described {
        list_kind: owned(str_at(accepted, &["listKind"])),
        namespaced: str_at(crd, &["spec", "scope"]) == "Namespaced",
        verbs: if condition_is_true(crd, TERMINATING) { TERMINATING_VERBS } else { ALL_VERBS },
        terminating: is_terminating(crd),
        subresources,
        scale,
        printer: Columns::new(at(version, &["additionalPrinterColumns"])),
        fields: fields.map(|path| owned(path.strip_prefix('.').unwrap_or(path))).collect(),
        deprecated: deprecated(crd, version).map(Text::Owned),
        definition: definition(&names),
        schema: at(version, &["schema", "openAPIV3Schema"]).clone(),
        preserves_unknown: bool_at(crd, &["spec", "preserveUnknownFields"]),
        served: bool_at(version, &["served"]),
        storage: bool_at(version, &["storage"]),
        names,
    }
}

fn scale(version: &Value) -> Option<ScalePaths> {
    let scale = at(version, &["subresources", "scale"]);
    let text = |field: &str| str_at(scale, &[field]).to_owned();
    (!scale.is_null()).then(|| ScalePaths {
        spec_replicas: text("specReplicasPath"),
        status_replicas: text("statusReplicasPath"),
        label_selector: Some(text("labelSelectorPath")).filter(|path| !path.is_empty()),
    })
}

/// `com.example.v1.Widget`.
fn definition(names: &Names) -> String {
    let group: Vec<&str> = names.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), names.version, names.kind)
}

/// What a deprecated version warns of: its own words, or which version of those that are preferred to it is the best.
fn deprecated(crd: &Value, version: &Value) -> Option<String> {
    if !bool_at(version, &["deprecated"]) {
        return None;
    }
    if let Some(words) = at(version, &["deprecationWarning"]).as_str() {
        return Some(words.to_owned());
    }
    let (group, kind) = (str_at(crd, &["spec", "group"]), str_at(crd, &["spec", "names", "kind"]));
    let own = str_at(version, &["name"]);
    let is_current = |version: &&Value| bool_at(version, &["served"]) && !bool_at(version, &["deprecated"]);
    let names = list_at(crd, &["spec", "versions"]).iter().filter(is_current).map(|v| str_at(v, &["name"]));
    let best = names.filter(|name| Priority::of(name) > Priority::of(own)).max_by_key(|name| Priority::of(name));
    let instead = best.map_or_else(String::new, |best| format!("; use {group}/{best} {kind}"));
    Some(format!("{group}/{own} {kind} is deprecated{instead}"))
}

#[cfg(test)]
mod tests;
