//! JSONPath as client-go has it (k8s.io/client-go/util/jsonpath), for the columns that custom resources are printed in:
//! text with expressions in braces, of fields (`.a.b`, `['a.b']`, `.a\.b` where the dot belongs to the name), indices
//! and slices, wildcards, unions, filters and recursive descent. A key that is missing is no result, while an index
//! that is is an error. `range` and `end` are not known: a column has no use for them.
//!
//! The dialect is its own: RFC 9535 knows no text around an expression, no dotted names in quotes and no escaped dots,
//! demands a `$`, compares numbers of all kinds, and takes no results where client-go fails.

use std::borrow::Cow;

use serde_json::Value;

mod eval;
mod parse;
mod print;

pub use eval::EvalError;
pub use parse::ParseError;
pub use print::{go_json, print};

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// Text and expressions, in order.
    blocks: Vec<Vec<Node>>,
}

/// A step of an expression.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// A text, as the value that it is found as.
    Text(Value),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// A word that stands alone; nobody knows any.
    Identifier(String),
    Field(String),
    Wildcard,
    Recursive,
    Slice(Slice),
    Union(Vec<Vec<Node>>),
    Filter {
        left: Vec<Node>,
        operator: Operator,
        right: Vec<Node>,
    },
}

/// What `[a:b:c]` selects. One index alone ends behind itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slice {
    start: Option<i64>,
    end: Option<i64>,
    /// Whether the end follows from the start: an end of zero is then that of the list.
    single: bool,
    step: Option<i64>,
}

/// How a filter compares.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    Exists,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
    /// Something else; that is only noticed when it has to compare.
    Unknown(String),
}

impl Template {
    /// Parses text with expressions in braces.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::template(text).map(|blocks| Self { blocks })
    }

    /// Parses one expression without its braces, as columns have it.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn expression(text: &str) -> Result<Self, ParseError> {
        Self::parse(&format!("{{{text}}}"))
    }

    /// What each text and each expression finds. Keys that are missing are an error unless `missing_keys` are allowed.
    ///
    /// # Errors
    /// When something cannot be done with a value, or takes too long.
    pub fn find<'v>(&'v self, value: &'v Value, missing_keys: bool) -> Result<Vec<Vec<Cow<'v, Value>>>, EvalError> {
        let mut steps = eval::MAX_STEPS;
        self.find_within(value, missing_keys, &mut steps)
    }

    /// The same for somebody who counts together what several paths look at; `steps` is what is left.
    pub(crate) fn find_within<'v>(
        &'v self,
        value: &'v Value,
        missing_keys: bool,
        steps: &mut usize,
    ) -> Result<Vec<Vec<Cow<'v, Value>>>, EvalError> {
        let mut own = eval::MAX_STEPS.min(*steps);
        let before = own;
        let found = eval::find(&self.blocks, value, missing_keys, &mut own);
        *steps -= before - own;
        found
    }

    /// All of it as text: several results of an expression with spaces between them.
    ///
    /// # Errors
    /// Like [`find`](Self::find).
    pub fn execute(&self, value: &Value, missing_keys: bool) -> Result<String, EvalError> {
        let found = self.find(value, missing_keys)?;
        let texts = found.iter().map(|results| {
            let texts: Vec<String> = results.iter().map(|value| print(value)).collect();
            texts.join(" ")
        });
        Ok(texts.collect())
    }
}

#[cfg(test)]
mod tests;
