//! Tables of CustomResourceDefinitions that are refused, with upstream's texts; the cases are those of
//! k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation_test.go.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use crate::crd::{GROUP, Schema, SchemaCheck};
use crate::field::{FieldErrors, Path};
use crate::patch::merge;
use crate::{Kind, builtin, builtin_with};

mod updates;
mod webhooks;

const LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'";

/// The kind, whose schemas nobody checks.
fn kind() -> &'static Kind {
    crate::tests::with_definitions().by_gvk(GROUP, "v1", "CustomResourceDefinition").unwrap()
}

/// A version with a schema, changed.
fn version(changes: Value) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "color": {"type": "string"}, "on": {"type": "boolean"}, "size": {"type": "integer"},
            "list": {"type": "array"}, "tags": {"type": "object", "additionalProperties": {"type": "string"}}}},
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}}}});
    merge::apply(&json!({"name": "v1", "served": true, "storage": true, "schema": schema}), &changes)
}

/// A definition that nothing is wrong with, changed.
fn definition(changes: &Value) -> Value {
    let names = json!({"plural": "plurals", "singular": "singular", "kind": "Plural", "listKind": "PluralList"});
    let spec = json!({"group": "group.com", "scope": "Cluster", "names": names, "versions": [version(json!({}))]});
    let mut crd = merge::apply(&json!({"metadata": {"name": "plurals.group.com"}, "spec": spec}), changes);
    kind().default(&mut crd);
    crd
}

fn texts(errors: &FieldErrors) -> Vec<String> {
    errors.0.iter().map(ToString::to_string).collect()
}

fn problems(changes: &Value) -> Vec<String> {
    let mut crd = definition(changes);
    kind().prepare_create(&mut crd, &crate::tests::context());
    texts(&kind().validate_create(&crd))
}

fn check(rows: &[(Value, &[&str])]) {
    for (changes, expect) in rows {
        assert_eq!(problems(changes), *expect, "{changes}");
    }
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn versions(list: Value) -> Value {
    spec(json!({ "versions": list }))
}

fn only(changes: Value) -> Value {
    versions(json!([version(changes)]))
}

#[test]
fn names_and_groups() {
    let label = |path: &str, name: &str| format!("{path}: Invalid value: \"{name}\": {LABEL}");
    let cased = |path: &str, name: &str| {
        format!("{path}: Invalid value: \"{name}\": may have mixed case, but should otherwise match: {LABEL}")
    };
    let name = "metadata.name: Invalid value: \"plurals.group.com\": must be spec.names.plural+\".\"+spec.group";
    check(&[
        (json!({}), &[]),
        (
            json!({"metadata": {"name": "other.group.com"}}),
            &["metadata.name: Invalid value: \"other.group.com\": must be spec.names.plural+\".\"+spec.group"],
        ),
        (spec(json!({"group": null})), &[name, "spec.group: Required value"]),
        (
            spec(json!({"group": "group"})),
            &[name, "spec.group: Invalid value: \"group\": should be a domain with at least one dot"],
        ),
        (
            spec(json!({"group": "group.c(*&om"})),
            &[name, &format!("spec.group: Invalid value: \"group.c(*&om\": {SUBDOMAIN})")],
        ),
        (spec(json!({"group": "^.com"})), &[name, &format!("spec.group: Invalid value: \"^.com\": {SUBDOMAIN})")]),
        (spec(json!({"scope": null})), &["spec.scope: Required value"]),
        (
            spec(json!({"scope": "Root"})),
            &["spec.scope: Unsupported value: \"Root\": supported values: \"Cluster\", \"Namespaced\""],
        ),
        (spec(json!({"names": {"plural": null}})), &[name, "spec.names.plural: Required value"]),
        (
            spec(json!({"names": null})),
            &[
                name,
                "spec.names.plural: Required value",
                "spec.names.singular: Required value",
                "spec.names.kind: Required value",
                "spec.names.listKind: Required value",
            ],
        ),
        (spec(json!({"names": {"plural": "pl()*&"}})), &[name, &label("spec.names.plural", "pl()*&")]),
        (spec(json!({"names": {"singular": "value()*a"}})), &[&label("spec.names.singular", "value()*a")]),
        (spec(json!({"names": {"kind": "value()*a"}})), &[&cased("spec.names.kind", "value()*a")]),
        (spec(json!({"names": {"listKind": "value()*a"}})), &[&cased("spec.names.listKind", "value()*a")]),
        (
            spec(json!({"names": {"listKind": "Plural"}})),
            &["spec.names.listKind: Invalid value: \"Plural\": kind and listKind may not be the same"],
        ),
        (spec(json!({"names": {"shortNames": ["ok", "x()*"]}})), &[&label("spec.names.shortNames[1]", "x()*")]),
        (spec(json!({"names": {"categories": ["Cat"]}})), &[&label("spec.names.categories[0]", "Cat")]),
    ]);
}

#[test]
fn which_versions_there_are() {
    let schemaless = json!({"name": "v1", "served": true, "storage": true});
    let told = |list: &Value| format!("spec.versions: Invalid value: {list}");
    let storage = "must have exactly one version marked as storage version";
    let none = json!([version(json!({"storage": false}))]);
    let two = json!([version(json!({})), version(json!({"name": "v2"}))]);
    let twice = json!([version(json!({})), version(json!({"storage": false}))]);
    let no_stored = "status.storedVersions: Invalid value: null: must have at least one stored version";
    check(&[
        (
            versions(json!([])),
            &["spec.versions: Invalid value: []: must have exactly one version marked as storage version", no_stored],
        ),
        (versions(none.clone()), &[&format!("{}: {storage}", told(&none)), no_stored]),
        (
            versions(two.clone()),
            &[
                &format!("{}: {storage}", told(&two)),
                "status.storedVersions: Invalid value: [\"v1\"]: must have the storage version v2",
            ],
        ),
        (versions(twice.clone()), &[&format!("{}: must contain unique version names", told(&twice))]),
        (
            only(json!({"name": "v 1"})),
            &[
                &format!("spec.versions[0].name: Invalid value: \"v 1\": {LABEL}"),
                &format!("spec.version: Invalid value: \"v 1\": {LABEL}"),
            ],
        ),
        (versions(json!([schemaless])), &["spec.versions[0].schema.openAPIV3Schema: Required value"]),
        (
            versions(json!([version(json!({})), merge::apply(&schemaless, &json!({"name": "v2", "storage": false}))])),
            &["spec.versions[1].schema.openAPIV3Schema: Required value"],
        ),
        (
            only(json!({"schema": {"openAPIV3Schema": null}})),
            &["spec.versions[0].schema.openAPIV3Schema: Required value"],
        ),
        (
            spec(json!({"preserveUnknownFields": true})),
            &["spec.preserveUnknownFields: Invalid value: true: cannot set to true, set \
                 x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"],
        ),
        (
            spec(json!({"preserveUnknownFields": true, "versions": [version(json!(
                {"schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": {"size": {"default": 1}}}}}}}))]})),
            &[
                "spec.preserveUnknownFields: Invalid value: true: must be false in order to use defaults in the schema",
                "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set \
                 x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            ],
        ),
    ]);
}

