//! The scheduler's one task: feeds watch events to the engine and performs its
//! decisions, many bindings at once.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{bind, report};
use super::config::SchedulerConfig;
use super::cycle::XorShift;
use super::engine::{Action, Engine, Input};
use super::monotonic::MonotonicClock;
use super::pod::{PodInfo, PodUid};
use client::events::Recorder;
use client::reflect::Source;
use client::workqueue::panic_text;
use client::{Filter, Objects, Observer, Sink, Unreadable, reflect};

/// Requests in flight at once.
const MAX_IN_FLIGHT: usize = 256;
/// Decisions before other tasks get their turn.
const BATCH: usize = 16;

/// Runs the scheduler until the token is cancelled, then waits for the bindings
/// in flight. May start before the API server answers.
pub async fn run(client: Client, config: SchedulerConfig, token: CancellationToken) {
    // Its tasks end with it, however it ends: the next run has its own.
    let token = token.child_token();
    let _end = token.clone().drop_guard();
    let tasks = TaskTracker::new();
    let (tx, rx) = unbounded_channel();
    let events = Recorder::start(client.clone(), "default-scheduler", &tasks, token.clone());
    let pods = Observer::new("pods", &config.status).with_events(events.clone(), "v1", "Pod");
    let nodes = Observer::new("nodes", &config.status).with_events(events.clone(), "v1", "Node");
    follow::<Pod>(&client, &tx, pods, &tasks, &token);
    follow::<Node>(&client, &tx, nodes, &tasks, &token);
    let seed = u64::try_from(Timestamp::now().as_nanosecond() & 0xffff_ffff).unwrap_or(1);
    let engine = Engine::new(config.profiles(), Box::new(XorShift::new(seed)));
    let scheduler =
        Scheduler { client, events, engine, tx, in_flight: 0, tasks: tasks.clone(), clock: MonotonicClock::start() };
    scheduler.work(rx, token).await;
    tasks.close();
    tasks.wait().await;
}

fn follow<K>(
    client: &Client,
    tx: &UnboundedSender<Message>,
    observer: Observer,
    tasks: &TaskTracker,
    token: &CancellationToken,
) where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    Objects<K>: Source<K>,
    Feed: Sink<K>,
{
    let (api, feed, token) = (Api::<K>::all(client.clone()), Feed(tx.clone()), token.clone());
    tasks.spawn(async move { reflect(&Objects(api), &Filter::default(), &feed, &observer, token).await });
}

/// Turns watch events into inputs on the watch's own task.
struct Feed(UnboundedSender<Message>);

enum Message {
    Input(Input),
    /// A report has been written, or could not be.
    Reported,
    /// A binding is through; the node's name is for plugins that reserved there.
    Settled(Input, Arc<PodInfo>, String),
}

impl Feed {
    fn send(&self, input: Input) {
        // Fails only when the scheduler has ended.
        let _ = self.0.send(Message::Input(input));
    }
}

impl Sink<Pod> for Feed {
    fn replace(&self, objects: Vec<Pod>, unreadable: &[Unreadable], _revision: u64) {
        let kept = unreadable.iter().map(|pod| PodUid(pod.uid.as_str().into())).collect();
        self.send(Input::Pods(objects.into_iter().map(PodInfo::new).collect(), kept));
    }
    fn apply(&self, object: Pod) {
        self.send(Input::Pod(Box::new(PodInfo::new(object))));
    }
    fn delete(&self, object: Pod) {
        self.send(Input::PodGone(PodUid(object.metadata.uid.unwrap_or_default().into())));
    }
    fn forget(&self, object: &Unreadable) {
        self.send(Input::PodGone(PodUid(object.uid.as_str().into())));
    }
    fn progressed(&self, _revision: u64) {}
}

impl Sink<Node> for Feed {
    fn replace(&self, objects: Vec<Node>, unreadable: &[Unreadable], _revision: u64) {
        self.send(Input::Nodes(objects, unreadable.iter().map(|node| node.key.name.clone()).collect()));
    }
    fn apply(&self, object: Node) {
        self.send(Input::Node(Box::new(object)));
    }
    fn delete(&self, object: Node) {
        self.send(Input::NodeGone(object.metadata.name.unwrap_or_default()));
    }
    fn forget(&self, object: &Unreadable) {
        self.send(Input::NodeGone(object.key.name.clone()));
    }
    fn progressed(&self, _revision: u64) {}
}

/// A request in flight, until the scheduler is told what came of it: also when that is a panic.
struct InFlight {
    tx: UnboundedSender<Message>,
    outcome: Option<Message>,
}

impl InFlight {
    /// `failed` is what the scheduler is told unless the request ends.
    fn new(tx: &UnboundedSender<Message>, failed: Message) -> Self {
        Self { tx: tx.clone(), outcome: Some(failed) }
    }

    fn ended(mut self, message: Message) {
        self.outcome = Some(message);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(message) = self.outcome.take() {
            // Fails only when the scheduler has ended.
            let _ = self.tx.send(message);
        }
    }
}

struct Scheduler {
    client: Client,
    events: Recorder,
    engine: Engine,
    tx: UnboundedSender<Message>,
    in_flight: usize,
    tasks: TaskTracker,
    clock: MonotonicClock,
}

