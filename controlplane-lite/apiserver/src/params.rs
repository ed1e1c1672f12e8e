//! Who has a policy read objects on the server's behalf, as its parameters, has to be allowed to read them
//! (`authz.go` of `pkg/registry/admissionregistration/*`): what they hold could be read out of the policy's messages.

use serde_json::Value;

use super::call::{Call, valid};
use super::status::ApiError;
use auth::authn::{MASTERS, UserInfo};
use auth::authz::Attributes;
use scheme::access::{at, str_at};
use scheme::{FieldErrors, Path, Scheme};

const GROUP: &str = "admissionregistration.k8s.io";

/// A resource in a group and version; stars for what is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    group: String,
    version: String,
    resource: String,
}

/// Checks a policy or a binding that is otherwise valid. What it reads already is nobody's to grant again.
///
/// # Errors
/// 422 for a caller who may not read the objects himself.
pub fn check(call: &Call, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let kind = &call.resource.kind;
    if kind.group != GROUP || call.user.in_group(MASTERS) {
        return Ok(());
    }
    match &*kind.kind {
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => policy(call, object, old),
        "ValidatingAdmissionPolicyBinding" => binding(call, object, old, "validatingadmissionpolicies"),
        "MutatingAdmissionPolicyBinding" => binding(call, object, old, "mutatingadmissionpolicies"),
        _ => Ok(()),
    }
}

fn policy(call: &Call, policy: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    const FIELD: [&str; 2] = ["spec", "paramKind"];
    let kind = at(policy, &FIELD);
    if kind.is_null() || old.is_some_and(|old| at(old, &FIELD) == kind) {
        return Ok(());
    }
    let read = read(&call.server.registry.served().scheme, kind);
    if may(call, read, "*", "*") {
        return Ok(());
    }
    let why = format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
        printed(&call.user),
        str_at(kind, &["kind"]),
        str_at(kind, &["apiVersion"])
    );
    refuse(call, policy, "paramKind", why)
}

fn binding(call: &Call, binding: &Value, old: Option<&Value>, policies: &str) -> Result<(), ApiError> {
    let reads =
        |binding: &Value| (at(binding, &["spec", "paramRef"]).clone(), at(binding, &["spec", "policyName"]).clone());
    let (reference, policy) = reads(binding);
    if reference.is_null() || old.is_some_and(|old| reads(old) == (reference.clone(), policy.clone())) {
        return Ok(());
    }
    let policies = call.server.registry.get(GROUP, policies);
    let found = policies.and_then(|policies| policies.cache().get("", policy.as_str().unwrap_or("")));
    let found = found.map(|policy| policy.value());
    let kind = found.as_ref().map_or(&Value::Null, |policy| at(policy, &["spec", "paramKind"]));
    let read = read(&call.server.registry.served().scheme, kind);
    if may(call, read, str_at(&reference, &["name"]), str_at(&reference, &["namespace"])) {
        return Ok(());
    }
    let user = printed(&call.user);
    let why = format!("user {user} does not have \"get\" permission on the object referenced by paramRef");
    refuse(call, binding, "paramRef", why)
}

/// What a `paramKind` names: everything where it names nothing that is served.
fn read(scheme: &Scheme, kind: &Value) -> Read {
    let any = || "*".to_owned();
    let version = str_at(kind, &["apiVersion"]);
    if version.is_empty() {
        return Read { group: any(), version: any(), resource: any() };
    }
    let (group, number) = scheme::split_api_version(version);
    let served = scheme.by_api_version(version, str_at(kind, &["kind"])).filter(|kind| !kind.plural.is_empty());
    let resource = served.map_or_else(any, |kind| kind.plural.to_string());
    Read { group: group.to_owned(), version: number.to_owned(), resource }
}

fn may(call: &Call, read: Read, name: &str, namespace: &str) -> bool {
    let asked = Attributes::resource(call.user.clone(), "get", &read.group, &read.resource, namespace);
    let asked = Attributes { version: read.version, name: name.to_owned(), ..asked };
    call.server.authz.authorize(&asked).allowed()
}

/// A user as Go prints the struct.
fn printed(user: &UserInfo) -> String {
    let extra: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.username, user.uid, user.groups.join(" "), extra.join(" "))
}

fn refuse(call: &Call, object: &Value, field: &str, why: String) -> Result<(), ApiError> {
    let mut errors = FieldErrors::new();
    errors.forbidden(&Path::new("spec").child(field), why);
    valid(call.kind_subject(), str_at(object, &["metadata", "name"]), errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_resources_where_they_are_served() {
        let of = |kind: Value| {
            let Read { group, version, resource } = read(scheme::builtin(), &kind);
            [group, version, resource].join(" ")
        };
        assert_eq!(of(json!({"apiVersion": "v1", "kind": "ConfigMap"})), " v1 configmaps");
        assert_eq!(of(json!({"apiVersion": "apps/v1", "kind": "Deployment"})), "apps v1 deployments");
        assert_eq!(of(json!({"apiVersion": "example.com/v1", "kind": "Widget"})), "example.com v1 *");
        assert_eq!(of(json!(null)), "* * *");
    }

    #[test]
    fn users_are_printed_as_go_prints_them() {
        let user = UserInfo { username: "jane".into(), groups: vec!["a".into(), "b".into()], ..UserInfo::default() };
        assert_eq!(printed(&user), "&{jane  [a b] map[]}");
    }
}
