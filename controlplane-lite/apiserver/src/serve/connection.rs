//! What is known of one connection while it is open: whether requests are being answered on it, whether anybody on it
//! said who they are, and when it has been quiet for too long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::body::{Body, BodyError, boxed};

/// A quiet connection is closed after one to two of these, upstream after 90 seconds.
const IDLE: Duration = Duration::from_secs(45);
/// The same for one on which nobody has said who they are: they cost a descriptor, which must come back.
const STRANGER_IDLE: Duration = Duration::from_secs(5);
/// A peer that takes nothing off its socket for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// The state of a connection.
#[derive(Debug, Default)]
pub struct Connection {
    open: AtomicUsize,
    /// Told when the connection is to end, whatever happens on it.
    end: Notify,
    begun: AtomicU64,
    trusted: AtomicBool,
    may_pause: AtomicBool,
}

/// Marks the connection as that of somebody known. An extension of every request from a socket.
#[derive(Debug, Clone)]
pub struct Trust(Arc<Connection>);

impl Trust {
    /// The request's sender has authenticated.
    pub fn give(&self) {
        self.0.trusted.store(true, Ordering::Relaxed);
    }

    /// An answer on it is not taken. Over HTTP/2 that is one of many, but its stream cannot be ended alone: once all of
    /// it lies in the connection's buffers, nobody is left who could tell.
    pub fn end(&self) {
        self.0.end.notify_one();
    }

    /// The request is one whose reader may pause as long as they like: a log in a pager.
    pub fn may_pause(&self) {
        self.0.may_pause();
    }
}

/// A request being answered, until its answer was sent.
#[derive(Debug)]
pub struct Answering(Arc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// A request begins.
    pub fn begin(self: &Arc<Self>) -> Answering {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// The handle for a request's extensions.
    pub fn trust(self: &Arc<Self>) -> Trust {
        Trust(self.clone())
    }

    /// Whoever reads from the connection may pause as long as they like: it is somebody else's now, or carries a log.
    pub fn may_pause(&self) {
        self.may_pause.store(true, Ordering::Relaxed);
    }

    /// Returns when an answer on it is not taken.
    pub async fn told(&self) {
        self.end.notified().await;
    }

    /// Returns when the connection is to end: an answer on it is not taken, or no request has been on it for a while.
    pub async fn over(&self) {
        // Cancel-safe: who is told keeps it, idleness only counts time.
        tokio::select! {
            () = self.told() => {}
            () = self.idle() => {}
        }
    }

    async fn idle(&self) {
        let mut begun = None;
        loop {
            let trusted = self.trusted.load(Ordering::Relaxed);
            tokio::time::sleep(if trusted { IDLE } else { STRANGER_IDLE }).await;
            let now = self.begun.load(Ordering::Relaxed);
            if self.open.load(Ordering::Relaxed) == 0 && begun == Some(now) {
                return;
            }
            begun = Some(now);
        }
    }
}

/// A body that counts as an open request until it ends.
pub struct Counted {
    inner: Body,
    _answering: Answering,
}

impl Counted {
    /// Wraps an answer's body.
    pub fn wrap(inner: Body, answering: Answering) -> Body {
        boxed(Self { inner, _answering: answering })
    }
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A stream whose writes fail when the peer takes nothing for too long.
#[derive(Debug)]
pub struct TimedWrites<S> {
    inner: S,
    connection: Arc<Connection>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedWrites<S> {
    /// Wraps a stream.
    pub fn new(inner: S, connection: Arc<Connection>) -> Self {
        Self { inner, connection, waiting: None }
    }

    /// Passes a write's result on, or the end of patience.
    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        if self.connection.may_pause.load(Ordering::Relaxed) {
            return written;
        }
        let waiting =
            self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIMEOUT)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedWrites<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.timed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.timed(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test(start_paused = true)]
    async fn quiet_connections_end_and_busy_ones_do_not() {
        let connection = Arc::new(Connection::default());
        let began = Instant::now();
        connection.idle().await;
        assert_eq!(began.elapsed(), 2 * STRANGER_IDLE);
        connection.trust().give();
        connection.idle().await;
        assert_eq!(began.elapsed(), 2 * STRANGER_IDLE + 2 * IDLE);
        let answering = connection.begin();
        assert!(tokio::time::timeout(100 * IDLE, connection.idle()).await.is_err());
        drop(answering);
        connection.idle().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_can_be_told_to_end() {
        let connection = Arc::new(Connection::default());
        let _answering = connection.begin();
        assert!(tokio::time::timeout(100 * IDLE, connection.over()).await.is_err());
        connection.trust().end();
        connection.over().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let connection = Arc::new(Connection::default());
        let (near, _far) = tokio::io::duplex(8);
        let mut stream = TimedWrites::new(near, connection.clone());
        let began = Instant::now();
        let failed = stream.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!((failed.kind(), began.elapsed()), (io::ErrorKind::TimedOut, WRITE_TIMEOUT));
        connection.may_pause();
        let (near, _far) = tokio::io::duplex(8);
        let mut stream = TimedWrites::new(near, connection);
        assert!(tokio::time::timeout(10 * WRITE_TIMEOUT, stream.write_all(&[0; 9])).await.is_err());
    }
}
