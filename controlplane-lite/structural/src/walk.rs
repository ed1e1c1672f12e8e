//! Checks a value against a schema, in the order and with the words of `k8s.io/kube-openapi/pkg/validation/validate`,
//! and what of it an update may leave as it is.

use std::collections::HashSet;

use scheme::jsonpath::go_json;
use scheme::{FieldErrorKind, field::MAX_BYTES, field::go_quote};
use serde_json::{Map, Value};

use crate::formats::Format;
use crate::location::Location;
use crate::node::{Additional, Kind, Node, Values};
use crate::numbers::{self, Complaint, Num};
use crate::problem::{Outcome, Problem, Shown};
use crate::ratchet::{Old, child, equal, items};

mod alternatives;

/// Pairs of a value and a schema that are looked at for one object. Large objects have some hundred thousand.
const MAX_STEPS: usize = 5_000_000;
/// Bytes of problems held at a time; a client is told of fewer.
const ROOM: usize = 4 * MAX_BYTES;
/// Steps that a problem takes for which there is no room: nobody waits for more of them.
const UNTOLD: usize = 1000;
/// Bytes of a problem that take one step more, told or not: its words can be as long as an enum or a key, and of
/// several alternatives each has its own.
const WORDS_PER_STEP: usize = 16;
/// Bytes of a text that take one step more each time that it is looked through.
const TEXT_PER_STEP: usize = 64;

/// One walk over an object.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) steps: usize,
    room: usize,
}

impl Default for Walk {
    fn default() -> Self {
        Self { steps: MAX_STEPS, room: ROOM }
    }
}

