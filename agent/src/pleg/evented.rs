//! The event loop: subscribe, list, follow; again when the stream ends.

use std::sync::Arc;
use std::time::Duration;

use cri::types::{ContainerEvent, ContainerEventKind, ContainerFilter, SandboxFilter};
use cri::{ContainerEvents, ContainerId, CriError, RuntimeService, SandboxId};
use futures::StreamExt as _;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::diff::{changed, group};
use super::health::RelistHealth;
use crate::convert::labels;
use crate::ids::PodUid;
use crate::podcache::PodCache;
use crate::podworker::PodWorkers;
use crate::podworker::refresh::read_pod;

/// Watches the runtime on behalf of all workers.
#[derive(Debug)]
pub struct Pleg {
    runtime: Arc<dyn RuntimeService>,
    cache: Arc<PodCache>,
    workers: PodWorkers,
    relist_period: Duration,
    health: RelistHealth,
    /// Hears of each relist.
    relisted: mpsc::Sender<()>,
}

const MAX_PAUSE: Duration = Duration::from_secs(10);

impl Pleg {
    /// A generator that knows nothing yet.
    pub fn new(
        runtime: Arc<dyn RuntimeService>,
        cache: Arc<PodCache>,
        workers: PodWorkers,
        relist_period: Duration,
        health: RelistHealth,
        relisted: mpsc::Sender<()>,
    ) -> Self {
        Self { runtime, cache, workers, relist_period, health, relisted }
    }

