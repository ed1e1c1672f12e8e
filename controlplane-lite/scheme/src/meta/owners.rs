//! Rules for `metadata.ownerReferences`.

use std::collections::HashSet;

use serde_json::Value;

use crate::access::str_at;
use crate::field::{FieldErrors, Path};

/// Takes out owners that are named twice with the same words, as `dedupOwnerReferences` does (apiserver,
/// `pkg/endpoints/handlers/rest.go`); the uids of those that were taken out.
pub fn dedup_owners(object: &mut Value) -> Vec<String> {
    let metadata = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("ownerReferences"));
    let Some(owners) = metadata.and_then(Value::as_array_mut).filter(|owners| owners.len() > 1) else {
        return Vec::new();
    };
    let (mut seen, mut taken) = (HashSet::new(), Vec::new());
    owners.retain(|owner| {
        let texts = ["apiVersion", "kind", "name", "uid"].map(|key| str_at(owner, &[key]).to_owned());
        let flags = ["controller", "blockOwnerDeletion"].map(|key| owner.get(key).and_then(Value::as_bool));
        let new = seen.insert((texts, flags));
        if !new {
            taken.push(str_at(owner, &["uid"]).to_owned());
        }
        new
    });
    taken
}

/// As upstream's `ValidateOwnerReferences` (apimachinery, `pkg/api/validation/objectmeta.go`), but that of many
/// controllers the first two are told and no more: each is told with the whole list.
pub(super) fn validate_owners(owners: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    let mut controllers = 0;
    let mut first = ("", "");
    for (i, owner) in owners.iter().enumerate() {
        let path = path.index(i);
        if str_at(owner, &["apiVersion"]).is_empty() {
            errors.invalid(&path.child("apiVersion"), "", "version must not be empty");
        }
        for (key, words) in [("kind", "must not be empty"), ("name", "must not be empty"), ("uid", "must not be empty")]
        {
            if str_at(owner, &[key]).is_empty() {
                errors.invalid(&path.child(key), "", words);
            }
        }
        if str_at(owner, &["apiVersion"]) == "v1" && str_at(owner, &["kind"]) == "Event" {
            errors.invalid(&path, owner, "v1, Kind=Event is disallowed from being an owner");
        }
        if owner.get("controller").and_then(Value::as_bool) != Some(true) {
            continue;
        }
        controllers += 1;
        let this = (str_at(owner, &["kind"]), str_at(owner, &["name"]));
        match controllers {
            1 => first = this,
            2 => errors.invalid(
                path.parent().unwrap_or(&path),
                owners,
                format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                    first.0, first.1, this.0, this.1
                ),
            ),
            _ => {}
        }
    }
}
