//! Evaluates a plan (cel-go's `interpreter/interpretable.go`), and counts what that costs as cel-go does.

mod attribute;
mod fold;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::activation::Activation;
use crate::ast::operator;
use crate::budget::Budget;
use crate::cost;
use crate::error::EvalError;
use crate::library::operators::{add_values, insert};
use crate::library::{Outcome, Scope};
use crate::plan::{CallNode, Node, StructNode};
use crate::value::{Key, Map, StructValue, Value, equal};

/// Evaluates a plan.
///
/// # Errors
/// If the expression fails, or costs more than the budget has.
pub(crate) fn evaluate<'a>(node: &Node, activation: &dyn Activation<'a>, budget: &Budget) -> Outcome<'a> {
    Machine { activation, budget, locals: Vec::new() }.eval(node)
}

/// A variable of a comprehension.
#[derive(Debug)]
enum Slot<'p, 'a> {
    /// To be evaluated when it is first asked.
    Lazy(&'p Node),
    Ready(Outcome<'a>),
}

struct Machine<'p, 'a, 'e> {
    activation: &'e dyn Activation<'a>,
    budget: &'e Budget,
    locals: Vec<Slot<'p, 'a>>,
}

impl<'p, 'a> Machine<'p, 'a, '_> {
    fn eval(&mut self, node: &'p Node) -> Outcome<'a> {
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Attribute(attribute) => self.attribute(attribute, true),
            Node::And(terms) => self.logical(terms, false),
            Node::Or(terms) => self.logical(terms, true),
            Node::Conditional(parts) => self.conditional(parts),
            Node::Equal(operands) => self.equality(operands, true),
            Node::Differs(operands) => self.equality(operands, false),
            Node::OneOf(item, values) => self.one_of(item, values),
            Node::NotStrictlyFalse(inner) => self.not_strictly_false(inner),
            Node::OrElse { first, second, unwrap } => self.or_else(first, second, *unwrap),
            Node::Call(call) => self.call(call),
            Node::List(elements) => {
                let list = self.list(elements);
                self.budget.charge(cost::LIST)?;
                list
            }
            Node::Map(entries) => {
                let map = self.map(entries);
                self.budget.charge(cost::MAP)?;
                map
            }
            Node::Struct(object) => {
                let made = self.structure(object);
                self.budget.charge(cost::STRUCT)?;
                made
            }
            Node::Fold(fold) => self.fold(fold),
        }
    }

