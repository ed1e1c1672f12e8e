//! [`CriClient`]: the traits over CRI v1, gRPC on a unix socket.
//!
//! Owns the channel and the deadlines. It keeps no state of the runtime: every
//! answer is what the runtime said just now.

mod image;
mod runtime;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::sync::OnceCell;
use tonic::transport::Channel;

use crate::channel::{self, MAX_MESSAGE};
use crate::events::EventSource;

/// How long calls may take. The defaults are upstream's: `runtimeRequestTimeout`
/// is two minutes, doubled for a sandbox because CNI is slow at times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Everything that has no value of its own, and the margin that stop and
    /// exec get over the time the caller granted.
    pub request: Duration,
    pub run_pod_sandbox: Duration,
    pub pull_image: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(120),
            run_pod_sandbox: Duration::from_secs(240),
            pull_image: Duration::from_secs(30 * 60),
        }
    }
}

/// The runtime behind a unix socket. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct CriClient {
    pub(crate) socket: PathBuf,
    pub(crate) channel: Channel,
    pub(crate) deadlines: Deadlines,
    /// Where events come from, found at the first subscription.
    pub(crate) event_source: Arc<OnceCell<EventSource>>,
}

impl CriClient {
    /// A client of the runtime at `socket` (a path, without `unix://`).
    ///
    /// Nothing is connected yet: the first call does, and so does the first call
    /// after the runtime was restarted. Call it inside a tokio runtime.
    pub fn connect(socket: impl Into<PathBuf>) -> Self {
        Self::with_deadlines(socket, Deadlines::default())
    }

    /// As [`CriClient::connect`], with other deadlines.
    pub fn with_deadlines(socket: impl Into<PathBuf>, deadlines: Deadlines) -> Self {
        let socket = socket.into();
        let channel = channel::lazy(&socket);
        Self { socket, channel, deadlines, event_source: Arc::default() }
    }

    /// As it is, but with events from `source` instead of the best one.
    pub fn with_event_source(self, source: EventSource) -> Self {
        Self { event_source: Arc::new(OnceCell::new_with(Some(source))), ..self }
    }

    /// Path of the runtime's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }
}

/// Whole seconds, rounded up: CRI's unit of timeouts.
fn seconds(duration: Duration) -> i64 {
    let whole = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX)
}
