//! admissionregistration.k8s.io (`pkg/apis/admissionregistration/validation/validation.go`): configurations of
//! webhooks; policies and rules are beside. What an expression says is for an [`ExpressionCheck`].

use std::collections::HashSet;

use serde_json::Value;

use super::endpoint;
use crate::access::{at, int_at, list_at, str_at};
use crate::crd::same;
use crate::expressions::{Expression, ExpressionCheck, Purpose};
use crate::field::{FieldErrors, Path};
use crate::{meta, selector};

mod policies;
mod rules;

pub(crate) use policies::{binding, mutating_policy, policy_status, validating_policy};

const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
/// Versions of AdmissionReview that webhooks are asked in.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const MAX_MATCH_CONDITIONS: usize = 64;

/// Expressions, and who is asked about them.
#[derive(Clone, Copy)]
struct Expressions<'a> {
    check: Option<&'a ExpressionCheck>,
    params: bool,
    variables: &'a [Value],
}

impl Expressions<'_> {
    fn check(&self, text: &str, purpose: Purpose, stored: bool, path: &Path<'_>, errors: &mut FieldErrors) {
        if let Some(check) = self.check {
            let expression = Expression { text, purpose, params: self.params, variables: self.variables, stored };
            check(expression, path, errors);
        }
    }
}

/// What holds for one write of webhooks.
struct Options<'a> {
    skip_match_conditions: bool,
    no_side_effects: bool,
    known_review_version: bool,
    unique_names: bool,
    any_label_value: bool,
    expressions: Expressions<'a>,
    /// Expressions that are stored.
    stored: HashSet<&'a str>,
}

impl<'a> Options<'a> {
    /// A rule that what is stored breaks does not hold.
    fn new(new: &'a Value, old: Option<&'a Value>, check: Option<&'a ExpressionCheck>) -> Self {
        let stored = old.map_or(&[][..], |old| list_at(old, &["webhooks"]));
        let conditions = |webhook: &'a Value| list_at(webhook, &["matchConditions"]);
        let unchanged = |old: &Value| {
            let (new, old) = (list_at(new, &["webhooks"]), list_at(old, &["webhooks"]));
            let same = |(a, b): (&Value, &Value)| same(at(a, &["matchConditions"]), at(b, &["matchConditions"]));
            new.len() == old.len() && new.iter().zip(old).all(same)
        };
        let mut names = HashSet::new();
        Self {
            skip_match_conditions: old.is_some_and(unchanged),
            no_side_effects: stored.iter().all(|w| NO_SIDE_EFFECTS.contains(&str_at(w, &["sideEffects"]))),
            known_review_version: stored.iter().all(|webhook| {
                let versions = list_at(webhook, &["admissionReviewVersions"]);
                versions.is_empty() || versions.iter().any(is_known_version)
            }),
            unique_names: stored.iter().all(|webhook| names.insert(str_at(webhook, &["name"]))),
            any_label_value: stored.iter().any(|webhook| {
                let mut problems = FieldErrors::new();
                for field in ["namespaceSelector", "objectSelector"] {
                    selector::validate_object(at(webhook, &[field]), &Path::ROOT, &mut problems);
                }
                !problems.is_empty()
            }),
            expressions: Expressions { check, params: false, variables: &[] },
            stored: stored.iter().flat_map(conditions).map(|c| str_at(c, &["expression"])).collect(),
        }
    }
}

fn is_known_version(version: &Value) -> bool {
    version.as_str().is_some_and(|version| REVIEW_VERSIONS.contains(&version))
}

