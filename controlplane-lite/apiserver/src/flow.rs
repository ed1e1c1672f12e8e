//! How much of the server a request may hold: a place among the requests in flight, memory for its body, and time on
//! threads of its own when its body is large.
//!
//! Nodes, components, workloads and strangers each have pools of their own, so that none can take the others' place, and
//! within a pool one user gets half at most, and of memory for bodies an eighth. A place is held until the answer has been sent or given up.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Answers;
use super::body::MAX_BODY;
use super::status::ApiError;
use auth::authn::UserInfo;

/// A request waits this long for a place before it is told to come back.
const QUEUE: Duration = Duration::from_secs(10);
/// Bodies of this weight and more are decoded on threads of their own: below it, the worst of them take a few milliseconds.
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

/// Something of which there is so much, and of which one user gets at most a share.
#[derive(Debug)]
pub struct Pool {
    all: Arc<Semaphore>,
    share: usize,
    users: Mutex<HashMap<Box<str>, Weak<Semaphore>>>,
}

/// A part of a [`Pool`], given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool of `size`, of which one user gets half.
    pub fn new(size: usize) -> Self {
        Self::shared(size, (size / 2).max(1))
    }

    /// A pool of `size`, of which one user gets `share`.
    pub fn shared(size: usize, share: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(size)), share, users: Mutex::default() }
    }

    /// What is left of a user's share. Shares of which nothing is taken are forgotten by and by.
    fn share_of(&self, user: &str) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = users.get(user).and_then(Weak::upgrade) {
            return share;
        }
        if users.len() == users.capacity() {
            users.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(self.share));
        users.insert(user.into(), Arc::downgrade(&share));
        share
    }

    /// Takes `amount` if it is there.
    pub fn try_take(&self, user: &str, amount: usize) -> Option<Permit> {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        let own = self.share_of(user).try_acquire_many_owned(amount).ok()?;
        let all = self.all.clone().try_acquire_many_owned(amount).ok()?;
        Some(Permit { _own: own, _all: all })
    }

    /// Takes `amount`, waiting a while for others to give it back; who has their share waits for themselves.
    pub async fn take(&self, user: &str, amount: usize) -> Option<Permit> {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        let taken = async {
            let own = self.share_of(user).acquire_many_owned(amount).await.ok()?;
            let all = self.all.clone().acquire_many_owned(amount).await.ok()?;
            Some(Permit { _own: own, _all: all })
        };
        tokio::time::timeout(QUEUE, taken).await.ok().flatten()
    }
}

/// The pools of one level.
#[derive(Debug)]
pub struct Pools {
    reads: Pool,
    writes: Pool,
    /// Bytes of bodies being received.
    bodies: Pool,
    /// Weight of large bodies being decoded and stored. Each may take some twenty times its weight.
    large: Pool,
}

impl Pools {
    fn new(reads: usize, writes: usize, bodies: usize) -> Self {
        Self {
            reads: Pool::new(reads),
            writes: Pool::new(writes),
            bodies: Pool::shared(bodies * MAX_BODY, (bodies / 8).max(1) * MAX_BODY),
            large: Pool::new(4 * MAX_BODY),
        }
    }

    /// Where memory for a body comes from.
    pub fn bodies(&self) -> &Pool {
        &self.bodies
    }

    /// A place among the requests in flight.
    ///
    /// # Errors
    /// 429 when there is none for a while.
    pub async fn place(&self, user: &UserInfo, reads: bool) -> Result<Permit, ApiError> {
        let pool = if reads { &self.reads } else { &self.writes };
        pool.take(&user.username, 1).await.ok_or_else(too_many)
    }

    /// Room for a large body to be decoded.
    ///
    /// # Errors
    /// 429 when there is none for a while.
    pub async fn room(&self, user: &UserInfo, weight: usize) -> Result<Permit, ApiError> {
        self.large.take(&user.username, weight).await.ok_or_else(too_many)
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
        // Reads and writes as upstream's 400 and 200 in flight.
        Self {
            nodes: Pools::new(200, 200, 8),
            components: Pools::new(400, 200, 16),
            workloads: Pools::new(400, 200, 16),
            strangers: Pools::new(20, 10, 2),
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
        assert!(users.len() < 100 && users.contains_key("stays"), "{}", users.len());
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
