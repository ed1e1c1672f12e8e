//! Security contexts of pods and containers (`ValidateSecurityContext` and `ValidatePodSecurityContext` in upstream's
//! `pkg/apis/core/validation/validation.go`).

use serde_json::Value;

use super::mounts::local_descending_path;
use super::one_of;
use crate::access::{at, int_at, list_at, str_at};
use crate::field::{FieldErrors, Path};

/// Longest name of an AppArmor profile (`PATH_MAX` without its end).
const LONGEST_PROFILE: usize = 4095;

/// The security context of a container.
pub(super) fn container(value: &Value, host_users: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    if value.is_null() {
        return;
    }
    ids(value, &["runAsUser", "runAsGroup"], path, errors);
    if at(value, &["allowPrivilegeEscalation"]) == &Value::Bool(false) {
        if at(value, &["privileged"]) == &Value::Bool(true) {
            let words = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, value, words);
        }
        // As upstream, which knows it by this spelling alone (`ValidateSecurityContext`).
        if list_at(value, &["capabilities", "add"]).iter().any(|c| c == "CAP_SYS_ADMIN") {
            let words = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, value, words);
        }
    }
    one_of(value, "procMount", &["Default", "Unmasked"], false, path, errors);
    if host_users && str_at(value, &["procMount"]) == "Unmasked" {
        errors.invalid(&path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
    }
    profiles(value, path, errors);
}

/// Users and groups.
pub(super) fn ids(value: &Value, keys: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    for key in keys {
        if let Some(id) = int_at(value, &[key])
            && !(0..=i64::from(i32::MAX)).contains(&id)
        {
            errors.invalid(&path.child(key), id, "must be between 0 and 2147483647, inclusive");
        }
    }
}

/// The seccomp and AppArmor profiles of a security context.
pub(super) fn profiles(value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
    for (field, kind) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = at(value, &[field]);
        if profile.is_null() {
            continue;
        }
        let path = path.child(field);
        one_of(profile, "type", &TYPES, true, &path, errors);
        let name = at(profile, &["localhostProfile"]);
        let at_name = path.child("localhostProfile");
        match (str_at(profile, &["type"]), name.as_str()) {
            ("Localhost", None | Some("")) => {
                errors.required(&at_name, format!("must be set when {kind} type is Localhost"));
            }
            ("Localhost", Some(name)) if kind == "seccomp" => local_descending_path(name, &at_name, errors),
            ("Localhost", Some(name)) if name.trim() != name => {
                errors.invalid(&at_name, name, "must not be padded with whitespace");
            }
            ("Localhost", Some(name)) if name.len() > LONGEST_PROFILE => errors.too_long(&at_name, LONGEST_PROFILE),
            ("Localhost", Some(_)) | (_, None) => {}
            (_, Some(name)) => {
                errors.invalid(&at_name, name, format!("can only be set when {kind} type is Localhost"));
            }
        }
    }
}
