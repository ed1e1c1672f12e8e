//! Label selectors (query strings and `LabelSelector` objects) and field
//! selectors: parsing with upstream's errors, matching, printing.

mod field;
mod label;

pub use field::{FieldSelector, FieldTerm, Fields, plain_field, selectable_fields};
pub use label::{LabelSelector, Operator, Requirement, validate_object};

/// Why a selector cannot be used; answered as 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The label selector does not parse.
    #[error("unable to parse requirement: {0}")]
    Label(String),
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
