//! The work queue and the workers every controller runs on: one key is never
//! processed twice at once, failures come back with exponential back-off, and
//! an idle queue wakes nobody.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::status::{QueueStatus, Status};
use super::text;

/// First delay after a failure, as upstream's item exponential limiter.
const BACKOFF_BASE: Duration = Duration::from_millis(5);
/// Largest delay after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Largest delay of all: delays are made of numbers that clients write, and no clock counts as far as those go. A key
/// that comes too early asks again.
const LONGEST_DELAY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a sync did not finish; it is always tried again.
#[derive(Debug, Error)]
pub enum SyncError {
    /// A request failed.
    #[error("{operation} {object}")]
    Api {
        /// The verb and kind.
        operation: &'static str,
        /// Which object.
        object: String,
        /// What the server or the transport said.
        #[source]
        source: kube::Error,
    },
    /// An object cannot be worked with; a change of it is what helps.
    #[error("{0}")]
    Invalid(String),
    /// Not finished yet, for a reason that is no failure.
    #[error("{0}")]
    Incomplete(String),
    /// A fault of ours.
    #[error("the sync panicked: {0}")]
    Panicked(String),
}

impl SyncError {
    /// Wraps the error of a request.
    pub fn api(operation: &'static str, object: impl Display) -> impl FnOnce(kube::Error) -> Self {
        let object = object.to_string();
        move |source| Self::Api { operation, object, source }
    }

    /// Whether someone else changed the object in between.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == 409)
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if status.code == 404)
    }
}

/// What a successful sync wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Wait,
    /// The same key again after this time.
    After(Duration),
}

struct State<K> {
    queue: VecDeque<K>,
    dirty: HashSet<K>,
    processing: HashSet<K>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, K>,
    earliest: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    ticket: u64,
}

/// A deduplicating queue of keys.
pub struct WorkQueue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
    /// Set once the queue has workers.
    status: OnceLock<Arc<QueueStatus>>,
}

impl<K> Debug for WorkQueue<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkQueue").finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Ord + Clone + Debug + Send + Sync + 'static> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                dirty: HashSet::new(),
                processing: HashSet::new(),
                delayed: BinaryHeap::new(),
                delayed_keys: HashMap::new(),
                earliest: HashMap::new(),
                failures: HashMap::new(),
                ticket: 0,
            }),
            wake: Notify::new(),
            status: OnceLock::new(),
        })
    }

    /// Adds a key, unless it already waits. A key in work is done again afterwards.
    pub fn add(&self, key: K) {
        let mut state = self.lock();
        if !state.dirty.insert(key.clone()) {
            return;
        }
        if !state.processing.contains(&key) {
            state.queue.push_back(key);
        }
        if let Some(status) = self.status.get() {
            status.added(1, state.queue.len());
        }
        drop(state);
        self.wake.notify_one();
    }

    fn report_to(&self, status: Arc<QueueStatus>) {
        let state = self.lock();
        // A queue has one group of workers; a second one would report to the first one's entry.
        if self.status.set(status.clone()).is_ok() {
            // What was added before there were workers counts, too.
            status.added(state.dirty.len(), state.queue.len());
        }
    }

    /// How many keys wait.
    fn depth(&self) -> usize {
        self.lock().queue.len()
    }

    /// Adds a key after a delay; of several delays the shortest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay.min(LONGEST_DELAY);
        let mut state = self.lock();
        if state.earliest.get(&key).is_some_and(|(have, _)| *have <= at) {
            return;
        }
        state.ticket += 1;
        let ticket = state.ticket;
        if let Some((_, old)) = state.earliest.insert(key.clone(), (at, ticket)) {
            state.delayed_keys.remove(&old);
        }
        state.delayed_keys.insert(ticket, key);
        state.delayed.push(Reverse((at, ticket)));
        drop(state);
        self.wake.notify_one();
    }

    /// Adds a key after its own back-off: 5 ms, doubled at each failure, at most a minute.
    pub fn add_rate_limited(&self, key: K) {
        let failures = {
            let mut state = self.lock();
            let n = state.failures.entry(key.clone()).or_insert(0);
            *n = n.saturating_add(1);
            *n
        };
        if let Some(status) = self.status.get() {
            status.retried();
        }
        self.add_after(key, backoff(failures));
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// How often the key has failed in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Takes the next key. Cancel-safe: a key is taken only when returned.
    pub async fn next(&self) -> K {
        loop {
            let notified = self.wake.notified();
            let deadline = {
                let mut state = self.lock();
                state.promote(Instant::now());
                if let Some(key) = state.queue.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    if !state.queue.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                state.deadline()
            };
            match deadline {
                Some(at) => {
                    // Both arms only wake the loop.
                    tokio::select! { () = notified => {}, () = tokio::time::sleep_until(at) => {} }
                }
                None => notified.await,
            }
        }
    }

    /// Marks a key as no longer in work.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.queue.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> State<K> {
    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((at, ticket))) = self.delayed.peek().copied() {
            let Some(key) = self.delayed_keys.get(&ticket).cloned() else {
                self.delayed.pop();
                continue;
            };
            if at > now {
                return;
            }
            self.delayed.pop();
            self.delayed_keys.remove(&ticket);
            self.earliest.remove(&key);
            if self.dirty.insert(key.clone()) && !self.processing.contains(&key) {
                self.queue.push_back(key);
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.delayed.peek().map(|Reverse((at, _))| *at)
    }
}

