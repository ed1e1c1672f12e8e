//! How much of the server a request may hold: a place among the requests in flight, memory for its body, and time on
//! threads of its own when its body is large.
//!
//! Nodes, components, workloads and strangers each have pools of their own, so that none can take the others' place,
//! and within a pool one user gets half at most, and of memory for bodies an eighth. What a request holds as it is
//! decided is in its [`Held`]; what of that its answer holds, and for how long, is said in [`answer`](super::answer).

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Answers;
use super::body::MAX_BODY;
use super::doubling::Doubling;
use super::status::ApiError;
use auth::authn::UserInfo;

/// A request waits this long for a place before it is told to come back: longer than an answer that is not taken lasts
/// as soon as somebody waits, so that who waits alone gets what it holds ([`answer::WAITED_FOR`](super::answer)).
pub const QUEUE: Duration = Duration::from_secs(25);
/// Bodies of this weight and more are decoded on threads of their own: below it, the worst of them take a few
/// milliseconds.
pub const LARGE_BODY: usize = 32 * 1024;
/// What a body weighs: its length, or more when it may decode to much more than other bodies of its length.
pub fn weight(content_type: &str, body: &[u8]) -> usize {
    let has = |word: &[u8]| body.windows(word.len()).any(|part| part == word);
    let length = body.len();
    match content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        // An alias stands for as much as the decoder allows.
        "application/yaml" if has(b"*") => MAX_BODY,
        // A backslash may hide the word.
        "application/json-patch+json" if has(b"copy") || has(b"\\") => MAX_BODY,
        super::protobuf::MEDIA_TYPE => (4 * length).min(MAX_BODY),
        _ => length,
    }
}

/// Threads for large bodies.
const LARGE_THREADS: usize = 2;

/// Whom a request comes from, as far as its share of the server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nodes: their leases must arrive, whatever others do.
    Nodes,
    /// The control plane's components and administrators.
    Components,
    /// Everybody else with a name.
    Workloads,
    /// Who did not say who they are.
    Strangers,
}

/// Components that authenticate with a certificate of their own.
const COMPONENTS: [&str; 4] =
    ["system:kube-controller-manager", "system:kube-scheduler", "system:kube-apiserver", "system:kube-proxy"];

impl Level {
    /// The level of a user.
    pub fn of(user: &UserInfo) -> Self {
        if user.in_group("system:nodes") {
            Self::Nodes
        } else if user.in_group("system:masters")
            // Controllers have accounts there, as upstream's level workload-high takes them.
            || user.in_group("system:serviceaccounts:kube-system")
            || COMPONENTS.contains(&user.username.as_str())
        {
            Self::Components
        } else if user.in_group("system:unauthenticated") {
            Self::Strangers
        } else {
            Self::Workloads
        }
    }
}

/// Whose share a user's requests take. A namespace has as many service accounts as somebody likes to make; those of
/// kube-system are components, each for itself.
pub fn payer(user: &UserInfo) -> &str {
    let name = user.username.as_str();
    if !name.starts_with("system:serviceaccount:") || Level::of(user) != Level::Workloads {
        return name;
    }
    match name.rsplit_once(':') {
        Some((namespace, account)) if !account.is_empty() => namespace,
        _ => name,
    }
}

/// What is left of something, and how many wait for it.
#[derive(Debug)]
struct Stock {
    left: Arc<Semaphore>,
    wanted: AtomicUsize,
}

/// Somebody who waits.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What was taken out of a stock, given back when dropped.
#[derive(Debug)]
struct Taken {
    permit: OwnedSemaphorePermit,
    of: Arc<Stock>,
}

impl Stock {
    fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { left: Arc::new(Semaphore::new(size)), wanted: AtomicUsize::new(0) })
    }

    fn try_take(self: &Arc<Self>, amount: u32) -> Option<Taken> {
        let permit = self.left.clone().try_acquire_many_owned(amount).ok()?;
        Some(Taken { permit, of: self.clone() })
    }

    async fn take(self: &Arc<Self>, amount: u32) -> Option<Taken> {
        if let Some(taken) = self.try_take(amount) {
            return Some(taken);
        }
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let _waits = Waiter(&self.wanted);
        let permit = self.left.clone().acquire_many_owned(amount).await.ok()?;
        Some(Taken { permit, of: self.clone() })
    }
}

