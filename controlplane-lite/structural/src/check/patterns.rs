//! What the patterns of a schema take together: each is compiled here once, and again when an object asks.

use std::collections::HashMap;

use cel::pattern::{SIZE_LIMIT, TOO_LARGE, compile_sized, wide};

/// Bytes that all of them may take. A few letters can stand for megabytes.
const ROOM: usize = 64 << 20;
/// Bytes that a class of Unicode takes on the way.
const OF_CLASS: usize = 64 << 10;
/// Bytes that a pattern takes which is none.
const OF_NONE: usize = 16 << 10;

/// The patterns of one schema.
#[derive(Debug)]
pub(super) struct Patterns<'s> {
    room: usize,
    known: HashMap<&'s str, Option<String>>,
}

impl<'s> Patterns<'s> {
    pub(super) fn new() -> Self {
        Self { room: ROOM, known: HashMap::new() }
    }

    /// What is wrong with a pattern.
    pub(super) fn problem(&mut self, pattern: &'s str) -> Option<String> {
        if let Some(problem) = self.known.get(pattern) {
            return problem.clone();
        }
        let problem = self.compile(pattern);
        self.known.insert(pattern, problem.clone());
        problem
    }

    fn compile(&mut self, pattern: &str) -> Option<String> {
        if self.room == 0 {
            return Some("the patterns of the schema take too much together".to_owned());
        }
        let compiled = compile_sized(pattern);
        let takes = match &compiled {
            Ok(compiled) => compiled.size,
            Err(problem) if problem == TOO_LARGE => SIZE_LIMIT,
            Err(_) => OF_NONE,
        };
        let takes = takes + wide(pattern) * OF_CLASS;
        self.room = self.room.saturating_sub(takes);
        compiled.err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_counted_once_and_together() {
        let mut patterns = Patterns { room: 10 << 20, known: HashMap::new() };
        for _ in 0..1000 {
            assert_eq!(patterns.problem("^a$"), None);
        }
        let together = Some("the patterns of the schema take too much together".to_owned());
        assert_eq!(patterns.problem(r"[a-z]{999}"), None);
        assert_eq!(patterns.problem(r"\pL{1000}\pL{1000}"), Some(TOO_LARGE.to_owned()));
        assert_eq!(patterns.problem(r"\pL{1000}\pN{1000}"), together);
        assert_eq!(patterns.problem(r"[a-z]{999}"), None);
        assert_eq!(patterns.problem("^b$"), together);
    }
}