#[test]
fn deprecations() {
    let with = |warning: &str| only(json!({"deprecated": true, "deprecationWarning": warning}));
    let path = "spec.versions[0].deprecationWarning: Invalid value";
    let long = "x".repeat(257);
    check(&[
        (only(json!({"deprecated": true})), &[]),
        (with("use v2; it ist schön ☸"), &[]),
        (with("a\u{301}"), &[]),
        (
            only(json!({"deprecationWarning": "x"})),
            &[&format!("{path}: \"x\": can only be set for deprecated versions")],
        ),
        (with(""), &[&format!("{path}: \"\": must not be an empty string")]),
        (with(&long), &[&format!("{path}: \"{long}\": must be <= 256 characters long")]),
        (
            with("ab\ncd"),
            &[&format!(
                "{path}: \"ab\\ncd\": must only contain printable UTF-8 characters; non-printable character found at index 2"
            )],
        ),
        (
            with("a\u{a0}"),
            &[&format!(
                "{path}: \"a\\u00a0\": must only contain printable UTF-8 characters; non-printable character found at index 1"
            )],
        ),
    ]);
}

#[test]
fn columns() {
    let column = |changes: Value| {
        let good = json!({"name": "Size", "type": "integer", "jsonPath": ".spec.size"});
        only(json!({"additionalPrinterColumns": [merge::apply(&good, &changes)]}))
    };
    let path = "spec.additionalPrinterColumns[0]";
    let types = "must be one of boolean,date,integer,number,string";
    let formats = "must be one of byte,date,date-time,double,float,int32,int64,password";
    check(&[
        (column(json!({"format": "int32", "priority": 1, "description": "d"})), &[]),
        (column(json!({"name": ""})), &[&format!("{path}.name: Required value")]),
        (column(json!({"type": ""})), &[&format!("{path}.type: Required value: {types}")]),
        (column(json!({"type": "bogus"})), &[&format!("{path}.type: Invalid value: \"bogus\": {types}")]),
        (column(json!({"format": "bogus"})), &[&format!("{path}.format: Invalid value: \"bogus\": {formats}")]),
        (column(json!({"jsonPath": ""})), &[&format!("{path}.JSONPath: Required value")]),
        (
            column(json!({"jsonPath": "spec.size"})),
            &[&format!("{path}.JSONPath: Invalid value: \"spec.size\": must be a simple json path starting with .")],
        ),
        (column(json!({"jsonPath": "."})), &[]),
        (column(json!({"jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"})), &[]),
        // Where versions differ, each is told of.
        (
            versions(json!([
                version(json!({})),
                version(json!({"name": "v2", "storage": false,
                "additionalPrinterColumns": [{"name": "A", "type": "x", "jsonPath": ".a"}]}))
            ])),
            &[&format!("spec.versions[1].additionalPrinterColumns[0].type: Invalid value: \"x\": {types}")],
        ),
    ]);
}