impl Taken {
    fn is_wanted(&self) -> bool {
        self.permit.num_permits() > 0 && self.of.wanted.load(Ordering::Relaxed) > 0
    }

    fn shrink(&mut self, to: usize) {
        let surplus = self.permit.num_permits().saturating_sub(to);
        drop(self.permit.split(surplus));
    }
}

/// Something of which there is so much, and of which one user gets at most a share.
#[derive(Debug)]
pub struct Pool {
    all: Arc<Stock>,
    share: usize,
    users: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    shares: HashMap<Box<str>, Weak<Stock>>,
    doubling: Doubling,
}

/// A part of a [`Pool`], given back when dropped.
#[derive(Debug)]
pub struct Permit {
    own: Taken,
    all: Taken,
}

impl Permit {
    /// Whether somebody waits for it: the same user for their share, or anybody for what is left to all.
    pub fn is_wanted(&self) -> bool {
        self.own.is_wanted() || self.all.is_wanted()
    }

    /// Gives back what is more than that.
    #[must_use]
    pub fn at_most(mut self, amount: usize) -> Self {
        self.own.shrink(amount);
        self.all.shrink(amount);
        self
    }
}

impl Pool {
    /// A pool of `size`, of which one user gets half.
    pub fn new(size: usize) -> Self {
        Self::shared(size, (size / 2).max(1))
    }

    /// A pool of `size`, of which one user gets `share`.
    pub fn shared(size: usize, share: usize) -> Self {
        Self { all: Stock::new(size), share, users: Mutex::default() }
    }

    /// What is left of a user's share. Shares of which nothing is taken are forgotten by and by.
    fn share_of(&self, user: &str) -> Arc<Stock> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = users.shares.get(user).and_then(Weak::upgrade) {
            return share;
        }
        if users.doubling.is_due(users.shares.len()) {
            users.shares.retain(|_, share| share.strong_count() > 0);
            let left = users.shares.len();
            users.doubling.looked(left);
        }
        let share = Stock::new(self.share);
        users.shares.insert(user.into(), Arc::downgrade(&share));
        share
    }

    /// As much of `amount` as one user can have.
    pub fn portion(&self, amount: usize) -> usize {
        amount.min(self.share)
    }

    /// Takes `amount` if it is there.
    pub fn try_take(&self, user: &str, amount: usize) -> Option<Permit> {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        let own = self.share_of(user).try_take(amount)?;
        let all = self.all.try_take(amount)?;
        Some(Permit { own, all })
    }

    /// Takes `amount`, waiting a while for others to give it back; who has their share waits for themselves.
    pub async fn take(&self, user: &str, amount: usize) -> Option<Permit> {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        let taken = async {
            let own = self.share_of(user).take(amount).await?;
            let all = self.all.take(amount).await?;
            Some(Permit { own, all })
        };
        tokio::time::timeout(QUEUE, taken).await.ok().flatten()
    }
}

/// What a request does with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Reads objects.
    Read,
    /// Writes objects.
    Write,
    /// Asks for what is no object: discovery, documents, metrics.
    Other,
}

/// The pools of one level.
#[derive(Debug)]
pub struct Pools {
    reads: Pool,
    writes: Pool,
    others: Pool,
    watches: Pool,
    /// Bytes of bodies being received.
    bodies: Pool,
    /// Weight of large bodies being decoded and stored, and of what is answered to them. Each may take some twenty
    /// times its weight as long as it is decoded.
    large: Pool,
    /// Bytes of stored objects that lists and watches keep until they are sent.
    snapshots: Pool,
}

/// Bytes of [`Pools::snapshots`] for each body that may be received at once, and a user's share of it.
const SNAPSHOTS: (usize, usize) = (16 << 20, 4 << 20);

impl Pools {
    fn new(reads: usize, writes: usize, others: usize, watches: usize, bodies: usize) -> Self {
        Self {
            reads: Pool::new(reads),
            writes: Pool::new(writes),
            others: Pool::new(others),
            watches: Pool::new(watches),
            bodies: Pool::shared(bodies * MAX_BODY, (bodies / 8).max(1) * MAX_BODY),
            large: Pool::new(4 * MAX_BODY),
            snapshots: Pool::shared(bodies * SNAPSHOTS.0, bodies * SNAPSHOTS.1),
        }
    }

    /// Where memory for a body comes from.
    pub fn bodies(&self) -> &Pool {
        &self.bodies
    }

