//! Netlink's framing: messages and nested attributes, written and read. Pure bytes; knows neither
//! nf_tables nor sockets. Reading never panics: a length that does not fit ends in [`WireError`].

use thiserror::Error;

use super::uapi::{NLA_F_NESTED, NLA_TYPE_MASK};

/// A reply that is not well-formed netlink.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// A length field points outside its container.
    #[error("netlink: length {length} at offset {offset} does not fit")]
    Length {
        /// Where the field is.
        offset: usize,
        /// What it says.
        length: usize,
    },
    /// An attribute has the wrong size for its type.
    #[error("netlink: attribute {attribute} has {length} bytes")]
    Attribute {
        /// The attribute's number.
        attribute: u16,
        /// Its length without header.
        length: usize,
    },
    /// An attribute that must be there is not.
    #[error("netlink: attribute {0} is missing")]
    Missing(u16),
}

const HEADER: usize = 16;

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Bytes of netlink messages under construction.
#[derive(Debug, Default)]
pub struct Writer {
    buf: Vec<u8>,
    message: usize,
}

/// Where an open nested attribute began.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Nest(usize);

impl Writer {
    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buf: Vec::with_capacity(capacity), message: 0 }
    }

    /// Begins a message: netlink header and the 4-byte nfnetlink header.
    pub fn begin(&mut self, kind: u16, flags: u16, seq: u32, family: u8, res_id: u16) {
        self.message = self.buf.len();
        self.buf.extend_from_slice(&0u32.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&flags.to_ne_bytes());
        self.buf.extend_from_slice(&seq.to_ne_bytes());
        self.buf.extend_from_slice(&0u32.to_ne_bytes());
        self.buf.extend_from_slice(&[family, 0]);
        self.buf.extend_from_slice(&res_id.to_be_bytes());
    }

    /// Ends the message [`Writer::begin`] began.
    pub fn end(&mut self) {
        let length = u32::try_from(self.buf.len() - self.message).expect("a message is far below 4 GiB");
        self.buf[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sets flags in the header of the message that was begun last.
    pub fn add_flags(&mut self, flags: u16) {
        let at = self.message + 6;
        let old = u16::from_ne_bytes([self.buf[at], self.buf[at + 1]]);
        self.buf[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, bytes: &[u8]) {
        let length = u16::try_from(bytes.len() + 4).expect("only nested attributes can grow past 64 KiB");
        self.buf.extend_from_slice(&length.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(bytes);
        self.pad();
    }

    /// Adds a number, big-endian as nf_tables wants it.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Adds a zero-terminated string.
    pub fn put_str(&mut self, kind: u16, text: &str) {
        let length = u16::try_from(text.len() + 5).expect("names are checked to be short");
        self.buf.extend_from_slice(&length.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(text.as_bytes());
        self.buf.push(0);
        self.pad();
    }

    /// Opens a nested attribute.
    pub fn open(&mut self, kind: u16) -> Nest {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0, 0]);
        self.buf.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Nest(at)
    }

    /// Closes a nested attribute.
    pub fn close(&mut self, nest: Nest) {
        let length = u16::try_from(self.buf.len() - nest.0).expect("callers split lists below 64 KiB");
        self.buf[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes since `nest` was opened.
    #[must_use]
    pub fn len_since(&self, nest: Nest) -> usize {
        self.buf.len() - nest.0
    }

    fn pad(&mut self) {
        self.buf.resize(align(self.buf.len()), 0);
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.buf
    }
}

/// One netlink message, borrowed from a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_flags`
    pub flags: u16,
    /// `nlmsg_seq`
    pub seq: u32,
    /// Everything after the netlink header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after the 4-byte nfnetlink header.
    ///
    /// # Errors
    /// [`WireError::Length`] when the header itself is cut.
    pub fn attributes(&self) -> Result<Attributes<'a>, WireError> {
        let body = self.payload.get(4..).ok_or(WireError::Length { offset: HEADER, length: self.payload.len() })?;
        Ok(Attributes { rest: body, offset: 0 })
    }

    /// The error number and the sequence of the request an `NLMSG_ERROR` message is about; 0 is an
    /// acknowledgement.
    ///
    /// # Errors
    /// [`WireError::Length`] when the message is cut.
    pub fn error_code(&self) -> Result<(i32, u32), WireError> {
        let cut = WireError::Length { offset: HEADER, length: self.payload.len() };
        let code = read_u32(self.payload, 0).ok_or(cut)?;
        let seq = read_u32(self.payload, 12).ok_or(cut)?;
        Ok((code.cast_signed(), seq))
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Splits a datagram into messages.
#[derive(Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    offset: usize,
}

/// The messages of one datagram.
#[must_use]
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram, offset: 0 }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let length = read_u32(self.rest, 0).and_then(|l| usize::try_from(l).ok()).unwrap_or(0);
        if length < HEADER || length > self.rest.len() {
            let error = WireError::Length { offset: self.offset, length };
            self.rest = &[];
            return Some(Err(error));
        }
        let message = Message {
            kind: read_u16(self.rest, 4).unwrap_or(0),
            flags: read_u16(self.rest, 6).unwrap_or(0),
            seq: read_u32(self.rest, 8).unwrap_or(0),
            payload: &self.rest[HEADER..length],
        };
        let step = align(length).min(self.rest.len());
        self.rest = &self.rest[step..];
        self.offset += step;
        Some(Ok(message))
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number, without the nested flag.
    pub kind: u16,
    /// Its content.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The content as attributes.
    #[must_use]
    pub fn nested(&self) -> Attributes<'a> {
        Attributes { rest: self.value, offset: 0 }
    }

    /// A big-endian 32-bit number.
    ///
    /// # Errors
    /// [`WireError::Attribute`] when it is not 4 bytes.
    pub fn be32(&self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A big-endian 16-bit number.
    ///
    /// # Errors
    /// [`WireError::Attribute`] when it is not 2 bytes.
    pub fn be16(&self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// The content as a fixed number of bytes.
    ///
    /// # Errors
    /// [`WireError::Attribute`] when it has another length.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], WireError> {
        self.value.try_into().map_err(|_| WireError::Attribute { attribute: self.kind, length: self.value.len() })
    }

    /// A string up to its terminating zero.
    ///
    /// # Errors
    /// [`WireError::Attribute`] when it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, WireError> {
        let end = self.value.iter().position(|b| *b == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end])
            .map_err(|_| WireError::Attribute { attribute: self.kind, length: self.value.len() })
    }
}

