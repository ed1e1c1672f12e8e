//! A part of an object laid over it, by whom nobody asks who owns what: an ApplyConfiguration of a policy
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go`).

use serde_json::Value;

use crate::schema::{Atom, By, Place};
use crate::typed;

/// Lays fields over an object.
///
/// # Errors
/// If they are not of the object's type, or would replace what is one value.
pub fn merge(object: &Value, fields: &Value, at: Place<'_>) -> Result<Value, String> {
    typed::validate(fields, at)
        .map_err(|errors| format!("failed to convert patch object to typed object: {errors}"))?;
    let mut atomics = Vec::new();
    find_atomics(&mut String::new(), fields, at, &mut atomics);
    if atomics.is_empty() {
        return Ok(typed::merge(object, fields, at));
    }
    let paths = atomics.join(", ");
    Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"))
}

/// The paths of what is one value.
fn find_atomics(path: &mut String, value: &Value, at: Place<'_>, found: &mut Vec<String>) {
    let length = path.len();
    match (at.atom(Some(value)), value) {
        (Atom::Map(map), Value::Object(fields)) => {
            if map.atomic {
                found.push(path.clone());
            }
            for (name, value) in fields {
                let Some(place) = map.declares(name).then(|| map.place(name)).flatten() else { continue };
                path.push('.');
                path.push_str(name);
                find_atomics(path, value, place, found);
                path.truncate(length);
            }
        }
        (Atom::List(list), Value::Array(items)) => {
            if list.by == By::Atomic {
                found.push(path.clone());
            }
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                find_atomics(path, item, list.place(), found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
