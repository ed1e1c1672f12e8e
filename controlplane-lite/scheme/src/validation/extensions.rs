//! CustomResourceDefinitions (k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go), but for
//! what is inside their schemas. Upstream checks the internal version: what all versions of a definition have in common
//! is told of once, as `spec.validation`, `spec.subresources`, and so on. A refused list of versions is told as it was
//! written.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::immutable;
use crate::access::{at, bool_at, is_empty, list_at, str_at};
use crate::crd::names::ESTABLISHED;
use crate::crd::{SchemaCheck, Spec, condition_is_true, same};
use crate::field::{FieldErrors, Path};
use crate::meta;

pub(crate) mod approval;
mod conversion;
mod schema;
mod selectable;
mod version;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

/// Versions that a definition may have. Upstream bounds only its bytes; each version is a document for all readers of
/// the API.
const MAX_VERSIONS: usize = 100;

/// What holds for one write.
struct Options<'a> {
    /// The definition before an update.
    old: Option<Before<'a>>,
    /// Whether every version has to have a schema.
    require_schema: bool,
    /// Whether a webhook has to speak a version of ConversionReview that somebody understands.
    require_review_version: bool,
    /// Whether a webhook's bundle may be no bundle: nobody uses it yet, or it never was one.
    allow_bad_bundle: bool,
    check: Option<&'a SchemaCheck>,
}

/// The specification before an update.
struct Before<'a> {
    spec: Spec<'a>,
    by_name: HashMap<&'a str, &'a Value>,
}

impl<'a> Before<'a> {
    fn new(spec: &'a Value) -> Self {
        let spec = Spec::new(spec);
        // The first of a name, as upstream.
        let by_name = spec.versions.iter().rev().map(|version| (str_at(version, &["name"]), version)).collect();
        Self { spec, by_name }
    }

    /// Whether a schema of a version is as it was.
    fn has(&self, schema: &Value, version: &str) -> bool {
        self.by_name.get(version).is_some_and(|old| same(at(old, &["schema", "openAPIV3Schema"]), schema))
    }
}

