//! [`Object`]: one API object as it is cached and sent: its encoded JSON beside a
//! small header that was parsed once. Owns where `resourceVersion` is spliced in
//! and how a watch frame looks; knows no kinds.
//!
//! The JSON lies inside the watch frame that announced it, so that sending an
//! event to any number of watches shares one buffer, and the header refers to
//! the same buffer by offsets instead of copies.

mod fields;
mod parse;

use std::sync::Arc;

use bytes::Bytes;

use super::store::Revision;
pub use fields::FieldPath;
use parse::Header;

/// What a watch frame says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    /// The wire word, as in `{"type":"ADDED",…}`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    fn head(self) -> &'static [u8] {
        match self {
            Self::Added => br#"{"type":"ADDED","object":"#,
            Self::Modified => br#"{"type":"MODIFIED","object":"#,
            Self::Deleted => br#"{"type":"DELETED","object":"#,
        }
    }
}

const TAIL: &[u8] = b"}\n";

/// Frames of this length and more are not copied, however many watches do not
/// read theirs; below it a line is one write.
const SPLIT: usize = 4096;

/// A line of a watch, in parts of which some may be empty.
#[derive(Clone, Debug)]
pub struct Line([Bytes; 3]);

impl From<Bytes> for Line {
    fn from(whole: Bytes) -> Self {
        Self([whole, Bytes::new(), Bytes::new()])
    }
}

impl Line {
    /// What is in it, part by part.
    pub fn into_parts(self) -> impl Iterator<Item = Bytes> {
        self.0.into_iter().filter(|part| !part.is_empty())
    }

    /// The same without its line feed.
    #[must_use]
    pub fn without_end(mut self) -> Self {
        if let Some(last) = self.0.iter_mut().rfind(|part| !part.is_empty()) {
            last.truncate(last.trim_ascii_end().len());
        }
        self
    }

    /// All of it, copied when it has several parts.
    pub fn whole(self) -> Bytes {
        let [first, second, third] = self.0;
        if second.is_empty() && third.is_empty() { first } else { [first, second, third].concat().into() }
    }
}

/// An encoded object at one revision.
#[derive(Clone)]
pub struct Object {
    /// Head, JSON with resourceVersion, tail.
    frame: Bytes,
    kind: EventKind,
    revision: Revision,
    fields: Arc<[FieldPath]>,
    header: Header,
}

/// Why stored bytes are not an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("stored object is not JSON with metadata")]
    Json(#[source] serde_json::Error),
    #[error("stored object has no metadata.name")]
    NoName,
    #[error("stored object carries a resourceVersion of its own")]
    OwnRevision,
    #[error("stored object of {0} bytes is too large")]
    TooLarge(usize),
}

impl Object {
    /// Reads what the store holds (JSON without resourceVersion) as of `revision`.
    /// `kind` is what a watch would say about it: created or changed there.
    pub fn parse(
        stored: &[u8],
        revision: Revision,
        kind: EventKind,
        fields: &Arc<[FieldPath]>,
    ) -> Result<Self, ObjectError> {
        let (frame, header) = parse::parse(stored, revision, kind, fields)?;
        Ok(Self { frame, kind, revision, fields: fields.clone(), header })
    }

    /// The object's JSON with its resourceVersion; shares the buffer.
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.json_range())
    }

    /// The same, borrowed.
    pub fn json_bytes(&self) -> &[u8] {
        &self.frame[self.json_range()]
    }

    fn json_range(&self) -> std::ops::Range<usize> {
        self.kind.head().len()..self.frame.len() - TAIL.len()
    }

    /// The JSON as it is stored, without resourceVersion.
    pub fn stored(&self) -> Vec<u8> {
        let (start, len) = self.header.splice();
        let json = self.json_range();
        let mut bytes = Vec::with_capacity(json.len());
        bytes.extend_from_slice(&self.frame[json.start..start]);
        bytes.extend_from_slice(&self.frame[start + len..json.end]);
        bytes
    }

    /// The decoded object. A parse per call: for those who change or inspect it.
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_slice(self.json_bytes()).unwrap_or_default()
    }

    /// Whether the JSON has this text in it. Names and keys of objects are written as they are, so that what does not
    /// mention one need not be decoded to say so.
    pub fn mentions(&self, text: &str) -> bool {
        std::str::from_utf8(self.json_bytes()).is_ok_and(|json| json.contains(text))
    }

    /// One line of a watch: `{"type":KIND,"object":{…}}` and a line feed. Shares
    /// the buffer, unless `kind` is not the object's own and it is short.
    pub fn line(&self, kind: EventKind) -> Line {
        if kind == self.kind {
            return self.frame.clone().into();
        }
        if self.frame.len() >= SPLIT {
            return Line([Bytes::from_static(kind.head()), self.json(), Bytes::from_static(TAIL)]);
        }
        Bytes::from([kind.head(), self.json_bytes(), TAIL].concat()).into()
    }

    /// The same content announced as `kind` at another revision, as a deletion
    /// carries the revision of the deletion.
    pub fn restamped(&self, revision: Revision, kind: EventKind) -> Result<Self, ObjectError> {
        Self::parse(&self.stored(), revision, kind, &self.fields)
    }

    /// The revision that wrote this state.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What a watch says about this state: created, changed or deleted.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// `metadata.namespace`, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.header.namespace(&self.frame)
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.header.name(&self.frame)
    }

    /// `metadata.uid`, empty when there is none.
    pub fn uid(&self) -> &str {
        self.header.uid(&self.frame)
    }

    /// `metadata.deletionTimestamp`, as written.
    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.header.deletion_timestamp(&self.frame)
    }

    /// The value of one label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.header.label(&self.frame, name)
    }

    /// All labels, by name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.header.labels(&self.frame)
    }

    /// The uids in `metadata.ownerReferences`.
    pub fn owner_uids(&self) -> impl Iterator<Item = &str> {
        self.header.owners(&self.frame)
    }

    /// A selectable field by its selector name; `None` when the kind has no such
    /// field, the field's default (mostly empty) when the object does not set it.
    pub fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => self.field_at(self.fields.iter().position(|field| field.name() == name)?),
        }
    }

    /// A selectable field by its position in the kind's list.
    pub fn field_at(&self, index: usize) -> Option<&str> {
        self.header.field(&self.frame, index).or_else(|| self.fields.get(index).map(FieldPath::default_value))
    }

    /// Bytes this object keeps in memory, roughly.
    pub fn footprint(&self) -> usize {
        self.frame.len() + self.header.footprint() + std::mem::size_of::<Self>()
    }
}

impl std::fmt::Debug for Object {
    /// Contents stay out of logs: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object")
            .field("namespace", &self.namespace())
            .field("name", &self.name())
            .field("revision", &self.revision)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Encodes a decoded object for the store: without `metadata.resourceVersion`,
/// which is the revision it gets there.
pub fn encode_stored(object: &mut serde_json::Value) -> Bytes {
    if let Some(metadata) = object.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    object.to_string().into()
}

/// A bookmark line. `initial_events_end` marks the one that closes the initial
/// events of a streaming list.
pub fn bookmark_frame(api_version: &str, kind: &str, revision: Revision, initial_events_end: bool) -> Bytes {
    let annotations = if initial_events_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
    format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\
         \"metadata\":{{\"resourceVersion\":\"{revision}\"{annotations}}}}}}}\n"
    )
    .into()
}

#[cfg(test)]
mod tests;