    /// Runs until cancelled.
    pub async fn run(&self, token: CancellationToken) {
        let mut pause = Duration::from_millis(100);
        loop {
            // Subscribing before listing: nothing falls between the two.
            let ended = tokio::select! {
                () = token.cancelled() => return,
                ended = self.follow(&mut pause) => ended,
            };
            tracing::debug!(error = ended.as_ref().map(ToString::to_string), "runtime events ended");
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Follows one subscription to its end.
    async fn follow(&self, pause: &mut Duration) -> Option<CriError> {
        let mut events: ContainerEvents = match self.runtime.container_events().await {
            Ok(events) => events,
            Err(error) => {
                // Without events the relist is all there is.
                if let Err(error) = self.relist().await {
                    tracing::debug!(%error, "relist failed");
                }
                return Some(error);
            }
        };
        if let Err(error) = self.relist().await {
            return Some(error);
        }
        *pause = Duration::from_millis(100);
        let mut relist = tokio::time::interval(self.relist_period);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        relist.reset();
        loop {
            tokio::select! {
                // Cancel-safe: an event is lost only when it is received.
                event = events.next() => match event {
                    Some(Ok(event)) => self.handle(&event).await,
                    Some(Err(error)) => return Some(error),
                    None => return None,
                },
                // Cancel-safe: a tick that was not taken comes again.
                _ = relist.tick() => if let Err(error) = self.relist().await {
                    return Some(error);
                },
            }
        }
    }

    async fn handle(&self, event: &ContainerEvent) {
        // Workers look at what they create and start themselves; ends are news.
        match event.kind {
            ContainerEventKind::Created | ContainerEventKind::Started => return,
            ContainerEventKind::Stopped | ContainerEventKind::Deleted | ContainerEventKind::Oom => {}
        }
        let uid = event.sandbox.as_ref().map(|s| PodUid::new(s.uid.as_str())).filter(|u| !u.as_str().is_empty());
        let owner = match uid.or_else(|| self.cache.owner(&event.id)) {
            Some(uid) => Some(uid),
            None if event.kind == ContainerEventKind::Deleted => None,
            None => self.look_up(&event.id).await,
        };
        if let Some(uid) = owner {
            self.workers.runtime_changed(&uid);
        }
    }

    /// The pod of a container or sandbox too new to be in the cache.
    async fn look_up(&self, id: &str) -> Option<PodUid> {
        let filter = ContainerFilter { id: Some(ContainerId::new(id)), ..ContainerFilter::default() };
        let uid = |labels: &cri::types::StringMap| labels.get(labels::POD_UID).map(|u| PodUid::new(u.as_str()));
        if let Some(found) = self.runtime.list_containers(&filter).await.ok()?.first() {
            return uid(&found.labels);
        }
        let filter = SandboxFilter { id: Some(SandboxId::new(id)), ..SandboxFilter::default() };
        uid(&self.runtime.list_pod_sandboxes(&filter).await.ok()?.first()?.labels)
    }

    /// Lists what the runtime has for the first time, as often as it takes: before
    /// that nothing may act, since it would take every pod for a new one. False
    /// when cancelled.
    pub async fn first_list(&self, token: &CancellationToken) -> bool {
        let mut pause = Duration::from_millis(100);
        loop {
            let Some(listed) = token.run_until_cancelled(self.relist()).await else { return false };
            let Err(error) = listed else { return true };
            tracing::warn!(%error, "runtime not listed yet; no pod is touched before");
            if token.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return false;
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Compares everything with what is known; wakes workers, and refreshes the
    /// view of pods that have none.
    pub async fn relist(&self) -> Result<(), CriError> {
        let began = Instant::now();
        let unread = self.cache.unread();
        let (all_sandboxes, all_containers) = (SandboxFilter::default(), ContainerFilter::default());
        let (sandboxes, containers) = tokio::try_join!(
            self.runtime.list_pod_sandboxes(&all_sandboxes),
            self.runtime.list_containers(&all_containers)
        )?;
        self.health.relisted(began);
        let listed = group(&sandboxes, &containers);
        let known = self.cache.all();
        let unattended = changed(known.iter().map(Arc::as_ref), &listed)
            .into_iter()
            .filter(|uid| !self.workers.runtime_changed(uid));
        let reads = unattended.map(|uid| {
            let listed = listed.get(&uid);
            async move {
                let Some(listed) = listed else {
                    self.cache.remove(&uid);
                    return;
                };
                match read_pod(self.runtime.as_ref(), &uid, &listed.name, None).await {
                    // Whoever works on it by now looks for himself, and may have seen more.
                    Ok(_) if self.workers.runtime_changed(&uid) => {}
                    // It went after it was listed.
                    Ok(pod) if !pod.exists() => self.cache.remove(&uid),
                    Ok(pod) => {
                        self.cache.put(pod);
                    }
                    Err(error) => {
                        tracing::warn!(pod.uid = %uid, %error, "pod not readable");
                        self.cache.mark_unread(&uid);
                    }
                }
            }
        });
        join_all(reads).await;
        // What was not readable before this list, and is not in it, is gone.
        for uid in unread.into_iter().filter(|uid| !listed.contains_key(uid) && !self.workers.contains(uid)) {
            self.cache.remove(&uid);
        }
        // A full channel means that a relist is already announced.
        let _ = self.relisted.try_send(());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use cri::fake::{FakeRuntime, Op, unavailable};
    use cri::types::SandboxConfig;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_list_is_waited_for() {
        let runtime = FakeRuntime::new();
        let (relisted, mut told) = mpsc::channel(1);
        let (cache, workers) = (Arc::new(PodCache::new()), PodWorkers::new());
        let period = Duration::from_secs(60);
        let pleg = Pleg::new(runtime.clone(), cache, workers, period, RelistHealth::new(period), relisted);
        runtime.fail_next(Op::ListContainers, 5, unavailable(Op::ListContainers));
        assert!(pleg.first_list(&CancellationToken::new()).await);
        assert_eq!(runtime.count(Op::ListContainers), 6);
        told.try_recv().unwrap();
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        assert!(!pleg.first_list(&cancelled).await);
    }

    /// A generator without workers, over a runtime with the sandbox of one pod.
    async fn unattended() -> (Arc<FakeRuntime>, SandboxId, Pleg, PodUid) {
        let (runtime, uid) = (FakeRuntime::new(), PodUid::new("u"));
        let labels = [(labels::POD_UID.to_owned(), uid.to_string())].into();
        let sandbox = runtime.run_pod_sandbox(&SandboxConfig { labels, ..SandboxConfig::default() }, "").await.unwrap();
        let (cache, workers) = (Arc::new(PodCache::new()), PodWorkers::new());
        let (period, (relisted, _)) = (Duration::from_secs(60), mpsc::channel(1));
        let pleg = Pleg::new(runtime.clone(), cache, workers, period, RelistHealth::new(period), relisted);
        (runtime, sandbox, pleg, uid)
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_between_list_and_look_is_not_known() {
        let (runtime, sandbox, pleg, uid) = unattended().await;
        runtime.delay(Op::ListContainers, 1, Duration::from_secs(2));
        let remove = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            runtime.remove_pod_sandbox(&sandbox).await
        };
        let (relisted, removed) = tokio::join!(pleg.relist(), remove);
        relisted.and(removed).unwrap();
        assert_eq!(runtime.count(Op::ListPodSandbox), 2, "it was looked at");
        assert!(!pleg.cache.knows(&uid));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_does_not_stay_unread() {
        let (runtime, sandbox, pleg, uid) = unattended().await;
        runtime.fail_next(Op::PodSandboxStatus, 1, unavailable(Op::PodSandboxStatus));
        pleg.relist().await.unwrap();
        assert!(pleg.cache.is_unread(&uid));
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        runtime.fail_next(Op::ListContainers, 1, unavailable(Op::ListContainers));
        pleg.relist().await.unwrap_err();
        assert!(pleg.cache.is_unread(&uid), "nobody said yet that it is gone");
        pleg.relist().await.unwrap();
        assert!(!pleg.cache.knows(&uid));
    }

    #[tokio::test(start_paused = true)]
    async fn a_relist_that_hangs_or_fails_is_noticed_and_forgiven() {
        for hangs in [true, false] {
            let runtime = FakeRuntime::new();
            let (cache, workers) = (Arc::new(PodCache::new()), PodWorkers::new());
            let (period, (relisted, _told)) = (Duration::from_secs(60), mpsc::channel(1));
            let health = RelistHealth::new(period);
            let pleg = Pleg::new(runtime.clone(), cache, workers, period, health.clone(), relisted);
            let token = CancellationToken::new();
            let stop = token.clone();
            let task = tokio::spawn(async move { pleg.run(stop).await });
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(health.problem(), None);
            if hangs {
                runtime.delay(Op::ListContainers, 1, Duration::from_secs(600));
            } else {
                runtime.fail_next(Op::ListContainers, 1000, unavailable(Op::ListContainers));
            }
            tokio::time::sleep(Duration::from_secs(300)).await;
            let problem = health.problem().unwrap();
            assert!(problem.starts_with("PLEG is not healthy: pleg was last seen active "), "{problem}");
            assert!(problem.ends_with(" ago; threshold is 3m0s"), "{problem}");
            runtime.clear_faults();
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(health.problem(), None);
            token.cancel();
            task.await.unwrap();
        }
    }
}
