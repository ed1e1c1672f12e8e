//! Evaluates the rules of a schema for an object.

use cel::{Budget, EvalError, PER_CALL_LIMIT, Program, RUNTIME_COST_BUDGET, Value as Val, Variables};
use scheme::{FieldErrorKind, FieldErrors, Path};
use serde_json::Value;

use super::{Compiled, Rules};
use crate::node::{Kind, Node, Rule};
use crate::ratchet::{self, Old};

const EXHAUSTED: &str = "validation failed due to running out of cost budget, no further validation rules will be run";
/// The longest message that an expression may make, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// That nothing more is evaluated.
struct Stop;

/// What is said of a rule that cannot be evaluated.
fn failure(error: &EvalError, told: &str) -> String {
    let error = error.to_string();
    if error.starts_with("no such overload") {
        return format!(
            "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {told}"
        );
    }
    format!("{error} evaluating rule: {told}")
}

/// What is left to spend on an object, and what is wrong with it.
pub(crate) struct Evaluation<'e> {
    left: u64,
    errors: &'e mut FieldErrors,
}

impl<'e> Evaluation<'e> {
    pub(crate) fn new(errors: &'e mut FieldErrors) -> Self {
        Self { left: RUNTIME_COST_BUDGET, errors }
    }

    /// Evaluates all rules for an object.
    pub(crate) fn run(mut self, rules: &Rules, node: &Node, object: &Value, old: Old<'_>) {
        let _ = self.walk((rules, node), object, old, false, &Path::ROOT);
    }

    /// `same`: whether what the value is part of stays as it was.
    fn walk(
        &mut self,
        (rules, node): (&Rules, &Node),
        value: &Value,
        old: Old<'_>,
        same: bool,
        path: &Path<'_>,
    ) -> Result<(), Stop> {
        if value.is_null() {
            return Ok(());
        }
        let same = same || old == Some(value);
        for (rule, compiled) in node.own_rules().iter().zip(&rules.rules) {
            self.rule((rules, node), (rule, compiled), (value, old, same), path)?;
        }
        match value {
            Value::Array(items) => {
                let Some(inner) = rules.items.as_deref().zip(node.items.as_deref()) else { return Ok(()) };
                let before = ratchet::items(node, old);
                for (index, item) in items.iter().enumerate() {
                    let old = before.as_ref().and_then(|before| before.get(item));
                    self.walk(inner, item, old, same, &path.index(index))?;
                }
            }
            Value::Object(fields) => {
                for (name, inner) in &rules.properties {
                    if let Some((value, node)) = fields.get(&**name).zip(node.property(name)) {
                        self.walk((inner, node), value, ratchet::child(old, name), same, &path.child(name))?;
                    }
                }
                if let Some(inner) = rules.additional.as_deref().zip(node.additional_schema()) {
                    for (name, value) in fields.iter().filter(|(name, _)| node.property(name).is_none()) {
                        self.walk(inner, value, ratchet::child(old, name), same, &path.key(name))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rule(
        &mut self,
        (rules, node): (&Rules, &Node),
        (rule, compiled): (&Rule, &Compiled),
        (value, old, same): (&Value, Old<'_>, bool),
        path: &Path<'_>,
    ) -> Result<(), Stop> {
        let kind = node.kind.name();
        let nowhere = Path::new("<nil>");
        let path = if path.to_string().is_empty() { &nowhere } else { path };
        let Some(schema) = &rules.schema else { return Ok(()) };
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => {
                self.errors.invalid(path, kind, format!("rule compile error: {why}"));
                return Ok(());
            }
        };
        let optional = rule.optional_old_self == Some(true);
        let compares = program.refers_to("oldSelf");
        if compares && old.is_none() && !optional {
            return Ok(());
        }
        let Ok(own) = Val::of_json(value, Some(schema)) else { return Ok(()) };
        let before = old.and_then(|old| Val::of_json(old, Some(schema)).ok());
        let before = match (optional, before) {
            (true, Some(before)) => Val::some(before),
            (true, None) => Val::Optional(None),
            (false, before) => before.unwrap_or(Val::Null),
        };
        let variables = Variables::new().with("self", own).with("oldSelf", before);
        let told = if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() };
        let outcome = match self.eval(program, &variables) {
            Some(outcome) => outcome,
            None => return self.stop(path, kind, EXHAUSTED),
        };
        match outcome {
            Ok(Val::Bool(true)) => return Ok(()),
            Ok(_) => {}
            Err(EvalError::CostLimit) => {
                let why = format!(
                    "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {told}",
                    EvalError::CostLimit
                );
                return self.stop(path, kind, &why);
            }
            Err(error) => {
                self.errors.invalid(path, kind, failure(&error, told));
                return Ok(());
            }
        }
        if same && !compares {
            // What was stored already is not refused by a rule that came later.
            return Ok(());
        }
        let message = self.message(rule, compiled, &variables, path, kind)?;
        self.refuse(node, rule, value, path, message);
        Ok(())
    }

    /// Evaluates an expression; none if it cost more than was left.
    fn eval<'a>(&mut self, program: &Program, variables: &Variables<'a>) -> Option<Result<Val<'a>, EvalError>> {
        let budget = Budget::new(PER_CALL_LIMIT);
        let outcome = program.eval(variables, &budget);
        self.left = self.left.checked_sub(budget.cost())?;
        Some(outcome)
    }

    fn stop<T>(&mut self, path: &Path<'_>, kind: &str, why: &str) -> Result<T, Stop> {
        self.errors.invalid(path, kind, why);
        Err(Stop)
    }

    /// What is said of a rule that does not hold.
    fn message(
        &mut self,
        rule: &Rule,
        compiled: &Compiled,
        variables: &Variables<'_>,
        path: &Path<'_>,
        kind: &str,
    ) -> Result<String, Stop> {
        if let Some(Ok(program)) = &compiled.message {
            let spent = "messageExpression evaluation failed due to running out of cost budget, no further validation \
                         rules will be run";
            let Some(outcome) = self.eval(program, variables) else { return self.stop(path, kind, spent) };
            if let Ok(Val::String(text)) = outcome {
                let text = text.trim();
                if !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains(['\n', '\r']) {
                    return Ok(text.to_owned());
                }
            }
        }
        Ok(if rule.message.is_empty() {
            format!("failed rule: {}", rule.rule.trim())
        } else {
            rule.message.trim().to_owned()
        })
    }

    fn refuse(&mut self, node: &Node, rule: &Rule, value: &Value, path: &Path<'_>, message: String) {
        let field = rule.field_path.trim().trim_start_matches('.');
        let below;
        let path = if field.is_empty() {
            path
        } else {
            below = path.child(field);
            &below
        };
        // Large values are not repeated.
        let large = matches!(node.kind, Kind::Object | Kind::Array);
        match &*rule.reason {
            "FieldValueForbidden" => self.errors.forbidden(path, message),
            "FieldValueRequired" => self.errors.required(path, message),
            "FieldValueDuplicate" => self.errors.duplicate(path, value),
            _ if large => self.errors.push(path, FieldErrorKind::InvalidLarge, &Value::Null, message),
            _ => self.errors.invalid(path, value, message),
        }
    }
}
