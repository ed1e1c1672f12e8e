//! Questions to the authorizer (`authz.go` of Kubernetes' library, with selectors).

use std::sync::Arc;

use super::{Outcome, Scope, Table};
use crate::error::EvalError;
use crate::library::format;
use crate::value::{Check, Object, Value};

pub(super) const TABLE: Table = &[
    (
        "path",
        ".authorizer_path(kubernetes.authorization.Authorizer, string) -> kubernetes.authorization.PathCheck",
        path,
    ),
    (
        "group",
        ".authorizer_group(kubernetes.authorization.Authorizer, string) -> kubernetes.authorization.GroupCheck",
        group,
    ),
    (
        "serviceAccount",
        ".authorizer_serviceaccount(kubernetes.authorization.Authorizer, string, string) \
         -> kubernetes.authorization.Authorizer",
        service_account,
    ),
    (
        "resource",
        ".groupcheck_resource(kubernetes.authorization.GroupCheck, string) -> kubernetes.authorization.ResourceCheck",
        resource,
    ),
    ("subresource", RESOURCE_SUBRESOURCE, narrowed),
    ("namespace", RESOURCE_NAMESPACE, narrowed),
    ("name", RESOURCE_NAME, narrowed),
    ("fieldSelector", RESOURCE_FIELDS, narrowed),
    ("labelSelector", RESOURCE_LABELS, narrowed),
    (
        "check",
        ".pathcheck_check(kubernetes.authorization.PathCheck, string) -> kubernetes.authorization.Decision
        .resourcecheck_check(kubernetes.authorization.ResourceCheck, string) -> kubernetes.authorization.Decision",
        check,
    ),
    ("errored", ".decision_errored(kubernetes.authorization.Decision) -> bool", decision),
    ("error", ".decision_error(kubernetes.authorization.Decision) -> string", decision),
    ("allowed", ".decision_allowed(kubernetes.authorization.Decision) -> bool", decision),
    ("reason", ".decision_reason(kubernetes.authorization.Decision) -> string", decision),
];

const RESOURCE_SUBRESOURCE: &str = ".resourcecheck_subresource(kubernetes.authorization.ResourceCheck, string) -> \
                                    kubernetes.authorization.ResourceCheck";
const RESOURCE_NAMESPACE: &str = ".resourcecheck_namespace(kubernetes.authorization.ResourceCheck, string) -> \
                                  kubernetes.authorization.ResourceCheck";
const RESOURCE_NAME: &str = ".resourcecheck_name(kubernetes.authorization.ResourceCheck, string) -> \
                             kubernetes.authorization.ResourceCheck";
const RESOURCE_FIELDS: &str = ".authorizer_fieldselector(kubernetes.authorization.ResourceCheck, string) -> \
                               kubernetes.authorization.ResourceCheck";
const RESOURCE_LABELS: &str = ".authorizer_labelselector(kubernetes.authorization.ResourceCheck, string) -> \
                               kubernetes.authorization.ResourceCheck";

/// A check with something more.
fn with(check: &Arc<Check>, change: impl FnOnce(&mut Check)) -> Arc<Check> {
    let mut check = (**check).clone();
    change(&mut check);
    Arc::new(check)
}

fn path<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::Authorizer(authorizer, check)), Value::String(path)] = args else {
        return scope.refuse(args);
    };
    if path.trim().is_empty() {
        return Err(EvalError::new("path must not be empty"));
    }
    let check = with(check, |check| check.path = Some(path.to_string()));
    Ok(Value::Object(Object::PathCheck(*authorizer, check)))
}

fn group<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::Authorizer(authorizer, check)), Value::String(group)] = args else {
        return scope.refuse(args);
    };
    Ok(Value::Object(Object::GroupCheck(*authorizer, with(check, |check| check.group = group.to_string()))))
}

fn service_account<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::Authorizer(authorizer, check)), Value::String(namespace), Value::String(name)] = args
    else {
        return scope.refuse(args);
    };
    if !format::dns_subdomain(name, false).is_empty() {
        return Err(EvalError::new("Invalid service account name"));
    }
    if !format::dns_label(namespace, false).is_empty() {
        return Err(EvalError::new("Invalid service account namespace"));
    }
    let check = with(check, |check| check.service_account = Some((namespace.to_string(), name.to_string())));
    Ok(Value::Object(Object::Authorizer(*authorizer, check)))
}

fn resource<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::GroupCheck(authorizer, check)), Value::String(resource)] = args else {
        return scope.refuse(args);
    };
    if resource.trim().is_empty() {
        return Err(EvalError::new("resource must not be empty"));
    }
    let check = with(check, |check| check.resource = resource.to_string());
    Ok(Value::Object(Object::ResourceCheck(*authorizer, check)))
}

/// A check of a resource with what the function names.
fn narrowed<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::ResourceCheck(authorizer, check)), Value::String(text)] = args else {
        return scope.refuse(args);
    };
    let check = with(check, |check| {
        let field = match scope.name {
            "subresource" => &mut check.subresource,
            "namespace" => &mut check.namespace,
            "name" => &mut check.name,
            "fieldSelector" => &mut check.field_selector,
            _ => &mut check.label_selector,
        };
        *field = text.to_string();
    });
    Ok(Value::Object(Object::ResourceCheck(*authorizer, check)))
}

fn check<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::PathCheck(authorizer, check) | Object::ResourceCheck(authorizer, check)), verb] = args
    else {
        return scope.refuse(args);
    };
    let Value::String(verb) = verb else { return scope.refuse(args) };
    let check = with(check, |check| check.verb = verb.to_string());
    Ok(Value::Object(Object::Decision(Arc::new(authorizer.authorize(&check)))))
}

/// What the function names of a decision.
fn decision<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::Decision(decision))] = args else { return scope.refuse(args) };
    Ok(match scope.name {
        "allowed" => Value::Bool(decision.allowed),
        "errored" => Value::Bool(decision.error.is_some()),
        "reason" => Value::text(decision.reason.as_str()),
        _ => Value::text(decision.error.as_deref().unwrap_or_default()),
    })
}
