//! Answers on their way out, under one rule: what an answer keeps in memory and what it holds of the pools go together.
//! Both are held until the client has taken the last byte, or its connection has ended; and an answer that is taken too
//! slowly ends its connection.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::body::{Body, BodyError, boxed};
use super::doubling::Doubling;
use super::flow::{Permit, QUEUE};
use super::serve::{CLOSE_TIMEOUT, Connection, Trust};
use super::snapshots::Loan;

/// How often it is looked which answers are taken.
pub const SWEEP: Duration = Duration::from_secs(5);
/// A part that the client does not take for so long is the last one, of a watch as of any other answer.
pub const UNREAD: Duration = Duration::from_secs(60);
/// Answers of this length or less are in the buffers of an HTTP/1.1 connection at once. Over HTTP/2 the client says how
/// much it takes of each, which may be nothing, so that there every answer is watched.
const SHORT: u64 = 64 * 1024;
/// Bytes that are handed out at once: what an answer's progress is counted in, and what makes something of them (gzip)
/// works at most on so many before others have their turn.
pub const SLICE: usize = 32 * 1024;

/// What an answer says that it keeps in memory until it was sent, where that is not its length.
#[derive(Clone, Copy, Debug)]
pub struct Keeps(pub usize);

/// Bytes that an answer keeps. One of unknown length that does not say keeps as much as its request had.
pub fn kept(response: &Response<Body>) -> usize {
    let length = || response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
    response.extensions().get().map(|Keeps(bytes)| *bytes).or_else(length).unwrap_or(usize::MAX)
}

/// How long an answer may have parts that the client has not taken.
#[derive(Debug)]
struct Patience {
    /// Sweeps that may find some, whatever was taken.
    sweeps: u64,
    /// Bytes that have to be taken for each further one.
    pace: u64,
}

/// A minute, as upstream gives every request, and from there on 16 KiB/s: a large list may come through a slow line.
const PATIENCE: Patience = Patience { sweeps: UNREAD.as_secs() / SWEEP.as_secs(), pace: 80 * 1024 };
/// When somebody waits for what it holds.
const WANTED: Patience = Patience { sweeps: 2, pace: 320 * 1024 };

/// Seconds after which somebody who waits gets what is not taken: a sweep finds that they wait, others that they still
/// do, and the other requests on the connection have their time.
const WAITED_FOR: u64 = (1 + WANTED.sweeps) * SWEEP.as_secs() + CLOSE_TIMEOUT.as_secs();
const _: () = assert!(WAITED_FOR < QUEUE.as_secs());

impl Patience {
    /// Whether it is at an end after so many sweeps, with so many bytes taken meanwhile.
    fn is_over(&self, sweeps: u64, taken: u64) -> bool {
        sweeps > self.sweeps + taken / self.pace
    }
}

/// Who takes an answer.
#[derive(Debug, Default)]
pub struct Taker {
    /// Whether the connection carries many answers at once: HTTP/2.
    pub many: bool,
    /// The connection; none for callers within the process, who hold nothing.
    pub connection: Option<Trust>,
}

/// The answers being sent that somebody may not take.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    holds: Vec<Weak<Hold>>,
    doubling: Doubling,
}

impl Watched {
    /// Keeps those that are to be kept.
    fn retain(&mut self, keep: impl FnMut(&Weak<Hold>) -> bool) {
        self.holds.retain(keep);
        self.doubling.looked(self.holds.len());
    }
}

/// What an answer holds. Its body has a part in it, and so has each part of the body that was handed out and lies,
/// unsent, somewhere in the connection.
#[derive(Debug)]
struct Hold {
    permits: Vec<Permit>,
    /// For what it keeps of the past.
    loan: Option<Loan>,
    connection: Trust,
    /// Parts handed out and not taken.
    out: AtomicUsize,
    /// Bytes taken since there last was none.
    taken: AtomicU64,
    /// Sweeps that found some since then.
    sweeps: AtomicU64,
    /// Sweeps that one after another found that somebody waits for what it holds.
    wanted: AtomicU64,
    /// Bytes that were taken before the first of them.
    before: AtomicU64,
}

