//! What dead agents and lost answers leave behind: directories, logs and
//! cgroups of pods nobody wants and nobody works on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio_util::sync::CancellationToken;

use super::deps::Deps;
use super::dispatch::PodWorkers;
use super::files;
use crate::cgroup::Weighing;
use crate::convert::qos::burstable_milli_cpu;
use crate::convert::resources;
use crate::ids::PodUid;
use crate::podsource::{DesiredPods, DesiredRx};

const PERIOD: Duration = Duration::from_secs(60);

/// The UID at the end of a log directory's name, `<namespace>_<name>_<uid>`.
pub fn uid_of_log_dir(name: &str) -> Option<PodUid> {
    let mut parts = name.splitn(3, '_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = !namespace.is_empty() && !pod.is_empty() && !uid.is_empty() && !uid.contains('_');
    whole.then(|| PodUid::new(uid))
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

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
            clean(&deps, &alive).await;
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

async fn clean(deps: &Deps, alive: &(dyn Fn(&PodUid) -> bool + Sync)) {
    let paths = &deps.settings.paths;
    let mut dead: BTreeSet<PodUid> = names(&paths.root.join("pods")).into_iter().map(PodUid::new).collect();
    dead.retain(|uid| !alive(uid));
    for uid in dead {
        // The others took their time: a static pod may be wanted again.
        if alive(&uid) {
            continue;
        }
        tracing::info!(pod.uid = %uid, "removing what is left of a pod");
        let pod =
            Pod { metadata: ObjectMeta { uid: Some(uid.to_string()), ..ObjectMeta::default() }, ..Pod::default() };
        if let Err(error) = deps.volumes.tear_down(&uid).await {
            tracing::warn!(pod.uid = %uid, %error, "orphaned volume not removed");
            continue;
        }
        if alive(&uid) {
            continue;
        }
        // Several nodes may share one log directory: only logs of pods that had
        // a directory here are ours to remove.
        for name in names(&paths.pod_logs).into_iter().filter(|n| uid_of_log_dir(n).as_ref() == Some(&uid)) {
            let logs = paths.pod_logs.join(&name);
            if let Err(error) = deps.removals.run(move || cri::dirtree::remove(&logs)).await.flatten() {
                tracing::warn!(pod.uid = %uid, %error, "orphaned logs not removed");
            }
        }
        // Last: by it the pod is found again, should this be cut short.
        let paths = paths.clone();
        let removed = deps.removals.run(move || files::remove_remains(&paths, &pod, false)).await;
        if let Err(error) = removed.and_then(|removed| removed.map_err(std::io::Error::other)) {
            tracing::warn!(pod.uid = %uid, %error, "orphaned directory not removed");
        }
    }
    if let Some(tree) = &deps.cgroups {
        for uid in tree.pods().into_iter().filter(|u| !alive(u)) {
            if let Err(error) = tree.remove_idle_pod(&uid).await {
                tracing::debug!(pod.uid = %uid, %error, "orphaned cgroup not removed");
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_directories() {
        assert_eq!(uid_of_log_dir("ns_web-0_a1-b2"), Some(PodUid::new("a1-b2")));
        for name in ["", "a", "a_b", "a_b_", "_b_c", "a_b_c_d"] {
            assert_eq!(uid_of_log_dir(name), None, "{name}");
        }
    }
}
