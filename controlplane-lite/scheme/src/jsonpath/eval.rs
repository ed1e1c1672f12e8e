//! The evaluator (`jsonpath.go`), bounded in steps: recursive descent after recursive descent would look at every value
//! once for each above it.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::print::{float, print};
use super::{Node, Operator, Slice};

/// Values that one evaluation looks at.
pub(super) const MAX_STEPS: usize = 200_000;

/// Why there is no result, in client-go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// No value has this key.
    #[error("{0} is not found")]
    NotFound(String),
    /// An index into something else.
    #[error("{0} is not array or slice")]
    NotList(&'static str),
    /// A filter of something else.
    #[error("{0} is not array or slice and cannot be filtered")]
    NotFiltered(String),
    /// An index that the list does not have.
    #[error("array index out of bounds: index {0}, length {1}")]
    OutOfBounds(i64, usize),
    /// A slice that ends before it begins.
    #[error("starting index {0} is greater than ending index {1}")]
    Backwards(i64, i64),
    /// A slice that does not get on.
    #[error("step must be > 0")]
    Step,
    /// A filter with several values on a side.
    #[error("can only compare one element at a time")]
    Several,
    /// A comparison that there is none of.
    #[error("unrecognized filter operator {0}")]
    Operator(String),
    /// A comparison of different kinds of values.
    #[error("incompatible types for comparison")]
    Incompatible,
    /// A comparison of values that have no order, or are lists or maps.
    #[error("invalid type for comparison")]
    Incomparable,
    /// A word that means nothing.
    #[error("unrecognized identifier {0}")]
    Identifier(String),
    /// More work than a cell is worth.
    #[error("looks at too many values")]
    TooManySteps,
}

type Found<'v> = Vec<Cow<'v, Value>>;
/// What had been found when it failed: a filter that asks for existence takes it.
type Failed<'v> = (Found<'v>, EvalError);

/// `steps` is how many values may still be looked at.
pub(super) fn find<'v>(
    blocks: &'v [Vec<Node>],
    value: &'v Value,
    missing_keys: bool,
    steps: &mut usize,
) -> Result<Vec<Found<'v>>, EvalError> {
    let mut eval = Eval { missing_keys, steps };
    blocks.iter().map(|nodes| eval.list(vec![Cow::Borrowed(value)], nodes).map_err(|(_, why)| why)).collect()
}

struct Eval<'s> {
    missing_keys: bool,
    steps: &'s mut usize,
}

impl Eval<'_> {
    fn count(&mut self, steps: usize) -> Result<(), EvalError> {
        *self.steps = self.steps.saturating_sub(steps);
        if *self.steps == 0 { Err(EvalError::TooManySteps) } else { Ok(()) }
    }

    /// What is in a value, counted before it is collected.
    fn children<'v>(&mut self, value: &Cow<'v, Value>) -> Result<Found<'v>, EvalError> {
        self.count(match &**value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        })?;
        Ok(children(value))
    }

    fn list<'v>(&mut self, input: Found<'v>, nodes: &'v [Node]) -> Result<Found<'v>, Failed<'v>> {
        let mut current = input;
        for node in nodes {
            if let Err(why) = self.count(1 + current.len()) {
                return Err((Vec::new(), why));
            }
            current = self.walk(current, node)?;
        }
        Ok(current)
    }

    fn walk<'v>(&mut self, input: Found<'v>, node: &'v Node) -> Result<Found<'v>, Failed<'v>> {
        let each = |value: Value| Ok(input.iter().map(|_| Cow::Owned(value.clone())).collect());
        match node {
            Node::Text(text) => Ok(vec![Cow::Borrowed(text)]),
            Node::Int(number) => each((*number).into()),
            Node::Float(number) => each((*number).into()),
            Node::Bool(set) => each((*set).into()),
            Node::Identifier(word) => Err((input, EvalError::Identifier(word.clone()))),
            Node::Field(name) => self.field(&input, name).map_err(|why| (Vec::new(), why)),
            Node::Wildcard => self.wildcard(&input).map_err(|why| (input, why)),
            Node::Recursive => {
                let mut found = Vec::new();
                self.recursive(input, &mut found).map_err(|why| (Vec::new(), why))?;
                Ok(found)
            }
            Node::Slice(slice) => self.slice(&input, *slice).map_err(|why| (input, why)),
            Node::Union(parts) => {
                let mut found = Vec::new();
                for part in parts {
                    match self.list(input.clone(), part) {
                        Ok(more) => found.extend(more),
                        Err((_, why)) => return Err((input, why)),
                    }
                }
                Ok(found)
            }
            Node::Filter { left, operator, right } => {
                self.filter(&input, (left, operator, right)).map_err(|why| (input, why))
            }
        }
    }

    fn field<'v>(&mut self, input: &[Cow<'v, Value>], name: &str) -> Result<Found<'v>, EvalError> {
        let found: Found<'v> = input.iter().filter_map(|value| get(value, |value| value.get(name))).collect();
        if found.is_empty() && !input.is_empty() && !self.missing_keys {
            return Err(EvalError::NotFound(name.to_owned()));
        }
        Ok(found)
    }

    fn wildcard<'v>(&mut self, input: &[Cow<'v, Value>]) -> Result<Found<'v>, EvalError> {
        let mut found = Vec::new();
        for value in input {
            found.extend(self.children(value)?);
        }
        Ok(found)
    }

    /// Every value that has others in it, each before those.
    fn recursive<'v>(&mut self, input: Found<'v>, found: &mut Found<'v>) -> Result<(), EvalError> {
        for value in input {
            self.count(1)?;
            let below = self.children(&value)?;
            if !below.is_empty() {
                found.push(value);
                self.recursive(below, found)?;
            }
        }
        Ok(())
    }

    fn slice<'v>(&mut self, input: &[Cow<'v, Value>], slice: Slice) -> Result<Found<'v>, EvalError> {
        let mut found = Vec::new();
        for value in input.iter().filter(|value| !value.is_null()) {
            let Value::Array(list) = &**value else { return Err(EvalError::NotList(go_type(value))) };
            let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
            let from_end = |place: i64| if place < 0 { place + length } else { place };
            let start = from_end(slice.start.unwrap_or(0));
            let end = match slice.end {
                None => length,
                Some(0) if slice.single => length,
                Some(end) => from_end(end),
            };
            if start == end {
                return Ok(found);
            }
            if start >= length || start < 0 {
                return Err(EvalError::OutOfBounds(start, list.len()));
            }
            if end > length || end < 0 {
                return Err(EvalError::OutOfBounds(end - 1, list.len()));
            }
            if start > end {
                return Err(EvalError::Backwards(start, end));
            }
            let step = usize::try_from(slice.step.unwrap_or(1)).ok().filter(|step| *step > 0).ok_or(EvalError::Step)?;
            let place = |at: i64| usize::try_from(at).unwrap_or(0);
            for at in (place(start)..place(end)).step_by(step) {
                self.count(1)?;
                found.extend(get(value, |value| value.get(at)));
            }
        }
        Ok(found)
    }

    fn filter<'v>(
        &mut self,
        input: &[Cow<'v, Value>],
        (left, operator, right): (&'v [Node], &Operator, &'v [Node]),
    ) -> Result<Found<'v>, EvalError> {
        let mut found = Vec::new();
        for value in input {
            let Value::Array(list) = &**value else { return Err(EvalError::NotFiltered(print(value))) };
            for at in 0..list.len() {
                let Some(item) = get(value, |value| value.get(at)) else { continue };
                let lefts = self.list(vec![item.clone()], left);
                if *self.steps == 0 {
                    return Err(EvalError::TooManySteps);
                }
                if *operator == Operator::Exists {
                    let exists = match &lefts {
                        Ok(lefts) | Err((lefts, _)) => !lefts.is_empty(),
                    };
                    found.extend(exists.then_some(item));
                    continue;
                }
                let lefts = lefts.map_err(|(_, why)| why)?;
                let Some(first) = single(&lefts)? else { continue };
                let rights = self.list(vec![item.clone()], right).map_err(|(_, why)| why)?;
                let Some(second) = single(&rights)? else { continue };
                if holds(first, operator, second)? {
                    found.push(item);
                }
            }
        }
        Ok(found)
    }
}

