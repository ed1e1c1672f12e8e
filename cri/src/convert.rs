//! Between our vocabulary and CRI v1's protobuf messages, both ways.
//!
//! Pure: nothing here waits, logs or looks at the machine. What we send always
//! converts; what we receive may be garbage, and then the error is a
//! [`Malformed`] that says which field is wrong.

pub(crate) mod request;
pub(crate) mod response;

#[cfg(test)]
mod tests;

/// A received message breaks the protocol; the text names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub String);

impl Malformed {
    fn missing(field: &str) -> Self {
        Self(format!("field {field} is missing"))
    }
}
