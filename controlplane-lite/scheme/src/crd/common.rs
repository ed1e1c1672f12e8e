//! A specification as upstream checks it: its internal version has what all versions have in common once, beside them
//! (k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/conversion.go), and that is where problems are told.

use serde_json::Value;

use crate::access::list_at;

/// Fields of a version, and what they are called beside the versions.
pub(crate) const SCHEMA: &str = "schema";
pub(crate) const SUBRESOURCES: &str = "subresources";
pub(crate) const COLUMNS: &str = "additionalPrinterColumns";
pub(crate) const SELECTABLE: &str = "selectableFields";

static NULL: Value = Value::Null;

/// A specification with what its versions have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec<'a> {
    /// As it is written.
    pub spec: &'a Value,
    /// Its versions.
    pub versions: &'a [Value],
    common: [bool; 4],
}

impl<'a> Spec<'a> {
    pub(crate) fn new(spec: &'a Value) -> Self {
        let versions = list_at(spec, &["versions"]);
        let common = [SCHEMA, SUBRESOURCES, COLUMNS, SELECTABLE]
            .map(|field| versions.windows(2).all(|pair| same(&pair[0][field], &pair[1][field])));
        Self { spec, versions, common }
    }

    fn is_common(&self, field: &str) -> bool {
        let place = [SCHEMA, SUBRESOURCES, COLUMNS, SELECTABLE].iter().position(|name| *name == field);
        place.is_some_and(|place| self.common[place])
    }

    /// What all versions have; null when they differ.
    pub(crate) fn common(&self, field: &str) -> &'a Value {
        match self.versions.first() {
            Some(version) if self.is_common(field) => &version[field],
            _ => &NULL,
        }
    }

    /// What a version has that others have not; null when they all have it.
    pub(crate) fn own(&self, version: &'a Value, field: &str) -> &'a Value {
        if self.is_common(field) { &NULL } else { &version[field] }
    }

    /// The schemas in force, of all versions or of each.
    pub(crate) fn schemas(&self) -> impl Iterator<Item = &'a Value> {
        let own: Vec<&Value> = self.versions.iter().map(|version| self.own(version, SCHEMA)).collect();
        own.into_iter().chain([self.common(SCHEMA)]).map(|schema| &schema["openAPIV3Schema"]).filter(|s| !s.is_null())
    }
}

/// Equality as upstream's `Semantic.DeepEqual` has it: an empty list is no list.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    let unset = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&NULL)))
                && b.iter().all(|(key, value)| a.contains_key(key) || unset(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || unset(a) && unset(b),
    }
}

/// Whether a schema, or one that it is made of, is such a one.
pub(crate) fn any_schema(schema: &Value, is: &mut dyn FnMut(&Value) -> bool) -> bool {
    const ONE_OR_MANY: [&str; 7] =
        ["items", "allOf", "anyOf", "oneOf", "not", "additionalProperties", "additionalItems"];
    const BY_NAME: [&str; 4] = ["properties", "patternProperties", "definitions", "dependencies"];
    if is(schema) {
        return true;
    }
    let one_or_many = ONE_OR_MANY.iter().flat_map(|field| match schema.get(field) {
        Some(Value::Array(list)) => list.as_slice(),
        Some(other) => std::slice::from_ref(other),
        None => &[],
    });
    let by_name = BY_NAME.iter().filter_map(|field| schema.get(field)?.as_object()).flat_map(|map| map.values());
    one_or_many.chain(by_name).filter(|schema| schema.is_object()).any(|schema| any_schema(schema, is))
}
