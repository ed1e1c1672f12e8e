//! Blocking file-system work of one pod. It cannot be interrupted: when who
//! asked for it waits no longer, it goes on, and others have to wait for it.

use std::sync::Arc;

use tokio::sync::RwLock;

/// The work of one pod that runs now.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs(Arc<RwLock<()>>);

impl Jobs {
    /// Does the work where it may block.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let running = self.0.clone().read_owned().await;
        let job = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(running);
            result
        });
        job.await.unwrap_or_else(|error| Err(format!("file-system work was lost: {error}")))
    }

    /// Waits until none runs.
    pub async fn wait_idle(&self) {
        drop(self.0.write().await);
    }
}
