//! The one connection to the runtime: a lazily (re)connecting gRPC channel over
//! a unix socket, and calls on it with a deadline and typed errors.

use std::error::Error as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::convert::Malformed;
use crate::error::{CriError, Result};

/// containerd's own limit of a message, both ways.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// A channel that connects at the first call, and again at the first call after
/// the runtime went away. Must be made inside a tokio runtime.
pub(crate) fn lazy(socket: &Path) -> Channel {
    let socket: PathBuf = socket.to_owned();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The authority is sent, never resolved.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// One call: what it is, what it is about, how long it may take.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub op: &'static str,
    pub object: String,
    /// `None` waits as long as the runtime does.
    pub deadline: Option<Duration>,
}

impl Call {
    pub(crate) fn new(op: &'static str, object: impl ToString, deadline: Duration) -> Self {
        Self { op, object: object.to_string(), deadline: Some(deadline) }
    }

    /// Awaits the answer. At the deadline the request is dropped, which cancels
    /// it in the runtime as well; it may still have happened.
    pub(crate) async fn send<T>(
        &self,
        answer: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<T> {
        let result = match self.deadline {
            Some(deadline) => match tokio::time::timeout(deadline, answer).await {
                Ok(result) => result,
                Err(_) => return Err(self.deadline_exceeded(deadline)),
            },
            None => answer.await,
        };
        result.map(Response::into_inner).map_err(|status| self.status(&status))
    }

    /// Types a gRPC error.
    pub(crate) fn status(&self, status: &Status) -> CriError {
        let (op, object) = (self.op, self.object.clone());
        let message = message(status);
        // A source marks an error of our side: no connection, or it broke.
        if status.source().is_some() {
            return CriError::Unavailable { op, object, message };
        }
        match status.code() {
            Code::NotFound => CriError::NotFound { op, object, message },
            Code::AlreadyExists => CriError::AlreadyExists { op, object, message },
            Code::InvalidArgument | Code::OutOfRange => CriError::InvalidArgument { op, object, message },
            Code::Unimplemented => CriError::Unimplemented { op, message },
            Code::DeadlineExceeded => self.deadline_exceeded(self.deadline.unwrap_or_default()),
            Code::Unavailable => CriError::Unavailable { op, object, message },
            // containerd has no code of its own for it, only these words.
            _ if message.contains(" is reserved for ") => CriError::AlreadyExists { op, object, message },
            // prost's words for bytes that are no such message.
            Code::Internal if message.starts_with("failed to decode Protobuf") => {
                CriError::Malformed { op, object, message }
            }
            _ => CriError::Runtime { op, object, message },
        }
    }

    pub(crate) fn malformed(&self, garbage: Malformed) -> CriError {
        CriError::Malformed { op: self.op, object: self.object.clone(), message: garbage.0 }
    }

    fn deadline_exceeded(&self, deadline: Duration) -> CriError {
        CriError::DeadlineExceeded { op: self.op, object: self.object.clone(), deadline }
    }
}

/// The status' message with its causes: tonic keeps "connection refused" there.
fn message(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