    /// Where room for what answers keep of the past comes from.
    pub fn snapshots(&self) -> &Pool {
        &self.snapshots
    }

    /// A place among the requests in flight.
    ///
    /// # Errors
    /// 429 when there is none for a while.
    pub async fn place(&self, user: &str, to: Use) -> Result<Permit, ApiError> {
        let pool = match to {
            Use::Read => &self.reads,
            Use::Write => &self.writes,
            Use::Other => &self.others,
        };
        pool.take(user, 1).await.ok_or_else(too_many)
    }

    /// A place among the open watches. Nobody waits for one: they last.
    ///
    /// # Errors
    /// 429 when there is none.
    pub fn watch(&self, user: &str) -> Result<Permit, ApiError> {
        self.watches.try_take(user, 1).ok_or_else(too_many)
    }

    /// Room for a large body to be decoded.
    ///
    /// # Errors
    /// 429 when there is none for a while.
    pub async fn room(&self, user: &str, weight: usize) -> Result<Permit, ApiError> {
        self.large.take(user, weight).await.ok_or_else(too_many)
    }
}

/// What a request holds while it is decided.
#[derive(Debug, Default)]
pub struct Held {
    /// For its body.
    pub memory: Vec<Permit>,
    /// Among the requests in flight.
    pub place: Option<Permit>,
    /// For what is decoded on its behalf.
    pub room: Option<Permit>,
}

impl Held {
    /// What its answer that keeps so many bytes holds: the place, and of the room as much as it takes itself. The body
    /// is gone, and what was decoded, too.
    pub fn of_answer(self, kept: usize) -> Vec<Permit> {
        let room = self.room.filter(|_| kept > 0).map(|room| room.at_most(kept));
        self.place.into_iter().chain(room).collect()
    }
}

/// Upstream's refusal of a request that finds no place.
pub fn too_many() -> ApiError {
    ApiError::too_many_requests("Too many requests, please try again later.", 1)
}

/// All limits.
#[derive(Debug)]
pub struct Flow {
    nodes: Pools,
    components: Pools,
    workloads: Pools,
    strangers: Pools,
    threads: Threads,
    /// Answers being sent.
    pub answers: Answers,
}

impl Default for Flow {
    fn default() -> Self {
        // Reads and writes as upstream's 400 and 200 in flight. Upstream has no bound for watches: these are for
        // clients that have lost count. A node has one for each object that its pods name.
        Self {
            nodes: Pools::new(200, 200, 40, 100_000, 8),
            components: Pools::new(400, 200, 60, 60_000, 16),
            workloads: Pools::new(400, 200, 60, 20_000, 16),
            strangers: Pools::new(20, 10, 8, 200, 2),
            threads: Threads::default(),
            answers: Answers::default(),
        }
    }
}

impl Flow {
    /// The pools of a level.
    pub fn pools(&self, level: Level) -> &Pools {
        match level {
            Level::Nodes => &self.nodes,
            Level::Components => &self.components,
            Level::Workloads => &self.workloads,
            Level::Strangers => &self.strangers,
        }
    }

    /// Runs the work of a large body apart from all other requests. Dropping the future stops it at its next wait.
    ///
    /// # Errors
    /// 500 when it panicked or the threads cannot be had.
    pub async fn apart<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let runtime = self.threads.get().ok_or_else(|| ApiError::internal("no threads for large bodies"))?;
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn_on(work, runtime.handle());
        match tasks.join_next().await {
            Some(Ok(done)) => Ok(done),
            Some(Err(failure)) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
            _ => Err(ApiError::internal("the request was stopped")),
        }
    }
}

/// Threads that exist from the first large body on.
#[derive(Debug, Default)]
struct Threads(OnceLock<Option<Runtime>>);

impl Threads {
    fn get(&self) -> Option<&Runtime> {
        let make = || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(LARGE_THREADS)
                .thread_name("large-bodies")
                .enable_all()
                .build()
                .ok()
        };
        self.0.get_or_init(make).as_ref()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The last handle may go inside a task, where waiting for threads is not allowed.
        if let Some(Some(runtime)) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn levels_keep_apart_who_must_not_starve() {
        for (name, group, expect) in [
            ("system:node:a", "system:nodes", Level::Nodes),
            ("admin", "system:masters", Level::Components),
            ("system:kube-scheduler", "system:authenticated", Level::Components),
            ("system:serviceaccount:a:b", "system:serviceaccounts", Level::Workloads),
            ("jane", "system:authenticated", Level::Workloads),
            ("system:anonymous", "system:unauthenticated", Level::Strangers),
        ] {
            assert_eq!(Level::of(&UserInfo::new(name, [group])), expect, "{name}");
        }
    }