impl Walk {
    /// Checks a whole value; `old` is what it replaces. What could not be looked at to its end is refused: something
    /// may be right only because something else failed.
    pub(crate) fn validate<'a>(&mut self, node: &'a Node, value: &'a Value, old: Old<'a>) -> Outcome<'a> {
        let mut out = self.value(node, value, old, &Location::Root);
        if self.steps == 0 {
            out.invalid = true;
            out.problems.push(Problem {
                place: None,
                kind: FieldErrorKind::Internal,
                shown: Shown::Nothing,
                detail: "the schema asks too much of this object to be checked".to_owned(),
            });
        }
        out
    }

    fn value<'a>(&mut self, node: &'a Node, value: &'a Value, old: Old<'a>, at: &Location<'_>) -> Outcome<'a> {
        if self.steps == 0 {
            return Outcome { invalid: true, ..Outcome::default() };
        }
        self.steps -= 1;
        let out = self.check(node, value, old, at);
        match old {
            Some(old) if out.invalid && self.steps > 0 && equal(&mut self.steps, node, value, old) => {
                self.drop_problems(&out);
                Outcome { matches: out.matches, ..Outcome::default() }
            }
            _ => out,
        }
    }

    /// Makes room where problems are not told after all.
    fn drop_problems(&mut self, out: &Outcome<'_>) {
        self.room += out.size();
    }

    fn report<'a>(
        &mut self,
        out: &mut Outcome<'a>,
        place: Option<String>,
        kind: FieldErrorKind,
        shown: Shown<'a>,
        detail: String,
    ) {
        out.invalid = true;
        let problem = Problem { place, kind, shown, detail };
        self.take(problem.size() / WORDS_PER_STEP);
        match self.room.checked_sub(problem.size()) {
            Some(room) => {
                self.room = room;
                out.problems.push(problem);
            }
            None => self.take(UNTOLD),
        }
    }

    const fn take(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(steps);
    }

    /// A value that breaks a rule: `PATH in body` and the words.
    fn invalid<'a>(&mut self, out: &mut Outcome<'a>, at: &Location<'_>, shown: Shown<'a>, words: &str) {
        let place = at.text();
        let detail = format!("{place} in body {words}");
        self.report(out, Some(place), FieldErrorKind::Invalid, shown, detail);
    }

    /// A value of another type than it must have, which is shown by the type's or format's name.
    fn wrong_type<'a>(&mut self, out: &mut Outcome<'a>, at: &Location<'_>, must: &str, is: &'a str) {
        let place = at.text();
        let detail = format!("{place} in body must be of type {must}: {}", go_quote(is));
        self.report(out, Some(place), FieldErrorKind::TypeInvalid, Shown::Name(is), detail);
    }

    fn check<'a>(&mut self, node: &'a Node, value: &'a Value, old: Old<'a>, at: &Location<'_>) -> Outcome<'a> {
        let values = node.values.as_deref();
        let format = values.and_then(|values| values.format.as_ref());
        let mut out = Outcome::default();
        if value.is_null() {
            self.null(&mut out, node, at);
            self.choices(&mut out, values, value, at);
            return out;
        }
        if node.kind != Kind::Any || format.is_some() {
            self.kind(&mut out, node.kind, format, value, at);
            out.matches += 1;
        }
        if let Some(values) = values {
            out.merge(self.alternatives(values, value, at));
        }
        // One for the alternatives, one for their validator.
        out.matches += 2;
        match value {
            Value::String(text) => {
                self.string(&mut out, values, text, value, at);
                out.matches += 1;
                if let Some(format) = format.filter(|format| format.is_of_strings()) {
                    self.take(text.len() / TEXT_PER_STEP);
                    if !format.accepts(text) {
                        self.wrong_type(&mut out, at, format.name(), text);
                    }
                    out.matches += 1;
                }
            }
            Value::Number(number) => {
                self.number(&mut out, node.kind, values, Num::new(number), value, at);
                out.matches += 2;
            }
            Value::Array(list) => {
                self.list(&mut out, node, list, old, at);
                out.matches += 2;
            }
            _ => {}
        }
        self.choices(&mut out, values, value, at);
        out.matches += 1;
        if let Value::Object(map) = value {
            self.object(&mut out, node, map, old, at);
            out.matches += 1;
        }
        out.matches += 1;
        out
    }

    fn null(&mut self, out: &mut Outcome<'_>, node: &Node, at: &Location<'_>) {
        if node.kind != Kind::Any && !node.nullable {
            self.wrong_type(out, at, node.kind.name(), "null");
        } else {
            out.matches += 1;
        }
    }

    /// Upstream's `typeValidator` (`type.go`).
    fn kind(&mut self, out: &mut Outcome<'_>, kind: Kind, format: Option<&Format>, value: &Value, at: &Location<'_>) {
        let (is, is_format) = type_of(value);
        let float = matches!(value, Value::Number(number)
            if kind.takes_integers() && matches!(Num::new(number), Num::Float(float) if numbers::is_integer(float)));
        let has_type = match is {
            Kind::Integer => kind.takes_integers() || kind.takes_numbers(),
            Kind::String if kind == Kind::IntOrString => true,
            is => is == kind,
        } || float;
        let textual = matches!(value, Value::String(_) | Value::Array(_));
        if let Some(format) = format {
            if !textual && !has_type && is_format != format.name() {
                return self.wrong_type(out, at, format.name(), is_format);
            }
            if textual && !kind.takes_integers() && !kind.takes_numbers() {
                out.matches += 1;
                return;
            }
        }
        if has_type {
            out.matches += 1;
        } else {
            self.wrong_type(out, at, kind.name(), is.name());
        }
    }

    fn string<'a>(
        &mut self,
        out: &mut Outcome<'a>,
        values: Option<&Values>,
        text: &str,
        value: &'a Value,
        at: &Location<'_>,
    ) {
        let Some(values) = values else { return };
        if values.max_length.is_some() || values.min_length.is_some() {
            self.take(text.len() / TEXT_PER_STEP);
            let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            if let Some(max) = values.max_length.filter(|max| length > *max) {
                let detail = match max {
                    ..=-1 => "value is too long".to_owned(),
                    1 => "may not be more than 1 byte".to_owned(),
                    _ => format!("may not be more than {max} bytes"),
                };
                return self.report(out, Some(at.text()), FieldErrorKind::TooLong, Shown::Nothing, detail);
            }
            if let Some(min) = values.min_length.filter(|min| length < *min) {
                return self.invalid(out, at, Shown::Json(value), &format!("should be at least {min} chars long"));
            }
        }
        let Some(pattern) = &values.pattern else { return };
        self.take(pattern.work(text.len()));
        if self.steps == 0 {
            return;
        }
        match pattern.matches(text) {
            Ok(true) => {}
            Ok(false) => self.invalid(out, at, Shown::Json(value), &format!("should match '{}'", pattern.text())),
            Err(error) => {
                let text = pattern.text();
                let words = format!("should match '{text}, but pattern is invalid: {error}'");
                self.invalid(out, at, Shown::Json(value), &words);
            }
        }
    }

    fn number<'a>(
        &mut self,
        out: &mut Outcome<'a>,
        kind: Kind,
        values: Option<&Values>,
        number: Num,
        value: &'a Value,
        at: &Location<'_>,
    ) {
        for complaint in numbers::complaints(number, kind, values) {
            match complaint {
                Complaint::OfValue(words) => self.invalid(out, at, Shown::Json(value), &words),
                Complaint::OfPath(words) => {
                    let detail = words + &at.text();
                    self.report(out, None, FieldErrorKind::Invalid, Shown::Nothing, detail);
                }
                Complaint::Factor(factor) => {
                    let place = at.text();
                    let detail = format!("factor MultipleOf declared for {place} must be positive: {}", factor.text());
                    self.report(out, Some(place), FieldErrorKind::Invalid, Shown::Number(factor), detail);
                }
            }
        }
    }

    fn list<'a>(&mut self, out: &mut Outcome<'a>, node: &'a Node, list: &'a [Value], old: Old<'a>, at: &Location<'_>) {
        if let Some(inner) = &node.items {
            let mut before = items(node, old);
            for (index, value) in list.iter().enumerate() {
                if out.invalid && self.steps == 0 {
                    return;
                }
                let old = before.as_mut().and_then(|before| before.get(value));
                out.merge(self.value(inner, value, old, &Location::Index(at, index)));
            }
        }
        let Some(values) = node.values.as_deref() else { return };
        let size = i64::try_from(list.len()).unwrap_or(i64::MAX);
        if let Some(min) = values.min_items.filter(|min| size < *min) {
            self.invalid(out, at, Shown::Count(list.len()), &format!("should have at least {min} items"));
        }
        if let Some(max) = values.max_items.filter(|max| size > *max) {
            self.too_many(out, at, list.len(), max);
        }
        if values.unique_items {
            let mut seen = HashSet::with_capacity(list.len());
            if !list.iter().all(|item| seen.insert(item)) {
                self.invalid(out, at, Shown::Nothing, "shouldn't contain duplicates");
            }
        }
    }

    fn too_many(&mut self, out: &mut Outcome<'_>, at: &Location<'_>, count: usize, max: i64) {
        let detail = match max {
            ..=-1 => "has too many items".to_owned(),
            1 => "must have at most 1 item".to_owned(),
            _ => format!("must have at most {max} items"),
        };
        self.report(out, Some(at.text()), FieldErrorKind::TooMany, Shown::Count(count), detail);
    }

    /// Whether the value is one of the enum's, numbers compared across their types as Go converts them.
    fn choices<'a>(&mut self, out: &mut Outcome<'a>, values: Option<&Values>, value: &'a Value, at: &Location<'_>) {
        let Some(values) = values.filter(|values| !values.choices.is_empty()) else { return };
        let same = |choice: &Value| match (choice, value) {
            (Value::Null, _) | (_, Value::Null) => false,
            (Value::Number(choice), Value::Number(value)) => match (Num::new(choice), Num::new(value)) {
                (Num::Int(choice), Num::Float(value)) => choice == numbers::truncate(value),
                (Num::Int(choice), Num::Int(value)) => choice == value,
                (Num::Float(choice), value) => choice == value.float(),
            },
            _ => choice == value,
        };
        self.take(values.choices.len());
        if values.choices.iter().any(same) {
            return;
        }
        let quoted = |choice: &Value| choice.as_str().map_or_else(|| go_quote(&go_json(choice)), go_quote);
        let detail: Vec<String> = values.choices.iter().map(quoted).collect();
        let detail = format!("supported values: {}", detail.join(", "));
        self.report(out, Some(at.text()), FieldErrorKind::NotSupported, Shown::Json(value), detail);
    }

    fn object<'a>(
        &mut self,
        out: &mut Outcome<'a>,
        node: &'a Node,
        map: &'a Map<String, Value>,
        old: Old<'a>,
        at: &Location<'_>,
    ) {
        let values = node.values.as_deref();
        let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
        if let Some(min) = values.and_then(|values| values.min_properties).filter(|min| size < *min) {
            self.invalid(out, at, Shown::Count(map.len()), &format!("should have at least {min} properties"));
        }
        if let Some(max) = values.and_then(|values| values.max_properties).filter(|max| size > *max) {
            self.too_many(out, at, map.len(), max);
        }
        for (key, value) in map {
            if out.invalid && self.steps == 0 {
                return;
            }
            if let Some(inner) = node.property(key) {
                // Whoever converts an object changes these two.
                let old = if at.is_root() && matches!(&**key, "apiVersion" | "kind") { None } else { child(old, key) };
                out.merge(self.value(inner, value, old, &Location::Field(at, key)));
                continue;
            }
            match &node.additional {
                Additional::Schema(inner) => {
                    out.merge(self.value(inner, value, child(old, key), &Location::Entry(at, key)));
                }
                Additional::False => {
                    let place = at.text();
                    let detail = format!("{place}.{key} in body is a forbidden property");
                    self.report(out, Some(place), FieldErrorKind::Invalid, Shown::Name(key), detail);
                }
                Additional::True | Additional::Absent => {}
            }
        }
        for name in values.into_iter().flat_map(|values| &values.required) {
            if !map.contains_key(&**name) {
                let place = Location::Entry(at, name).text();
                self.report(out, Some(place), FieldErrorKind::Required, Shown::Nothing, String::new());
            }
        }
    }
}

