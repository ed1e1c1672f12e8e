//! Comprehensions.

use super::{Machine, Slot};
use crate::error::EvalError;
use crate::library::Outcome;
use crate::plan::Fold;
use crate::value::{List, Map, Value};

/// What a comprehension goes over.
enum Range<'a> {
    List(List<'a>),
    Map(Map<'a>, Vec<Value<'a>>),
}

impl<'a> Range<'a> {
    fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Map(_, keys) => keys.len(),
        }
    }

    /// The variables at a step: an element or key, or an index or key and its value.
    fn variables(&self, index: usize, two: bool) -> (Outcome<'a>, Option<Outcome<'a>>) {
        let gone = || Err(EvalError::new("no such key"));
        match self {
            Self::List(list) => {
                let element = list.get(index).unwrap_or_else(gone);
                if two {
                    (Ok(Value::Int(i64::try_from(index).unwrap_or(i64::MAX))), Some(element))
                } else {
                    (element, None)
                }
            }
            Self::Map(map, keys) => {
                let Some(key) = keys.get(index) else { return (gone(), None) };
                (Ok(key.clone()), two.then(|| map.get(key).unwrap_or_else(gone)))
            }
        }
    }
}

impl<'p, 'a> Machine<'p, 'a, '_> {
    pub(super) fn fold(&mut self, fold: &'p Fold) -> Outcome<'a> {
        let range = match self.eval(&fold.range)? {
            Value::List(list) => Range::List(list),
            Value::Map(map) => {
                self.budget.steps(map.len())?;
                let keys = map.keys();
                Range::Map(map, keys)
            }
            other => {
                let of = other.type_of();
                return Err(EvalError::new(format!("got '{}', expected iterable type", of.runtime_name())));
            }
        };
        self.locals.truncate(fold.place);
        self.locals.push(Slot::Lazy(&fold.init));
        let outcome = self.iterate(fold, &range);
        self.locals.truncate(fold.place + 1);
        let result = outcome.and_then(|()| self.eval(&fold.result));
        self.locals.truncate(fold.place);
        result
    }

    /// Goes through the range. It fails only if the evaluation ends: what else goes wrong is collected.
    fn iterate(&mut self, fold: &'p Fold, range: &Range<'a>) -> Result<(), EvalError> {
        for index in 0..range.len() {
            self.budget.steps(1)?;
            self.locals.truncate(fold.place + 1);
            let (first, second) = range.variables(index, fold.two);
            self.locals.push(Slot::Ready(first));
            self.locals.extend(second.map(Slot::Ready));
            match self.eval(&fold.condition) {
                Ok(Value::Bool(false)) => return Ok(()),
                Err(error) if error.ends() => return Err(error),
                _ => {}
            }
            let step = self.eval(&fold.step);
            if let Err(error) = &step
                && error.ends()
            {
                return Err(error.clone());
            }
            self.locals[fold.place] = Slot::Ready(step);
        }
        Ok(())
    }
}
