//! What the informers and workers of a component are doing, for its metrics and
//! health checks. Every informer and every work queue has one entry under its
//! name; they write, whoever serves `/metrics` and `/healthz` reads.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::text;

/// An informer that could not list or watch for so long is not healthy.
const INFORMER_PATIENCE: Duration = Duration::from_secs(60);
/// A sync that runs for so long does not come to an end.
const SYNC_PATIENCE: Duration = Duration::from_secs(300);

/// The entries of components that share a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Status {
    entries: Arc<Mutex<Entries>>,
    /// What the names of entries made here begin with.
    prefix: &'static str,
}

#[derive(Debug, Default)]
struct Entries {
    informers: Vec<Arc<InformerStatus>>,
    queues: Vec<Arc<QueueStatus>>,
}

/// One health check: its name, and what is wrong if it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// For example `informer/pods` or `workqueue/deployment`.
    pub name: String,
    /// The reason, when it does not pass.
    pub failure: Option<String>,
}

/// How one informer fares.
#[derive(Debug)]
pub struct InformerStatus {
    name: String,
    /// Objects that are there and cannot be decoded.
    unreadable: AtomicU64,
    lists: AtomicU64,
    watches: AtomicU64,
    panics: AtomicU64,
    state: Mutex<InformerState>,
}

#[derive(Debug)]
struct InformerState {
    /// Since when no request has succeeded, and the newest error.
    failing: Option<(Instant, String)>,
}

/// How one work queue and its workers fare; upstream's `workqueue_*` metrics.
#[derive(Debug)]
pub struct QueueStatus {
    name: String,
    adds: AtomicU64,
    retries: AtomicU64,
    panics: AtomicU64,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    depth: usize,
    /// When each sync in work began.
    running: Vec<Instant>,
    done: u64,
    seconds: f64,
    /// A worker task ended while it should go on.
    dead_workers: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    /// The same entries for a component whose names begin with `prefix`.
    #[must_use]
    pub fn of(&self, prefix: &'static str) -> Self {
        Self { entries: self.entries.clone(), prefix }
    }

    /// A new informer's entry, in place of one of that name: a component that was started again begins anew.
    pub fn informer(&self, name: impl Into<String>) -> Arc<InformerStatus> {
        let entry = Arc::new(InformerStatus {
            name: format!("{}{}", self.prefix, name.into()),
            unreadable: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            watches: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            // Until the first list is in, an informer has not succeeded.
            state: Mutex::new(InformerState { failing: Some((Instant::now(), "not listed yet".to_owned())) }),
        });
        let informers = &mut lock(&self.entries).informers;
        informers.retain(|other| other.name != entry.name);
        informers.push(entry.clone());
        entry
    }

    pub(crate) fn remove_informer(&self, entry: &Arc<InformerStatus>) {
        lock(&self.entries).informers.retain(|other| !Arc::ptr_eq(other, entry));
    }

    /// A new work queue's entry, in place of one of that name.
    pub(crate) fn queue(&self, name: impl Into<String>) -> Arc<QueueStatus> {
        let entry = Arc::new(QueueStatus {
            name: format!("{}{}", self.prefix, name.into()),
            adds: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let queues = &mut lock(&self.entries).queues;
        queues.retain(|other| other.name != entry.name);
        queues.push(entry.clone());
        entry
    }

    /// Every check, in the order in which the entries were made.
    pub fn checks(&self) -> Vec<Check> {
        let (now, entries) = (Instant::now(), lock(&self.entries));
        let informers = entries
            .informers
            .iter()
            .map(|entry| Check { name: format!("informer/{}", entry.name), failure: entry.failure(now) });
        let queues = entries
            .queues
            .iter()
            .map(|entry| Check { name: format!("workqueue/{}", entry.name), failure: entry.failure(now) });
        informers.chain(queues).collect()
    }

    /// Appends every metric in the text format of Prometheus.
    pub fn write_metrics(&self, out: &mut String) {
        let (now, entries) = (Instant::now(), lock(&self.entries));
        let informers = &entries.informers;
        family(out, "informer_unreadable_objects", "gauge", "name", informers, |i| (&i.name, count(&i.unreadable)));
        family(out, "informer_lists_total", "counter", "name", informers, |i| (&i.name, count(&i.lists)));
        family(out, "informer_watches_total", "counter", "name", informers, |i| (&i.name, count(&i.watches)));
        family(out, "informer_panics_total", "counter", "name", informers, |i| (&i.name, count(&i.panics)));
        let queues = &entries.queues;
        family(out, "workqueue_adds_total", "counter", "name", queues, |q| (&q.name, count(&q.adds)));
        family(out, "workqueue_retries_total", "counter", "name", queues, |q| (&q.name, count(&q.retries)));
        family(out, "controller_panics_total", "counter", "name", queues, |q| (&q.name, count(&q.panics)));
        family(out, "workqueue_depth", "gauge", "name", queues, |q| (&q.name, lock(&q.state).depth.to_string()));
        family(out, "workqueue_unfinished_work_seconds", "gauge", "name", queues, |q| {
            let total: f64 = lock(&q.state).running.iter().map(|began| (now - *began).as_secs_f64()).sum();
            (&q.name, total.to_string())
        });
        family(out, "workqueue_longest_running_processor_seconds", "gauge", "name", queues, |q| {
            let longest = lock(&q.state).running.iter().map(|began| now - *began).max().unwrap_or_default();
            (&q.name, longest.as_secs_f64().to_string())
        });
        family(out, "workqueue_work_duration_seconds_count", "counter", "name", queues, |q| {
            (&q.name, lock(&q.state).done.to_string())
        });
        family(out, "workqueue_work_duration_seconds_sum", "counter", "name", queues, |q| {
            (&q.name, lock(&q.state).seconds.to_string())
        });
    }
}

fn count(counter: &AtomicU64) -> String {
    counter.load(Ordering::Relaxed).to_string()
}

fn family<T>(
    out: &mut String,
    metric: &str,
    kind: &str,
    label: &str,
    entries: &[Arc<T>],
    read: impl Fn(&T) -> (&String, String),
) {
    if entries.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE {metric} {kind}");
    for entry in entries {
        let (name, value) = read(entry);
        let _ = writeln!(out, "{metric}{{{label}=\"{name}\"}} {value}");
    }
}

impl InformerStatus {
    /// An entry that nobody reads, for informers outside of a component.
    pub fn unobserved() -> Arc<Self> {
        Status::default().informer("")
    }

    /// How many objects there are that cannot be decoded.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// How often the informer or a handler of its changes has panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_unreadable(&self, objects: usize) {
        self.unreadable.store(objects as u64, Ordering::Relaxed);
    }

    pub(crate) fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
        lock(&self.state).failing = None;
    }