#[test]
fn subresources() {
    let scale = |changes: Value| {
        let good = json!({"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"});
        only(json!({"subresources": {"scale": merge::apply(&good, &changes)}}))
    };
    let path = "spec.subresources.scale";
    let dot = "must be a simple json path starting with .";
    check(&[
        (scale(json!({"labelSelectorPath": ".status.selector"})), &[]),
        (scale(json!({"labelSelectorPath": ".spec.selector"})), &[]),
        (scale(json!({"labelSelectorPath": ""})), &[]),
        (scale(json!({"specReplicasPath": ""})), &[&format!("{path}.specReplicasPath: Required value")]),
        (scale(json!({"statusReplicasPath": ""})), &[&format!("{path}.statusReplicasPath: Required value")]),
        (
            scale(json!({"specReplicasPath": "spec.size"})),
            &[&format!("{path}.specReplicasPath: Invalid value: \"spec.size\": {dot}")],
        ),
        (
            scale(json!({"specReplicasPath": ".status.size"})),
            &[&format!("{path}.specReplicasPath: Invalid value: \".status.size\": should be a json path under .spec")],
        ),
        (
            scale(json!({"statusReplicasPath": ".spec.size"})),
            &[&format!(
                "{path}.statusReplicasPath: Invalid value: \".spec.size\": should be a json path under .status"
            )],
        ),
        (
            scale(json!({"labelSelectorPath": ".metadata.labels"})),
            &[&format!(
                "{path}.labelSelectorPath: Invalid value: \".metadata.labels\": should be a json path under either .spec or .status"
            )],
        ),
        (
            scale(json!({"labelSelectorPath": "x"})),
            &[&format!("{path}.labelSelectorPath: Invalid value: \"x\": {dot}")],
        ),
    ]);
}

#[test]
fn what_is_at_the_root_of_a_schema() {
    let with = |status: bool, schema: Value| {
        let subresources = if status { json!({"status": {}}) } else { json!(null) };
        only(json!({"subresources": subresources, "schema": {"openAPIV3Schema": schema}}))
    };
    let path = "spec.validation.openAPIV3Schema";
    let kind = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
    let found = problems(&with(true, json!({"oneOf": [{}], "properties": null})));
    let allowed = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
                   MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs \
                   Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the \
                   status subresource is enabled";
    assert_eq!(found, [format!("{path}: Invalid value: {{\"oneOf\":[{{}}],\"type\":\"object\"}}: {allowed}")]);
    check(&[
        (
            with(true, json!({"description": "d", "required": ["spec"], "x-kubernetes-preserve-unknown-fields": true})),
            &[],
        ),
        (with(false, json!({"oneOf": [{}]})), &[]),
        (with(false, json!({"type": "string"})), &[]),
        (with(true, json!({"type": "string"})), &[&format!("{path}.type: Invalid value: \"string\": {kind}")]),
        (
            with(false, json!({"nullable": true})),
            &[&format!("{path}.nullable: Forbidden: nullable cannot be true at the root")],
        ),
    ]);
}

