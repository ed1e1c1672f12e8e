//! Name/value header blocks and their zlib compression with shared state.

use std::sync::Arc;

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;
use super::frame::FrameError;

/// The largest header block accepted once inflated: 64 KiB, against bombs.
const MAX_BLOCK: usize = 64 * 1024;

/// Headers of one stream, in order. Names are lower case; all values of a field share its name, which may be as long as
/// they are many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Arc<str>, String)>);

impl Headers {
    /// Headers from pairs; names are lower-cased, as SPDY demands.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase().into(), value.to_owned())).collect())
    }

    /// The first value of a header, whatever the case of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Bytes of names and values.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn weight(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        for (name, value) in &self.0 {
            for text in [&**name, value] {
                block.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
                block.put_slice(text.as_bytes());
            }
        }
        block
    }

    pub(crate) fn from_block(mut block: &[u8]) -> Result<Self, FrameError> {
        let count = take_u32(&mut block)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name: Arc<str> = take_text(&mut block)?.to_ascii_lowercase().into();
            let value = take_text(&mut block)?;
            // Several values of one name stand in one field, parted by NUL.
            pairs.extend(value.split('\0').map(|value| (name.clone(), value.to_owned())));
        }
        Ok(Self(pairs))
    }
}

fn take_u32(block: &mut &[u8]) -> Result<u32, FrameError> {
    block.try_get_u32().map_err(|_| FrameError::HeaderBlock)
}

fn take_text(block: &mut &[u8]) -> Result<String, FrameError> {
    let length = usize::try_from(take_u32(block)?).map_err(|_| FrameError::HeaderBlock)?;
    let (text, rest) = block.split_at_checked(length).ok_or(FrameError::HeaderBlock)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| FrameError::HeaderBlock)
}

/// Deflates the header blocks of one connection direction.
#[derive(Debug)]
pub struct HeaderDeflater(Compress);

impl HeaderDeflater {
    /// A deflater at the start of a connection.
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(dictionary()).expect("a fresh deflater takes a dictionary");
        Self(compress)
    }

    /// Deflates one block and flushes, so that the peer can read it at once.
    pub fn deflate(&mut self, headers: &Headers) -> Result<Vec<u8>, FrameError> {
        let block = headers.to_block();
        let mut out = Vec::with_capacity(block.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = usize::try_from(self.0.total_in() - start).map_err(|_| FrameError::Compression)?;
            out.reserve(256);
            let before = self.0.total_out();
            self.0.compress_vec(&block[done..], &mut out, FlushCompress::Sync).map_err(|_| FrameError::Compression)?;
            let consumed_all = self.0.total_in() - start == block.len() as u64;
            // Spare room left after a sync flush means that nothing is pending.
            if consumed_all && (out.len() < out.capacity() || self.0.total_out() == before) {
                return Ok(out);
            }
        }
    }
}

impl Default for HeaderDeflater {
    fn default() -> Self {
        Self::new()
    }
}

/// Inflates the header blocks of one connection direction.
#[derive(Debug)]
pub struct HeaderInflater(Decompress);

impl HeaderInflater {
    /// An inflater at the start of a connection.
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Inflates one block. Errors are final: the shared state is lost.
    pub fn inflate(&mut self, mut input: &[u8]) -> Result<Headers, FrameError> {
        let mut out = Vec::with_capacity(1024);
        loop {
            if out.len() > MAX_BLOCK {
                return Err(FrameError::HeaderBlock);
            }
            out.reserve(1024);
            let (in_before, out_before) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let consumed = usize::try_from(self.0.total_in() - in_before).map_err(|_| FrameError::Compression)?;
            input = input.get(consumed..).ok_or(FrameError::Compression)?;
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(dictionary()).map_err(|_| FrameError::Compression)?;
                    continue;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(FrameError::Compression),
                Ok(Status::Ok | Status::BufError) => {}
            }
            let stalled = consumed == 0 && self.0.total_out() == out_before;
            if input.is_empty() && (out.len() < out.capacity() || stalled) {
                return Headers::from_block(&out);
            }
            if stalled {
                return Err(FrameError::Compression);
            }
        }
    }
}

impl Default for HeaderInflater {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trips_many_blocks_over_shared_state() {
        let (mut deflater, mut inflater) = (HeaderDeflater::new(), HeaderInflater::new());
        for i in 0..50 {
            let port = i.to_string();
            let headers = Headers::new([("streamType", "error"), ("port", &port), ("requestID", "7")]);
            let block = deflater.deflate(&headers).unwrap();
            assert_eq!(inflater.inflate(&block).unwrap(), headers);
        }
    }

    #[test]
    fn starts_with_a_preset_dictionary_header() {
        let block = HeaderDeflater::new().deflate(&Headers::new([("streamtype", "stdout")])).unwrap();
        assert_eq!(block[1] & 0x20, 0x20, "FDICT is set");
        assert_eq!(block[2..6], 0xe3c6_a7c2u32.to_be_bytes());
    }

    #[test]
    fn a_bomb_is_refused() {
        let huge = "a".repeat(MAX_BLOCK * 4);
        let block = HeaderDeflater::new().deflate(&Headers::new([("x", huge.as_str())])).unwrap();
        assert!(HeaderInflater::new().inflate(&block).is_err());
    }

    /// However many values a name has, it takes memory once.
    #[test]
    fn a_name_is_kept_once_for_all_its_values() {
        let (name, values) = ("n".repeat(MAX_BLOCK / 2), "\0".repeat(1000));
        let block = HeaderDeflater::new().deflate(&Headers::new([(name.as_str(), values.as_str())])).unwrap();
        let headers = HeaderInflater::new().inflate(&block).unwrap();
        assert_eq!(headers.0.len(), 1001);
        let kept: std::collections::BTreeMap<_, _> = headers.0.iter().map(|(n, _)| (n.as_ptr(), n.len())).collect();
        assert!(kept.values().sum::<usize>() <= MAX_BLOCK, "{} copies of the name", kept.len());
    }

    #[test]
    fn several_values_of_one_name_are_parted() {
        let block = HeaderDeflater::new().deflate(&Headers::new([("x", "a\0b")])).unwrap();
        let headers = HeaderInflater::new().inflate(&block).unwrap();
        assert_eq!(headers, Headers::new([("x", "a"), ("x", "b")]));
        assert_eq!(headers.get("X"), Some("a"));
    }

    proptest! {
        #[test]
        fn any_headers_round_trip(pairs in proptest::collection::vec(("[a-z-]{1,20}", "[^\0]{0,300}"), 0..20)) {
            let headers = Headers::new(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            let (mut deflater, mut inflater) = (HeaderDeflater::new(), HeaderInflater::new());
            for _ in 0..3 {
                let block = deflater.deflate(&headers).unwrap();
                prop_assert_eq!(&inflater.inflate(&block).unwrap(), &headers);
            }
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = HeaderInflater::new().inflate(&bytes);
            let _ = Headers::from_block(&bytes);
        }
    }
}
