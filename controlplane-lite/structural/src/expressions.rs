//! Rules in CEL (`x-kubernetes-validations`): compiled once a schema, evaluated for each object
//! (`pkg/apiserver/schema/cel/{compilation,validation}.go` upstream).

mod evaluate;
mod schema;

use cel::schema::{Declared, Schema, declare};
use cel::{Env, Program, Type};
use scheme::{FieldErrors, Path};
use serde_json::Value;

use crate::node::{Node, Rule};
use crate::raw;

pub(crate) use evaluate::Evaluation;

/// The largest estimate that a rule may have.
const MAX_ESTIMATE: u64 = 10_000_000;

/// The programs of the rules of a schema, and of those below it that have any.
#[derive(Debug)]
pub(crate) struct Rules {
    /// How expressions see values, if there are rules.
    schema: Option<Schema>,
    rules: Vec<Compiled>,
    properties: Vec<(Box<str>, Rules)>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
}

/// A rule that can be evaluated, or why it cannot.
#[derive(Debug)]
struct Compiled {
    program: Result<Program, String>,
    message: Option<Result<Program, String>>,
}

impl Rules {
    /// The rules at and below a schema; none if there are none.
    pub(crate) fn compile(node: &Node, root: bool) -> Option<Self> {
        let properties: Vec<(Box<str>, Self)> = node
            .properties()
            .filter_map(|(name, inner)| Some((name.into(), Self::compile(inner, inner.embedded)?)))
            .collect();
        let below = |inner: Option<&Node>| inner.and_then(|inner| Self::compile(inner, inner.embedded)).map(Box::new);
        let items = below(node.items.as_deref());
        let additional = below(node.additional_schema());
        let own = node.own_rules();
        if own.is_empty() && properties.is_empty() && items.is_none() && additional.is_none() {
            return None;
        }
        let schema = (!own.is_empty()).then(|| {
            let seen = schema::of(node);
            if root { seen.with_type_and_meta() } else { seen }
        });
        let declared = schema.as_ref().map(|schema| declare(schema, root, "selfType"));
        let rules = own.iter().map(|rule| compile(rule, declared.as_ref().and_then(Option::as_ref))).collect();
        Some(Self { schema, rules, properties, items, additional })
    }
}

/// What expressions may refer to.
fn env(rule: &Rule, (declared, structs): &(Declared, cel::schema::Structs)) -> Env {
    let of = declared.of.clone();
    let old = if rule.optional_old_self == Some(true) { Type::optional(of.clone()) } else { of.clone() };
    Env::new().with_structs(structs.iter().cloned()).with_variable("self", of).with_variable("oldSelf", old)
}

fn compile(rule: &Rule, declared: Option<&(Declared, cel::schema::Structs)>) -> Compiled {
    let Some(declared) = declared else {
        let why = "failed to convert to declType for CEL validation rules".to_owned();
        return Compiled { program: Err(why), message: None };
    };
    let env = env(rule, declared);
    let program = |text: &str, of: &Type, prefix: &str, wrong: &str| match Program::compile(text, &env) {
        Err(cel::CompileError::Issues(issues)) => Err(format!("{prefix}compilation failed: {issues}")),
        Err(cel::CompileError::Program(why)) => Err(format!("{prefix}program instantiation failed: {why}")),
        Ok(program) if program.result_type() != of => Err(wrong.to_owned()),
        Ok(program) => Ok(program),
    };
    let wrong = "messageExpression must evaluate to a string";
    let message = Some(&*rule.message_expression)
        .filter(|text| !text.is_empty())
        .map(|text| program(text, &Type::String, "messageExpression ", wrong));
    Compiled { program: program(&rule.rule, &Type::Bool, "", "cel expression must evaluate to a bool"), message }
}

/// Says what is wrong with the rules of a schema at a path, and with those below it.
pub(crate) fn validate(node: &Node, root: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    check(node, root, Some(1), path, errors);
}

/// `many`: how many values there can be of a schema in one object; none if nothing bounds that.
fn check(node: &Node, root: bool, many: Option<u64>, path: &Path<'_>, errors: &mut FieldErrors) {
    if !node.own_rules().is_empty() {
        check_rules(node, root, many, path, errors);
    }
    let properties = path.child("properties");
    for (name, inner) in node.properties() {
        check(inner, inner.embedded, many, &properties.key(name), errors);
    }
    let most = |bound: Option<i64>| {
        many.zip(bound.and_then(|bound| u64::try_from(bound).ok())).map(|(a, b)| a.saturating_mul(b))
    };
    let values = node.values.as_deref();
    if let Some(inner) = node.items.as_deref() {
        let many = most(values.and_then(|values| values.max_items));
        check(inner, inner.embedded, many, &path.child("items"), errors);
    }
    if let Some(inner) = node.additional_schema() {
        let many = most(values.and_then(|values| values.max_properties));
        check(inner, inner.embedded, many, &path.child("additionalProperties"), errors);
    }
}

fn check_rules(node: &Node, root: bool, many: Option<u64>, path: &Path<'_>, errors: &mut FieldErrors) {
    let seen = schema::of(node);
    let declared = declare(&seen, root, "selfType");
    let list = path.child("x-kubernetes-validations");
    for (index, rule) in node.own_rules().iter().enumerate() {
        let path = list.index(index);
        if rule.rule.trim().is_empty() {
            continue;
        }
        let Compiled { program, message } = compile(rule, declared.as_ref());
        match (&program, &declared) {
            (Err(why), _) => errors.invalid(&path.child("rule"), &*rule.rule, why.as_str()),
            (Ok(program), Some((declared, _))) => {
                let cost = program.estimate(declared).max.saturating_mul(many.unwrap_or(declared.max_cardinality()));
                if cost > MAX_ESTIMATE {
                    errors.forbidden(&path.child("rule"), too_expensive("estimated rule cost", cost));
                }
                if rule.optional_old_self.is_some() && !program.refers_to("oldSelf") {
                    let why = "may not be set if oldSelf is not used in rule";
                    errors.invalid(&path.child("optionalOldSelf"), Value::from(rule.optional_old_self), why);
                }
            }
            (Ok(_), None) => {}
        }
        if program.is_err() {
            continue;
        }
        match (message, &declared) {
            (Some(Err(why)), _) => {
                errors.invalid(&path.child("messageExpression"), &*rule.message_expression, why.as_str());
            }
            (Some(Ok(program)), Some((declared, _))) => {
                let cost = program.estimate(declared).max;
                if cost > MAX_ESTIMATE {
                    let why = too_expensive("estimated messageExpression cost", cost);
                    errors.forbidden(&path.child("messageExpression"), why);
                }
            }
            _ => {}
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn too_expensive(what: &str, cost: u64) -> String {
    let times = cost as f64 / MAX_ESTIMATE as f64;
    let factor = if times > 100.0 {
        "more than 100x".to_owned()
    } else if times < 1.5 {
        format!("{times:.6}x")
    } else {
        format!("{times:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

/// Whether a schema as JSON has rules.
pub(crate) fn has_rules(schema: &Value) -> bool {
    !raw::list(schema, "x-kubernetes-validations").is_empty()
        || raw::properties(schema).any(|(_, inner)| has_rules(inner))
        || ["items", "additionalProperties"].iter().any(|key| raw::get(schema, key).is_some_and(has_rules))
}

#[cfg(test)]
mod tests;
