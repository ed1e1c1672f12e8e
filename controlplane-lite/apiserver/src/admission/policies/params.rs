//! The objects that a binding gives its policy as parameters (`CollectParams` of
//! `policy/generic/policy_dispatcher.go`).

use std::sync::Arc;

use serde_json::Value;

use super::policy::{Binding, Policy};
use crate::admission::{Request, View};
use scheme::Kind;
use scheme::access::{at, str_at};
use scheme::selector::LabelSelector;

/// The kind of a policy's parameters, if it has any.
///
/// # Errors
/// If there is no such kind.
pub(super) fn kind(policy: &Policy, view: &dyn View) -> Result<Option<Arc<Kind>>, String> {
    let Some((version, kind)) = &policy.params else { return Ok(None) };
    let found = view.scheme().by_api_version(version, kind).cloned();
    found.map(Some).ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{}, Kind={kind}'", version_text(version))
    })
}

/// A version as Go writes one of a group.
fn version_text(version: &str) -> String {
    if version.contains('/') { version.to_owned() } else { format!("/{version}") }
}

/// Each object to evaluate a policy with; none stands for no parameters.
///
/// # Errors
/// Why the binding is wrong.
pub(super) async fn collect(
    kind: Option<&Kind>,
    binding: &Binding,
    request: &Request<'_>,
    view: &dyn View,
) -> Result<Vec<Option<Value>>, String> {
    let reference = &binding.params;
    let Some(kind) = kind.filter(|_| !reference.is_null()) else { return Ok(vec![None]) };
    let (own, name) = (str_at(reference, &["namespace"]), str_at(reference, &["name"]));
    let namespace = match (kind.namespaced, own) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
        (true, "") if request.namespace.is_empty() => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
        (true, "") => request.namespace,
        (true, own) => own,
    };
    let (group, plural) = (kind.storage_group(), kind.storage_plural());
    let selector = at(reference, &["selector"]);
    let mut found = Vec::new();
    if !name.is_empty() {
        if !selector.is_null() {
            return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned());
        }
        found.extend(view.get(group, plural, namespace, name));
    } else if selector.is_null() {
        return Err("one of name or selector must be provided".to_owned());
    } else {
        let selector = LabelSelector::from_object(selector).map_err(|why| why.to_string())?;
        view.each_in(group, plural, namespace, &mut |object| {
            if selector.matches_object(object) {
                found.push(object.clone());
            }
        });
    }
    if found.is_empty() && str_at(reference, &["parameterNotFoundAction"]) == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let mut params = Vec::with_capacity(found.len());
    for object in found {
        params.push(Some(form(kind, object, view).await?));
    }
    Ok(params)
}

/// A stored object in the version of the parameters.
async fn form(kind: &Kind, mut object: Value, view: &dyn View) -> Result<Value, String> {
    let Some(conversion) = &kind.conversion else { return Ok(object) };
    if kind.custom && object["apiVersion"] != *kind.api_version() {
        object = view.convert(kind, object).await?;
    }
    Ok((*conversion.from_storage)(object))
}
