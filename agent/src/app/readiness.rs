//! What the agent waits for before it goes on, and when it says that it serves.

use std::sync::Arc;
use std::time::Duration;

use cri::RuntimeService;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::NodeView;
use crate::podsource::DesiredRx;

/// The runtime's name, once it answers; `None` when cancelled before.
pub(super) async fn wait_for_runtime(runtime: &dyn RuntimeService, token: &CancellationToken) -> Option<String> {
    let mut pause = Duration::from_millis(50);
    let mut announced = false;
    loop {
        match token.run_until_cancelled(runtime.version()).await? {
            Ok(version) => return Some(version.runtime_name),
            Err(error) if !announced => {
                announced = true;
                tracing::info!(%error, "waiting for the container runtime");
            }
            Err(_) => {}
        }
        token.run_until_cancelled(tokio::time::sleep(pause)).await?;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Waits until the node's addresses are known.
pub(super) async fn first_look(mut node: watch::Receiver<Arc<NodeView>>, token: &CancellationToken) -> bool {
    let known = node.wait_for(|v| !v.host_ips.is_empty());
    matches!(token.run_until_cancelled(known).await, Some(Ok(_)))
}

/// Says when pods are served.
pub(super) async fn announce(
    has_api: bool,
    mut desired: DesiredRx,
    mut node: watch::Receiver<Arc<NodeView>>,
    ready: watch::Sender<bool>,
    token: CancellationToken,
) {
    let work = async {
        // Both senders live as long as the agent; when they go, it ends.
        if desired.wait_for(|d| d.ready.api).await.is_err() {
            return;
        }
        if has_api && node.wait_for(|v| v.node.is_some()).await.is_err() {
            return;
        }
        tracing::info!("serving pods");
        ready.send_replace(true);
    };
    token.run_until_cancelled(work).await;
}
