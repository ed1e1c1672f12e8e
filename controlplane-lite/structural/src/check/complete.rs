//! Whatever `allOf`, `anyOf`, `oneOf` and `not` narrow is described outside of them (`pkg/apiserver/schema/complete.go`
//! upstream).

use scheme::{FieldErrors, Path};
use serde_json::Value;

use crate::raw;

/// Checks the alternatives of a schema's root, as upstream does.
pub(super) fn validate(schema: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    alternatives(schema, schema, path, path, errors);
}

/// `described` is the structural schema of what `narrowing` narrows.
fn alternatives(
    narrowing: &Value,
    described: &Value,
    described_at: &Path<'_>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    if let Some(not) = raw::get(narrowing, "not") {
        nested(not, described, described_at, &path.child("not"), errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        let path = path.child(key);
        for (index, inner) in raw::list(narrowing, key).iter().enumerate() {
            nested(inner, described, described_at, &path.index(index), errors);
        }
    }
}

fn nested(narrowing: &Value, described: &Value, described_at: &Path<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    // The words name a path, which may be long.
    if errors.full() {
        return;
    }
    alternatives(narrowing, described, described_at, path, errors);
    let object = |schema, key| raw::get(schema, key).filter(|inner: &&Value| inner.is_object());
    if let Some(items) = object(narrowing, "items") {
        let (at, path) = (described_at.child("items"), path.child("items"));
        match object(described, "items") {
            Some(described) => nested(items, described, &at, &path, errors),
            None => errors.required(&at, format!("because it is defined in {path}")),
        }
    }
    let properties = raw::map(described, "properties");
    let (at, path) = (described_at.child("properties"), path.child("properties"));
    for (name, inner) in raw::properties(narrowing) {
        if errors.full() {
            return;
        }
        let (at, path) = (at.key(name), path.key(name));
        match properties.and_then(|properties| properties.get(name)) {
            Some(described) => nested(inner, described, &at, &path, errors),
            None => errors.required(&at, format!("because it is defined in {path}")),
        }
    }
}
