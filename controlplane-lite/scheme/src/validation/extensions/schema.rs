//! Which schemas a definition has to have, and what has no place at their root. What is inside of them is checked by
//! whoever knows schemas.

use serde_json::Value;

use super::{Options, SPEC};
use crate::access::{at, bool_at, is_empty, str_at};
use crate::crd::{Schema, Spec, any_schema};
use crate::field::{FieldErrors, Path};

/// Fields of a schema in upstream's order, in which the first that has no place at the root is told; and whether it has
/// one where status is a subresource, so that the schema of status can be taken out of it.
const FIELDS: [(&str, &str, bool); 44] = [
    ("id", "", false),
    ("$schema", "", false),
    ("$ref", "", false),
    ("description", "Description", true),
    ("type", "Type", true),
    ("nullable", "", false),
    ("format", "Format", true),
    ("title", "Title", true),
    ("default", "", false),
    ("maximum", "Maximum", true),
    ("exclusiveMaximum", "ExclusiveMaximum", true),
    ("minimum", "Minimum", true),
    ("exclusiveMinimum", "ExclusiveMinimum", true),
    ("maxLength", "MaxLength", true),
    ("minLength", "MinLength", true),
    ("pattern", "Pattern", true),
    ("maxItems", "MaxItems", true),
    ("minItems", "MinItems", true),
    ("uniqueItems", "UniqueItems", true),
    ("multipleOf", "MultipleOf", true),
    ("enum", "", false),
    ("maxProperties", "", false),
    ("minProperties", "", false),
    ("required", "Required", true),
    ("items", "Items", true),
    ("allOf", "", false),
    ("oneOf", "", false),
    ("anyOf", "", false),
    ("not", "", false),
    ("properties", "Properties", true),
    ("additionalProperties", "", false),
    ("patternProperties", "", false),
    ("dependencies", "", false),
    ("additionalItems", "", false),
    ("definitions", "", false),
    ("externalDocs", "ExternalDocs", true),
    ("example", "Example", true),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields", true),
    ("x-kubernetes-embedded-resource", "", false),
    ("x-kubernetes-int-or-string", "", false),
    ("x-kubernetes-list-map-keys", "", false),
    ("x-kubernetes-list-type", "", false),
    ("x-kubernetes-map-type", "", false),
    ("x-kubernetes-validations", "XValidations", true),
];

/// Every version has a schema, or what is not in one would be pruned.
pub(super) fn are_there(spec: &Spec<'_>, options: &Options<'_>, errors: &mut FieldErrors) {
    let preserves = bool_at(spec.spec, &["preserveUnknownFields"]);
    let versions = SPEC.child("versions");
    for (place, version) in spec.versions.iter().enumerate() {
        let version_path = versions.index(place);
        let schema = version_path.child("schema");
        let path = schema.child("openAPIV3Schema");
        if !at(version, &["schema", "openAPIV3Schema"]).is_null() {
            continue;
        }
        if options.require_schema {
            errors.required(&path, "");
        } else if !preserves && bool_at(version, &["served"]) {
            errors.required(&path, "because otherwise all fields are pruned");
        }
    }
    if preserves && spec.schemas().any(|schema| any_schema(schema, &mut |schema| !at(schema, &["default"]).is_null())) {
        let path = SPEC.child("preserveUnknownFields");
        errors.invalid(&path, true, "must be false in order to use defaults in the schema");
    }
}

/// A schema of a version, or of all, whose name is that of the first.
pub(super) fn check(
    validation: &Value,
    version: &str,
    status: bool,
    path: &Path<'_>,
    options: &Options<'_>,
    errors: &mut FieldErrors,
) {
    let schema = at(validation, &["openAPIV3Schema"]);
    if schema.is_null() {
        return;
    }
    let schema_path = path.child("openAPIV3Schema");
    let mut found = FieldErrors::new();
    if status {
        root(schema, &schema_path, &mut found);
    }
    if bool_at(schema, &["nullable"]) {
        found.forbidden(&schema_path.child("nullable"), "nullable cannot be true at the root");
    }
    if let Some(check) = options.check {
        let old = options.old.as_ref();
        let unchanged = old.is_some_and(|old| old.has(schema, version));
        let of = Schema { schema, old: old.map(|old| old.spec.spec), unchanged };
        check(of, &schema_path, &mut found);
    }
    errors.extend(found);
}

/// What stands at the root beside a status with rules of its own.
fn root(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for (field, _, allowed) in FIELDS {
        let value = at(schema, &[field]);
        if is_empty(value) || *value == false && !field.starts_with("x-kubernetes-preserve") {
            continue;
        }
        if field == "type" && value != "object" {
            return errors.invalid(
                &path.child("type"),
                str_at(schema, &["type"]),
                "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
            );
        }
        if !allowed {
            let names: Vec<&str> = FIELDS.iter().map(|(_, name, _)| *name).filter(|name| !name.is_empty()).collect();
            let names = names.join(" ");
            return errors.invalid(
                path,
                schema,
                format!(
                    "only [{names}] fields are allowed at the root of the schema if the status subresource is enabled"
                ),
            );
        }
    }
}
