//! Answers on their way out: what a request holds is held until its answer was sent, and an answer that nobody takes is
//! given up.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::body::{Body, BodyError, boxed};
use super::flow::Permit;
use super::serve::{Lost, Trust};

/// An answer whose next part was not asked for during two of these is given up.
pub const SWEEP: Duration = Duration::from_secs(30);
/// Answers of this length or less are in the buffers of an HTTP/1.1 connection at once. Over HTTP/2 the client says how
/// much it takes of each, which may be nothing, so that there every answer is watched.
const SHORT: u64 = 64 * 1024;
/// Bytes that are handed out at once. What was handed out waits in the connection until the client takes it, outside of
/// every budget, and over HTTP/2 for each answer apart; what makes something of them (gzip) works at most on so many
/// before others have their turn.
pub const SLICE: usize = 32 * 1024;

/// Who takes an answer.
#[derive(Debug, Default)]
pub struct Taker {
    /// Whether the connection carries many answers at once: HTTP/2.
    pub many: bool,
    /// The connection; none for callers within the process.
    pub connection: Option<Trust>,
}

/// The answers being sent that somebody may not take.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Vec<Weak<Sending>>>);

/// An answer being sent.
struct Sending {
    /// The rest of it, until it was sent or given up.
    rest: Mutex<Option<Rest>>,
    /// Whether the connection has yet to ask for more; while it waits for us the answer is not stalled.
    owed: AtomicBool,
    /// Parts taken.
    taken: AtomicU64,
    /// Parts taken at the last sweep.
    swept: AtomicU64,
    connection: Option<Trust>,
    /// Set when it was given up.
    lost: Mutex<Option<Lost>>,
}

struct Rest {
    body: Sliced,
    _permits: Vec<Permit>,
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

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Answers {
    /// Lets an answer hold `permits` until it was sent. A short one gives them back at once, unless it may lie unsent.
    pub fn send(&self, response: Response<Body>, permits: Vec<Permit>, to: Taker) -> Response<Body> {
        if !to.many && response.body().size_hint().exact().is_some_and(|length| length <= SHORT) {
            return response;
        }
        response.map(|body| {
            let sending = Arc::new(Sending {
                rest: Mutex::new(Some(Rest { body: Sliced::new(body), _permits: permits })),
                owed: AtomicBool::new(true),
                taken: AtomicU64::new(0),
                swept: AtomicU64::new(u64::MAX),
                connection: to.connection,
                lost: Mutex::default(),
            });
            self.watch(Arc::downgrade(&sending));
            boxed(Answer(sending))
        })
    }

    fn watch(&self, sending: Weak<Sending>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What was sent is forgotten by and by, however many there are between two sweeps.
        if all.len() == all.capacity() {
            all.retain(|sending| sending.strong_count() > 0);
        }
        all.push(sending);
    }

    /// Gives up the answers that nobody took a part of since the last sweep.
    pub fn sweep(&self) {
        let mut given_up = Vec::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|sending| {
            let Some(sending) = sending.upgrade() else { return false };
            let taken = sending.taken.load(Ordering::Relaxed);
            let stalled = sending.swept.swap(taken, Ordering::Relaxed) == taken && sending.owed.load(Ordering::Relaxed);
            if stalled {
                given_up.push(sending.rest.lock().unwrap_or_else(PoisonError::into_inner).take());
                // Its stream stays open as long as its connection, which therefore need not wait for it.
                let lost = sending.connection.as_ref().map(Trust::lose);
                *sending.lost.lock().unwrap_or_else(PoisonError::into_inner) = lost;
            }
            !stalled
        });
        // Dropped outside the lock: a watch takes itself out of its resource's list.
        drop(given_up);
    }
}

/// The body that the connection reads.
struct Answer(Arc<Sending>);

