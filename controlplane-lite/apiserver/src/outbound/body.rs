//! Bodies: a request in parts that several requests share, and an answer of bounded length.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use super::{LARGE_ANSWER, MAX_ANSWER, words};

/// A body of parts.
#[derive(Debug)]
pub(super) struct Parts(VecDeque<Bytes>);

impl Parts {
    pub(super) fn new(parts: &[Bytes]) -> Self {
        Self(parts.iter().filter(|part| !part.is_empty()).cloned().collect())
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}

/// Reads an answer. One that is large waits for room before more than its beginning is read.
pub(super) async fn read(mut answer: hyper::body::Incoming, large: &Semaphore) -> Result<Bytes, String> {
    let mut read = BytesMut::new();
    let mut room = None;
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame.map_err(|error| words::broken(&error))?.into_data() else { continue };
        let length = read.len() + data.len();
        if length > MAX_ANSWER {
            return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
        }
        if length > LARGE_ANSWER && room.is_none() {
            room = Some(large.acquire().await.map_err(|_| "closed".to_owned())?);
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}
