//! SPDY/3.1 frames to and from bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::headers::{HeaderDeflater, HeaderInflater, Headers};

const VERSION: u16 = 3;
const HEADER: usize = 8;
const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;
/// Control frames are small; larger ones are a mistake or an attack.
const MAX_CONTROL: usize = 128 * 1024;
/// Peers write at most what one `Write` call gave them, tens of KiB.
const MAX_DATA: usize = 4 * 1024 * 1024;

/// A stream of a connection: odd when the client opened it, 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream { id: StreamId, associated: u32, priority: u8, fin: bool, unidirectional: bool, headers: Headers },
    SynReply { id: StreamId, fin: bool, headers: Headers },
    RstStream { id: StreamId, status: u32 },
    Settings,
    Ping(u32),
    GoAway { last: u32, status: u32 },
    Headers { id: StreamId, fin: bool, headers: Headers },
    WindowUpdate { id: StreamId, delta: u32 },
    Data { id: StreamId, fin: bool, payload: Bytes },
}

impl Frame {
    /// A request for a new stream, open in both directions.
    pub fn open(id: StreamId, headers: Headers) -> Self {
        Self::SynStream { id, associated: 0, priority: 0, fin: false, unidirectional: false, headers }
    }
}

/// Bytes that are no SPDY/3.1.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("SPDY version {0} is not 3")]
    Version(u16),
    #[error("unknown SPDY control frame type {0}")]
    Kind(u16),
    #[error("SPDY frame of {0} bytes is too large")]
    TooLarge(usize),
    #[error("SPDY control frame type {0} has a wrong length")]
    Length(u16),
    #[error("malformed SPDY header block")]
    HeaderBlock,
    #[error("malformed SPDY header compression")]
    Compression,
    #[error("SPDY connection")]
    Io(#[from] std::io::Error),
}

/// Writes frames; keeps the state of header compression.
#[derive(Debug, Default)]
pub struct FrameEncoder {
    deflater: HeaderDeflater,
}

/// Reads frames; keeps the state of header compression.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    inflater: HeaderInflater,
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, body: &[u8]) -> Result<(), FrameError> {
    let length = u32::try_from(body.len()).ok().filter(|n| *n < 1 << 24).ok_or(FrameError::TooLarge(body.len()))?;
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length);
    out.put_slice(body);
    Ok(())
}

fn flag(set: bool, value: u8) -> u8 {
    if set { value } else { 0 }
}

impl Encoder<Frame> for FrameEncoder {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        let mut body = Vec::new();
        match frame {
            Frame::SynStream { id, associated, priority, fin, unidirectional, headers } => {
                body.put_u32(id.0);
                body.put_u32(associated);
                body.put_u8(priority << 5);
                body.put_u8(0);
                body.put_slice(&self.deflater.deflate(&headers)?);
                control(out, 1, flag(fin, FLAG_FIN) | flag(unidirectional, FLAG_UNIDIRECTIONAL), &body)
            }
            Frame::SynReply { id, fin, headers } => {
                body.put_u32(id.0);
                body.put_slice(&self.deflater.deflate(&headers)?);
                control(out, 2, flag(fin, FLAG_FIN), &body)
            }
            Frame::RstStream { id, status } => {
                body.put_u32(id.0);
                body.put_u32(status);
                control(out, 3, 0, &body)
            }
            Frame::Settings => {
                body.put_u32(0);
                control(out, 4, 0, &body)
            }
            Frame::Ping(id) => {
                body.put_u32(id);
                control(out, 6, 0, &body)
            }
            Frame::GoAway { last, status } => {
                body.put_u32(last);
                body.put_u32(status);
                control(out, 7, 0, &body)
            }
            Frame::Headers { id, fin, headers } => {
                body.put_u32(id.0);
                body.put_slice(&self.deflater.deflate(&headers)?);
                control(out, 8, flag(fin, FLAG_FIN), &body)
            }
            Frame::WindowUpdate { id, delta } => {
                body.put_u32(id.0);
                body.put_u32(delta);
                control(out, 9, 0, &body)
            }
            Frame::Data { id, fin, payload } => {
                let length = u32::try_from(payload.len()).ok().filter(|n| *n < 1 << 24);
                out.put_u32(id.0 & 0x7fff_ffff);
                out.put_u32(u32::from(flag(fin, FLAG_FIN)) << 24 | length.ok_or(FrameError::TooLarge(payload.len()))?);
                out.put_slice(&payload);
                Ok(())
            }
        }
    }
}

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some((mut head, _)) = input.split_at_checked(HEADER) else { return Ok(None) };
        let first = head.get_u32();
        let second = head.get_u32();
        let flags = second.to_be_bytes()[0];
        let length = usize::try_from(second & 0x00ff_ffff).map_err(|_| FrameError::TooLarge(0))?;
        let is_control = first & 0x8000_0000 != 0;
        if length > if is_control { MAX_CONTROL } else { MAX_DATA } {
            return Err(FrameError::TooLarge(length));
        }
        if is_control {
            // Judged before the body has come: garbage fails at once.
            let version = u16::try_from(first >> 16 & 0x7fff).unwrap_or(0);
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
        }
        if input.len() < HEADER + length {
            input.reserve(HEADER + length - input.len());
            return Ok(None);
        }
        input.advance(HEADER);
        let body = input.split_to(length);
        if is_control {
            let kind = u16::try_from(first & 0xffff).unwrap_or(0);
            self.control(kind, flags, &body).map(Some)
        } else {
            Ok(Some(Frame::Data { id: StreamId(first), fin: flags & FLAG_FIN != 0, payload: body.freeze() }))
        }
    }
}