fn single<'f>(found: &'f Found<'_>) -> Result<Option<&'f Value>, EvalError> {
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(EvalError::Several),
    }
}

/// A part of a value, borrowed where the value is.
fn get<'v>(value: &Cow<'v, Value>, part: impl Fn(&Value) -> Option<&Value>) -> Option<Cow<'v, Value>> {
    match value {
        Cow::Borrowed(value) => part(value).map(Cow::Borrowed),
        Cow::Owned(value) => part(value).cloned().map(Cow::Owned),
    }
}

/// What is in a value: of a text Go sees the bytes.
fn children<'v>(value: &Cow<'v, Value>) -> Found<'v> {
    fn borrowed(value: &Value) -> Found<'_> {
        match value {
            Value::Array(list) => list.iter().map(Cow::Borrowed).collect(),
            Value::Object(map) => map.values().map(Cow::Borrowed).collect(),
            Value::String(text) => text.bytes().map(|byte| Cow::Owned(byte.into())).collect(),
            _ => Vec::new(),
        }
    }
    match value {
        Cow::Borrowed(value) => borrowed(value),
        Cow::Owned(value) => borrowed(value).into_iter().map(|child| Cow::Owned(child.into_owned())).collect(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// How two values of a kind are ordered; texts by their bytes.
fn compare(left: &Value, right: &Value) -> Result<Option<Ordering>, EvalError> {
    let basic = |value: &Value| !matches!(value, Value::Null | Value::Array(_) | Value::Object(_));
    if !basic(left) || !basic(right) {
        return Err(EvalError::Incomparable);
    }
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(Some(left.cmp(right))),
        (Value::String(left), Value::String(right)) => Ok(Some(left.cmp(right))),
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Ok(Some(left.cmp(&right))),
            (None, None) => Ok(float(left).partial_cmp(&float(right))),
            _ => Err(EvalError::Incompatible),
        },
        _ => Err(EvalError::Incompatible),
    }
}

fn holds(left: &Value, operator: &Operator, right: &Value) -> Result<bool, EvalError> {
    if let Operator::Unknown(operator) = operator {
        return Err(EvalError::Operator(operator.clone()));
    }
    let order = compare(left, right)?;
    if left.is_boolean() && !matches!(operator, Operator::Equal | Operator::NotEqual) {
        return Err(EvalError::Incomparable);
    }
    Ok(match operator {
        Operator::Less => order == Some(Ordering::Less),
        Operator::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Operator::Equal => order == Some(Ordering::Equal),
        Operator::NotEqual => order != Some(Ordering::Equal),
        Operator::GreaterOrEqual => order != Some(Ordering::Less),
        Operator::Greater => !matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Operator::Exists | Operator::Unknown(_) => false,
    })
}