/// A run of attributes.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Attributes<'a> {
    /// The first attribute with this number.
    ///
    /// # Errors
    /// [`WireError::Missing`] when there is none, [`WireError::Length`] when the run is malformed before it.
    pub fn find(&self, kind: u16) -> Result<Attribute<'a>, WireError> {
        Iterator::find(&mut self.clone(), |a| a.as_ref().map_or(true, |a| a.kind == kind))
            .unwrap_or(Err(WireError::Missing(kind)))
    }

    /// The first attribute with this number, if any.
    ///
    /// # Errors
    /// [`WireError::Length`] when the run is malformed before it.
    pub fn get(&self, kind: u16) -> Result<Option<Attribute<'a>>, WireError> {
        match self.find(kind) {
            Err(WireError::Missing(_)) => Ok(None),
            other => other.map(Some),
        }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let length = read_u16(self.rest, 0).map_or(0, usize::from);
        if length < 4 || length > self.rest.len() {
            let error = WireError::Length { offset: self.offset, length };
            self.rest = &[];
            return Some(Err(error));
        }
        let kind = read_u16(self.rest, 2).unwrap_or(0) & NLA_TYPE_MASK;
        let attribute = Attribute { kind, value: &self.rest[4..length] };
        let step = align(length).min(self.rest.len());
        self.rest = &self.rest[step..];
        self.offset += step;
        Some(Ok(attribute))
    }
}
