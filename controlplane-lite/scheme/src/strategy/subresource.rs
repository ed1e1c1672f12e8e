//! Writes that change only a part of the stored object.

use serde_json::Value;

use crate::access::{copy_field, ensure_map};

/// Makes `new` the stored object with what `take` copies from what the client sent. Preconditions were checked against
/// the client's metadata before.
pub(super) fn keep_all_but(new: &mut Value, old: &Value, take: impl Fn(&Value, &mut Value)) {
    let mut kept = old.clone();
    take(new, &mut kept);
    *new = kept;
}

/// Copies a field one level down.
pub(super) fn copy_path(from: &Value, to: &mut Value, path: [&str; 2]) {
    let [outer, inner] = path;
    let source = &from[outer];
    ensure_map(to, &[outer]);
    copy_field(&mut to[outer], source, inner);
}
