//! Bodies: the one boxed type for requests and responses, the size limit, and the list body that concatenates stored
//! bytes lazily.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use serde_json::Value;

use super::flow::{self, Permit, Pool};
use super::status::ApiError;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request's or response's body.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body ended early. A type of its own rather than the box, which generic code cannot convert into itself.
#[derive(Debug, thiserror::Error)]
#[error("body ended early")]
pub struct BodyError(#[source] pub BoxError);

/// Upstream's limit for a request body in bytes.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// A body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of frames as they come.
pub fn stream<S>(frames: S) -> Body
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    use futures::StreamExt;
    StreamBody::new(frames.map(|frame| Ok(Frame::data(frame)))).boxed_unsync()
}

/// Boxes any body.
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(|error| BodyError(error.into())).boxed_unsync()
}

/// Reads a whole request body of at most [`MAX_BODY`] bytes.
///
/// # Errors
/// 413 over the limit, 400 when the connection breaks.
pub async fn collect(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(ApiError::too_large(MAX_BODY)),
        Err(error) => Err(ApiError::bad_request(format!("unable to read the request body: {error}"))),
    }
}

/// Reads a whole request body of at most [`MAX_BODY`] bytes; its memory comes out of a user's share of a pool, as it
/// arrives, and is held as long as the permits.
///
/// # Errors
/// 413 over the limit, 429 when the pool or the share is spent, 400 when the connection breaks, 408 when nothing more
/// comes.
pub async fn receive(mut body: Body, memory: Option<(&Pool, &str)>) -> Result<(Bytes, Vec<Permit>), ApiError> {
    let mut permits = Vec::new();
    let mut reserved = RESERVE;
    let whole = http_body::Body::size_hint(&body).exact().and_then(|length| usize::try_from(length).ok());
    let mut parts: Vec<Bytes> = Vec::new();
    let mut length = 0;
    if http_body::Body::size_hint(&body).lower() > MAX_BODY as u64 {
        discard(body).await;
        return Err(ApiError::too_large(MAX_BODY));
    }
    loop {
        let frame = tokio::time::timeout(NEXT_PART, body.frame())
            .await
            .map_err(|_| ApiError::upstream(408, "the request body did not arrive in time"))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| ApiError::bad_request(format!("unable to read the request body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > MAX_BODY {
            discard(body).await;
            return Err(ApiError::too_large(MAX_BODY));
        }
        if let Some((pool, user)) = memory
            && length > reserved
        {
            // What it says it has, or by and by, so that a long one does not ask for each of its frames.
            let wanted = whole.unwrap_or(2 * reserved).clamp(length, MAX_BODY);
            permits.push(pool.take(user, wanted - reserved).await.ok_or_else(flow::too_many)?);
            reserved = wanted;
        }
        parts.push(data);
    }
    let body = if parts.len() == 1 { parts.swap_remove(0) } else { parts.concat().into() };
    Ok((body, permits))
}

/// Reads some of a body that is too large, and keeps nothing: many clients read no answer before they have written
/// their request, and a connection that is closed under them takes the answer along.
async fn discard(mut body: Body) {
    let mut left = 2 * MAX_BODY;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else { continue };
            let Some(rest) = left.checked_sub(data.len()) else { break };
            left = rest;
        }
    };
    // A client that is slower than that gets what comes of it.
    let _ = tokio::time::timeout(DISCARD, reading).await;
}

/// Longest time that a body which is too large is read for its client's sake.
const DISCARD: Duration = Duration::from_secs(2);
/// What every body has without asking, as much as a connection buffers anyhow: no shortage of memory keeps a lease out.
const RESERVE: usize = 16 * 1024;
/// A client that sends no part of its body for so long is not waited for.
const NEXT_PART: Duration = Duration::from_secs(10);

/// A response with a JSON body.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    raw(code, "application/json", value.to_string())
}

