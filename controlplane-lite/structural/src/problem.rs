//! What a walk finds, and how a client is told: upstream's `kubeOpenAPIResultToFieldErrors`
//! (`pkg/apiserver/validation/validation.go`).

use std::collections::HashSet;

use scheme::{FieldErrorKind, FieldErrors, Path, field::BadValue};
use serde_json::Value;

use crate::numbers::Num;

/// The value that an error shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown<'a> {
    Nothing,
    Name(&'a str),
    Count(usize),
    Number(Num),
    Json(&'a Value),
}

impl BadValue for Shown<'_> {
    fn told(self, room: usize) -> (Value, usize) {
        match self {
            Self::Nothing => "".told(room),
            Self::Name(text) => text.told(room),
            Self::Count(count) => count.told(room),
            Self::Number(Num::Int(number)) => number.told(room),
            Self::Number(Num::Float(number)) => Value::from(number).told(room),
            Self::Json(value) => value.told(room),
        }
    }
}

/// One problem.
#[derive(Debug)]
pub(crate) struct Problem<'a> {
    /// Where; none for those that name no field of their own.
    pub(crate) place: Option<String>,
    pub(crate) kind: FieldErrorKind,
    pub(crate) shown: Shown<'a>,
    pub(crate) detail: String,
}

impl Problem<'_> {
    /// About the bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.detail.len() + self.place.as_ref().map_or(0, String::len)
    }
}

/// What came of checking one value.
#[derive(Debug, Default)]
pub(crate) struct Outcome<'a> {
    pub(crate) problems: Vec<Problem<'a>>,
    /// Whether there are problems, also such as there was no room for.
    pub(crate) invalid: bool,
    /// How much was right: the alternative with most of it is told of.
    pub(crate) matches: u64,
}

impl<'a> Outcome<'a> {
    pub(crate) fn merge(&mut self, mut other: Outcome<'a>) {
        self.problems.append(&mut other.problems);
        self.invalid |= other.invalid;
        self.matches += other.matches;
    }

    pub(crate) fn size(&self) -> usize {
        self.problems.iter().map(Problem::size).sum()
    }
}

/// Tells each problem once, below `base`. Upstream prints the path of none as `<nil>`.
pub(crate) fn to_field_errors(outcome: Outcome<'_>, base: Option<&Path<'_>>, errors: &mut FieldErrors) {
    let nowhere = Path::new("<nil>");
    let root = base.unwrap_or(&Path::ROOT);
    let mut seen = HashSet::new();
    if outcome.invalid && outcome.problems.is_empty() {
        errors.push(base.unwrap_or(&nowhere), FieldErrorKind::Internal, "", "more problems than can be told");
    }
    for problem in &outcome.problems {
        if !seen.insert((&problem.place, problem.kind.reason(), &problem.detail)) {
            continue;
        }
        let name = problem.place.as_ref().map_or("", |name| name.strip_prefix('.').unwrap_or(name));
        if name.is_empty() {
            errors.push(base.unwrap_or(&nowhere), problem.kind, problem.shown, &*problem.detail);
        } else {
            errors.push(&root.child(name), problem.kind, problem.shown, &*problem.detail);
        }
    }
}