    #[test]
    fn bodies_weigh_what_they_may_become() {
        for (media, body, expect) in [
            ("application/json", "{}", 2),
            ("", "a: *b", 5),
            ("application/yaml", "a: b", 4),
            ("application/YAML; charset=utf-8", "a: *b", MAX_BODY),
            ("application/json-patch+json", r#"[{"op":"add"}]"#, 14),
            ("application/json-patch+json", r#"[{"op":"copy"}]"#, MAX_BODY),
            ("application/json-patch+json", r#"[{"op":"c\u006fpy"}]"#, MAX_BODY),
            ("application/vnd.kubernetes.protobuf", "k8s", 12),
        ] {
            assert_eq!(weight(media, body.as_bytes()), expect, "{media} {body}");
        }
    }

    #[test]
    fn accounts_of_a_namespace_pay_together() {
        for (name, group, expect) in [
            ("system:serviceaccount:a:b", "system:serviceaccounts:a", "system:serviceaccount:a"),
            ("system:serviceaccount:a:c", "system:serviceaccounts:a", "system:serviceaccount:a"),
            (
                "system:serviceaccount:kube-system:b",
                "system:serviceaccounts:kube-system",
                "system:serviceaccount:kube-system:b",
            ),
            ("system:serviceaccount:", "system:authenticated", "system:serviceaccount:"),
            ("jane:x", "system:authenticated", "jane:x"),
        ] {
            assert_eq!(payer(&UserInfo::new(name, [group])), expect);
        }
    }

    #[test]
    fn an_answer_holds_what_it_takes_itself() {
        let (places, room) = (Pool::new(2), Pool::new(200));
        let held = || Held { place: places.try_take("a", 1), room: room.try_take("a", 100), memory: Vec::new() };
        let permits = held().of_answer(30);
        assert!(places.try_take("a", 1).is_none());
        assert!(room.try_take("a", 71).is_none() && room.try_take("a", 70).is_some());
        drop(permits);
        // A long answer to a small request.
        let permits = held().of_answer(1000);
        assert!(room.try_take("a", 1).is_none() && room.try_take("b", 100).is_some());
        drop(permits);
        assert!(room.try_take("a", 100).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_takes_half_at_most() {
        let pool = Pool::new(4);
        let greedy: Vec<Permit> = std::iter::from_fn(|| pool.try_take("a", 1)).collect();
        assert_eq!(greedy.len(), 2);
        assert!(pool.take("a", 1).await.is_none());
        let other = pool.take("b", 2).await.unwrap();
        // Now all is taken, and who waits in vain has taken nothing.
        assert!(pool.try_take("c", 1).is_none());
        assert!(pool.take("c", 1).await.is_none());
        // Who waits for their own share gets it.
        let (waited, ()) = tokio::join!(pool.take("a", 2), async { drop((greedy, other)) });
        assert!(waited.is_some() && pool.try_take("c", 2).is_some());
    }

    #[test]
    fn users_that_went_are_forgotten() {
        let pool = Pool::new(4);
        let stays = pool.try_take("stays", 1);
        for n in 0..10_000 {
            assert!(pool.try_take(&format!("u{n}"), 1).is_some());
        }
        let users = pool.users.lock().unwrap();
        assert!(users.shares.len() < 100 && users.shares.contains_key("stays"), "{}", users.shares.len());
        drop(stays);
    }

    #[tokio::test]
    async fn work_apart_can_be_stopped_and_may_panic() {
        let flow = Flow::default();
        assert_eq!(flow.apart(async { 5 }).await.unwrap(), 5);
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel::<()>();
        let work = flow.apart(async move {
            let _held = (sender, begun.send(()));
            std::future::pending::<()>().await;
        });
        tokio::select! {
            _ = work => unreachable!("it never ends"),
            begins = begins => begins.unwrap(),
        }
        // The sender goes with the work.
        assert!(receiver.await.is_err());
        let panicked = std::panic::AssertUnwindSafe(flow.apart(async { panic!("as a handler may") }));
        assert!(futures::FutureExt::catch_unwind(panicked).await.is_err());
    }
}