/// The delay after the n-th failure in a row (n from 1).
pub fn backoff(failures: u32) -> Duration {
    BACKOFF_BASE.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(BACKOFF_MAX)
}

/// Where workers run, when they end, and whom they report to.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Holds every task of the component.
    pub tasks: TaskTracker,
    /// Ends them.
    pub token: CancellationToken,
    /// Shows what they do.
    pub status: Status,
}

/// Runs `workers` tasks that call `sync` with keys of the queue until cancelled.
/// An error is logged once and the key retried, and so is a panic: the worker
/// lives on.
pub fn spawn_workers<K, F, Fut>(name: &'static str, queue: &Arc<WorkQueue<K>>, workers: usize, runner: &Runner, sync: F)
where
    K: Hash + Eq + Ord + Clone + Debug + Send + Sync + 'static,
    F: Fn(K) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Next, SyncError>> + Send,
{
    let status = runner.status.queue(name);
    queue.report_to(status.clone());
    for _ in 0..workers {
        let (queue, token, sync) = (queue.clone(), runner.token.clone(), sync.clone());
        let alive = Alive { status: status.clone(), token: token.clone() };
        runner.tasks.spawn(async move {
            let alive = alive;
            loop {
                let key = tokio::select! {
                    // Cancel-safe: `next` takes a key only when it returns it.
                    () = token.cancelled() => return,
                    key = queue.next() => key,
                };
                let worked = process(name, &queue, &alive.status, &key, sync.clone());
                let worked = AssertUnwindSafe(worked).catch_unwind().await;
                if let Err(panic) = worked {
                    alive.status.panicked();
                    let panic = panic_text(&*panic);
                    tracing::error!(controller = name, panic, "what follows a sync panicked");
                    queue.add_rate_limited(key);
                }
            }
        });
    }
}

/// Syncs a key once and sees to what follows.
async fn process<K, F, Fut>(name: &'static str, queue: &WorkQueue<K>, status: &QueueStatus, key: &K, sync: F)
where
    K: Hash + Eq + Ord + Clone + Debug + Send + Sync + 'static,
    F: Fn(K) -> Fut + Send,
    Fut: Future<Output = Result<Next, SyncError>> + Send,
{
    let _in_work = InWork { queue, key };
    let began = status.began(queue.depth());
    // What a sync leaves half done is on the server, and the next one starts from there.
    let made = std::panic::catch_unwind(AssertUnwindSafe(|| sync(key.clone())));
    let result = match made {
        Ok(made) => AssertUnwindSafe(made).catch_unwind().await,
        Err(panic) => Err(panic),
    };
    let result = result.unwrap_or_else(|panic| {
        status.panicked();
        Err(SyncError::Panicked(panic_text(&*panic)))
    });
    status.ended(began);
    conclude(name, queue, key, result);
}

/// A key in work, until this is dropped: one that stayed in work would never be worked on again.
struct InWork<'a, K: Hash + Eq + Ord + Clone + Debug + Send + Sync + 'static> {
    queue: &'a WorkQueue<K>,
    key: &'a K,
}

impl<K: Hash + Eq + Ord + Clone + Debug + Send + Sync + 'static> Drop for InWork<'_, K> {
    fn drop(&mut self) {
        self.queue.done(self.key);
    }
}

/// Notices a worker that ends although it was not asked to.
struct Alive {
    status: Arc<QueueStatus>,
    token: CancellationToken,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if !self.token.is_cancelled() {
            self.status.worker_died();
        }
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Forgets or requeues a key after its sync.
fn conclude<K>(name: &'static str, queue: &WorkQueue<K>, key: &K, result: Result<Next, SyncError>)
where
    K: Hash + Eq + Ord + Clone + Debug + Send + Sync + 'static,
{
    match result {
        Ok(Next::Wait) => queue.forget(key),
        Ok(Next::After(delay)) => {
            queue.forget(key);
            queue.add_after(key.clone(), delay);
        }
        Err(error) => {
            let quiet = error.is_conflict() || matches!(error, SyncError::Incomplete(_));
            let attempt = queue.failures(key) + 1;
            if matches!(error, SyncError::Panicked(_)) {
                tracing::error!(controller = name, ?key, attempt, error = %chain(&error), "sync panicked");
            } else if quiet || attempt < 4 {
                tracing::debug!(controller = name, ?key, attempt, error = %chain(&error), "sync will be retried");
            } else {
                tracing::warn!(controller = name, ?key, attempt, error = %chain(&error), "sync failed");
            }
            queue.add_rate_limited(key.clone());
        }
    }
}

/// An error and its sources in one line. Answers of the server quote what they refuse: it is cut for logs and
/// conditions.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line.push_str(": ");
        line.push_str(&inner.to_string());
        source = inner.source();
    }
    text::cut(line, text::CONDITION_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn equal_keys_wait_once_and_run_again_after_work() {
        let queue = WorkQueue::<u32>::new();
        queue.add(1);
        queue.add(1);
        queue.add(2);
        assert_eq!(queue.next().await, 1);
        queue.add(1);
        assert_eq!(queue.next().await, 2);
        assert!(futures::FutureExt::now_or_never(queue.next()).is_none(), "1 is still in work");
        queue.done(&1);
        assert_eq!(queue.next().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_delays_the_shorter_counts_once() {
        let (queue, began) = (WorkQueue::<u32>::new(), tokio::time::Instant::now());
        queue.add_after(1, Duration::from_secs(3600));
        queue.add_after(1, Duration::from_millis(5));
        assert_eq!((queue.next().await, began.elapsed()), (1, Duration::from_millis(5)));
        queue.done(&1);
        let state = queue.lock();
        assert!(state.earliest.is_empty() && state.delayed_keys.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_beyond_every_clock_neither_panics_nor_comes_soon() {
        let (queue, began) = (WorkQueue::<u32>::new(), tokio::time::Instant::now());
        queue.add_after(1, Duration::MAX);
        queue.add_after(2, Duration::from_secs(i64::MAX.cast_unsigned()));
        queue.add_after(3, Duration::from_secs(60));
        assert_eq!((queue.next().await, began.elapsed()), (3, Duration::from_secs(60)));
        assert_eq!(queue.next().await, 1);
        assert!(began.elapsed() >= LONGEST_DELAY);
    }

    #[test]
    fn backoff_doubles_up_to_a_minute() {
        assert_eq!(backoff(1), Duration::from_millis(5));
        assert_eq!(backoff(4), Duration::from_millis(40));
        assert_eq!(backoff(40), BACKOFF_MAX);
    }

    #[tokio::test]
    async fn workers_never_hold_one_key_twice() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let queue = WorkQueue::<u32>::new();
        let runner = runner();
        let (inside, most, runs) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (i, m, r) = (inside.clone(), most.clone(), runs.clone());
        spawn_workers("test", &queue, 4, &runner, move |_key| {
            let (i, m, r) = (i.clone(), m.clone(), r.clone());
            async move {
                m.fetch_max(i.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                i.fetch_sub(1, Ordering::SeqCst);
                let n = r.fetch_add(1, Ordering::SeqCst);
                if n < 5 { Err(SyncError::Incomplete("again".into())) } else { Ok(Next::Wait) }
            }
        });
        queue.add(7);
        let six = async || {
            queue.add(7);
            runs.load(Ordering::SeqCst) >= 6
        };
        harness::time::eventually_true("six runs", six).await.expect("six runs");
        assert_eq!(most.load(Ordering::SeqCst), 1);
        stop(runner).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure_that_is_tried_again() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (queue, runner, runs) = (WorkQueue::<u32>::new(), runner(), Arc::new(AtomicUsize::new(0)));
        let counted = runs.clone();
        spawn_workers("test", &queue, 1, &runner, move |_key| {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            // One panic before the future is made, one inside of it.
            assert!(run != 0, "first");
            async move {
                assert!(run != 1, "second");
                Ok(Next::Wait)
            }
        });
        queue.add(7);
        let done = tokio::time::timeout(Duration::from_secs(10), async {
            while runs.load(Ordering::SeqCst) < 3 || queue.failures(&7) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        done.await.expect("a third run, after back-off");
        let mut metrics = String::new();
        runner.status.write_metrics(&mut metrics);
        assert!(metrics.contains("controller_panics_total{name=\"test\"} 2"), "{metrics}");
        assert!(metrics.contains("workqueue_retries_total{name=\"test\"} 2"), "{metrics}");
        stop(runner).await;
    }

    /// A key that can be made to panic where it is copied, once.
    #[derive(Debug)]
    struct Touchy(Arc<std::sync::atomic::AtomicBool>);

    impl Touchy {
        fn touch(&self) -> bool {
            self.0.swap(true, std::sync::atomic::Ordering::SeqCst)
        }
    }

    impl Clone for Touchy {
        fn clone(&self) -> Self {
            assert!(!self.0.swap(false, std::sync::atomic::Ordering::SeqCst), "copied");
            Self(self.0.clone())
        }
    }

    impl PartialEq for Touchy {
        fn eq(&self, _: &Self) -> bool {
            true
        }
    }

    impl Eq for Touchy {}

    impl PartialOrd for Touchy {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Touchy {
        fn cmp(&self, _: &Self) -> std::cmp::Ordering {
            std::cmp::Ordering::Equal
        }
    }

    impl Hash for Touchy {
        fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_after_a_sync_ends_neither_the_worker_nor_the_key() {
        let (queue, runner) = (WorkQueue::<Touchy>::new(), runner());
        let (runs, mut ran) = tokio::sync::mpsc::unbounded_channel();
        spawn_workers("test", &queue, 1, &runner, move |key: Touchy| {
            let runs = runs.clone();
            async move {
                key.touch();
                let _ = runs.send(());
                Ok(Next::After(Duration::from_secs(1)))
            }
        });
        queue.add(Touchy(Arc::default()));
        for run in 0..3 {
            let waited = tokio::time::timeout(Duration::from_secs(10), ran.recv()).await;
            assert_eq!(waited, Ok(Some(())), "run {run}");
        }
        stop(runner).await;
    }

    fn runner() -> Runner {
        Runner { tasks: TaskTracker::new(), token: CancellationToken::new(), status: Status::default() }
    }

    async fn stop(runner: Runner) {
        runner.token.cancel();
        runner.tasks.close();
        runner.tasks.wait().await;
        assert!(runner.status.checks().iter().all(|check| check.failure.is_none()));
    }
}
