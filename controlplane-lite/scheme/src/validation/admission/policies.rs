//! Policies and their bindings.

use std::collections::HashSet;

use serde_json::Value;

use super::{Expressions, FAILURE_POLICIES, REINVOCATION_POLICIES, choice, match_conditions, rules};
use crate::access::{at, list_at, str_at};
use crate::crd::same;
use crate::expressions::{ExpressionCheck, Purpose};
use crate::field::{FieldErrors, Path};
use crate::jsonpath::Template;
use crate::meta::{self, NameRule};
use crate::selector;
use crate::validation::{conditions, dns_subdomain};

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");
const MAX_ANNOTATIONS: usize = 20;
/// Bytes of the expression of an annotation's value.
const MAX_ANNOTATION: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// What both kinds of policies are checked with.
struct Policy<'a> {
    spec: &'a Value,
    old: Option<&'a Value>,
    expressions: Expressions<'a>,
}

impl<'a> Policy<'a> {
    fn new(policy: &'a Value, old: Option<&'a Value>, check: Option<&'a ExpressionCheck>) -> Self {
        let spec = at(policy, &["spec"]);
        let params = !at(spec, &["paramKind"]).is_null();
        let expressions = Expressions { check, params, variables: list_at(spec, &["variables"]) };
        Self { spec, old: old.map(|old| at(old, &["spec"])), expressions }
    }

    /// The expressions in a field of the entries of a stored list.
    fn stored(&self, list: &str, field: &str) -> HashSet<&'a str> {
        let entries = self.old.map_or(&[][..], |old| list_at(old, &[list]));
        entries.iter().map(|entry| str_at(entry, &[field])).filter(|text| !text.is_empty()).collect()
    }

    /// Whether what conditions say and depend on is as it was.
    fn same_conditions(&self) -> bool {
        let same = |old, field: &str| same(at(self.spec, &[field]), at(old, &[field]));
        self.old.is_some_and(|old| same(old, "paramKind") && same(old, "matchConditions"))
    }

    fn common(&self, mutating: bool, errors: &mut FieldErrors) {
        if at(self.spec, &["failurePolicy"]).is_null() {
            errors.required(&SPEC.child("failurePolicy"), "");
        }
        choice(self.spec, "failurePolicy", &FAILURE_POLICIES, &SPEC, errors);
        param_kind(at(self.spec, &["paramKind"]), &SPEC.child("paramKind"), errors);
        let path = SPEC.child("matchConstraints");
        let constraints = at(self.spec, &["matchConstraints"]);
        if constraints.is_null() {
            errors.required(&path, "");
        } else {
            rules::match_resources(constraints, &path, errors);
            if list_at(constraints, &["resourceRules"]).is_empty() {
                errors.required(&path.child("resourceRules"), "");
            }
            if mutating {
                rules::mutating(constraints, &path, errors);
            }
        }
        if !self.same_conditions() {
            let conditions = list_at(self.spec, &["matchConditions"]);
            let stored = self.stored("matchConditions", "expression");
            match_conditions(conditions, self.expressions, &stored, &SPEC.child("matchConditions"), errors);
        }
        self.variables(errors);
    }

    fn variables(&self, errors: &mut FieldErrors) {
        // Upstream asks here, too, which rules are stored.
        let stored = self.stored("validations", "expression");
        let path = SPEC.child("variables");
        let variables = list_at(self.spec, &["variables"]);
        for (place, variable) in variables.iter().enumerate() {
            let path = path.index(place);
            let name = str_at(variable, &["name"]);
            if name.trim().is_empty() {
                errors.required(&path.child("name"), "name is not specified");
            } else if !is_identifier(name) {
                errors.invalid(&path.child("name"), name, "name is not a valid CEL identifier");
            }
            let text = str_at(variable, &["expression"]);
            if text.trim().is_empty() {
                errors.required(&path.child("expression"), "expression is not specified");
            } else {
                // It may use those before it.
                let before = Expressions { variables: &variables[..place], ..self.expressions };
                before.check(text, Purpose::Variable, stored.contains(text), &path.child("expression"), errors);
            }
        }
    }
}

/// A new or changed ValidatingAdmissionPolicy.
pub(crate) fn validating_policy(
    policy: &Value,
    old: Option<&Value>,
    check: Option<&ExpressionCheck>,
    errors: &mut FieldErrors,
) {
    const NEITHER: &str = "validations or auditAnnotations must contain at least one item";
    let name = str_at(policy, &["metadata", "name"]);
    let policy = Policy::new(policy, old, check);
    policy.common(false, errors);
    let validations = list_at(policy.spec, &["validations"]);
    let annotations = list_at(policy.spec, &["auditAnnotations"]);
    if validations.is_empty() && annotations.is_empty() {
        errors.required(&SPEC.child("validations"), NEITHER);
        errors.required(&SPEC.child("auditAnnotations"), NEITHER);
        return;
    }
    let stored = (policy.stored("validations", "expression"), policy.stored("validations", "messageExpression"));
    let path = SPEC.child("validations");
    for (place, rule) in validations.iter().enumerate() {
        validation(rule, policy.expressions, (&stored.0, &stored.1), &path.index(place), errors);
    }
    audit_annotations(name, annotations, &policy, errors);
}