impl Hold {
    /// Counts a sweep; whether it finds that the client takes too little.
    fn is_overdue(&self) -> bool {
        if self.out.load(Ordering::Relaxed) == 0 {
            // The client waits for us.
            self.taken.store(0, Ordering::Relaxed);
            self.sweeps.store(0, Ordering::Relaxed);
            self.wanted.store(0, Ordering::Relaxed);
            return false;
        }
        let sweeps = 1 + self.sweeps.fetch_add(1, Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed);
        PATIENCE.is_over(sweeps, taken) || self.is_wanted_too_long(taken)
    }

    /// Counts a sweep for those who wait, from the first that found them on: an answer that took its time while nobody
    /// waited is not ended at once when somebody does.
    fn is_wanted_too_long(&self, taken: u64) -> bool {
        if !self.permits.iter().any(Permit::is_wanted) && !self.loan.as_ref().is_some_and(Loan::is_wanted) {
            self.wanted.store(0, Ordering::Relaxed);
            return false;
        }
        let sweeps = 1 + self.wanted.fetch_add(1, Ordering::Relaxed);
        if sweeps == 1 {
            self.before.store(taken, Ordering::Relaxed);
        }
        WANTED.is_over(sweeps, taken.saturating_sub(self.before.load(Ordering::Relaxed)))
    }
}

impl Hold {
    fn new(permits: Vec<Permit>, loan: Option<Loan>, connection: Trust) -> Arc<Self> {
        Arc::new(Self {
            permits,
            loan,
            connection,
            out: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            sweeps: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            before: AtomicU64::new(0),
        })
    }
}

/// A part of an answer that was handed out.
struct Part {
    bytes: Bytes,
    hold: Arc<Hold>,
}

impl Part {
    fn hand_out(bytes: Bytes, hold: &Arc<Hold>) -> Bytes {
        hold.out.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Self { bytes, hold: hold.clone() })
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.hold.taken.fetch_add(self.bytes.len() as u64, Ordering::Relaxed);
        self.hold.out.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Answers {
    /// Lets an answer hold `permits` until it was sent. A short one gives them back at once, unless it may lie unsent.
    pub fn send(&self, mut response: Response<Body>, permits: Vec<Permit>, to: Taker) -> Response<Body> {
        let loan = response.extensions_mut().remove();
        let Some(connection) = to.connection else { return response };
        if !to.many && response.body().size_hint().exact().is_some_and(|length| length <= SHORT) {
            return response;
        }
        response.map(|body| {
            let hold = Hold::new(permits, loan, connection);
            self.watch(Arc::downgrade(&hold));
            boxed(Answer { body: Sliced::new(body), hold })
        })
    }

    /// What goes out behind an answer, on a connection that is no longer the server's: the messages of a WebSocket. It
    /// is under the same rule as the answers.
    pub fn behind(&self, loan: Option<Loan>) -> Behind {
        let connection: Arc<Connection> = Arc::default();
        let hold = Hold::new(Vec::new(), loan, connection.trust());
        self.watch(Arc::downgrade(&hold));
        Behind { hold, connection }
    }

    fn watch(&self, hold: Weak<Hold>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What was sent is forgotten by and by, however many there are between two sweeps.
        if all.doubling.is_due(all.holds.len()) {
            all.retain(|hold| hold.strong_count() > 0);
        }
        all.holds.push(hold);
    }

    /// Ends the connections whose answers are taken too slowly. Everything else follows from that: nothing is left that
    /// could hold a part of them.
    pub fn sweep(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|hold| {
            let Some(hold) = hold.upgrade() else { return false };
            if hold.is_overdue() {
                hold.connection.end();
            }
            true
        });
    }
}

/// How what goes out behind an answer is taken.
#[derive(Debug)]
pub struct Behind {
    hold: Arc<Hold>,
    connection: Arc<Connection>,
}

