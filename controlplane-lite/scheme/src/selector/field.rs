//! Field selectors, and which fields each kind lets be selected by.

use std::fmt;

use serde_json::Value;

use super::{MAX_TERMS, SelectorError};
use crate::Kind;
use crate::field::go_quote;
use crate::kind::Text;

/// The fields of a built-in kind that selectors may name, with how to read them.
/// `metadata.name` and (namespaced kinds) `metadata.namespace` always are.
#[derive(Clone, Copy)]
pub struct Fields {
    /// Selectable field names.
    pub names: &'static [&'static str],
    /// The value of one of `names`; how upstream prints it, empty when unset.
    pub get: fn(&Value, &str) -> String,
    /// Of fields that are not read by the path that is their name: the paths at which a value is looked for, in order.
    pub paths: &'static [(&'static str, &'static [&'static str])],
}

impl Fields {
    /// Only metadata.
    pub const NONE: Self = Self::plain(&[]);

    /// Fields that are read by their own path.
    #[must_use]
    pub const fn plain(names: &'static [&'static str]) -> Self {
        Self { names, get: plain_field, paths: &[] }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fields").field(&self.names).finish()
    }
}

/// The same of any kind, owned.
#[derive(Clone)]
pub struct Selectable {
    names: Vec<Text>,
    read: fn(&Value, &str) -> String,
    paths: &'static [(&'static str, &'static [&'static str])],
}

impl Selectable {
    /// Fields that are read by their own path.
    #[must_use]
    pub fn plain(names: Vec<Text>) -> Self {
        Self { names, read: plain_field, paths: &[] }
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Whether a field of this name is one of them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// The value of one of them; how upstream prints it, empty when unset.
    #[must_use]
    pub fn read(&self, object: &Value, name: &str) -> String {
        (self.read)(object, name)
    }

    /// The paths at which the value of a field is looked for, in order, when that is not the path that is its name.
    #[must_use]
    pub fn paths(&self, name: &str) -> Option<&'static [&'static str]> {
        self.paths.iter().find(|(field, _)| *field == name).map(|(_, paths)| *paths)
    }
}

impl Default for Selectable {
    fn default() -> Self {
        Self::plain(Vec::new())
    }
}

impl From<&'static Fields> for Selectable {
    fn from(fields: &'static Fields) -> Self {
        let names = fields.names.iter().copied().map(Text::Borrowed).collect();
        Self { names, read: fields.get, paths: fields.paths }
    }
}

impl fmt::Debug for Selectable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selectable").field(&self.names).finish()
    }
}

/// The value at a dotted path, printed.
#[must_use]
pub fn plain_field(object: &Value, name: &str) -> String {
    let value = name.split('.').try_fold(object, |v, key| v.get(key));
    match value {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) => n.to_string(),
        _ => String::new(),
    }
}

/// The selectable fields of an object beyond name and namespace, for the stored header.
/// Values are what a [`FieldSelector`] compares with.
#[must_use]
pub fn selectable_fields<'k>(kind: &'k Kind, object: &Value) -> Vec<(&'k str, String)> {
    kind.fields.names().map(|name| (name, kind.fields.read(object, name))).collect()
}

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// Field name, e.g. `spec.nodeName`.
    pub field: String,
    /// Compared value.
    pub value: String,
    /// Whether the values must be equal (or must differ).
    pub equal: bool,
}

/// A conjunction of field conditions. Empty selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    /// All must hold.
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Parses a `fieldSelector` query string and checks it against what the kind supports.
    ///
    /// # Errors
    /// Upstream's texts, answered as 400: `field label not supported: x` and syntax errors.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, SelectorError> {
        let selector = Self::parse_any(text)?;
        for term in &selector.terms {
            let known = term.field == "metadata.name"
                || (term.field == "metadata.namespace" && kind.namespaced)
                || kind.fields.has(&term.field);
            if !known {
                return Err(SelectorError::UnsupportedField(unsupported(kind, &term.field)));
            }
        }
        Ok(selector)
    }

    /// Parses without knowing the kind.
    ///
    /// # Errors
    /// Syntax errors only.
    pub fn parse_any(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            if terms.len() == MAX_TERMS {
                return Err(SelectorError::TooMany { what: "terms", max: MAX_TERMS });
            }
            let (field, value, equal) = split_term(term)
                .ok_or_else(|| SelectorError::FieldSyntax { selector: text.to_owned(), term: term.to_owned() })?;
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(Self { terms })
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value the selector demands for a field, if it does: `metadata.name=x` gives `Some("x")`.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// Whether an object, given by a lookup of field values, is selected. An unset field reads as "".
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (lookup(&t.field).unwrap_or("") == t.value) == t.equal)
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn matches_object(&self, kind: &Kind, object: &Value) -> bool {
        self.terms.iter().all(|t| {
            let value = if kind.fields.has(&t.field) {
                kind.fields.read(object, &t.field)
            } else {
                plain_field(object, &t.field)
            };
            (value == t.value) == t.equal
        })
    }
}

fn unsupported(kind: &Kind, field: &str) -> String {
    if kind.fields.names.is_empty() && !kind.custom {
        return format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            go_quote(field)
        );
    }
    format!("field label not supported: {field}")
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    for (i, _) in term.char_indices() {
        let rest = &term[i..];
        for (op, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(op) {
                return Some((&term[..i], value, equal));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(SelectorError::FieldEscape(format!("\\{c}"))),
                None => return Err(SelectorError::FieldEscape("\\".to_owned())),
            },
            ',' | '=' => return Err(SelectorError::FieldEscape(c.to_string())),
            c => out.push(c),
        }
    }
    Ok(out)
}
