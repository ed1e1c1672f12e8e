//! Variables and what is selected of them (cel-go's `interpreter/attributes.go`).

use super::{Machine, Slot};
use crate::cost;
use crate::error::EvalError;
use crate::library::Outcome;
use crate::number;
use crate::plan::{Attribute, Base, Node, Qualifier, QualifierKey};
use crate::value::{Text, Value};

impl<'p, 'a> Machine<'p, 'a, '_> {
    /// The value at the end of a chain. Its beginning costs, unless the chain is a branch of a condition.
    pub(super) fn attribute(&mut self, attribute: &'p Attribute, begins: bool) -> Outcome<'a> {
        let (base, free) = match &attribute.base {
            Base::Variable(name) => (self.variable(name), false),
            Base::Local(place) => (self.local(*place, false), false),
            Base::Value(node) => (self.eval(node), false),
            Base::Conditional(parts) => (self.conditional(parts), true),
        };
        let found = match base {
            Ok(value) if attribute.qualifiers.is_empty() => Ok(value),
            Ok(value) => self.qualify(value, attribute),
            Err(error) => Err(error),
        };
        if begins && !free && !attribute.test_only {
            self.budget.charge(cost::SELECT)?;
        }
        found
    }

    fn variable(&self, name: &str) -> Outcome<'a> {
        match self.activation.variable(name) {
            Some(value) => value,
            None => Err(EvalError::new(format!("no such attribute(s): {name}"))),
        }
    }

    /// The value of a comprehension's variable; `take` leaves null in its place.
    pub(super) fn local(&mut self, place: usize, take: bool) -> Outcome<'a> {
        if let Some(Slot::Lazy(node)) = self.locals.get(place) {
            let node: &'p Node = node;
            let value = self.eval(node);
            self.locals[place] = Slot::Ready(value);
        }
        match self.locals.get_mut(place) {
            Some(Slot::Ready(Ok(value))) if take => Ok(std::mem::replace(value, Value::Null)),
            Some(Slot::Ready(value)) => value.clone(),
            _ => Err(EvalError::new("no such attribute(s)")),
        }
    }

    fn qualify(&mut self, value: Value<'a>, attribute: &'p Attribute) -> Outcome<'a> {
        let (mut value, mut optional) = match value {
            Value::Optional(None) if attribute.test_only => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => ((*value).clone(), true),
            value => (value, false),
        };
        let (steps, test) = match attribute.qualifiers.split_last() {
            Some((last, rest)) if attribute.test_only => (rest, Some(last)),
            _ => (&attribute.qualifiers[..], None),
        };
        for step in steps {
            optional |= step.optional;
            let key = self.key(step)?;
            let found = self.lookup(&value, &key);
            if matches!(found, Ok(None)) && optional {
                return Ok(if attribute.test_only { Value::Bool(false) } else { Value::Optional(None) });
            }
            self.budget.charge(cost::SELECT)?;
            value = found?.ok_or_else(|| missing(&value, &key))?;
        }
        if let Some(test) = test {
            let key = self.key(test)?;
            let found = self.lookup(&value, &key);
            self.budget.charge(cost::SELECT)?;
            return Ok(Value::Bool(found?.is_some()));
        }
        Ok(if optional { Value::some(value) } else { value })
    }

    fn key(&mut self, step: &'p Qualifier) -> Outcome<'a> {
        match &step.key {
            QualifierKey::Field(name) => Ok(Value::String(Text::Shared(name.clone()))),
            QualifierKey::Constant(value) => Ok(value.clone()),
            QualifierKey::Dynamic(Node::Attribute(attribute)) => self.attribute(attribute, false),
            QualifierKey::Dynamic(node) => self.eval(node),
        }
    }

    /// What a value has at a key, if anything.
    fn lookup(&mut self, value: &Value<'a>, key: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
        match value {
            Value::Map(map) => map.get(key).transpose(),
            Value::List(list) => {
                let index = match key {
                    Value::Int(index) => *index,
                    Value::Uint(index) => i64::try_from(*index).unwrap_or(i64::MAX),
                    Value::Double(index) => number::whole(*index)
                        .ok_or_else(|| EvalError::new(format!("unsupported index value {key} in list")))?,
                    other => {
                        let of = other.type_of();
                        return Err(EvalError::new(format!("unsupported index type '{}' in list", of.runtime_name())));
                    }
                };
                usize::try_from(index).ok().and_then(|index| list.get(index)).transpose()
            }
            Value::Struct(object) => Ok(key.as_str().and_then(|name| object.fields.get(name)).cloned()),
            Value::Lazy(object) => match key {
                Value::String(name) => self.activation.field(object, name).transpose(),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

fn missing(value: &Value<'_>, key: &Value<'_>) -> EvalError {
    let what = if matches!(value, Value::List(_)) { "index out of bounds" } else { "no such key" };
    EvalError::new(format!("{what}: {key}"))
}
