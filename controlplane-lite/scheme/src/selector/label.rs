//! Label selectors.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::{MAX_TERMS, MAX_VALUES, SelectorError};
use crate::access::{at, entries_at, list_at, str_at};
use crate::field::{FieldErrors, Path, go_quote};
use crate::meta;

/// How a label's value is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// One of the values.
    In(BTreeSet<String>),
    /// None of the values, or the label is missing.
    NotIn(BTreeSet<String>),
    /// Equal (`=`, `==`).
    Equals(String),
    /// Different or missing (`!=`).
    NotEquals(String),
    /// The label exists.
    Exists,
    /// The label is missing.
    DoesNotExist,
    /// An integer greater than this one.
    GreaterThan(i64),
    /// An integer less than this one.
    LessThan(i64),
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Condition.
    pub operator: Operator,
}

impl Requirement {
    /// Whether a label with this value (`None`: missing) meets the condition.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Equals(wanted) => value == Some(wanted.as_str()),
            Operator::NotEquals(unwanted) => value != Some(unwanted.as_str()),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound),
            Operator::LessThan(bound) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let join = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match &self.operator {
            Operator::In(values) => write!(f, "{key} in ({})", join(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", join(values)),
            Operator::Equals(value) => write!(f, "{key}={value}"),
            Operator::NotEquals(value) => write!(f, "{key}!={value}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan(value) => write!(f, "{key}>{value}"),
            Operator::LessThan(value) => write!(f, "{key}<{value}"),
        }
    }
}

/// A conjunction of label requirements. Empty selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
    /// A null selector of an object matches nothing.
    nothing: bool,
}