impl FrameDecoder {
    fn control(&mut self, kind: u16, flags: u8, mut body: &[u8]) -> Result<Frame, FrameError> {
        let short = |_| FrameError::Length(kind);
        let fin = flags & FLAG_FIN != 0;
        if kind == 4 {
            return Ok(Frame::Settings);
        }
        if !matches!(kind, 1..=3 | 6..=9) {
            return Err(FrameError::Kind(kind));
        }
        let first = body.try_get_u32().map_err(short)?;
        let id = StreamId(first & 0x7fff_ffff);
        Ok(match kind {
            1 => {
                let associated = body.try_get_u32().map_err(short)? & 0x7fff_ffff;
                let priority = body.try_get_u16().map_err(short)?.to_be_bytes()[0] >> 5;
                let headers = self.inflater.inflate(body)?;
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Frame::SynStream { id, associated, priority, fin, unidirectional, headers }
            }
            2 => Frame::SynReply { id, fin, headers: self.inflater.inflate(body)? },
            3 => Frame::RstStream { id, status: body.try_get_u32().map_err(short)? },
            6 => Frame::Ping(first),
            7 => Frame::GoAway { last: id.0, status: body.try_get_u32().map_err(short)? },
            8 => Frame::Headers { id, fin, headers: self.inflater.inflate(body)? },
            _ => Frame::WindowUpdate { id, delta: body.try_get_u32().map_err(short)? & 0x7fff_ffff },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn headers() -> impl Strategy<Value = Headers> {
        proptest::collection::vec(("[a-z]{1,12}", "[ -~]{0,40}"), 0..5)
            .prop_map(|pairs| Headers::new(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let id = (1u32..0x7fff_ffff).prop_map(StreamId);
        prop_oneof![
            (id.clone(), 0u8..8, any::<bool>(), any::<bool>(), headers()).prop_map(
                |(id, priority, fin, unidirectional, headers)| Frame::SynStream {
                    id,
                    associated: 0,
                    priority,
                    fin,
                    unidirectional,
                    headers
                }
            ),
            (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::SynReply { id, fin, headers }),
            (id.clone(), any::<bool>(), headers()).prop_map(|(id, fin, headers)| Frame::Headers { id, fin, headers }),
            (id.clone(), any::<u32>()).prop_map(|(id, status)| Frame::RstStream { id, status }),
            (id.clone(), 0u32..0x7fff_ffff).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
            any::<u32>().prop_map(Frame::Ping),
            (0u32..0x7fff_ffff, any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            Just(Frame::Settings),
            (id, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..2000))
                .prop_map(|(id, fin, payload)| { Frame::Data { id, fin, payload: payload.into() } }),
        ]
    }

    fn decode_all(decoder: &mut FrameDecoder, bytes: &[u8], step: usize) -> Result<Vec<Frame>, FrameError> {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for chunk in bytes.chunks(step) {
            buffer.extend_from_slice(chunk);
            while let Some(frame) = decoder.decode(&mut buffer)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_round_trip_however_they_are_cut(frames in proptest::collection::vec(frame(), 1..12), step in 1usize..300) {
            let (mut encoder, mut bytes) = (FrameEncoder::default(), BytesMut::new());
            for frame in &frames {
                encoder.encode(frame.clone(), &mut bytes).unwrap();
            }
            prop_assert_eq!(decode_all(&mut FrameDecoder::default(), &bytes, step).unwrap(), frames);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), step in 1usize..50) {
            let _ = decode_all(&mut FrameDecoder::default(), &bytes, step);
        }

        #[test]
        fn a_flipped_byte_never_panics(frames in proptest::collection::vec(frame(), 1..6), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let (mut encoder, mut bytes) = (FrameEncoder::default(), BytesMut::new());
            for frame in frames {
                encoder.encode(frame, &mut bytes).unwrap();
            }
            let at = at.index(bytes.len());
            bytes[at] = with;
            let _ = decode_all(&mut FrameDecoder::default(), &bytes, 64);
        }
    }

    #[test]
    fn wrong_bytes_are_named() {
        let check = |bytes: &[u8], expect: &str| {
            let error = decode_all(&mut FrameDecoder::default(), bytes, 64).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check(b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x01", "SPDY version 2 is not 3");
        check(b"\x80\x03\0\x0c\0\0\0\x04\0\0\0\x01", "unknown SPDY control frame type 12");
        check(b"\x80\x03\0\x03\0\0\0\x04\0\0\0\x01", "SPDY control frame type 3 has a wrong length");
        check(b"\x80\x03\0\x01\0\xff\xff\xff", "SPDY frame of 16777215 bytes is too large");
        check(b"\x80\x03\0\x02\0\0\0\x06\0\0\0\x01zz", "malformed SPDY header compression");
    }
}
