//! Holds all pods together to what the node has for them, in `kubepods`.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cgroup::CgroupTree;
use crate::convert::resources::PodCgroupLimits;
use crate::events::{EventRecorder, EventType};

/// How long until limits that the kernel refused are tried again, as upstream.
const RETRY: Duration = Duration::from_secs(60);

/// Limits all pods, once. The kernel refuses a limit of memory below what pods
/// of an earlier configuration use (cgroup v1): that is no reason not to start.
pub async fn enforce(
    tree: Arc<CgroupTree>,
    limits: PodCgroupLimits,
    events: EventRecorder,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cgroup::Hierarchies;
    use crate::config::{AgentConfig, CgroupDriver};

    #[tokio::test(start_paused = true)]
    async fn what_the_kernel_refuses_is_told_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut hierarchies = Hierarchies::default();
        for controller in ["cpu", "memory", "pids"] {
            hierarchies.v1.insert(controller.to_owned(), dir.path().join(controller));
        }
        let mut settings = AgentConfig::new("n", "/d").cgroups;
        settings.driver = Some(CgroupDriver::Cgroupfs);
        let tree = Arc::new(CgroupTree::new(&settings, hierarchies).unwrap());
        tree.set_up(2).await.unwrap();
        // A limit that cannot be written, as a busy one.
        let file = dir.path().join("memory/kubepods/memory.limit_in_bytes");
        std::fs::create_dir(&file).unwrap();
        let limits = PodCgroupLimits { cpu_shares: 2, memory: Some(7), ..PodCgroupLimits::default() };
        let (events, mut told) = EventRecorder::channel(8);
        let token = CancellationToken::new();
        let task = tokio::spawn(enforce(tree, limits, events, "n".to_owned(), token.clone()));
        for _ in 0..2 {
            let event = told.recv().await.unwrap();
            assert_eq!((event.kind, event.reason.as_ref()), (EventType::Warning, "FailedNodeAllocatableEnforcement"));
            assert!(event.message.starts_with("Failed to update Node Allocatable Limits \"kubepods\": "), "{event:?}");
        }
        std::fs::remove_dir(&file).unwrap();
        let event = told.recv().await.unwrap();
        assert_eq!((event.kind, event.reason.as_ref()), (EventType::Normal, "NodeAllocatableEnforced"));
        task.await.unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "7");
        assert!(told.recv().await.is_none(), "it is done");
    }
}