    /// Conditions of which one decides, whatever became of those before it.
    fn logical(&mut self, terms: &'p [Node], decisive: bool) -> Outcome<'a> {
        let mut failure = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Err(error) if error.ends() => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
                Ok(_) => failure = failure.or_else(|| Some(EvalError::no_overload())),
            }
        }
        failure.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn conditional(&mut self, parts: &'p [Node; 3]) -> Outcome<'a> {
        match self.eval(&parts[0])? {
            Value::Bool(true) => self.branch(&parts[1]),
            Value::Bool(false) => self.branch(&parts[2]),
            _ => Err(EvalError::no_overload()),
        }
    }

    /// A branch, of which a variable costs nothing.
    fn branch(&mut self, node: &'p Node) -> Outcome<'a> {
        match node {
            Node::Attribute(attribute) => self.attribute(attribute, false),
            other => self.eval(other),
        }
    }

    fn equality(&mut self, operands: &'p [Node; 2], wanted: bool) -> Outcome<'a> {
        let a = self.eval(&operands[0]);
        let b = self.eval(&operands[1]);
        let ends = |operand: &Outcome<'a>| operand.as_ref().is_err_and(EvalError::ends);
        if ends(&a) || ends(&b) {
            return Err(EvalError::CostLimit);
        }
        self.budget.charge(cost::equality(&a, &b, self.budget)?)?;
        match equal(&a?, &b?, self.budget) {
            Ok(equal) => Ok(Value::Bool(equal == wanted)),
            // What cannot be compared differs.
            Err(error) if wanted || error.ends() => Err(error),
            Err(_) => Ok(Value::Bool(true)),
        }
    }

    fn one_of(&mut self, item: &'p Node, values: &'p [Value<'static>]) -> Outcome<'a> {
        let item = self.eval(item)?;
        self.budget.steps(values.len() / 8)?;
        for value in values {
            if matches!(equal(value, &item, self.budget), Ok(true)) {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }

    fn not_strictly_false(&mut self, inner: &'p Node) -> Outcome<'a> {
        let holds = match self.eval(inner) {
            Ok(Value::Bool(value)) => value,
            Err(error) if error.ends() => return Err(error),
            _ => true,
        };
        self.budget.charge(1)?;
        Ok(Value::Bool(holds))
    }

    fn or_else(&mut self, first: &'p Node, second: &'p Node, unwrap: bool) -> Outcome<'a> {
        match self.eval(first)? {
            Value::Optional(Some(value)) if unwrap => Ok((*value).clone()),
            Value::Optional(None) => self.eval(second),
            present @ Value::Optional(Some(_)) => Ok(present),
            _ => Err(EvalError::no_overload()),
        }
    }

    fn call(&mut self, call: &'p CallNode) -> Outcome<'a> {
        let name = call.function.name;
        if let Some(place) = call.grows
            && let [_, rest @ ..] = &call.args[..]
        {
            return self.grow(name, place, call, rest);
        }
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            let value = self.eval(arg);
            match &value {
                Err(error) if error.ends() || call.args.len() > 2 => return value,
                _ => args.push(value),
            }
        }
        let failed = args.iter().find_map(|arg| arg.as_ref().err().cloned());
        let result = match failed {
            Some(error) => Err(error),
            None => {
                let values: Vec<Value<'a>> = args.iter().filter_map(|arg| arg.as_ref().ok().cloned()).collect();
                (call.function.implementation)(&Scope { name, budget: self.budget }, &values)
            }
        };
        if result.as_ref().is_err_and(EvalError::ends) {
            return result;
        }
        self.budget.charge(cost::call(name, call.overload, &args, &result, self.budget)?)?;
        result
    }

    /// A call that adds to what a comprehension has collected. That is taken out of its place meanwhile, so that it
    /// need not be copied.
    fn grow(&mut self, name: &'static str, place: usize, call: &'p CallNode, rest: &'p [Node]) -> Outcome<'a> {
        let collected = self.local(place, true);
        self.budget.charge(cost::SELECT)?;
        let mut values = Vec::with_capacity(rest.len());
        for arg in rest {
            match self.eval(arg) {
                Ok(value) => values.push(value),
                Err(error) => return Err(error),
            }
        }
        let collected = collected?;
        let text = matches!(collected, Value::String(_) | Value::Bytes(_));
        let args = text.then(|| {
            std::iter::once(collected.clone()).chain(values.iter().cloned()).map(Ok).collect::<Vec<Outcome<'a>>>()
        });
        let scope = Scope { name, budget: self.budget };
        let result = match (name, &values[..]) {
            (operator::ADD, [added]) => add_values(&scope, collected, added),
            _ => insert(&scope, collected, &values),
        };
        let cost = match args {
            Some(args) => cost::call(name, call.overload, &args, &result, self.budget)?,
            None => 1,
        };
        self.budget.charge(cost)?;
        result
    }

    fn list(&mut self, elements: &'p [(Node, bool)]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(elements.len());
        for (element, optional) in elements {
            match (self.eval(element)?, optional) {
                (value, false) => values.push(value),
                (Value::Optional(Some(value)), true) => values.push((*value).clone()),
                (Value::Optional(None), true) => {}
                (other, true) => {
                    return Err(EvalError::new(format!(
                        "cannot initialize optional list element from non-optional value {other}"
                    )));
                }
            }
        }
        Ok(Value::list(values))
    }

    /// The value of an entry or field. `None` for an optional without one.
    fn entry(
        &mut self,
        name: &dyn std::fmt::Display,
        value: &'p Node,
        optional: bool,
    ) -> Result<Option<Value<'a>>, EvalError> {
        match (self.eval(value)?, optional) {
            (value, false) => Ok(Some(value)),
            (Value::Optional(value), true) => Ok(value.map(|value| (*value).clone())),
            (other, true) => Err(EvalError::new(format!(
                "cannot initialize optional entry '{name}' from non-optional value {other}"
            ))),
        }
    }

    fn map(&mut self, entries: &'p [(Node, Node, bool)]) -> Outcome<'a> {
        let mut pairs = Vec::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            if let Some(value) = self.entry(&key.clone(), value, *optional)? {
                pairs.push((key, value));
            }
        }
        make_map(pairs)
    }

    fn structure(&mut self, object: &'p StructNode) -> Outcome<'a> {
        let mut fields = BTreeMap::new();
        for (name, value, optional) in &object.fields {
            if let Some(value) = self.entry(name, value, *optional)? {
                fields.insert(Arc::clone(name), value);
            }
        }
        Ok(Value::Struct(Arc::new(StructValue { name: Arc::clone(&object.name), fields })))
    }
}

/// A map of pairs. Of equal keys the last stays.
pub(crate) fn make_map<'a>(pairs: Vec<(Value<'a>, Value<'a>)>) -> Outcome<'a> {
    let mut entries = BTreeMap::new();
    for (key, value) in pairs {
        let Some(place) = Key::of(&key) else {
            return Err(EvalError::new(format!("unsupported key type: {}", key.type_of().runtime_name())));
        };
        entries.insert(place, value);
    }
    Ok(Value::Map(Map::Owned(Arc::new(entries))))
}