impl LabelSelector {
    /// Selects everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Parses a `labelSelector` query string: `a=b,c!=d,e in (f,g),!h,i>5`.
    ///
    /// # Errors
    /// Upstream's parse errors, answered as 400.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser::new(text).selector().map(|requirements| Self { requirements, nothing: false })
    }

    /// The selector of a `metav1.LabelSelector` object. Null selects nothing, `{}` everything.
    ///
    /// # Errors
    /// For an unknown operator or wrong number of values.
    pub fn from_object(object: &Value) -> Result<Self, SelectorError> {
        if object.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements: Vec<Requirement> = entries_at(object, &["matchLabels"])
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::Equals(value.as_str().unwrap_or("").to_owned()),
            })
            .collect();
        for expression in list_at(object, &["matchExpressions"]) {
            let values: BTreeSet<String> =
                list_at(expression, &["values"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match (str_at(expression, &["operator"]), values.is_empty()) {
                ("In", false) => Operator::In(values),
                ("NotIn", false) => Operator::NotIn(values),
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::DoesNotExist,
                ("In" | "NotIn", true) => {
                    return Err(SelectorError::Label(
                        "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".to_owned(),
                    ));
                }
                ("Exists" | "DoesNotExist", false) => {
                    return Err(SelectorError::Label(
                        "values: Invalid value: values set must be empty for exists and does not exist".to_owned(),
                    ));
                }
                (other, _) => {
                    return Err(SelectorError::Label(format!(
                        "{} is not a valid label selector operator",
                        go_quote(other)
                    )));
                }
            };
            requirements.push(Requirement { key: str_at(expression, &["key"]).to_owned(), operator });
        }
        Ok(Self { requirements, nothing: false })
    }

    /// A selector of plain equalities, as Services and ReplicationControllers have; empty selects everything.
    #[must_use]
    pub fn from_map(map: &Value) -> Self {
        let requirements = entries_at(map, &[])
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::Equals(value.as_str().unwrap_or("").to_owned()),
            })
            .collect();
        Self { requirements, nothing: false }
    }

    /// Whether labels, given by a lookup, are selected.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(lookup(&r.key)))
    }

    /// Whether an object's `metadata.labels` are selected.
    #[must_use]
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = at(object, &["metadata", "labels"]);
        self.matches(|key| labels.get(key).and_then(Value::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nothing {
            return f.write_str("<none>");
        }
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

/// Checks a `metav1.LabelSelector` object inside another object.
pub fn validate_object(selector: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    validate_with(selector, false, path, errors);
}

/// The same where one with values that no label has was taken before (`AllowInvalidLabelValueInSelector`): such ones
/// may come.
pub(crate) fn validate_with(selector: &Value, any_value: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    meta::validate_labels(at(selector, &["matchLabels"]), &path.child("matchLabels"), errors);
    let expressions = path.child("matchExpressions");
    for (i, expression) in list_at(selector, &["matchExpressions"]).iter().enumerate() {
        let path = expressions.index(i);
        let values = list_at(expression, &["values"]);
        match str_at(expression, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => errors
                .forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        let key = str_at(expression, &["key"]);
        for problem in meta::qualified_name(key) {
            errors.invalid(&path.child("key"), key, problem);
        }
        for (j, value) in values.iter().enumerate().filter(|_| !any_value) {
            for problem in meta::label_value(value.as_str().unwrap_or("")) {
                errors.invalid(&path.child("values").index(j), value, problem);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Not,
    Eq,
    NotEq,
    Greater,
    Less,
    End,
}

struct Parser {
    tokens: Vec<Token>,
    position: usize,
    /// Values read so far.
    values: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                c if c.is_ascii_whitespace() => continue,
                ',' => Token::Comma,
                '(' => Token::Open,
                ')' => Token::Close,
                '>' => Token::Greater,
                '<' => Token::Less,
                '!' if chars.next_if_eq(&'=').is_some() => Token::NotEq,
                '!' => Token::Not,
                '=' => {
                    chars.next_if_eq(&'=');
                    Token::Eq
                }
                c => {
                    let mut word = String::from(c);
                    while let Some(c) = chars
                        .next_if(|c| !c.is_ascii_whitespace() && !matches!(c, ',' | '(' | ')' | '>' | '<' | '!' | '='))
                    {
                        word.push(c);
                    }
                    Token::Word(word)
                }
            };
            tokens.push(token);
        }
        tokens.push(Token::End);
        Self { tokens, position: 0, values: 0 }
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.position).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.position += 1;
        token
    }

    fn found(token: &Token) -> &str {
        match token {
            Token::Word(word) => word,
            Token::Comma => ",",
            Token::Open => "(",
            Token::Close => ")",
            Token::Not => "!",
            Token::Eq => "=",
            Token::NotEq => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::End => "",
        }
    }

    fn error<T>(token: &Token, expected: &str) -> Result<T, SelectorError> {
        Err(SelectorError::Label(format!("found '{}', expected: {expected}", Self::found(token))))
    }

    fn selector(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        if *self.peek() == Token::End {
            return Ok(requirements);
        }
        loop {
            if requirements.len() == MAX_TERMS {
                return Err(SelectorError::TooMany { what: "terms", max: MAX_TERMS });
            }
            requirements.push(self.requirement()?);
            match self.next() {
                Token::End => break,
                Token::Comma if matches!(self.peek(), Token::Word(_) | Token::Not) => {}
                Token::Comma => return Self::error(self.peek(), "identifier after ','"),
                other => return Self::error(&other, "',' or 'end of string'"),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(requirements)
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = *self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return Self::error(&other, "!, identifier, or 'end of string'"),
        };
        if let Some(problem) = meta::qualified_name(&key).into_iter().next() {
            return Err(SelectorError::Label(format!("key: Invalid value: {}: {problem}", go_quote(&key))));
        }
        if negated || matches!(self.peek(), Token::End | Token::Comma) {
            let operator = if negated { Operator::DoesNotExist } else { Operator::Exists };
            return Ok(Requirement { key, operator });
        }
        let operator = match self.next() {
            Token::Eq => Operator::Equals(self.value(&key)?),
            Token::NotEq => Operator::NotEquals(self.value(&key)?),
            Token::Greater => Operator::GreaterThan(self.integer()?),
            Token::Less => Operator::LessThan(self.integer()?),
            Token::Word(word) if word == "in" => Operator::In(self.values(&key)?),
            Token::Word(word) if word == "notin" => Operator::NotIn(self.values(&key)?),
            other => return Self::error(&other, "in, notin, =, ==, !=, gt, lt"),
        };
        Ok(Requirement { key, operator })
    }

    fn checked(key: &str, value: String) -> Result<String, SelectorError> {
        match meta::label_value(&value).into_iter().next() {
            None => Ok(value),
            Some(problem) => {
                Err(SelectorError::Label(format!("values[0][{key}]: Invalid value: {}: {problem}", go_quote(&value))))
            }
        }
    }

    fn value(&mut self, key: &str) -> Result<String, SelectorError> {
        match self.peek().clone() {
            Token::End | Token::Comma => Ok(String::new()),
            Token::Word(word) => {
                self.next();
                Self::checked(key, word)
            }
            other => Self::error(&other, "identifier"),
        }
    }

    fn integer(&mut self) -> Result<i64, SelectorError> {
        match self.next() {
            Token::Word(word) => word.parse().map_err(|_| {
                SelectorError::Label(format!(
                    "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                    go_quote(&word)
                ))
            }),
            other => Self::error(&other, "identifier"),
        }
    }

    /// One more value of a set.
    fn count(&mut self) -> Result<(), SelectorError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(SelectorError::TooMany { what: "values", max: MAX_VALUES });
        }
        Ok(())
    }

    fn values(&mut self, key: &str) -> Result<BTreeSet<String>, SelectorError> {
        match self.next() {
            Token::Open => {}
            other => return Self::error(&other, "'('"),
        }
        let mut values = BTreeSet::new();
        loop {
            self.count()?;
            match self.next() {
                Token::Word(word) => {
                    values.insert(Self::checked(key, word)?);
                    match self.next() {
                        Token::Comma if *self.peek() == Token::Close => {
                            self.next();
                            values.insert(String::new());
                            return Ok(values);
                        }
                        Token::Comma => {}
                        Token::Close => return Ok(values),
                        other => return Self::error(&other, "',' or ')'"),
                    }
                }
                Token::Comma => drop(values.insert(String::new())),
                Token::Close => {
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    return Ok(values);
                }
                other => return Self::error(&other, "',', ')' or identifier"),
            }
        }
    }
}
