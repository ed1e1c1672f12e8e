//! Holds all pods together to what the node has for them, in `kubepods`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cgroup::CgroupTree;
use crate::convert::resources::PodCgroupLimits;
use crate::events::{EventType, Recorder};

/// How long until limits that the kernel refused are tried again, as upstream.
const RETRY: Duration = Duration::from_secs(60);

/// Limits all pods, once. The kernel refuses a limit of memory below what pods
/// of an earlier configuration use (cgroup v1): that is no reason not to start.
pub async fn enforce(
    tree: Arc<CgroupTree>,
    limits: PodCgroupLimits,
    events: Recorder,
    node: String,
    token: CancellationToken,
) {
    while let Err(error) = tree.limit_all(&limits).await {
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        tracing::warn!("pods are not limited to what the node has for them: {error}{cause}");
        let text = format!("Failed to update Node Allocatable Limits {:?}: {error}{cause}", tree.root());
        events.node(&node, EventType::Warning, "FailedNodeAllocatableEnforcement", text);
        if token.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
            return;
        }
    }
    let text = "Updated Node Allocatable limit across pods";
    events.node(&node, EventType::Normal, "NodeAllocatableEnforced", text);
}