/// A value's type and Go's format of it.
fn type_of(value: &Value) -> (Kind, &'static str) {
    match value {
        Value::Null => (Kind::Any, ""),
        Value::Bool(_) => (Kind::Boolean, ""),
        Value::Number(number) => match Num::new(number) {
            Num::Int(_) => (Kind::Integer, "int64"),
            Num::Float(_) => (Kind::Number, "float64"),
        },
        Value::String(_) => (Kind::String, ""),
        Value::Array(_) => (Kind::Array, ""),
        Value::Object(_) => (Kind::Object, ""),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_looked_at_to_its_end_is_refused() {
        for schema in [
            json!({"not": {"items": {"maximum": 1}}}),
            json!({"oneOf": [{"minItems": 1}, {"items": {"maximum": 1}}]}),
            json!({"items": {"maximum": 3}}),
        ] {
            let node = Node::parse(&schema).unwrap();
            let value = json!([1, 1, 1, 1, 1, 1, 2]);
            let enough = Walk::default().validate(&node, &value, None);
            assert!(!enough.invalid, "{schema}");
            let out = Walk { steps: 5, room: ROOM }.validate(&node, &value, Some(&value));
            assert!(out.invalid, "{schema}");
            assert_eq!(out.problems.last().map(|problem| problem.kind), Some(FieldErrorKind::Internal), "{schema}");
        }
    }
}
