//! `allOf`, `anyOf`, `oneOf` and `not` (`schema_props.go` upstream). Where none of several fits, the one that fits most
//! is told of. Nothing in them is compared with what was before.

use scheme::{FieldErrorKind, field::go_quote};
use serde_json::Value;

use crate::location::Location;
use crate::node::Values;
use crate::problem::{Outcome, Shown};
use crate::walk::Walk;

impl Walk {
    pub(super) fn alternatives<'a>(&mut self, values: &'a Values, value: &'a Value, at: &Location<'_>) -> Outcome<'a> {
        let mut out = Outcome::default();
        self.any_of(&mut out, values, value, at);
        self.one_of(&mut out, values, value, at);
        self.all_of(&mut out, values, value, at);
        if let Some(not) = &values.not {
            let result = self.value(not, value, None, at);
            if result.invalid {
                self.drop_problems(&result);
            } else {
                self.alternative(&mut out, at, "must not validate the schema (not)");
            }
        }
        out
    }

    /// A problem that names the path in its words, and no field.
    fn alternative(&mut self, out: &mut Outcome<'_>, at: &Location<'_>, words: &str) {
        let detail = format!("{} {words}", go_quote(&at.text()));
        self.report(out, None, FieldErrorKind::Invalid, Shown::Nothing, detail);
    }

    fn any_of<'a>(&mut self, out: &mut Outcome<'a>, values: &'a Values, value: &'a Value, at: &Location<'_>) {
        let mut best: Option<Outcome<'a>> = None;
        for node in &values.any_of {
            let result = self.value(node, value, None, at);
            if !result.invalid {
                if let Some(worse) = best {
                    self.drop_problems(&worse);
                }
                out.merge(result);
                return;
            }
            best = Some(self.better(best, result));
        }
        if let Some(best) = best {
            self.alternative(out, at, "must validate at least one schema (anyOf)");
            out.merge(best);
        }
    }

    fn one_of<'a>(&mut self, out: &mut Outcome<'a>, values: &'a Values, value: &'a Value, at: &Location<'_>) {
        if values.one_of.is_empty() {
            return;
        }
        let mut best: Option<Outcome<'a>> = None;
        let mut first = None;
        let mut valid = 0;
        for node in &values.one_of {
            let result = self.value(node, value, None, at);
            if !result.invalid {
                valid += 1;
                if let Some(worse) = best.take() {
                    self.drop_problems(&worse);
                }
                first.get_or_insert(result);
            } else if valid == 0 {
                best = Some(self.better(best, result));
            } else {
                self.drop_problems(&result);
            }
        }
        match valid {
            0 => self.alternative(out, at, "must validate one and only one schema (oneOf). Found none valid"),
            1 => out.merge(first.unwrap_or_default()),
            _ => {
                let words = format!("must validate one and only one schema (oneOf). Found {valid} valid alternatives");
                self.alternative(out, at, &words);
            }
        }
        if let Some(best) = best {
            out.merge(best);
        }
    }

    fn all_of<'a>(&mut self, out: &mut Outcome<'a>, values: &'a Values, value: &'a Value, at: &Location<'_>) {
        let mut valid = 0;
        for node in &values.all_of {
            if out.invalid && self.steps == 0 {
                break;
            }
            let result = self.value(node, value, None, at);
            valid += usize::from(!result.invalid);
            out.merge(result);
        }
        if valid != values.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            self.alternative(out, at, &format!("must validate all the schemas (allOf){none}"));
        }
    }

    /// The one of two failures that has more right; the first of equals.
    fn better<'a>(&mut self, best: Option<Outcome<'a>>, result: Outcome<'a>) -> Outcome<'a> {
        let Some(best) = best else { return result };
        let (better, worse) = if result.matches > best.matches { (result, best) } else { (best, result) };
        self.drop_problems(&worse);
        better
    }
}
