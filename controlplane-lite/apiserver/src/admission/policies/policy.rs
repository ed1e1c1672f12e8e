//! Policies and bindings as they are written, with their expressions compiled.

use serde_json::Value;

use super::constraints::Constraints;
use crate::expressions::{Compiled, Rule, Scope, Variable, compile};
use scheme::access::{at, list_at, str_at};
use scheme::expressions::Purpose;

/// A policy.
#[derive(Debug)]
pub(super) struct Policy {
    /// Its uid and version: it is read again when they change.
    pub state: (String, String),
    pub name: String,
    /// Whether a failure admits.
    pub ignores: bool,
    pub constraints: Constraints,
    /// Version and kind of its parameters.
    pub params: Option<(String, String)>,
    pub conditions: Vec<Rule>,
    pub variables: Vec<Variable>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<Annotation>,
    pub mutations: Vec<Mutation>,
    /// Whether it is asked again when others changed the object after it.
    pub reinvoke: bool,
}

/// A rule that must hold.
#[derive(Debug)]
pub(super) struct Validation {
    pub rule: Rule,
    /// What is said if it does not.
    pub message: String,
    pub says: Option<Rule>,
    pub reason: String,
}

/// A value for who audits.
#[derive(Debug)]
pub(super) struct Annotation {
    pub key: String,
    pub rule: Rule,
}

/// A change.
#[derive(Debug)]
pub(super) struct Mutation {
    /// Whether it is a list of operations; else it is fields to apply.
    pub operations: bool,
    pub rule: Rule,
}

/// A binding.
#[derive(Debug)]
pub(super) struct Binding {
    pub name: String,
    pub policy: String,
    pub actions: Vec<String>,
    pub constraints: Option<Constraints>,
    /// `paramRef`.
    pub params: Value,
}

/// The state of an object, which changes with it.
pub(super) fn state(object: &Value) -> (String, String) {
    let text = |field: &str| str_at(object, &["metadata", field]).to_owned();
    (text("uid"), text("resourceVersion"))
}

impl Policy {
    /// Reads a policy.
    pub(super) fn read(object: &Value, mutating: bool) -> Self {
        let spec = at(object, &["spec"]);
        let text = |field: &str| str_at(spec, &[field]);
        let param = at(spec, &["paramKind"]);
        let params = (!param.is_null())
            .then(|| (str_at(param, &["apiVersion"]).to_owned(), str_at(param, &["kind"]).to_owned()));
        let mut variables: Vec<Variable> = Vec::new();
        for variable in list_at(spec, &["variables"]) {
            let scope = Scope { params: params.is_some(), mutation: mutating, variables: &variables };
            let variable = Variable::new(str_at(variable, &["name"]), str_at(variable, &["expression"]), &scope);
            variables.push(variable);
        }
        let scope = Scope { params: params.is_some(), mutation: mutating, variables: &variables };
        let rule =
            |text: &str, purpose: Purpose| Rule { text: text.to_owned(), program: compile(text, purpose, &scope) };
        let of = |entry: &Value, field: &str, purpose: Purpose| rule(str_at(entry, &[field]), purpose);
        let validation = |entry: &Value| Validation {
            rule: of(entry, "expression", Purpose::Validation),
            message: str_at(entry, &["message"]).trim().to_owned(),
            says: Some(str_at(entry, &["messageExpression"]))
                .filter(|text| !text.is_empty())
                .map(|text| rule(text, Purpose::Message)),
            reason: str_at(entry, &["reason"]).to_owned(),
        };
        let annotation = |entry: &Value| Annotation {
            key: str_at(entry, &["key"]).to_owned(),
            rule: of(entry, "valueExpression", Purpose::AuditAnnotation),
        };
        let mutation = |entry: &Value| {
            let operations = str_at(entry, &["patchType"]) == "JSONPatch";
            let (field, purpose) = if operations {
                ("jsonPatch", Purpose::JsonPatch)
            } else {
                ("applyConfiguration", Purpose::ApplyConfiguration)
            };
            Mutation { operations, rule: of(at(entry, &[field]), "expression", purpose) }
        };
        let condition = |entry: &Value| of(entry, "expression", Purpose::MatchCondition);
        Self {
            state: state(object),
            name: str_at(object, &["metadata", "name"]).to_owned(),
            ignores: text("failurePolicy") == "Ignore",
            constraints: Constraints::read(at(spec, &["matchConstraints"]), false),
            conditions: list_at(spec, &["matchConditions"]).iter().map(condition).collect(),
            validations: list_at(spec, &["validations"]).iter().map(validation).collect(),
            annotations: list_at(spec, &["auditAnnotations"]).iter().map(annotation).collect(),
            mutations: list_at(spec, &["mutations"]).iter().map(mutation).collect(),
            reinvoke: text("reinvocationPolicy") == "IfNeeded",
            params,
            variables,
        }
    }
}

impl Binding {
    /// Reads a binding.
    pub(super) fn read(object: &Value) -> Self {
        let spec = at(object, &["spec"]);
        let actions = list_at(spec, &["validationActions"]).iter().filter_map(Value::as_str).map(str::to_owned);
        let resources = at(spec, &["matchResources"]);
        Self {
            name: str_at(object, &["metadata", "name"]).to_owned(),
            policy: str_at(spec, &["policyName"]).to_owned(),
            actions: actions.collect(),
            constraints: (!resources.is_null()).then(|| Constraints::read(resources, true)),
            params: at(spec, &["paramRef"]).clone(),
        }
    }
}

/// The program of a rule.
///
/// # Errors
/// That it does not compile.
pub(super) fn program(compiled: &Compiled) -> Result<&cel::Program, String> {
    compiled.as_ref().map_err(|why| format!("compilation error: {why}"))
}