/// A new definition.
pub(crate) fn create(crd: &Value, check: Option<&SchemaCheck>, errors: &mut FieldErrors) {
    let options =
        Options { old: None, require_schema: true, require_review_version: true, allow_bad_bundle: true, check };
    let name = str_at(crd, &["metadata", "name"]);
    if name != format!("{}.{}", str_at(crd, &["spec", "names", "plural"]), str_at(crd, &["spec", "group"])) {
        let metadata = Path::new("metadata");
        errors.invalid(&metadata.child("name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    spec(&Spec::new(at(crd, &["spec"])), &options, errors);
    rest(crd, None, errors);
}

/// A changed definition. What was stored against a rule may stay so.
pub(crate) fn update(new: &Value, old: &Value, check: Option<&SchemaCheck>, errors: &mut FieldErrors) {
    let before = at(old, &["spec"]);
    let reviews = list_at(before, &["conversion", "webhook", "conversionReviewVersions"]);
    let established = condition_is_true(old, ESTABLISHED);
    let bundle = at(before, &["conversion", "webhook", "clientConfig", "caBundle"]);
    let options = Options {
        old: Some(Before::new(before)),
        require_schema: list_at(before, &["versions"]).iter().all(|v| !at(v, &["schema", "openAPIV3Schema"]).is_null()),
        require_review_version: reviews.is_empty() || reviews.iter().any(conversion::is_known),
        allow_bad_bundle: !established || !is_empty(bundle) && conversion::bundle(bundle).is_err(),
        check,
    };
    let after = at(new, &["spec"]);
    spec(&Spec::new(after), &options, errors);
    let names = SPEC.child("names");
    let text = |spec: &Value, path: &[&str]| Value::from(str_at(spec, path));
    let mut stays =
        |path: &Path<'_>, field: &[&str]| immutable(&text(after, field), &text(before, field), path, errors);
    if established {
        // These are part of how objects are stored.
        stays(&SPEC.child("scope"), &["scope"]);
        stays(&names.child("kind"), &["names", "kind"]);
    }
    stays(&SPEC.child("group"), &["group"]);
    stays(&names.child("plural"), &["names", "plural"]);
    rest(new, Some(old), errors);
}

/// A changed status.
pub(crate) fn status(crd: &Value, errors: &mut FieldErrors) {
    names(at(crd, &["status", "acceptedNames"]), &STATUS.child("acceptedNames"), errors);
}

/// What is checked besides the specification.
fn rest(crd: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    status(crd, errors);
    stored_versions(crd, errors);
    approval::check(crd, old, errors);
    let preserves = |crd: &Value| bool_at(crd, &["spec", "preserveUnknownFields"]);
    if preserves(crd) && !old.is_some_and(preserves) {
        errors.invalid(
            &SPEC.child("preserveUnknownFields"),
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        );
    }
}

/// Versions in which objects may still be stored.
fn stored_versions(crd: &Value, errors: &mut FieldErrors) {
    let path = STATUS.child("storedVersions");
    let told = at(crd, &["status", "storedVersions"]);
    let stored = list_at(told, &[]);
    if stored.is_empty() {
        errors.invalid(&path, told, "must have at least one stored version");
        return;
    }
    let versions = list_at(crd, &["spec", "versions"]);
    let names: HashSet<&str> = versions.iter().map(|version| str_at(version, &["name"])).collect();
    // Of one that is told several times upstream keeps the last place.
    let place = |(place, name): (usize, &'_ Value)| (name.as_str().unwrap_or("").to_owned(), place);
    let known: HashMap<String, usize> = stored.iter().enumerate().map(place).collect();
    for version in versions.iter().filter(|version| bool_at(version, &["storage"])) {
        let name = str_at(version, &["name"]);
        if !known.contains_key(name) {
            errors.invalid(&path, told, format!("must have the storage version {name}"));
        }
    }
    for (place, name) in stored.iter().enumerate() {
        let name = name.as_str().unwrap_or("");
        if !names.contains(name) && known.get(name) == Some(&place) {
            errors.invalid(
                &path.index(place),
                name,
                format!(
                    "missing from spec.versions; {name} was previously a storage version, and must remain in \
                     spec.versions until a storage migration ensures no data remains persisted in {name} and removes \
                     {name} from status.storedVersions"
                ),
            );
        }
    }
}

fn spec(spec: &Spec<'_>, options: &Options<'_>, errors: &mut FieldErrors) {
    group(str_at(spec.spec, &["group"]), errors);
    scope(str_at(spec.spec, &["scope"]), errors);
    schema::are_there(spec, options, errors);
    versions(spec, options, errors);
    let asked = at(spec.spec, &["names"]);
    let path = SPEC.child("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if str_at(asked, &[field]).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    names(asked, &path, errors);
    version::common(spec, options, errors);
    conversion::check(spec, options, errors);
}

fn group(group: &str, errors: &mut FieldErrors) {
    let path = SPEC.child("group");
    let problems = meta::dns1123_subdomain(group);
    if group.is_empty() {
        errors.required(&path, "");
    } else if !problems.is_empty() {
        errors.invalid(&path, group, problems.join(","));
    } else if !group.contains('.') {
        errors.invalid(&path, group, "should be a domain with at least one dot");
    }
}

fn scope(scope: &str, errors: &mut FieldErrors) {
    match scope {
        "" => errors.required(&SPEC.child("scope"), ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported(&SPEC.child("scope"), other, &["Cluster", "Namespaced"]),
    }
}

fn versions(spec: &Spec<'_>, options: &Options<'_>, errors: &mut FieldErrors) {
    let path = SPEC.child("versions");
    if spec.versions.len() > MAX_VERSIONS {
        return errors.too_many(&path, spec.versions.len(), MAX_VERSIONS);
    }
    let mut names = HashSet::new();
    for (place, each) in spec.versions.iter().enumerate() {
        let path = path.index(place);
        let name = str_at(each, &["name"]);
        names.insert(name);
        label(name, &path.child("name"), errors);
        version::check(spec, each, &path, options, errors);
    }
    let told = at(spec.spec, &["versions"]);
    if names.len() != spec.versions.len() {
        errors.invalid(&path, told, "must contain unique version names");
    }
    if spec.versions.iter().filter(|version| bool_at(version, &["storage"])).count() != 1 {
        errors.invalid(&path, told, "must have exactly one version marked as storage version");
    }
    // Upstream's internal version names the first one once more.
    if let Some(first) = spec.versions.first().map(|version| str_at(version, &["name"])).filter(|n| !n.is_empty()) {
        label(first, &SPEC.child("version"), errors);
    }
}

/// A DNS-1035 label, all that is wrong with it at once.
fn label(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let problems = meta::dns1035_label(text);
    if !problems.is_empty() {
        errors.invalid(path, text, problems.join(","));
    }
}

/// Names that are asked for, or that were given.
fn names(names: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let text = |field: &str| str_at(names, &[field]);
    for field in ["plural", "singular"] {
        if !text(field).is_empty() {
            label(text(field), &path.child(field), errors);
        }
    }
    for field in ["kind", "listKind"] {
        let problems = meta::dns1035_label(&text(field).to_lowercase());
        if !text(field).is_empty() && !problems.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
            errors.invalid(&path.child(field), text(field), detail);
        }
    }
    let list = |field: &str, errors: &mut FieldErrors| {
        let path = path.child(field);
        for (place, name) in list_at(names, &[field]).iter().enumerate() {
            label(name.as_str().unwrap_or(""), &path.index(place), errors);
        }
    };
    list("shortNames", errors);
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        errors.invalid(&path.child("listKind"), text("listKind"), "kind and listKind may not be the same");
    }
    list("categories", errors);
}

#[cfg(test)]
mod tests;
