//! Field paths and field errors with upstream's wording
//! (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

mod errors;

pub use errors::{BadValue, FieldErrors, MAX_BYTES};

/// A path into an object, built on the stack: each step borrows its parent.
/// Displays as upstream does: `spec.containers[0].name`, `metadata.labels[a/b]`.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy, Hash)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself.
    pub const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// A top-level field.
    #[must_use]
    pub const fn new(field: &'a str) -> Self {
        Path { parent: None, step: Step::Field(field) }
    }

    /// A field of the object at this path. `a.b` may be given as one step.
    #[must_use]
    pub const fn child(&'a self, field: &'a str) -> Self {
        Path { parent: Some(self), step: Step::Field(field) }
    }

    /// An element of the list at this path.
    #[must_use]
    pub const fn index(&'a self, index: usize) -> Self {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// The path this one extends.
    #[must_use]
    pub const fn parent(&self) -> Option<&'a Path<'a>> {
        self.parent
    }

    /// A number that stands for the path: the same for the same steps.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        match (self.parent, self.step) {
            (None, Step::Root) => ROOT_FINGERPRINT,
            (parent, step) => fingerprint(parent.map_or(ROOT_FINGERPRINT, Path::fingerprint), step),
        }
    }

    /// An entry of the map at this path.
    #[must_use]
    pub const fn key(&'a self, key: &'a str) -> Self {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

/// The fingerprint of [`Path::ROOT`].
pub(crate) const ROOT_FINGERPRINT: u64 = 0;

fn fingerprint(parent: u64, step: Step<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (parent, step).hash(&mut hasher);
    hasher.finish()
}

/// The fingerprint of [`Path::child`], from its parent's.
pub(crate) fn child_fingerprint(parent: u64, field: &str) -> u64 {
    fingerprint(parent, Step::Field(field))
}

/// The fingerprint of [`Path::index`], from its parent's.
pub(crate) fn index_fingerprint(parent: u64, index: usize) -> u64 {
    fingerprint(parent, Step::Index(index))
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at_start = true;
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            at_start = parent.parent.is_none() && matches!(parent.step, Step::Root);
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if at_start => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with a field; the names are upstream's cause reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A mandatory field is empty.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value breaks a rule, and is too large to be repeated (`OmitValueType`).
    InvalidLarge,
    /// The value is not one of a fixed set.
    NotSupported,
    /// The value occurs twice where it must be unique.
    Duplicate,
    /// A referenced thing does not exist.
    NotFound,
    /// The value is not allowed here, or not by this request.
    Forbidden,
    /// A string is too long.
    TooLong,
    /// A list has too many items.
    TooMany,
    /// The server cannot check the value.
    Internal,
    /// A value of the wrong type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The reason in `Status.details.causes`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid | Self::InvalidLarge => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::InvalidLarge | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One problem with one field. `Display` gives upstream's `path: Words: value: detail`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Where, e.g. `spec.replicas`.
    pub path: String,
    /// What.
    pub kind: FieldErrorKind,
    /// The offending value; ignored by kinds that do not print it.
    pub bad_value: Value,
    /// Why, may be empty.
    pub detail: String,
}

impl FieldError {
    /// The text without the path, as `Status.details.causes[].message` has it.
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if !matches!(
            self.kind,
            FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong
                | FieldErrorKind::Internal
                | FieldErrorKind::InvalidLarge
        ) {
            text.push_str(": ");
            text.push_str(&go_value(&self.bad_value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// This error as an entry of `Status.details.causes`.
    #[must_use]
    pub fn cause(&self) -> Value {
        json!({ "reason": self.kind.reason(), "message": self.body(), "field": self.path })
    }
}

/// Prints a value as upstream prints bad values: strings quoted, composites as JSON.
fn go_value(value: &Value) -> String {
    match value {
        Value::String(s) => go_quote(s),
        Value::Null => "null".to_owned(),
        Value::Number(number) if !number.is_i64() => number.as_f64().map_or_else(|| number.to_string(), go_float),
        other => other.to_string(),
    }
}

/// Go's `%v` of a `float64`: the fewest digits that give the number, with an exponent where it is below -4 or past 5.
#[must_use]
pub fn go_float(number: f64) -> String {
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => number.to_string(),
    }
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation and symbols, and of all spaces only the one.
#[must_use]
pub fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // The standard library escapes what Go does not print; behind a letter, so that a mark that goes over it is one.
    format!("a{c}").escape_debug().nth(1) == Some(c)
}

/// Go's `%q`.
#[must_use]
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_print(c) => out.push(c),
            c if u32::from(c) < 0x10000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

impl Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.body()) } else { write!(f, "{}: {}", self.path, self.body()) }
    }
}