/// The client did not read its answer.
#[derive(Debug, thiserror::Error)]
#[error("the answer was not read")]
struct NotRead;

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let sending = &self.0;
        let mut rest = sending.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inner) = rest.as_mut() else { return Poll::Ready(Some(Err(BodyError(NotRead.into())))) };
        let polled = Pin::new(&mut inner.body).poll_frame(cx);
        sending.owed.store(polled.is_ready(), Ordering::Relaxed);
        sending.taken.fetch_add(1, Ordering::Relaxed);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            *rest = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.0.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.as_ref().is_some_and(|rest| rest.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.0.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.as_ref().map_or_else(SizeHint::default, |rest| rest.body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::{full, stream};
    use crate::flow::Pool;
    use futures::StreamExt as _;
    use http_body_util::BodyExt as _;

    fn endless() -> Body {
        stream(futures::stream::repeat(Bytes::from_static(b"x")))
    }

    #[tokio::test]
    async fn places_are_held_until_the_answer_was_read() {
        let (answers, pool) = (Answers::default(), Pool::new(2));
        let short = answers.send(Response::new(full("x")), vec![pool.try_take("a", 1).unwrap()], Taker::default());
        assert!(pool.try_take("a", 1).is_some(), "a short answer holds nothing");
        drop(short);
        let long = vec![0; 1 << 20];
        let answer = answers.send(Response::new(full(long)), vec![pool.try_take("a", 1).unwrap()], Taker::default());
        assert!(pool.try_take("a", 1).is_none());
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 1 << 20);
        assert!(pool.try_take("a", 1).is_some());
    }

    #[tokio::test]
    async fn answers_are_handed_out_in_slices() {
        let text: Vec<u8> = (0..3 * SLICE + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let to = Taker { many: true, connection: None };
        let pool = Pool::new(2);
        let permits = vec![pool.try_take("a", 1).unwrap()];
        let mut body = Answers::default().send(Response::new(full(text.clone())), permits, to).into_body();
        let mut read = Vec::new();
        while read.len() < text.len() {
            assert_eq!(body.size_hint().exact(), Some((text.len() - read.len()) as u64));
            assert!(!body.is_end_stream() && pool.try_take("a", 1).is_none(), "what was not handed out is held");
            let part = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(part.len() <= SLICE);
            read.extend_from_slice(&part);
        }
        assert_eq!(read, text);
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_given_up() {
        let (answers, pool) = (Answers::default(), Pool::new(2));
        let mut answer =
            answers.send(Response::new(endless()), vec![pool.try_take("a", 1).unwrap()], Taker::default()).into_body();
        for _ in 0..3 {
            answer.frame().await.unwrap().unwrap();
            answers.sweep();
        }
        assert!(pool.try_take("a", 1).is_none(), "it is being read");
        answers.sweep();
        assert!(pool.try_take("a", 1).is_some());
        assert!(answer.frame().await.unwrap().is_err());
        assert!(answers.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_waits_for_the_server_is_not_stalled() {
        let answers = Answers::default();
        let quiet = futures::stream::once(async { Bytes::from_static(b"x") }).chain(futures::stream::pending());
        let mut answer = answers.send(Response::new(stream(quiet)), Vec::new(), Taker::default()).into_body();
        answer.frame().await.unwrap().unwrap();
        assert!(futures::FutureExt::now_or_never(answer.frame()).is_none());
        for _ in 0..5 {
            answers.sweep();
        }
        // Still pending rather than broken.
        assert!(futures::FutureExt::now_or_never(answer.frame()).is_none());
    }

    /// An HTTP/2 client that says it takes nothing of any answer.
    #[tokio::test]
    async fn short_answers_of_many_on_a_connection_are_watched_too() {
        let (answers, pool) = (Answers::default(), Pool::new(2));
        let connection = Arc::new(crate::serve::Connection::default());
        let taker = || Taker { many: true, connection: Some(connection.trust()) };
        let permit = || vec![pool.try_take("a", 1).unwrap()];
        let read = answers.send(Response::new(full("x")), permit(), taker());
        assert_eq!(read.into_body().collect().await.unwrap().to_bytes(), "x");
        let unread = answers.send(Response::new(full("x")), permit(), taker());
        let _answering = connection.begin();
        assert!(pool.try_take("a", 1).is_none(), "it holds its place");
        answers.sweep();
        assert!(pool.try_take("a", 1).is_none() && !connection.is_quiet());
        answers.sweep();
        assert!(pool.try_take("a", 1).is_some(), "given up");
        assert!(connection.is_quiet(), "nobody waits for it");
        drop(unread);
        assert!(!connection.is_quiet(), "what is answered now is waited for");
    }

    #[test]
    fn answers_that_were_sent_are_forgotten() {
        let answers = Answers::default();
        for _ in 0..10_000 {
            let taker = Taker { many: true, connection: None };
            drop(answers.send(Response::new(full("x")), Vec::new(), taker));
        }
        assert!(answers.0.lock().unwrap().len() < 100);
    }
}
