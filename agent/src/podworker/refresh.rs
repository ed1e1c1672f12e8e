//! Reading the runtime's view of one pod.

use std::sync::Arc;

use cri::types::{ContainerFilter, ContainerState, SandboxFilter, SandboxState, StringMap};
use cri::{CriError, RuntimeService};
use futures::future::try_join_all;

use crate::convert::labels;
use crate::ids::{ObjectName, PodUid};
use crate::podcache::RuntimePod;

/// Lists the pod's sandboxes and containers and asks for what can have changed
/// since `known`. An ended container never changes again.
pub async fn read_pod(
    runtime: &dyn RuntimeService,
    uid: &PodUid,
    name: &ObjectName,
    known: Option<&Arc<RuntimePod>>,
) -> Result<RuntimePod, CriError> {
    let of_pod: StringMap = [(labels::POD_UID.to_owned(), uid.to_string())].into();
    let sandbox_filter = SandboxFilter { labels: of_pod.clone(), ..SandboxFilter::default() };
    let container_filter = ContainerFilter { labels: of_pod, ..ContainerFilter::default() };
    let (sandboxes, containers) =
        tokio::try_join!(runtime.list_pod_sandboxes(&sandbox_filter), runtime.list_containers(&container_filter))?;
    let boxes = sandboxes.iter().map(|summary| async move {
        let old = known.and_then(|k| k.sandboxes.iter().find(|s| s.summary.id == summary.id));
        if let Some(old) = old.filter(|o| o.summary.state == summary.state && o.summary.state == SandboxState::NotReady)
        {
            return Ok(Some(old.clone()));
        }
        gone_is_none(runtime.pod_sandbox_status(&summary.id).await)
    });
    let statuses = containers.iter().map(|summary| async move {
        let old = known.and_then(|k| k.containers.iter().find(|c| *c.id() == summary.id));
        if let Some(old) = old.filter(|o| o.status.state == ContainerState::Exited) {
            return Ok(Some((summary.sandbox.clone(), old.status.clone())));
        }
        let status = gone_is_none(runtime.container_status(&summary.id).await)?;
        Ok::<_, CriError>(status.map(|s| (summary.sandbox.clone(), s)))
    });
    let (boxes, statuses) = tokio::try_join!(try_join_all(boxes), try_join_all(statuses))?;
    Ok(RuntimePod::assemble(
        uid.clone(),
        name.clone(),
        boxes.into_iter().flatten().collect(),
        statuses.into_iter().flatten().collect(),
    ))
}

fn gone_is_none<T>(result: Result<T, CriError>) -> Result<Option<T>, CriError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
