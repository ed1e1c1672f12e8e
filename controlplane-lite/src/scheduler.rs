//! The bundled scheduler: an ordinary API client that binds pods to nodes.

use kube::Client;
use tokio_util::sync::CancellationToken;

/// Profiles and limits of the scheduler.
#[derive(Debug, Clone, Default)]
pub struct SchedulerConfig {}

/// Runs the scheduler until the token is cancelled.
pub async fn run(_client: Client, _config: SchedulerConfig, token: CancellationToken) {
    token.cancelled().await;
}
