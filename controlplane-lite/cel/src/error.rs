//! Why an expression cannot be compiled or evaluated.

use std::fmt;

use crate::source::Issues;

/// An expression that cannot be compiled. Displays as cel-go's issues do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompileError {
    /// The text does not parse, or its types do not fit.
    Issues(Issues),
    /// Constants whose conversion fails.
    Program(String),
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issues(issues) => issues.fmt(f),
            Self::Program(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for CompileError {}

/// What evaluation came to instead of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvalError {
    /// The expression failed, in cel-go's words.
    Failed(Box<str>),
    /// More was spent than allowed. Nothing takes the place of this error.
    CostLimit,
}

/// The text of [`EvalError::CostLimit`].
pub const COST_LIMIT: &str = "operation cancelled: actual cost limit exceeded";

impl EvalError {
    /// A failure in words.
    pub fn new(message: impl Into<Box<str>>) -> Self {
        Self::Failed(message.into())
    }

    /// Values that an operator does not take.
    pub(crate) fn no_overload() -> Self {
        Self::new("no such overload")
    }

    /// Whether the evaluation ends with it, whatever an expression makes of errors.
    #[must_use]
    pub const fn ends(&self) -> bool {
        matches!(self, Self::CostLimit)
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) => f.write_str(message),
            Self::CostLimit => f.write_str(COST_LIMIT),
        }
    }
}

impl std::error::Error for EvalError {}