fn validation(
    rule: &Value,
    expressions: Expressions<'_>,
    (stored, stored_messages): (&HashSet<&str>, &HashSet<&str>),
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let text = str_at(rule, &["expression"]);
    if text.trim().is_empty() {
        errors.required(&path.child("expression"), "expression is not specified");
    } else {
        expressions.check(text, Purpose::Validation, stored.contains(text), &path.child("expression"), errors);
    }
    let says = str_at(rule, &["messageExpression"]);
    let path_of = path.child("messageExpression");
    if !says.is_empty() && says.trim().is_empty() {
        errors.invalid(&path_of, says, "must be non-empty if specified");
    } else if !says.is_empty() {
        expressions.check(says, Purpose::Message, stored_messages.contains(says), &path_of, errors);
    }
    let message = str_at(rule, &["message"]);
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.child("message"), message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&path.child("message"), message, "message must not contain line breaks");
    }
    choice(rule, "reason", &REASONS, path, errors);
}

fn audit_annotations(name: &str, annotations: &[Value], policy: &Policy<'_>, errors: &mut FieldErrors) {
    let path = SPEC.child("auditAnnotations");
    if annotations.len() > MAX_ANNOTATIONS {
        errors.invalid(&path, annotations, format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"));
    }
    let stored = policy.stored("auditAnnotations", "valueExpression");
    let mut keys = HashSet::new();
    for (place, annotation) in annotations.iter().enumerate() {
        let path = path.index(place);
        let key = str_at(annotation, &["key"]);
        if name.is_empty() {
            errors.invalid(&path.child("key"), key, "requires metadata.name be non-empty");
        } else {
            let full = format!("{name}/{key}");
            for problem in meta::qualified_name(&full) {
                errors.invalid(&path.child("key"), &full, problem);
            }
        }
        let (value, path_of) = (str_at(annotation, &["valueExpression"]), path.child("valueExpression"));
        if value.trim().is_empty() {
            errors.required(&path_of, "valueExpression is not specified");
        } else if value.trim().len() > MAX_ANNOTATION {
            errors.required(&path_of, format!("must not exceed {MAX_ANNOTATION} bytes in length"));
        } else {
            let stored = stored.contains(value);
            policy.expressions.check(value.trim(), Purpose::AuditAnnotation, stored, &path_of, errors);
        }
        if !keys.insert(key) {
            errors.duplicate(&path.child("key"), key);
        }
    }
}

/// A new or changed MutatingAdmissionPolicy.
pub(crate) fn mutating_policy(
    policy: &Value,
    old: Option<&Value>,
    check: Option<&ExpressionCheck>,
    errors: &mut FieldErrors,
) {
    let policy = Policy::new(policy, old, check);
    policy.common(true, errors);
    let mutations = list_at(policy.spec, &["mutations"]);
    let path = SPEC.child("mutations");
    if mutations.is_empty() {
        errors.required(&path, "mutations must contain at least one item");
    }
    for (place, mutation) in mutations.iter().enumerate() {
        self::mutation(mutation, &policy, &path.index(place), errors);
    }
    if str_at(policy.spec, &["reinvocationPolicy"]).is_empty() {
        errors.required(&SPEC.child("reinvocationPolicy"), "");
    } else {
        choice(policy.spec, "reinvocationPolicy", &REINVOCATION_POLICIES, &SPEC, errors);
    }
}

/// A change, by a list of operations or by fields that are applied.
fn mutation(mutation: &Value, policy: &Policy<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    const PATCH: (&str, &str, Purpose) = ("JSONPatch", "jsonPatch", Purpose::JsonPatch);
    const APPLY: (&str, &str, Purpose) = ("ApplyConfiguration", "applyConfiguration", Purpose::ApplyConfiguration);
    let ((name, field, purpose), (_, other, _)) = match str_at(mutation, &["patchType"]) {
        "" => return errors.required(&path.child("patchType"), ""),
        "JSONPatch" => (PATCH, APPLY),
        "ApplyConfiguration" => (APPLY, PATCH),
        unknown => return errors.not_supported(&path.child("patchType"), unknown, &[PATCH.0, APPLY.0]),
    };
    let path_of = path.child(field);
    match at(mutation, &[field]) {
        Value::Null => errors.required(&path_of, format!("must be specified when patchType is {name}")),
        patch => {
            let (text, path) = (str_at(patch, &["expression"]).trim(), path_of.child("expression"));
            let stored = policy.old.map_or(&[][..], |old| list_at(old, &["mutations"]));
            let stored = stored.iter().any(|m| str_at(m, &[field, "expression"]).trim() == text);
            if text.is_empty() {
                errors.required(&path, "");
            } else {
                policy.expressions.check(text, purpose, stored, &path, errors);
            }
        }
    }
    if !at(mutation, &[other]).is_null() {
        let told = format!("{{{other}}}");
        errors.invalid(&path.child(other), told, format!("must not be specified when patchType is {name}"));
    }
}

/// A new or changed binding of either kind.
pub(crate) fn binding(binding: &Value, mutating: bool, errors: &mut FieldErrors) {
    let spec = at(binding, &["spec"]);
    let policy = str_at(spec, &["policyName"]);
    if policy.is_empty() {
        errors.required(&SPEC.child("policyName"), "");
    } else {
        dns_subdomain(policy, &SPEC.child("policyName"), errors);
    }
    param_ref(at(spec, &["paramRef"]), &SPEC.child("paramRef"), errors);
    let resources = at(spec, &["matchResources"]);
    if !resources.is_null() {
        rules::match_resources(resources, &SPEC.child("matchResources"), errors);
        if mutating {
            rules::mutating(resources, &SPEC.child("matchResources"), errors);
        }
    }
    if !mutating {
        actions(list_at(spec, &["validationActions"]), &SPEC.child("validationActions"), errors);
    }
}

fn actions(actions: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    let mut seen = HashSet::new();
    for (place, action) in actions.iter().enumerate() {
        let name = action.as_str().unwrap_or("");
        if !ACTIONS.contains(&name) {
            errors.not_supported(&path.index(place), name, &ACTIONS);
        }
        if !seen.insert(name) {
            errors.duplicate(&path.index(place), name);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.invalid(
            path,
            actions,
            "must not contain both Deny and Warn (repeating the same validation failure information in the API \
             response and headers serves no purpose)",
        );
    }
    if seen.is_empty() {
        errors.required(path, "at least one validation action is required");
    }
}

fn param_kind(kind: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if kind.is_null() {
        return;
    }
    let (version, path_of) = (str_at(kind, &["apiVersion"]), path.child("apiVersion"));
    let parts: Vec<&str> = if version == "/" { Vec::new() } else { version.split('/').collect() };
    match *parts.as_slice() {
        _ if version.is_empty() => errors.required(&path_of, ""),
        [] => errors.invalid(&path_of, version, "version must be specified"),
        [version] => group_version("", version, version, &path_of, errors),
        [group, one] => group_version(group, one, version, &path_of, errors),
        _ => errors.invalid(&path_of, version, format!("unexpected GroupVersion string: {version}")),
    }
    let name = str_at(kind, &["kind"]);
    let problems = meta::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.required(&path.child("kind"), "");
    } else if !problems.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
        errors.invalid(&path.child("kind"), name, detail);
    }
}

