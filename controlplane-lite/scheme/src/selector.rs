//! Label selectors (query strings and `LabelSelector` objects) and field
//! selectors: parsing with upstream's errors, matching, printing.

mod field;
mod label;

pub use field::{FieldSelector, FieldTerm, Fields, Selectable, plain_field, selectable_fields};
pub(crate) use label::validate_with;
pub use label::{LabelSelector, Operator, Requirement, validate_object};

/// Conditions that one selector of a request may have. Each is asked of every object that a list or watch passes;
/// upstream has no bound of its own, and its clients name a handful.
pub const MAX_TERMS: usize = 400;
/// Values that all conditions of one selector of a request may have: a watch keeps them as long as it is open.
pub const MAX_VALUES: usize = 1000;

/// Why a selector cannot be used; answered as 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The label selector does not parse.
    #[error("unable to parse requirement: {0}")]
    Label(String),
    /// It has more conditions or values than a request may ask for.
    #[error("invalid selector: more than {max} {what}")]
    TooMany {
        /// What of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A field selector term has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    FieldSyntax {
        /// The whole selector.
        selector: String,
        /// The term without operator.
        term: String,
    },
    /// A backslash in a field selector value escapes nothing.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    FieldEscape(String),
    /// The kind does not support selecting by this field.
    #[error("{0}")]
    UnsupportedField(String),
}

#[cfg(test)]
mod tests;
