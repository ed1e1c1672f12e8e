//! What is wrong at the moment, told once and not at every look.

use std::collections::BTreeSet;
use std::error::Error;

/// Problems that were told and are still there.
#[derive(Debug, Default)]
pub struct Problems {
    told: BTreeSet<String>,
}

impl Problems {
    /// Tells of what is new in `present`, and forgets what is over; returns what it told.
    pub fn report(&mut self, present: BTreeSet<String>) -> BTreeSet<String> {
        let new: BTreeSet<_> = present.difference(&self.told).cloned().collect();
        new.iter().for_each(|problem| tracing::warn!("pod network: {problem}"));
        self.told = present;
        new
    }

    /// Whether there is one.
    pub fn any(&self) -> bool {
        !self.told.is_empty()
    }
}

/// An error with its sources, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        line = format!("{line}: {next}");
        source = next.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_again_only_after_it_was_over() {
        let mut problems = Problems::default();
        let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(problems.report(some(&["a", "b"])), some(&["a", "b"]));
        assert_eq!(problems.report(some(&["a", "b", "c"])), some(&["c"]));
        assert_eq!(problems.report(some(&["c"])), some(&[]));
        assert!(problems.any());
        assert_eq!(problems.report(some(&["a"])), some(&["a"]));
        assert_eq!(problems.report(some(&[])), some(&[]));
        assert!(!problems.any());
    }

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let source = std::io::Error::other("no memory");
        let error = crate::links::LinkError::Kernel { step: "make a link".to_owned(), source };
        assert_eq!(chain(&error), "make a link: no memory");
    }
}