fn group_version(group: &str, version: &str, whole: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let problems = if group.is_empty() { Vec::new() } else { meta::dns1123_subdomain(group) };
    if !problems.is_empty() {
        errors.invalid(path, group, problems.join(","));
    }
    let problems = meta::dns1035_label(version);
    if version.is_empty() {
        errors.invalid(path, whole, "version must be specified");
    } else if !problems.is_empty() {
        errors.invalid(path, version, problems.join(","));
    }
}

/// A name as CEL has them.
fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    name.bytes().next().is_some_and(|first| letter(&first))
        && name.bytes().all(|byte| letter(&byte) || byte.is_ascii_digit())
        && !RESERVED.contains(&name)
}

/// A changed status of a ValidatingAdmissionPolicy.
pub(crate) fn policy_status(policy: &Value, errors: &mut FieldErrors) {
    let status = at(policy, &["status"]);
    let path = STATUS.child("typeChecking");
    let path = path.child("expressionWarnings");
    for (place, warning) in list_at(status, &["typeChecking", "expressionWarnings"]).iter().enumerate() {
        let path = path.index(place);
        if str_at(warning, &["warning"]).is_empty() {
            errors.required(&path.child("warning"), "");
        }
        let (field, path) = (str_at(warning, &["fieldRef"]).trim(), path.child("fieldRef"));
        match Template::expression(field) {
            _ if field.is_empty() => errors.required(&path, ""),
            Ok(_) => {}
            Err(why) => errors.invalid(&path, field, format!("invalid JSONPath: {why}")),
        }
    }
    conditions::check(list_at(status, &["conditions"]), &STATUS.child("conditions"), errors);
}

/// A reference to parameters: by name, or by a selector.
fn param_ref(reference: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if reference.is_null() {
        return;
    }
    const EITHER: &str = "name and selector are mutually exclusive";
    let (name, selector) = (str_at(reference, &["name"]), at(reference, &["selector"]));
    if !name.is_empty() {
        for problem in NameRule::PathSegment.check(name, false) {
            errors.invalid(&path.child("name"), name, problem);
        }
        if !selector.is_null() {
            errors.forbidden(&path.child("name"), EITHER);
        }
    }
    if !selector.is_null() {
        selector::validate_object(selector, &path.child("selector"), errors);
        if !name.is_empty() {
            errors.forbidden(&path.child("selector"), EITHER);
        }
    }
    if name.is_empty() && selector.is_null() {
        errors.required(path, "one of name or selector must be specified");
    }
    if str_at(reference, &["parameterNotFoundAction"]).is_empty() {
        errors.required(&path.child("parameterNotFoundAction"), "");
    } else {
        choice(reference, "parameterNotFoundAction", &["Deny", "Allow"], path, errors);
    }
}
