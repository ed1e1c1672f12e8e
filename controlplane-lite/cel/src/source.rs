//! The text of an expression, where things are in it, and how what is wrong with it is shown (cel-go's
//! `common/error.go`).

use std::fmt;

/// The most errors that are shown of one expression.
const MAX_SHOWN: usize = 100;
/// The longest line that is shown, in bytes.
const MAX_SNIPPET: usize = 16_384;

/// A place in the text: lines count from one, columns from zero, in code points. `None` is no place at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The line, from one.
    pub line: u32,
    /// The column, from zero.
    pub column: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Where. Absent for what concerns the whole expression.
    pub location: Option<Location>,
    /// What, in cel-go's words.
    pub message: String,
}

/// What is wrong with an expression, in the order of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issues {
    source: Box<str>,
    issues: Vec<Issue>,
}

impl Issues {
    /// The issues of a text, sorted by place.
    pub(crate) fn new(source: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.location);
        Self { source: source.into(), issues }
    }

    /// Each of them.
    #[must_use]
    pub fn all(&self) -> &[Issue] {
        &self.issues
    }

    fn write_issue(&self, f: &mut fmt::Formatter<'_>, issue: &Issue) -> fmt::Result {
        let Some(at) = issue.location else {
            return write!(f, "ERROR: <input>:-1:0: {}", issue.message);
        };
        write!(f, "ERROR: <input>:{}:{}: {}", at.line, at.column + 1, issue.message)?;
        let Some(line) = self.source.split('\n').nth(at.line.saturating_sub(1) as usize) else { return Ok(()) };
        if line.len() > MAX_SNIPPET {
            return Ok(());
        }
        write!(f, "\n | {}\n | ", line.replace('\t', " "))?;
        let mut chars = line.chars();
        for c in chars.by_ref().take(at.column as usize) {
            f.write_str(if c.is_ascii() { "." } else { "\u{ff0e}" })?;
        }
        f.write_str(if chars.next().is_none_or(|c| c.is_ascii()) { "^" } else { "\u{ff3e}" })
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().take(MAX_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            self.write_issue(f, issue)?;
        }
        if self.issues.len() > MAX_SHOWN {
            write!(f, "\n{} more errors were truncated", self.issues.len() - MAX_SHOWN)?;
        }
        Ok(())
    }
}

/// Turns byte offsets into locations.
#[derive(Debug)]
pub(crate) struct Lines<'s> {
    text: &'s str,
    starts: Vec<usize>,
}

impl<'s> Lines<'s> {
    pub(crate) fn new(text: &'s str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The place of a byte offset at a character's boundary.
    pub(crate) fn locate(&self, offset: usize) -> Location {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |text| text.chars().count());
        Location { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}
