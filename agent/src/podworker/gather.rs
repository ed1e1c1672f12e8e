//! Getting together what containers need before they start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cri::types::{SandboxConfig, SandboxStatus};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use super::deps::Deps;
use super::sandbox::{self, CreateSandboxError};
use super::worker::Worker;
use crate::contract::{MountedVolumes, VolumeError};
use crate::convert::container;
use crate::image::{EnsuredImage, PullError};
use crate::plan::StartContainer;
use crate::status::Stage;

/// How long volumes and images may hold up a sandbox before its status is
/// published without them.
const SLOW: Duration = Duration::from_millis(200);

/// Images by container name.
pub(super) type Images = BTreeMap<String, Result<EnsuredImage, PullError>>;

/// Images are worth nothing without a sandbox.
pub(super) type Gathered = (Result<Arc<MountedVolumes>, VolumeError>, Result<Images, CreateSandboxError>);

/// Volumes and images at the same time.
async fn others(
    deps: &Deps,
    pod: &Arc<Pod>,
    config: &SandboxConfig,
    ready: &[StartContainer],
) -> (Result<Arc<MountedVolumes>, VolumeError>, Images) {
    let images = ready.iter().filter_map(|start| {
        let (_, found) = container::find(pod, &start.name)?;
        Some(async move { (found.name.clone(), deps.images.ensure(pod, &found, config).await) })
    });
    let (volumes, images) = tokio::join!(deps.volumes.set_up(pod), join_all(images));
    (volumes, images.into_iter().collect())
}

impl Worker {
    /// Sandbox, volumes and images at the same time: they do not need each
    /// other. A sandbox that has to wait for the others is reported meanwhile.
    pub(super) async fn gather(&mut self, config: &SandboxConfig, create: bool, ready: &[StartContainer]) -> Gathered {
        let (deps, pod) = (self.deps.clone(), self.pod.clone());
        let sandbox = async { if create { sandbox::create(&deps, &pod, config).await.map(Some) } else { Ok(None) } };
        let others = others(&deps, &pod, config, ready);
        tokio::pin!(sandbox, others);
        // Cancel-safe: both are polled on by reference until they end.
        let early = tokio::select! {
            biased;
            others = others.as_mut() => Err(others),
            sandbox = sandbox.as_mut() => Ok(sandbox),
        };
        match early {
            Err((volumes, images)) => {
                let sandbox = sandbox.await;
                (volumes, self.take_sandbox(sandbox).map(|()| images))
            }
            Ok(sandbox) => {
                if let Err(error) = self.take_sandbox(sandbox) {
                    return (Ok(Arc::default()), Err(error));
                }
                let (volumes, images) = match tokio::time::timeout(SLOW, others.as_mut()).await {
                    Ok(done) => done,
                    Err(_) => {
                        self.publish(Stage::Syncing);
                        others.await
                    }
                };
                (volumes, Ok(images))
            }
        }
    }

    fn take_sandbox(
        &mut self,
        made: Result<Option<SandboxStatus>, CreateSandboxError>,
    ) -> Result<(), CreateSandboxError> {
        if let Some(status) = made? {
            self.adopt_sandbox(status);
        }
        Ok(())
    }
}
