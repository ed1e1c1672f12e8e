//! Ends of containers, told when CRI knows of them: containerd's event precedes CRI's own book-keeping by some
//! milliseconds, and a caller who looked in between would see a running container and no further event.
//!
//! No clock decides how long that may take: an end that CRI does not know of is no news to anybody. Only what follows
//! of the same container waits with it; the others' events go past.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::sleep;

use crate::error::Result;
use crate::id::{ContainerId, SandboxId};
use crate::service::{ContainerEvents, RuntimeService};
use crate::types::{ContainerEvent, ContainerEventKind, ContainerState, SandboxState};

/// How often CRI is asked: soon at first, and not too often when something is stuck.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The same events, each end when `runtime` says so too. The events of one container stay in order. The stream ends
/// with the first error, or with that of `events`: who listens again looks at everything first.
pub(super) fn in_step(
    events: impl Stream<Item = Result<ContainerEvent>> + Send + 'static,
    runtime: Arc<dyn RuntimeService>,
) -> ContainerEvents {
    let (ends, behind, ready) = (FuturesUnordered::new(), HashMap::new(), VecDeque::new());
    let waiting = Waiting { runtime, ends, behind, ready };
    let state = Some((events.boxed(), waiting));
    let next = |state: Option<(BoxStream<'static, Result<ContainerEvent>>, Waiting)>| async move {
        let (mut events, mut waiting) = state?;
        match waiting.next(&mut events).await? {
            Ok(event) => Some((Ok(event), Some((events, waiting)))),
            Err(error) => Some((Err(error), None)),
        }
    };
    stream::unfold(state, next).boxed()
}

/// Events on their way.
struct Waiting {
    runtime: Arc<dyn RuntimeService>,
    /// Ends that CRI does not know of yet.
    ends: FuturesUnordered<BoxFuture<'static, ContainerEvent>>,
    /// What follows each of them, by the container's id.
    behind: HashMap<String, VecDeque<ContainerEvent>>,
    /// What may be told.
    ready: VecDeque<ContainerEvent>,
}