/// A new or changed configuration of webhooks, of either kind.
pub(crate) fn webhooks(new: &Value, old: Option<&Value>, check: Option<&ExpressionCheck>, errors: &mut FieldErrors) {
    let options = Options::new(new, old, check);
    let path = Path::new("webhooks");
    let mut names = HashSet::new();
    for (place, each) in list_at(new, &["webhooks"]).iter().enumerate() {
        let path = path.index(place);
        webhook(each, &options, &path, errors);
        review_versions(each, &options, &path.child("admissionReviewVersions"), errors);
        let name = str_at(each, &["name"]);
        if options.unique_names && !name.is_empty() && !names.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
}

fn webhook(webhook: &Value, options: &Options<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    full_name(str_at(webhook, &["name"]), &path.child("name"), errors);
    rules::list(list_at(webhook, &["rules"]), &path.child("rules"), errors);
    choice(webhook, "failurePolicy", &FAILURE_POLICIES, path, errors);
    choice(webhook, "matchPolicy", &MATCH_POLICIES, path, errors);
    let classes = if options.no_side_effects { &NO_SIDE_EFFECTS[..] } else { &SIDE_EFFECTS };
    if at(webhook, &["sideEffects"]).is_null() {
        errors.required(&path.child("sideEffects"), format!("must specify one of {}", classes.join(", ")));
    }
    choice(webhook, "sideEffects", classes, path, errors);
    if let Some(seconds) = int_at(webhook, &["timeoutSeconds"])
        && !(1..=30).contains(&seconds)
    {
        errors.invalid(&path.child("timeoutSeconds"), seconds, "the timeout value must be between 1 and 30 seconds");
    }
    for field in ["namespaceSelector", "objectSelector"] {
        selector::validate_with(at(webhook, &[field]), options.any_label_value, &path.child(field), errors);
    }
    choice(webhook, "reinvocationPolicy", &REINVOCATION_POLICIES, path, errors);
    client_config(at(webhook, &["clientConfig"]), &path.child("clientConfig"), errors);
    if !options.skip_match_conditions {
        let conditions = list_at(webhook, &["matchConditions"]);
        let path = path.child("matchConditions");
        match_conditions(conditions, options.expressions, &options.stored, &path, errors);
    }
}

/// A name of at least three labels (`IsFullyQualifiedName`).
fn full_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let problems = meta::dns1123_subdomain(name);
    if name.is_empty() {
        errors.required(path, "");
    } else if !problems.is_empty() {
        errors.invalid(path, name, problems.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

/// A field that is not set, or one of these.
fn choice(object: &Value, field: &str, allowed: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    let value = at(object, &[field]);
    if !value.is_null() && !value.as_str().is_some_and(|value| allowed.contains(&value)) {
        errors.not_supported(&path.child(field), value, allowed);
    }
}

fn client_config(config: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match (at(config, &["url"]), at(config, &["service"])) {
        (Value::String(url), Value::Null) => endpoint::address(url, &path.child("url"), errors),
        (Value::Null, service) if !service.is_null() => {
            endpoint::service(service, &path.child("service"), errors);
        }
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn review_versions(webhook: &Value, options: &Options<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let versions = list_at(webhook, &["admissionReviewVersions"]);
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return errors.required(path, format!("must specify one of {known}"));
    }
    let mut seen = HashSet::new();
    for (place, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or("");
        if !seen.insert(version) {
            errors.invalid(&path.index(place), version, "duplicate version");
            continue;
        }
        for problem in meta::dns1035_label(version) {
            errors.invalid(&path.index(place), version, problem);
        }
    }
    if options.known_review_version && !versions.iter().any(is_known_version) {
        errors.invalid(path, versions, format!("must include at least one of {known}"));
    }
}

/// Conditions of a webhook or a policy.
fn match_conditions(
    conditions: &[Value],
    expressions: Expressions<'_>,
    stored: &HashSet<&str>,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    // They are judged before a policy has variables.
    let expressions = Expressions { variables: &[], ..expressions };
    if conditions.len() > MAX_MATCH_CONDITIONS {
        errors.too_many(path, conditions.len(), MAX_MATCH_CONDITIONS);
    }
    let mut names = HashSet::new();
    for (place, condition) in conditions.iter().enumerate() {
        let path = path.index(place);
        let text = str_at(condition, &["expression"]).trim();
        if text.is_empty() {
            errors.required(&path.child("expression"), "");
        } else {
            let path = path.child("expression");
            expressions.check(text, Purpose::MatchCondition, stored.contains(text), &path, errors);
        }
        let name = str_at(condition, &["name"]);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
            continue;
        }
        for problem in meta::qualified_name(name) {
            errors.invalid(&path.child("name"), name, problem);
        }
        if !names.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
}

#[cfg(test)]
mod tests;
