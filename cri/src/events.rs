//! Container events from the best source the runtime has.
//!
//! containerd's own event service is preferred wherever the runtime is
//! containerd, of any version: it also tells of out-of-memory kills, it starts
//! at a known point, and every subscriber gets every event. CRI's
//! `GetContainerEvents` (containerd 1.7 and later, CRI-O) has one queue that
//! subscribers take from in turn in 1.7, so that a restarted client loses an
//! event to its dead predecessor; it serves for other runtimes.

mod containerd;
pub(crate) mod decode;
mod in_step;
mod stream;

use crate::client::CriClient;
use crate::error::Result;
use crate::service::{ContainerEvents, RuntimeService};

/// Where container events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSource {
    /// containerd's event service, namespace `k8s.io`.
    Containerd,
    /// CRI's `GetContainerEvents`.
    CriStream,
}

/// Subscribes at the best source, found once for each client.
pub(crate) async fn subscribe(client: &CriClient) -> Result<ContainerEvents> {
    let source = client.event_source.get_or_try_init(async || {
        let version = client.version().await?;
        let own = version.runtime_name == "containerd";
        Ok(if own { EventSource::Containerd } else { EventSource::CriStream })
    });
    match source.await? {
        EventSource::Containerd => containerd::subscribe(client).await,
        EventSource::CriStream => stream::subscribe(client).await,
    }
}
