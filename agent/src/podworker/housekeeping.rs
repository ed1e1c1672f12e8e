//! Looks now and then for what dead agents, lost answers and failed removals
//! left behind: directories and cgroups of pods nobody wants and nobody works
//! on, and dead containers of those somebody does.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::deps::Deps;
use super::dispatch::PodWorkers;
use crate::cgroup::Weighing;
use crate::convert::qos::burstable_milli_cpu;
use crate::convert::resources;
use crate::ids::PodUid;
use crate::podsource::{DesiredPods, DesiredRx};
use crate::retention::{containers, pods};

const PERIOD: Duration = Duration::from_secs(60);

/// Cleans up now and then until cancelled, once it is known what is wanted.
pub async fn run(deps: Arc<Deps>, workers: PodWorkers, mut desired: DesiredRx, token: CancellationToken) {
    let synced = desired.wait_for(|d| d.ready.api);
    if !matches!(token.run_until_cancelled(synced).await, Some(Ok(_))) {
        return;
    }
    loop {
        let wanted = desired.borrow_and_update().clone();
        let alive = |uid: &PodUid| wanted.wants(uid) || workers.contains(uid) || deps.cache.knows(uid);
        if wanted.ready.all() {
            find_left(&deps, &workers, &alive).await;
            remove_idle_cgroups(&deps, &alive).await;
        }
        weigh_burstable(&deps, &wanted).await;
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
            // Cancel-safe: it only waits.
            Ok(_) = desired.wait_for(|d| d.ready.all()), if !wanted.ready.all() => {}
        }
    }
}

/// What pods left behind goes as any pod's does: by a worker, so that nobody starts the same pod meanwhile.
async fn find_left(deps: &Deps, workers: &PodWorkers, alive: &(dyn Fn(&PodUid) -> bool + Sync)) {
    workers.found_left(pods::left(&deps.settings.paths, alive).await);
    // What could not be removed at first, while nothing else happened to the pod.
    for pod in deps.cache.all().into_iter().filter(|pod| containers::has_garbage(pod)) {
        workers.wake(&pod.uid);
    }
}

async fn remove_idle_cgroups(deps: &Deps, alive: &(dyn Fn(&PodUid) -> bool + Sync)) {
    let Some(tree) = &deps.cgroups else { return };
    for uid in tree.pods().into_iter().filter(|u| !alive(u)) {
        if let Err(error) = tree.remove_idle_pod(&uid).await {
            tracing::debug!(pod.uid = %uid, %error, "orphaned cgroup not removed");
        }
    }
}

/// Weighs the burstable class by all pods that are wanted and have not finished.
async fn weigh_burstable(deps: &Deps, wanted: &DesiredPods) {
    let Some(tree) = &deps.cgroups else { return };
    let finished = |uid: &PodUid, pod: &Pod| {
        let reported = deps.status.get(uid);
        let phase = reported.as_deref().or(pod.status.as_ref()).and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let running = wanted.pods.iter().filter(|(uid, p)| !finished(uid, &p.pod)).map(|(_, p)| p.pod.as_ref());
    let shares = resources::shares(burstable_milli_cpu(running));
    if let Err(error) = tree.weigh_burstable(Weighing::Exactly(shares)).await {
        tracing::debug!(%error, "burstable pods not weighed");
    }
}
