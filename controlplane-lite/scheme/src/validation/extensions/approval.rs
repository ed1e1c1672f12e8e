//! Groups of the Kubernetes community, whose definitions have to say that somebody approved of them
//! (k8s.io/apiextensions-apiserver/pkg/apihelpers/helpers.go).

use serde_json::Value;

use crate::access::{at, str_at};
use crate::crd::names::Condition;
use crate::field::{FieldErrors, Path, go_quote};
use crate::validation::endpoint::Url;

const ANNOTATION: &str = "api-approved.kubernetes.io";
const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Invalid,
    Approved,
    Bypassed,
    Missing,
}

fn state(annotation: &str) -> State {
    if annotation.is_empty() {
        return State::Missing;
    }
    if annotation.starts_with("unapproved") {
        return State::Bypassed;
    }
    match Url::parse(annotation) {
        Ok(url) if !url.host.is_empty() && !url.scheme.is_empty() => State::Approved,
        _ => State::Invalid,
    }
}

fn is_protected(group: &str) -> bool {
    let ends = |suffix: &str| group.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    ends("k8s.io") || ends("kubernetes.io")
}

fn annotation(crd: &Value) -> &str {
    at(crd, &["metadata", "annotations"])[ANNOTATION].as_str().unwrap_or("")
}

/// What a definition of such a group is told of its approval
/// (k8s.io/apiextensions-apiserver/pkg/controller/apiapproval/apiapproval_controller.go).
#[must_use]
pub fn condition(crd: &Value) -> Option<Condition> {
    if !is_protected(str_at(crd, &["spec", "group"])) {
        return None;
    }
    let said = annotation(crd);
    let must = format!("protected groups must have approval annotation \"{ANNOTATION}\"");
    let (status, reason, message) = match state(said) {
        State::Missing => ("False", "MissingAnnotation", format!("{must}, {SEE}")),
        State::Bypassed => ("False", "UnapprovedAnnotation", format!("not approved: {}", go_quote(said))),
        State::Approved => ("True", "ApprovedAnnotation", format!("approved in {said}")),
        State::Invalid => {
            let either = format!("{must} with either a URL or a reason starting with \"unapproved\", {SEE}");
            ("False", "InvalidAnnotation", either)
        }
    };
    Some(Condition::new("KubernetesAPIApprovalPolicyConformant", status, reason, &message))
}

/// What changed nothing is not refused, so that a definition without approval can be kept up.
pub(super) fn check(crd: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    if !is_protected(str_at(crd, &["spec", "group"])) {
        return;
    }
    let now = state(annotation(crd));
    if old.is_some_and(|old| state(annotation(old)) == now) {
        return;
    }
    let metadata = Path::new("metadata");
    let annotations = metadata.child("annotations");
    let path = annotations.key(ANNOTATION);
    let must = format!("protected groups must have approval annotation \"{ANNOTATION}\"");
    match now {
        State::Approved | State::Bypassed => {}
        State::Missing => errors.required(&path, format!("{must}, {SEE}")),
        State::Invalid => errors.invalid(
            &path,
            annotation(crd),
            format!("{must} with either a URL or a reason starting with \"unapproved\", {SEE}"),
        ),
    }
}