/// Upstream's aggregated message of an Invalid status:
/// `Deployment.apps "x" is invalid: [a: Required value, b: …]`, brackets only for several.
#[must_use]
pub fn invalid_message(kind: &str, group: &str, name: &str, errors: &[FieldError]) -> String {
    let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let mut seen = HashSet::with_capacity(texts.len());
    let texts: Vec<&str> = texts.iter().map(String::as_str).filter(|text| seen.insert(*text)).collect();
    let joined = match texts.as_slice() {
        [] => "<nil>".to_owned(),
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    };
    format!("{kind} {} is invalid: {joined}", go_quote(name))
}

/// `Status.details.causes` of an Invalid status.
#[must_use]
pub fn causes(errors: &[FieldError]) -> Vec<Value> {
    errors.iter().map(FieldError::cause).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_print_as_upstream() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        assert_eq!(first.child("name").to_string(), "spec.containers[0].name");
        let labels = Path::new("metadata");
        assert_eq!(labels.child("labels").key("a/b").to_string(), "metadata.labels[a/b]");
        assert_eq!(Path::ROOT.child("x").to_string(), "x");
    }

    /// `strconv.Quote` (strconv/quote.go), with characters of its tests.
    #[test]
    fn texts_are_quoted_as_go_does() {
        for (text, expect) in [
            ("a\u{7}\u{8}\u{c}\r\n\t\u{b}\\\"'", r#""a\a\b\f\r\n\t\v\\\"'""#),
            ("\0\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("\u{e9}\u{301}\u{263a}\u{1f600}\u{fffd} ", "\"\u{e9}\u{301}\u{263a}\u{1f600}\u{fffd} \""),
            ("\u{85}\u{a0}\u{ad}\u{200b}\u{2028}\u{feff}", r#""\u0085\u00a0\u00ad\u200b\u2028\ufeff""#),
            ("\u{e000}\u{e0001}\u{10ffff}", r#""\ue000\U000e0001\U0010ffff""#),
        ] {
            assert_eq!(go_quote(text), expect);
        }
    }

    /// `k8s.io/apimachinery/pkg/util/validation/field/errors.go`: `TooMany`, `TooLong` and `ErrorBody`.
    #[test]
    fn counts_and_numbers() {
        let mut errors = FieldErrors::new();
        errors.too_many(&Path::new("a"), 3, 2);
        errors.too_many(&Path::new("a"), 2, 1);
        errors.too_long(&Path::new("b"), 1);
        errors.invalid(&Path::new("c"), Value::from(1e6), "d");
        errors.invalid(&Path::new("c"), Value::from(0.5), "d");
        let texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "a: Too many: 3: must have at most 2 items",
                "a: Too many: 2: must have at most 1 item",
                "b: Too long: may not be more than 1 byte",
                "c: Invalid value: 1e+06: d",
                "c: Invalid value: 0.5: d",
            ]
        );
    }

    #[test]
    fn messages_and_causes() {
        let mut errors = FieldErrors::new();
        errors.required(&Path::new("a"), "");
        assert_eq!(
            invalid_message("Deployment", "apps", "x", &errors.0),
            "Deployment.apps \"x\" is invalid: a: Required value"
        );
        errors.invalid(&Path::new("b"), -1, "must be positive");
        errors.not_supported(&Path::new("c"), "q", &["B", "A"]);
        assert_eq!(
            invalid_message("Pod", "", "x", &errors.0),
            "Pod \"x\" is invalid: [a: Required value, b: Invalid value: -1: must be positive, \
             c: Unsupported value: \"q\": supported values: \"A\", \"B\"]"
        );
        assert_eq!(errors.0[1].cause()["reason"], "FieldValueInvalid");
        errors.too_many(&Path::new("d"), 9, 8);
        assert_eq!(errors.0[3].to_string(), "d: Too many: 9: must have at most 8 items");
    }
}
