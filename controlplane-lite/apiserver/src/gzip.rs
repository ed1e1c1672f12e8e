//! A body compressed on the way out, a frame at a time.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::{Body as HttpBody, Frame};

use super::answer::Sliced;
use super::body::{Body, BodyError, boxed};

/// Wraps a body. Level 1, as upstream: the network is rarely the bottleneck, the processor often.
pub fn compress(inner: Body) -> Body {
    boxed(Gzip { inner: Sliced::new(inner), encoder: Some(GzEncoder::new(Vec::new(), Compression::new(1))) })
}

struct Gzip {
    inner: Sliced,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl HttpBody for Gzip {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(None);
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().ok(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let Some(encoder) = self.encoder.take() else { return Poll::Ready(None) };
                    return Poll::Ready(Some(
                        encoder.finish().map(|out| Frame::data(out.into())).map_err(|e| BodyError(e.into())),
                    ));
                }
            };
            let (Some(data), Some(encoder)) = (frame, self.encoder.as_mut()) else { continue };
            if let Err(error) = encoder.write_all(&data) {
                return Poll::Ready(Some(Err(BodyError(error.into()))));
            }
            if !encoder.get_ref().is_empty() {
                let out = std::mem::take(encoder.get_mut());
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
            // Much goes in before something comes out: others have their turn in between.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::full;
    use http_body_util::BodyExt;
    use std::io::Read;

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        for size in [0usize, 10, 1_000_000] {
            let text: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let packed = compress(full(text.clone())).collect().await.unwrap().to_bytes();
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, text);
        }
    }
}
