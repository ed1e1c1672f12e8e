//! What a schema of custom resources says in vain
//! (k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition/strategy.go). Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::access::{at, str_at};
use crate::crd::{Spec, any_schema};

/// Formats of texts that somebody checks (`pkg/apiserver/validation/formats.go`), without their dashes.
const FORMATS: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

fn is_known(format: &str, ty: &str) -> bool {
    match ty {
        "" | "string" => FORMATS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Warnings about a CustomResourceDefinition: formats that nobody knows, then sets of what is no scalar.
pub(crate) fn definition(object: &Value) -> Vec<String> {
    let (mut formats, mut sets) = (BTreeSet::new(), BTreeSet::new());
    for schema in Spec::new(at(object, &["spec"])).schemas() {
        any_schema(schema, &mut |schema| {
            let (format, ty) = (str_at(schema, &["format"]), str_at(schema, &["type"]));
            if !format.is_empty() && !is_known(format, ty) {
                formats.insert(format!("unrecognized format \"{format}\""));
            }
            let items = str_at(schema, &["items", "type"]);
            if str_at(schema, &["x-kubernetes-list-type"]) == "set" && matches!(items, "object" | "array") {
                sets.insert(format!(
                    "x-kubernetes-list-type: set for items of type \"{items}\" is not supported by server-side apply \
                     or CEL validation rules"
                ));
            }
            false
        });
    }
    formats.into_iter().chain(sets).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// The rows of `TestWarningsOnCreate` in strategy_test.go.
    #[test]
    fn what_a_schema_says_in_vain_is_told() {
        assert!(FORMATS.is_sorted());
        let string = |format: &str| json!({"type": "string", "format": format});
        let with = |properties: Value| {
            let schema = json!({"openAPIV3Schema": {"type": "object", "properties": properties}});
            let versions = json!([{"name": "v1", "schema": schema}, {"name": "v2", "schema": schema}]);
            definition(&json!({"spec": {"versions": versions}}))
        };
        let set = |ty: &str| json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": ty}});
        for (properties, expect) in [
            (json!({"a": string("date-time"), "b": string("k8s-short-name"), "c": {"format": "uri"}}), vec![]),
            (json!({"a": {"type": "integer", "format": "int32"}, "b": {"type": "number", "format": "double"}}), vec![]),
            (json!({"a": string("bogus")}), vec!["unrecognized format \"bogus\""]),
            (
                json!({"a": {"type": "integer", "format": "int8"}, "b": {"items": string("x"), "allOf": [string("y")]}}),
                vec!["unrecognized format \"int8\"", "unrecognized format \"x\"", "unrecognized format \"y\""],
            ),
            (json!({"a": {"type": "boolean", "format": "date"}}), vec!["unrecognized format \"date\""]),
            (json!({"a": set("string")}), vec![]),
            (
                json!({"a": {"additionalProperties": set("object")}}),
                vec![
                    "x-kubernetes-list-type: set for items of type \"object\" is not supported by server-side apply or \
                     CEL validation rules",
                ],
            ),
        ] {
            assert_eq!(with(properties.clone()), expect, "{properties}");
        }
    }
}
