//! [`CriError`]: every way a call to the runtime can fail, by class.

use std::time::Duration;

/// A failed call to the runtime. `op` is the CRI method's name, `object` what it
/// was about (an id, a name, an image).
#[derive(Debug, Clone, thiserror::Error)]
pub enum CriError {
    /// The runtime does not know the object.
    #[error("{op} {object}: not found: {message}")]
    NotFound { op: &'static str, object: String, message: String },
    /// The name is taken, for instance by an attempt whose answer was lost.
    #[error("{op} {object}: already exists: {message}")]
    AlreadyExists { op: &'static str, object: String, message: String },
    /// The request can never succeed as it is.
    #[error("{op} {object}: invalid argument: {message}")]
    InvalidArgument { op: &'static str, object: String, message: String },
    /// The runtime lacks the method.
    #[error("{op}: the runtime does not implement it: {message}")]
    Unimplemented { op: &'static str, message: String },
    /// No answer within the call's deadline. The runtime may still do it.
    #[error("{op} {object}: no answer within {deadline:?}")]
    DeadlineExceeded { op: &'static str, object: String, deadline: Duration },
    /// The socket is gone or refuses.
    #[error("{op} {object}: runtime unavailable: {message}")]
    Unavailable { op: &'static str, object: String, message: String },
    /// An answer that breaks the protocol.
    #[error("{op} {object}: malformed answer: {message}")]
    Malformed { op: &'static str, object: String, message: String },
    /// Anything else the runtime reports (runc's errors arrive here).
    #[error("{op} {object}: {message}")]
    Runtime { op: &'static str, object: String, message: String },
}

impl CriError {
    /// Whether the object is gone, which makes stop and remove succeed.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the name is taken already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }

    /// Whether the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::DeadlineExceeded { .. } | Self::Unavailable { .. } | Self::Runtime { .. })
    }
}

/// The result of a call to the runtime.
pub type Result<T> = std::result::Result<T, CriError>;