    pub(crate) fn watching(&self) {
        self.watches.fetch_add(1, Ordering::Relaxed);
        lock(&self.state).failing = None;
    }

    pub(crate) fn failed(&self, error: &str) {
        let mut state = lock(&self.state);
        let since = state.failing.take().map_or_else(Instant::now, |(since, _)| since);
        state.failing = Some((since, text::cut(error, text::EVENT_MESSAGE)));
    }

    fn failure(&self, now: Instant) -> Option<String> {
        let state = lock(&self.state);
        let (since, error) = state.failing.as_ref()?;
        (now - *since >= INFORMER_PATIENCE).then(|| format!("for {} s: {error}", (now - *since).as_secs()))
    }
}

impl QueueStatus {
    pub(crate) fn added(&self, keys: usize, depth: usize) {
        self.adds.fetch_add(keys as u64, Ordering::Relaxed);
        lock(&self.state).depth = depth;
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn began(&self, depth: usize) -> Instant {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state.depth = depth;
        state.running.push(now);
        now
    }

    pub(crate) fn ended(&self, began: Instant) {
        let mut state = lock(&self.state);
        if let Some(at) = state.running.iter().position(|b| *b == began) {
            state.running.swap_remove(at);
        }
        state.done += 1;
        state.seconds += began.elapsed().as_secs_f64();
    }

    /// A worker ended although nobody asked it to.
    pub(crate) fn worker_died(&self) {
        lock(&self.state).dead_workers += 1;
    }

    fn failure(&self, now: Instant) -> Option<String> {
        let state = lock(&self.state);
        if state.dead_workers > 0 {
            return Some(format!("{} workers have ended", state.dead_workers));
        }
        let longest = state.running.iter().map(|began| now - *began).max()?;
        (longest >= SYNC_PATIENCE).then(|| format!("a sync has run for {} s", longest.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn failures(status: &Status) -> Vec<String> {
        status.checks().into_iter().filter(|c| c.failure.is_some()).map(|c| c.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_informer_that_never_lists_and_a_sync_that_never_ends_fail_their_checks() {
        let status = Status::default();
        let (pods, nodes) = (status.informer("pods"), status.informer("nodes"));
        let queue = status.queue("deployment");
        nodes.listed();
        let began = queue.began(0);
        assert_eq!(failures(&status), [""; 0]);
        tokio::time::advance(INFORMER_PATIENCE).await;
        assert_eq!(failures(&status), ["informer/pods"]);
        pods.listed();
        nodes.failed("refused");
        tokio::time::advance(SYNC_PATIENCE).await;
        assert_eq!(failures(&status), ["informer/nodes", "workqueue/deployment"]);
        nodes.watching();
        queue.ended(began);
        assert_eq!(failures(&status), [""; 0]);
        queue.worker_died();
        assert_eq!(failures(&status), ["workqueue/deployment"]);
    }

    #[test]
    fn metrics_have_upstreams_names() {
        let status = Status::default();
        let (informer, queue) = (status.informer("pods"), status.queue("deployment"));
        informer.set_unreadable(2);
        queue.added(1, 3);
        queue.retried();
        let mut text = String::new();
        status.write_metrics(&mut text);
        for line in [
            "informer_unreadable_objects{name=\"pods\"} 2",
            "workqueue_depth{name=\"deployment\"} 3",
            "workqueue_adds_total{name=\"deployment\"} 1",
            "workqueue_retries_total{name=\"deployment\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
    }
}