#[test]
fn selectable_fields() {
    let with = |paths: &[&str]| {
        let fields: Value = paths.iter().map(|path| json!({"jsonPath": path})).collect();
        only(json!({ "selectableFields": fields }))
    };
    let invalid =
        |text: &str, why: &str| format!("spec.selectableFields[0].jsonPath: Invalid value: \"{text}\": {why}");
    let field = "is an invalid path: does not refer to a valid field";
    let ty = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
    let one = |path: &'static str, why: &str| (with(&[path]), invalid(path, why));
    for (changes, expect) in [
        one(".spec.nope", field),
        one(".spec.color.deep", field),
        one(".spec..color", field),
        one(".spec.list[1]", "is an invalid path: array notation is not allowed"),
        one(".spec.", "is an invalid path: unexpected end of JSON path"),
        one("spec.color", "is an invalid path: expected [ or . but got: spec"),
        one(".spec", ty),
        one(".spec.list", ty),
        one(".metadata.name", "must not point to fields in metadata"),
    ] {
        assert_eq!(problems(&changes), [expect], "{changes}");
    }
    let many: Vec<String> = (0..9).map(|n| format!(".spec.tags.t{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let other = version(json!({"name": "v2", "storage": false, "selectableFields": [{"jsonPath": ".spec.color"}]}));
    check(&[
        (with(&[".spec.color", ".spec.on", ".spec.size", ".spec.tags.any"]), &[]),
        (with(&[""]), &["spec.selectableFields[0].jsonPath: Required value"]),
        (
            with(&[".spec.color", ".spec.color"]),
            &["spec.selectableFields[1].jsonPath: Duplicate value: \".spec.color\""],
        ),
        (with(&many[..8]), &[]),
        (with(&many), &["spec.selectableFields: Too many: 9: must have at most 8 items"]),
        (
            versions(json!([version(json!({})), other])),
            &["spec.versions[1].selectableFields: Invalid value: \"\": may only be set when \
                 `version.schema.openAPIV3Schema` is not included"],
        ),
    ]);
}

#[test]
fn groups_of_the_community_need_approval() {
    let with = |group: &str, annotation: Value| {
        json!({"metadata": {"name": format!("plurals.{group}"), "annotations": {"api-approved.kubernetes.io": annotation}},
            "spec": {"group": group}})
    };
    let path = "metadata.annotations[api-approved.kubernetes.io]";
    let must = "protected groups must have approval annotation \"api-approved.kubernetes.io\"";
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    check(&[
        (with("sigs.k8s.io", json!(null)), &[&format!("{path}: Required value: {must}, {see}")]),
        (with("x.kubernetes.io", json!(null)), &[&format!("{path}: Required value: {must}, {see}")]),
        (with("myk8s.io", json!(null)), &[]),
        (with("sigs.k8s.io", json!("unapproved, an experiment")), &[]),
        (with("sigs.k8s.io", json!("https://github.com/kubernetes/kubernetes/pull/1")), &[]),
        (
            with("sigs.k8s.io", json!("bogus")),
            &[&format!(
                "{path}: Invalid value: \"bogus\": {must} with either a URL or a reason starting with \"unapproved\", {see}"
            )],
        ),
    ]);
}

/// Whoever knows schemas is asked of each, at the place where upstream tells of it.
#[test]
fn schemas_are_checked_by_who_knows_them() {
    let told = |of: Schema<'_>, path: &Path<'_>, errors: &mut FieldErrors| {
        errors.forbidden(path, format!("{} {} {}", of.schema["title"], of.old.is_some(), of.unchanged));
    };
    let told: Arc<SchemaCheck> = Arc::new(told);
    let scheme = builtin_with(&told);
    let kind = scheme.by_gvk(GROUP, "v1", "CustomResourceDefinition").unwrap();
    assert_eq!(scheme.kinds().count(), builtin().kinds().count());
    let titled = |title: &str| json!({"schema": {"openAPIV3Schema": {"title": title}}});
    let one = definition(&only(titled("a")));
    let other = merge::apply(&version(titled("b")), &json!({"name": "v2", "storage": false}));
    let two = definition(&versions(json!([version(titled("a")), other])));
    let created = |crd: &Value| texts(&kind.validate_create(crd));
    assert_eq!(created(&one), ["spec.validation.openAPIV3Schema: Forbidden: \"a\" false false"]);
    assert_eq!(
        created(&two),
        [
            "spec.versions[0].schema.openAPIV3Schema: Forbidden: \"a\" false false",
            "spec.versions[1].schema.openAPIV3Schema: Forbidden: \"b\" false false",
        ]
    );
    assert_eq!(
        texts(&kind.validate_update("", &two, &one)),
        [
            "spec.versions[0].schema.openAPIV3Schema: Forbidden: \"a\" true true",
            "spec.versions[1].schema.openAPIV3Schema: Forbidden: \"b\" true false",
        ]
    );
    assert_eq!(texts(&self::kind().validate_create(&one)), Vec::<String>::new());
}