impl Behind {
    /// Bytes on their way out, in slices that are taken when they are dropped.
    pub fn hand_out(&self, mut bytes: Bytes) -> Vec<Bytes> {
        let mut slices = Vec::with_capacity(bytes.len().div_ceil(SLICE));
        while !bytes.is_empty() {
            slices.push(Part::hand_out(bytes.split_to(bytes.len().min(SLICE)), &self.hold));
        }
        slices
    }

    /// Returns when too little was taken for too long.
    pub async fn overdue(&self) {
        self.connection.told().await;
    }
}

/// The body that the connection reads.
struct Answer {
    body: Sliced,
    hold: Arc<Hold>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, hold } = &mut *self;
        let polled = Pin::new(body).poll_frame(cx);
        polled.map_ok(|frame| frame.map_data(|bytes| Part::hand_out(bytes, hold)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body in parts of at most [`SLICE`] bytes.
#[derive(Debug)]
pub struct Sliced {
    body: Body,
    /// What is left of the part that the body gave last.
    left: Bytes,
}

impl Sliced {
    /// All of `body`.
    pub fn new(body: Body) -> Self {
        Self { body, left: Bytes::new() }
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        let part = self.left.split_to(self.left.len().min(SLICE));
        (!part.is_empty()).then(|| Frame::data(part))
    }
}

impl HttpBody for Sliced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(part) = self.next() {
            return Poll::Ready(Some(Ok(part)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        match frame.into_data() {
            Ok(data) => {
                self.left = data;
                Poll::Ready(Some(Ok(self.next().unwrap_or_else(|| Frame::data(Bytes::new())))))
            }
            Err(other) => Poll::Ready(Some(Ok(other))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, left) = (self.body.size_hint(), self.left.len() as u64);
        match hint.exact() {
            Some(exact) => hint.set_exact(exact + left),
            None => hint.set_lower(hint.lower() + left),
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::{full, stream};
    use crate::flow::Pool;
    use crate::serve::Connection;
    use futures::{FutureExt as _, StreamExt as _};
    use http_body_util::BodyExt as _;

    /// Answers over HTTP/2 on one connection, and a pool that each holds one of.
    struct World {
        answers: Answers,
        connection: Arc<Connection>,
        pool: Pool,
    }

    impl World {
        fn new() -> Self {
            Self { answers: Answers::default(), connection: Arc::default(), pool: Pool::new(2) }
        }

        fn send(&self, body: Body) -> Body {
            let to = Taker { many: true, connection: Some(self.connection.trust()) };
            self.answers.send(Response::new(body), vec![self.pool.try_take("a", 1).unwrap()], to).into_body()
        }

        fn is_free(&self) -> bool {
            self.pool.try_take("a", 1).is_some()
        }

        /// After how many sweeps the connection has to end, of so many.
        fn ends(&self, sweeps: u64) -> Option<u64> {
            (1..=sweeps).find(|_| {
                self.answers.sweep();
                self.connection.over().now_or_never().is_some()
            })
        }
    }

    fn endless() -> Body {
        stream(futures::stream::repeat(Bytes::from(vec![b'x'; SLICE])))
    }

    async fn part(body: &mut Body) -> Bytes {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn places_are_held_until_the_last_part_was_sent() {
        let world = World::new();
        let mut answer = world.send(full(vec![0; SLICE + 1]));
        let first = part(&mut answer).await;
        let last = part(&mut answer).await;
        assert!(answer.is_end_stream());
        drop((answer, first));
        // A connection keeps it until the client takes it, and with it all of what it is a part of.
        assert!(!world.is_free());
        drop(last);
        assert!(world.is_free());
    }

    #[tokio::test]
    async fn what_is_short_holds_nothing_where_it_cannot_lie() {
        let world = World::new();
        let permit = || vec![world.pool.try_take("a", 1).unwrap()];
        let to = |many| Taker { many, connection: Some(world.connection.trust()) };
        let short = world.answers.send(Response::new(full("x")), permit(), to(false));
        assert!(world.is_free());
        drop(short);
        let watched = world.answers.send(Response::new(full("x")), permit(), to(true));
        assert!(!world.is_free());
        drop(watched);
        let long = world.answers.send(Response::new(full(vec![0; 1 << 20])), permit(), to(false));
        assert!(!world.is_free());
        assert_eq!(long.into_body().collect().await.unwrap().to_bytes().len(), 1 << 20);
        assert!(world.is_free());
    }

    #[tokio::test]
    async fn answers_are_handed_out_in_slices() {
        let text: Vec<u8> = (0..3 * SLICE + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut body = World::new().send(full(text.clone()));
        let mut read = Vec::new();
        while read.len() < text.len() {
            assert_eq!(body.size_hint().exact(), Some((text.len() - read.len()) as u64));
            assert!(!body.is_end_stream());
            let part = part(&mut body).await;
            assert!(part.len() <= SLICE);
            read.extend_from_slice(&part);
        }
        assert_eq!(read, text);
        assert!(body.is_end_stream());
    }

    #[test]
    fn patience_is_a_minute_and_a_pace() {
        const MIB: u64 = 1 << 20;
        for (patience, taken, sweeps) in [
            (PATIENCE, 0, 12),
            (PATIENCE, PATIENCE.pace - 1, 12),
            (PATIENCE, PATIENCE.pace, 13),
            (PATIENCE, 3 * MIB, 50),
            (WANTED, 0, 2),
            (WANTED, 3 * MIB, 11),
        ] {
            let lasts = (0..).take_while(|sweeps| !patience.is_over(*sweeps, taken)).last();
            assert_eq!(lasts, Some(sweeps), "{patience:?} {taken}");
        }
        assert_eq!(PATIENCE.sweeps * SWEEP.as_secs(), 60);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_ends_its_connection() {
        let world = World::new();
        let mut answer = world.send(endless());
        assert_eq!(world.ends(50), None, "not asked for yet");
        let mut parts = vec![part(&mut answer).await];
        assert_eq!(world.ends(50), Some(13));
        assert!(!world.is_free(), "it is still there");
        // The end of the connection.
        parts.clear();
        drop(answer);
        assert!(world.is_free());
        assert!(world.answers.0.lock().unwrap().holds.len() <= 1);
    }

    #[tokio::test]
    async fn many_answers_cost_no_more_each_than_few() {
        let world = World { pool: Pool::new(100_000), ..World::new() };
        let mut open: std::collections::VecDeque<Body> = (0..1000).map(|_| world.send(endless())).collect();
        for _ in 0..10_000 {
            open.pop_front();
            open.push_back(world.send(endless()));
        }
        let watched = world.answers.0.lock().unwrap();
        assert!(watched.holds.len() <= 2 * 1000, "{}", watched.holds.len());
        assert!(watched.doubling.looks <= 16, "{}", watched.doubling.looks);
    }

    #[tokio::test]
    async fn an_answer_that_is_taken_slowly_has_an_end() {
        let world = World::new();
        let mut answer = world.send(endless());
        let mut unsent = part(&mut answer).await;
        // One slice in each of a minute's sweeps keeps nothing for ever.
        let ends = (1..100).find(|_| {
            unsent = part(&mut answer).now_or_never().unwrap();
            world.ends(1).is_some()
        });
        assert_eq!(ends, Some(21));
        drop(unsent);
    }

    #[tokio::test]
    async fn who_waits_for_a_place_waits_less_for_the_slow() {
        let world = World::new();
        let mut answer = world.send(endless());
        let _unsent = part(&mut answer).await;
        let mut waits = Box::pin(world.pool.take("a", 1));
        assert!(futures::poll!(&mut waits).is_pending());
        assert_eq!(world.ends(50), Some(3));
        drop(waits);
        let world = World::new();
        let mut answer = world.send(endless());
        let _unsent = part(&mut answer).await;
        drop(Box::pin(world.pool.take("a", 1)).as_mut().now_or_never());
        assert_eq!(world.ends(50), Some(13), "nobody waits any more");
    }

    /// Nobody else waits before or after them, and nobody comes back.
    #[tokio::test(start_paused = true)]
    async fn who_waits_alone_gets_what_is_not_taken() {
        let world = World::new();
        let mut answer = world.send(endless());
        let unsent = part(&mut answer).await;
        let sweeps = async {
            // The first comes just too early to find them.
            let mut looks = tokio::time::interval(SWEEP);
            while world.connection.told().now_or_never().is_none() {
                looks.tick().await;
                world.answers.sweep();
            }
            tokio::time::sleep(CLOSE_TIMEOUT).await;
            drop((answer, unsent));
        };
        let (got, ()) = futures::join!(world.pool.take("a", 1), sweeps);
        assert!(got.is_some());
    }

    #[tokio::test]
    async fn waiting_begins_with_who_waits() {
        let world = World::new();
        let mut answer = world.send(endless());
        let _unsent = part(&mut answer).await;
        assert_eq!(world.ends(8), None);
        let mut waits = Box::pin(world.pool.take("a", 1));
        assert!(futures::poll!(&mut waits).is_pending());
        assert_eq!(world.ends(2), None);
        drop(waits);
        assert_eq!(world.ends(1), None);
        // What was taken before does not count for those who wait now.
        let world = World::new();
        let mut answer = world.send(endless());
        let mut unsent = part(&mut answer).await;
        for _ in 0..40 {
            unsent = part(&mut answer).await;
        }
        let mut waits = Box::pin(world.pool.take("a", 1));
        assert!(futures::poll!(&mut waits).is_pending());
        assert_eq!(world.ends(50), Some(3));
        drop(unsent);
    }

    #[tokio::test]
    async fn who_waits_for_room_does_not_wait_for_who_has_none() {
        let world = World::new();
        let held = || crate::flow::Held { room: world.pool.try_take("a", 1), ..Default::default() };
        let to = || Taker { many: true, connection: Some(world.connection.trust()) };
        let mut answer = world.answers.send(Response::new(endless()), held().of_answer(0), to()).into_body();
        let _unsent = part(&mut answer).await;
        let shrunk = world.pool.try_take("b", 1).map(|permit| permit.at_most(0));
        let _taken = world.pool.try_take("a", 1).unwrap();
        let mut waits = Box::pin(world.pool.take("a", 1));
        assert!(futures::poll!(&mut waits).is_pending());
        let mut others = Box::pin(world.pool.take("b", 2));
        assert!(futures::poll!(&mut others).is_pending());
        assert_eq!(world.ends(50), Some(13));
        assert!(shrunk.is_some_and(|permit| !permit.is_wanted()));
    }

    #[test]
    fn an_answer_keeps_what_it_says() {
        let of = |body, keeps: Option<Keeps>| {
            let mut response = Response::new(body);
            keeps.map(|keeps| response.extensions_mut().insert(keeps));
            kept(&response)
        };
        assert_eq!(of(full("abc"), None), 3);
        assert_eq!(of(endless(), Some(Keeps(7))), 7);
        assert_eq!(of(endless(), None), usize::MAX);
    }

    #[tokio::test]
    async fn an_answer_that_waits_for_the_server_is_not_judged() {
        let world = World::new();
        let quiet = futures::stream::once(async { Bytes::from_static(b"x") }).chain(futures::stream::pending());
        let mut answer = world.send(stream(quiet));
        let unsent = part(&mut answer).await;
        assert_eq!(world.ends(12), None);
        drop(unsent);
        assert!(answer.frame().now_or_never().is_none());
        assert_eq!(world.ends(50), None);
    }

    #[test]
    fn answers_that_were_sent_are_forgotten() {
        let world = World::new();
        for _ in 0..10_000 {
            drop(world.send(full("x")));
        }
        assert!(world.answers.0.lock().unwrap().holds.len() < 100);
    }
}