impl Waiting {
    /// The next event to tell; `None` at the end of `events`.
    async fn next(
        &mut self,
        events: &mut BoxStream<'static, Result<ContainerEvent>>,
    ) -> Option<Result<ContainerEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            // Cancel-safe: an event is lost only when it is received.
            tokio::select! {
                Some(event) = self.ends.next() => self.release(event),
                event = events.next() => match event? {
                    Ok(event) => self.take(event),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }

    fn take(&mut self, event: ContainerEvent) {
        if let Some(behind) = self.behind.get_mut(&event.id) {
            behind.push_back(event);
        } else if event.kind == ContainerEventKind::Stopped {
            self.behind.insert(event.id.clone(), VecDeque::new());
            self.ends.push(stopped(self.runtime.clone(), event).boxed());
        } else {
            self.ready.push_back(event);
        }
    }

    fn release(&mut self, event: ContainerEvent) {
        let behind = self.behind.remove(&event.id).unwrap_or_default();
        self.ready.push_back(event);
        for event in behind {
            self.take(event);
        }
    }
}

/// The event, once CRI agrees that the container or sandbox does not run. A failing CRI is no reason to keep it back.
async fn stopped(runtime: Arc<dyn RuntimeService>, event: ContainerEvent) -> ContainerEvent {
    let mut pause = FIRST_PAUSE;
    while runs(runtime.as_ref(), &event.id).await {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    event
}

async fn runs(runtime: &dyn RuntimeService, id: &str) -> bool {
    match runtime.container_status(&ContainerId::new(id)).await {
        Ok(status) => matches!(status.state, ContainerState::Running | ContainerState::Created),
        Err(e) if e.is_not_found() => match runtime.pod_sandbox_status(&SandboxId::new(id)).await {
            Ok(status) => status.summary.state == SandboxState::Ready,
            Err(_) => false,
        },
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::channel::mpsc;
    use futures::poll;

    use super::*;
    use crate::error::CriError;
    use crate::fake::{FakeRuntime, Op, runtime_error};
    use crate::types::{ContainerConfig, ContainerMetadata, SandboxConfig, SandboxMetadata};

    async fn started(fake: &FakeRuntime, name: &str) -> ContainerId {
        fake.add_image("demo");
        let metadata = SandboxMetadata { name: name.into(), uid: name.into(), namespace: "n".into(), attempt: 0 };
        let sandbox = SandboxConfig { metadata, ..SandboxConfig::default() };
        let id = fake.run_pod_sandbox(&sandbox, "").await.unwrap();
        let metadata = ContainerMetadata { name: name.into(), attempt: 0 };
        let config = ContainerConfig { metadata, image: "demo".into(), ..ContainerConfig::default() };
        let id = fake.create_container(&id, &config, &sandbox).await.unwrap();
        fake.start_container(&id).await.unwrap();
        id
    }

    fn event(id: &ContainerId, kind: ContainerEventKind) -> Result<ContainerEvent> {
        Ok(ContainerEvent { id: id.to_string(), kind, sandbox: None, at: None })
    }

    async fn told(events: &mut ContainerEvents) -> (String, ContainerEventKind) {
        let event = events.next().await.unwrap().unwrap();
        (event.id, event.kind)
    }

    /// However long the machine gives CRI no time, and whatever others do meanwhile.
    #[tokio::test(start_paused = true)]
    async fn an_end_waits_for_cri_and_for_nothing_else() {
        use ContainerEventKind::{Deleted, Stopped};
        let fake = FakeRuntime::new();
        let (slow, quick) = (started(&fake, "slow").await, started(&fake, "quick").await);
        let (sender, source) = mpsc::unbounded();
        let mut events = in_step(source, fake.clone());
        sender.unbounded_send(event(&slow, Stopped)).unwrap();
        sender.unbounded_send(event(&slow, Deleted)).unwrap();
        fake.exit_container(&quick, 0);
        for _ in 0..100 {
            sender.unbounded_send(event(&quick, Stopped)).unwrap();
            sender.unbounded_send(event(&quick, Deleted)).unwrap();
        }
        for _ in 0..100 {
            assert_eq!(told(&mut events).await, (quick.to_string(), Stopped));
            assert_eq!(told(&mut events).await, (quick.to_string(), Deleted));
        }
        let hour = tokio::time::timeout(Duration::from_secs(3600), events.next());
        assert!(hour.await.is_err(), "CRI says that it runs");
        fake.exit_container(&slow, 0);
        assert_eq!(told(&mut events).await, (slow.to_string(), Stopped));
        assert_eq!(told(&mut events).await, (slow.to_string(), Deleted));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_cannot_be_asked_keeps_nothing_back() {
        let fake = FakeRuntime::new();
        let id = started(&fake, "a").await;
        let (sender, source) = mpsc::unbounded();
        let mut events = in_step(source, fake.clone());
        fake.fail_next(Op::ContainerStatus, 1, runtime_error(Op::ContainerStatus, "down"));
        sender.unbounded_send(event(&id, ContainerEventKind::Stopped)).unwrap();
        assert_eq!(told(&mut events).await.1, ContainerEventKind::Stopped);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_the_last_that_is_heard() {
        let fake = FakeRuntime::new();
        let id = started(&fake, "a").await;
        let error = CriError::Unavailable { op: "Subscribe", object: String::new(), message: "gone".into() };
        let source = stream::iter([event(&id, ContainerEventKind::Stopped), Err(error)]);
        let mut events = in_step(source.chain(stream::pending()), fake.clone());
        assert!(events.next().await.unwrap().is_err(), "nobody waits for what ended before");
        assert!(matches!(poll!(events.next()), std::task::Poll::Ready(None)));
    }
}