impl Scheduler {
    async fn work(mut self, mut rx: UnboundedReceiver<Message>, token: CancellationToken) {
        loop {
            while let Ok(message) = rx.try_recv() {
                self.take(message);
            }
            if self.decide() {
                tokio::select! {
                    // Cancel-safe: neither arm holds anything.
                    () = token.cancelled() => return,
                    () = tokio::task::yield_now() => continue,
                }
            }
            let wait = self.wait();
            tokio::select! {
                // Cancel-safe: `recv` takes a message only when it returns it.
                () = token.cancelled() => return,
                message = rx.recv() => if let Some(message) = message { self.take(message) },
                () = tokio::time::sleep(wait) => self.engine.tick(self.clock.now()),
            }
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Input(input) => self.engine.take(input, now),
            Message::Reported => self.in_flight = self.in_flight.saturating_sub(1),
            Message::Settled(input, pod, node) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                if matches!(input, Input::BindFailed { .. }) {
                    self.engine.unreserve(&pod, &node);
                }
                self.engine.take(input, now);
            }
        }
    }

    /// Makes a batch of decisions; true when there may be more to do.
    fn decide(&mut self) -> bool {
        let now = self.clock.now();
        for _ in 0..BATCH {
            if self.in_flight >= MAX_IN_FLIGHT {
                return false;
            }
            let Some(action) = self.engine.next(now) else { return false };
            self.perform(action);
        }
        true
    }

    fn perform(&mut self, action: Action) {
        self.in_flight += 1;
        let (client, events) = (self.client.clone(), self.events.clone());
        match action {
            Action::Bind { pod, node } => {
                // It may be bound all the same, which its watch will tell.
                let failed = Input::BindFailed { uid: pod.uid.clone(), retry: true };
                let in_flight = InFlight::new(&self.tx, Message::Settled(failed, pod.clone(), node.clone()));
                self.spawn("binding", in_flight, async move {
                    Message::Settled(bind(&client, &events, &pod, &node).await, pod, node)
                });
            }
            Action::Report { pod, message } => {
                tracing::debug!(pod = %pod.key(), message, "unschedulable");
                let in_flight = InFlight::new(&self.tx, Message::Reported);
                self.spawn("report", in_flight, async move {
                    report(&client, &events, &pod, &message, Timestamp::now()).await;
                    Message::Reported
                });
            }
        }
    }

    fn spawn(&self, what: &'static str, in_flight: InFlight, work: impl Future<Output = Message> + Send + 'static) {
        self.tasks.spawn(async move {
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(message) => in_flight.ended(message),
                Err(panic) => tracing::error!(what, panic = panic_text(&*panic), "a request of the scheduler panicked"),
            }
        });
    }

    fn wait(&self) -> Duration {
        let until = |at: Timestamp| Duration::try_from(at.duration_since(self.clock.now())).unwrap_or_default();
        if self.in_flight >= MAX_IN_FLIGHT {
            // Whatever is due has to wait for an answer anyway.
            return Duration::from_secs(3600);
        }
        // Without a deadline a wake-up each hour costs nothing.
        self.engine.deadline().map_or(Duration::from_secs(3600), until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::{PluginArgs, default_profile};
    use super::super::testing::{node, pod};
    use super::*;
    use kube::client::Body;
    use std::convert::Infallible;

    async fn panicking(_: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
        panic!("as a client may")
    }

    /// A scheduler whose every request panics, and what it is told.
    fn shaky() -> (Scheduler, UnboundedReceiver<Message>) {
        let client = Client::new(tower::service_fn(panicking), "default");
        let events = Recorder::start(client.clone(), "test", &TaskTracker::new(), CancellationToken::new());
        let profiles = vec![default_profile("default-scheduler", &PluginArgs::default())];
        let mut engine = Engine::new(profiles, Box::new(XorShift::new(1)));
        let clock = MonotonicClock::start();
        engine.take(Input::Nodes(vec![node("n", "4", "8Gi")], vec![]), clock.now());
        engine.take(Input::Pods(vec![pod("fits", "1"), pod("does-not", "5")], vec![]), clock.now());
        let (tx, rx) = unbounded_channel();
        (Scheduler { client, events, engine, tx, in_flight: 0, tasks: TaskTracker::new(), clock }, rx)
    }

    #[tokio::test]
    async fn a_request_that_panics_is_not_in_flight_any_more() {
        let (mut scheduler, mut rx) = shaky();
        scheduler.decide();
        assert_eq!(scheduler.in_flight, 2);
        scheduler.tasks.close();
        scheduler.tasks.wait().await;
        while let Ok(message) = rx.try_recv() {
            scheduler.take(message);
        }
        assert_eq!(scheduler.in_flight, 0);
        let later = scheduler.clock.now() + Duration::from_secs(3600);
        scheduler.engine.tick(later);
        let mut again = std::iter::from_fn(|| scheduler.engine.next(later));
        let again = again.any(|action| matches!(action, Action::Bind { .. }));
        assert!(again, "its room on the node is given back, and it is tried again");
    }
}
