//! PodSecurity: a namespace's labels say how strict it is with pods. Pods that violate the enforced level are refused;
//! the warned level is told to who writes pods and their templates. (Nobody keeps an audit log that the audited level
//! could be written to: who sets it is told.) Standards are those of this version, whatever version a label names.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Operation, Refusal, Request, View};
use crate::warnings;
use scheme::access::{at, str_at};
use scheme::{FieldErrors, Path};

mod checks;
mod policy;

use checks::{Violation, violations};
use policy::{Level, Mode, Policy};

/// Lines about existing pods at most.
const EXISTING: usize = 20;

pub(super) fn validate(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let Some(object) = object else { return Ok(()) };
    if request.operation == Operation::Delete {
        return Ok(());
    }
    match (&*request.kind.group, &*request.kind.plural, request.subresource) {
        ("", "namespaces", "") => namespace(request, object, view),
        ("", "pods", "" | "ephemeralcontainers" | "resize") => pod(request, object, view),
        (group, plural, "") => {
            if let Some(template) = template(group, plural, object) {
                warn_of(template, &of_namespace(request.namespace, view));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn of_namespace(namespace: &str, view: &dyn View) -> Policy {
    let found = view.get("", "namespaces", "", namespace);
    // Labels that cannot be understood are as strict as can be.
    found.map_or(Policy::default(), |ns| {
        Policy::of(at(&ns, &["metadata", "labels"])).unwrap_or_else(|(policy, _)| policy)
    })
}

/// The pods that a controller's object makes.
fn template<'o>(group: &str, plural: &str, object: &'o Value) -> Option<&'o Value> {
    let path: &[&str] = match (group, plural) {
        ("", "podtemplates") => &["template"],
        ("", "replicationcontrollers") | ("batch", "jobs") => &["spec", "template"],
        ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets") => &["spec", "template"],
        ("batch", "cronjobs") => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    };
    Some(at(object, path)).filter(|template| template.is_object())
}

fn pod(request: &Request<'_>, pod: &Value, view: &dyn View) -> Result<(), Refusal> {
    if request.old.is_some_and(|old| !significant(pod, old)) {
        return Ok(());
    }
    let policy = of_namespace(request.namespace, view);
    let enforced = policy.of_mode(Mode::Enforce);
    let violated = violations(pod, enforced.level);
    if !violated.is_empty() {
        return Err(request.forbidden(format!(
            "violates PodSecurity {:?}: {}",
            enforced.to_string(),
            print(&violated)
        )));
    }
    warn_of(pod, &policy);
    Ok(())
}

fn warn_of(pod: &Value, policy: &Policy) {
    let warned = policy.of_mode(Mode::Warn);
    let violated = violations(pod, warned.level);
    if !violated.is_empty() {
        warnings::add(format!("would violate PodSecurity {:?}: {}", warned.to_string(), print(&violated)));
    }
}

/// Whether an update changes more than what is no matter of security.
fn significant(new: &Value, old: &Value) -> bool {
    let rest = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
                container.remove("resources");
            }
        }
        if let Some(spec) = spec.as_object_mut() {
            for field in ["tolerations", "activeDeadlineSeconds", "schedulingGates", "nodeSelector", "affinity"] {
                spec.remove(field);
            }
        }
        spec
    };
    rest(new) != rest(old) || apparmor_annotations(new) != apparmor_annotations(old)
}

fn apparmor_annotations(pod: &Value) -> Vec<(&String, &Value)> {
    let all = at(pod, &["metadata", "annotations"]).as_object().into_iter().flatten();
    all.filter(|(key, _)| key.starts_with(checks::APPARMOR)).collect()
}

fn print(violated: &[Violation]) -> String {
    violated.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Labels have to mean something, and who makes a namespace stricter is told of the pods in it that would be refused.
fn namespace(request: &Request<'_>, object: &Value, view: &dyn View) -> Result<(), Refusal> {
    let labels = |namespace: &Value| at(namespace, &["metadata", "labels"]).clone();
    let policy = match Policy::of(&labels(object)) {
        Ok(policy) => policy,
        // What was stored so is not mended by refusing other changes.
        Err((policy, _)) if request.old.is_some_and(|old| labels(old) == labels(object)) => policy,
        Err((_, problems)) => return Err(invalid(request.name, &problems)),
    };
    if policy.of_mode(Mode::Audit).level != Level::Privileged {
        warnings::add("pod-security.kubernetes.io/audit: this server keeps no audit log, so nothing is recorded");
    }
    let Some(old) = request.old else { return Ok(()) };
    let before = Policy::of(&labels(old)).unwrap_or_else(|(policy, _)| policy);
    let (now, then) = (policy.of_mode(Mode::Enforce), before.of_mode(Mode::Enforce));
    if now.level <= then.level {
        return Ok(());
    }
    let name = str_at(object, &["metadata", "name"]);
    let mut by_violation: BTreeMap<String, Vec<String>> = BTreeMap::new();
    view.each_in("", "pods", name, &mut |pod| {
        let violated = violations(pod, now.level);
        if !violated.is_empty() {
            let reasons = violated.iter().map(|v| v.reason).collect::<Vec<_>>().join(", ");
            by_violation.entry(reasons).or_default().push(str_at(pod, &["metadata", "name"]).to_owned());
        }
    });
    if !by_violation.is_empty() {
        warnings::add(format!(
            "existing pods in namespace {name:?} violate the new PodSecurity enforce level {:?}",
            now.to_string()
        ));
    }
    for (reasons, mut pods) in by_violation.into_iter().take(EXISTING) {
        pods.sort_unstable();
        warnings::add(match pods.as_slice() {
            [only] => format!("{only}: {reasons}"),
            [first, _] => format!("{first} (and 1 other pod): {reasons}"),
            [first, rest @ ..] => format!("{first} (and {} other pods): {reasons}", rest.len()),
            [] => continue,
        });
    }
    Ok(())
}

fn invalid(name: &str, problems: &[(String, String)]) -> Refusal {
    let mut errors = FieldErrors::new();
    let (metadata, labels) = (Path::new("metadata"), "labels");
    for (label, value) in problems {
        let supported = if label.ends_with("-version") {
            "must be \"latest\" or \"v1.x\"".to_owned()
        } else {
            format!("must be one of {}", Level::NAMES.join(", "))
        };
        errors.invalid(&metadata.child(labels).key(label), value.as_str(), supported);
    }
    Refusal::Invalid { group: "", kind: "Namespace", name: name.to_owned(), errors }
}

#[cfg(test)]
mod tests;