/// A response of `content_type`.
pub fn raw(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The response of a failure.
pub fn failure(error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &error.to_value());
    if let Some(seconds) = error.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Pieces of a list, written one after another, a comma between items: no copy of the list exists at any time, only
/// the frame being written, and of a large item no copy at all.
#[derive(Debug)]
pub struct ListBody<T> {
    head: Option<Bytes>,
    items: VecDeque<T>,
    first: bool,
    /// An item whose turn is next.
    large: Option<Bytes>,
    tail: Option<Bytes>,
    left: u64,
}

/// Something that can write its encoding.
pub trait WriteItem {
    /// Bytes [`WriteItem::write`] appends.
    fn encoded_len(&self) -> usize;
    /// Appends the encoding.
    fn write(&self, out: &mut BytesMut);
    /// The encoding where it is, if it is anywhere.
    fn shared(&self) -> Option<Bytes> {
        None
    }
}

/// Frames are about this long: large enough for few writes, small enough not to matter in memory.
const FRAME: usize = 64 * 1024;

impl<T: WriteItem> ListBody<T> {
    /// A body of `head`, the items separated by commas, and `tail`.
    pub fn new(head: Bytes, items: Vec<T>, tail: Bytes) -> Self {
        let commas = items.len().saturating_sub(1);
        let left = head.len() + tail.len() + commas + items.iter().map(WriteItem::encoded_len).sum::<usize>();
        Self { head: Some(head), items: items.into(), first: true, large: None, tail: Some(tail), left: left as u64 }
    }

    /// The exact length in bytes.
    pub fn encoded_len(&self) -> u64 {
        self.left
    }

    fn next_frame(&mut self) -> Option<Bytes> {
        let frame = self.large.take().or_else(|| self.next_small())?;
        self.left = self.left.saturating_sub(frame.len() as u64);
        Some(frame)
    }

    /// The next frame, up to a large item, which is the one after it.
    fn next_small(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::with_capacity(usize::try_from(self.left).map_or(FRAME, |left| left.min(FRAME + 4096)));
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        while out.len() < FRAME {
            let Some(item) = self.items.pop_front() else {
                if let Some(tail) = self.tail.take() {
                    out.extend_from_slice(&tail);
                }
                break;
            };
            if !std::mem::replace(&mut self.first, false) {
                out.extend_from_slice(b",");
            }
            self.large = if item.encoded_len() < FRAME { None } else { item.shared() };
            if self.large.is_some() {
                break;
            }
            item.write(&mut out);
        }
        if out.is_empty() { self.large.take() } else { Some(out.freeze()) }
    }
}

impl<T: WriteItem + Unpin> http_body::Body for ListBody<T> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(self.next_frame().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    impl WriteItem for String {
        fn encoded_len(&self) -> usize {
            self.len()
        }
        fn write(&self, out: &mut BytesMut) {
            out.extend_from_slice(self.as_bytes());
        }
    }

    #[tokio::test]
    async fn list_body_has_the_length_it_says() {
        for count in [0, 1, 3, 5000] {
            let items: Vec<String> =
                (0..count).map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(50))).collect();
            let body = ListBody::new(Bytes::from_static(b"{\"items\":["), items, Bytes::from_static(b"]}"));
            let said = body.encoded_len();
            let bytes = boxed(body).collect().await.expect("collects").to_bytes();
            assert_eq!(said, bytes.len() as u64);
            let value: Value = serde_json::from_slice(&bytes).expect("is json");
            assert_eq!(value["items"].as_array().map(Vec::len), Some(count));
        }
    }

    struct Stored(Bytes);

    impl WriteItem for Stored {
        fn encoded_len(&self) -> usize {
            self.0.len()
        }
        fn write(&self, out: &mut BytesMut) {
            out.extend_from_slice(&self.0);
        }
        fn shared(&self) -> Option<Bytes> {
            Some(self.0.clone())
        }
    }

    #[tokio::test]
    async fn large_items_of_a_list_are_not_copied() {
        let lengths = [FRAME, 1, 2 * FRAME, FRAME - 2, FRAME];
        let items = lengths.map(|length| Bytes::from(format!("\"{}\"", "x".repeat(length))));
        for head in [Bytes::new(), Bytes::from_static(b"[")] {
            let mut body = ListBody::new(head.clone(), items.iter().cloned().map(Stored).collect(), "]".into());
            let (mut frames, mut left) = (Vec::new(), body.encoded_len());
            while let Some(frame) = body.next_frame() {
                left -= frame.len() as u64;
                assert_eq!(body.encoded_len(), left);
                frames.push(frame);
            }
            assert_eq!(left, 0);
            for item in &items {
                let as_it_is = frames.iter().any(|frame| frame.as_ptr() == item.as_ptr() && frame == item);
                assert_eq!(as_it_is, item.len() >= FRAME, "{}", item.len());
            }
            assert_eq!(frames.concat(), [&head[..], &items.join(&b',')[..], b"]"].concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_take_memory_as_they_come() {
        let pool = Pool::new(2 * MAX_BODY);
        let (_, most) = receive(full(vec![b'x'; MAX_BODY]), Some((&pool, "a"))).await.expect("fits");
        let over = receive(full(vec![b'x'; 3 * RESERVE]), Some((&pool, "a"))).await.expect_err("no share left");
        assert_eq!(over.code(), 429);
        assert!(receive(full(vec![b'x'; 3 * RESERVE]), Some((&pool, "b"))).await.is_ok());
        // A lease always has its memory, whatever else its node sends.
        let (small, held) = receive(full("x"), Some((&pool, "a"))).await.expect("fits");
        assert_eq!((&*small, held.len()), (&b"x"[..], 0));
        drop(most);
        assert_eq!(receive(full(vec![b'x'; MAX_BODY + 1]), None).await.expect_err("too large").code(), 413);
        // Who sends nothing is not waited for.
        let stuck = stream(futures::stream::pending());
        assert_eq!(receive(stuck, Some((&pool, "a"))).await.expect_err("stuck").code(), 408);
    }

    /// Clients that write all before they read meet the answer, and an endless body is not read for ever.
    #[tokio::test]
    async fn a_body_that_is_too_large_is_read_some_way() {
        const PART: usize = 1 << 20;
        for (parts, read) in [(4, 4), (usize::MAX, 3 * MAX_BODY / PART + 1)] {
            let pulled = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let count = pulled.clone();
            let body = futures::stream::iter(0..parts).map(move |_| {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Bytes::from(vec![b'x'; PART])
            });
            assert_eq!(receive(stream(body), None).await.expect_err("too large").code(), 413);
            let pulled = pulled.load(std::sync::atomic::Ordering::Relaxed);
            assert!(pulled.abs_diff(read) <= 1, "{pulled} of {parts} parts were read");
        }
    }

    #[tokio::test]
    async fn oversized_bodies_are_refused() {
        let error = collect(full(vec![b'x'; MAX_BODY + 1])).await.expect_err("too large");
        assert_eq!(error.code(), 413);
        assert!(collect(full(vec![b'x'; MAX_BODY])).await.is_ok());
    }
}
