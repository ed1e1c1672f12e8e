//! The expressions of admissionregistration.k8s.io, as whoever understands them is asked about them. What else is wrong
//! with an object around them is for its validation.

use serde_json::Value;

use crate::field::{FieldErrors, Path};

/// What an expression is for, from which follows what it may give and which names it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether a webhook or policy has to do with a request: a bool.
    MatchCondition,
    /// A variable of a policy: anything.
    Variable,
    /// Whether a request is fine: a bool.
    Validation,
    /// What is said when it is not: a string. It may not use the authorizer.
    Message,
    /// The value of an annotation in the audit log: a string or null.
    AuditAnnotation,
    /// A list of operations on the object (`JSONPatch`).
    JsonPatch,
    /// Fields of the object, as who applies them (`Object`).
    ApplyConfiguration,
}

/// An expression, and what its meaning depends on.
#[derive(Debug, Clone, Copy)]
pub struct Expression<'a> {
    /// As it is written.
    pub text: &'a str,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether there are `params`.
    pub params: bool,
    /// Entries of the policy's `variables` that it may use. One that is wrong is told where it stands, not by those who
    /// use it.
    pub variables: &'a [Value],
    /// Whether it is stored already: what an older server took is not refused.
    pub stored: bool,
}

/// Says what is wrong with an expression at a path: upstream's `CompileCELExpression` and
/// `convertCELErrorToValidationError` (`pkg/apis/admissionregistration/validation/validation.go`).
pub type ExpressionCheck = dyn Fn(Expression<'_>, &Path<'_>, &mut FieldErrors) + Send + Sync;
