//! The variables of an evaluation.

use std::collections::HashMap;

use crate::error::EvalError;
use crate::value::Value;

/// Gives variables their values.
pub trait Activation<'a> {
    /// The value of a variable.
    fn variable(&self, name: &str) -> Option<Result<Value<'a>, EvalError>>;

    /// A field of a variable whose value is [`Value::Lazy`].
    fn field(&self, variable: &str, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        let _ = (variable, name);
        None
    }
}

/// Variables whose values are known.
#[derive(Debug, Clone, Default)]
pub struct Variables<'a> {
    values: HashMap<&'static str, Value<'a>>,
}

impl<'a> Variables<'a> {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value<'a>) -> Self {
        self.values.insert(name, value);
        self
    }

    /// The same with a variable of JSON.
    #[must_use]
    pub fn with_json(self, name: &'static str, json: &'a serde_json::Value) -> Self {
        let value = Value::of_json(json, None).unwrap_or(Value::Null);
        self.with(name, value)
    }
}

impl<'a> Activation<'a> for Variables<'a> {
    fn variable(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.values.get(name).cloned().map(Ok)
    }
}
