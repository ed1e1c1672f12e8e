//! Builds an object's frame from stored bytes and finds its header in it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{EventKind, FieldPath, ObjectError, TAIL, encode_stored, fields};
use crate::store::Revision;

/// A piece of text in the frame, or beside it when JSON escapes keep it from
/// standing there literally.
#[derive(Clone, Debug)]
enum Text {
    Span { start: u32, len: u32 },
    Owned(Box<str>),
}

impl Text {
    fn resolve<'f>(&'f self, frame: &'f [u8]) -> &'f str {
        match self {
            Self::Span { start, len } => {
                let (start, len) = (*start as usize, *len as usize);
                frame.get(start..start + len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
            }
            Self::Owned(text) => text,
        }
    }

    fn heap(&self) -> usize {
        if let Self::Owned(text) = self { text.len() } else { 0 }
    }
}

/// Offsets into the frame of what is asked for often.
#[derive(Clone, Debug)]
pub(super) struct Header {
    namespace: Option<Text>,
    name: Text,
    uid: Option<Text>,
    deletion_timestamp: Option<Text>,
    /// By name.
    labels: Box<[(Text, Text)]>,
    owners: Box<[Text]>,
    fields: Box<[Option<Text>]>,
    splice: (u32, u32),
}

impl Header {
    /// Where the spliced `"resourceVersion":"…"` (with its comma) stands.
    pub(super) fn splice(&self) -> (usize, usize) {
        (self.splice.0 as usize, self.splice.1 as usize)
    }

    pub(super) fn namespace<'f>(&'f self, frame: &'f [u8]) -> &'f str {
        self.namespace.as_ref().map_or("", |text| text.resolve(frame))
    }

    pub(super) fn name<'f>(&'f self, frame: &'f [u8]) -> &'f str {
        self.name.resolve(frame)
    }

    pub(super) fn uid<'f>(&'f self, frame: &'f [u8]) -> &'f str {
        self.uid.as_ref().map_or("", |text| text.resolve(frame))
    }

    pub(super) fn deletion_timestamp<'f>(&'f self, frame: &'f [u8]) -> Option<&'f str> {
        self.deletion_timestamp.as_ref().map(|text| text.resolve(frame))
    }

    pub(super) fn labels<'f>(&'f self, frame: &'f [u8]) -> impl Iterator<Item = (&'f str, &'f str)> {
        self.labels.iter().map(|(key, value)| (key.resolve(frame), value.resolve(frame)))
    }

    /// The value of one label. Objects may have hundreds of thousands, and selectors hundreds of terms.
    pub(super) fn label<'f>(&'f self, frame: &'f [u8], name: &str) -> Option<&'f str> {
        let at = self.labels.binary_search_by(|(key, _)| key.resolve(frame).cmp(name)).ok()?;
        Some(self.labels[at].1.resolve(frame))
    }

    pub(super) fn owners<'f>(&'f self, frame: &'f [u8]) -> impl Iterator<Item = &'f str> {
        self.owners.iter().map(|uid| uid.resolve(frame))
    }

    pub(super) fn field<'f>(&'f self, frame: &'f [u8], index: usize) -> Option<&'f str> {
        self.fields.get(index)?.as_ref().map(|text| text.resolve(frame))
    }

    /// Heap bytes beside the frame.
    pub(super) fn footprint(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(key, value)| key.heap() + value.heap()).sum();
        labels
            + self.labels.len() * std::mem::size_of::<(Text, Text)>()
            + (self.owners.len() + self.fields.len()) * std::mem::size_of::<Text>()
    }
}

/// What is read of a map alone: of itself a struct is also read from a list, which has no place for a key.
struct Mapped<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Mapped<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
            type Value = Mapped<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Mapped)
            }
        }
        deserializer.deserialize_map(Map(std::marker::PhantomData))
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// A string that borrows even inside containers, where a bare `Cow` would not.
#[derive(Deserialize)]
struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    #[serde(borrow)]
    namespace: Option<Str<'a>>,
    #[serde(borrow)]
    uid: Option<Str<'a>>,
    #[serde(borrow)]
    deletion_timestamp: Option<Str<'a>>,
    /// As written, `null` too.
    #[serde(borrow, default, deserialize_with = "present")]
    resource_version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    labels: Option<Labels<'a>>,
    #[serde(borrow, default)]
    owner_references: Option<Vec<Option<Mapped<Owner<'a>>>>>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(borrow)]
    uid: Option<Str<'a>>,
}

/// Labels as written; a null value reads as empty.
struct Labels<'a>(Vec<(Str<'a>, Option<Str<'a>>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Labels<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of labels")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(0));
                while let Some(pair) = map.next_entry::<Str<'de>, Option<Str<'de>>>()? {
                    pairs.push(pair);
                }
                Ok(Labels(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Turns pieces of the stored bytes into pieces of the frame built from them.
struct Locator {
    stored: usize,
    stored_len: usize,
    head: usize,
    splice_at: usize,
    splice_len: usize,
}

impl Locator {
    fn text(&self, piece: &str) -> Text {
        // Most pieces lie in the stored bytes; unescaped ones and words such as "true" do not.
        let offset = (piece.as_ptr().addr()).checked_sub(self.stored).filter(|o| o + piece.len() <= self.stored_len);
        let Some(offset) = offset else { return Text::Owned(piece.into()) };
        let shift = if offset < self.splice_at { self.head } else { self.head + self.splice_len };
        match (u32::try_from(offset + shift), u32::try_from(piece.len())) {
            (Ok(start), Ok(len)) => Text::Span { start, len },
            _ => Text::Owned(piece.into()),
        }
    }

    fn some(&self, piece: Option<&Str<'_>>) -> Option<Text> {
        piece.filter(|piece| !piece.0.is_empty()).map(|piece| self.text(&piece.0))
    }
}

/// Largest object that is accepted, in bytes; the API refuses far smaller ones.
const MAX_BYTES: usize = 64 << 20;

/// Reads what is stored as the API's decoder would: a null is absent, and of a key that stands there twice the last
/// counts. What is not written as we write it is written anew.
pub(super) fn parse(
    stored: &[u8],
    revision: Revision,
    kind: EventKind,
    paths: &[FieldPath],
) -> Result<(Bytes, Header), ObjectError> {
    if stored.len() > MAX_BYTES {
        return Err(ObjectError::TooLarge(stored.len()));
    }
    match read(stored, revision, kind, paths) {
        Err(ObjectError::Json(error)) if error.is_data() => {
            let mut value: Value = serde_json::from_slice(stored).map_err(ObjectError::Json)?;
            let version = &value["metadata"]["resourceVersion"];
            if !version.is_null() && version != "" {
                return Err(ObjectError::OwnRevision);
            }
            read(&encode_stored(&mut value), revision, kind, paths)
        }
        result => result,
    }
}

/// Reads what is written as we write it. The error of what is not, but may be an object, is one of its data.
fn read(
    stored: &[u8],
    revision: Revision,
    kind: EventKind,
    paths: &[FieldPath],
) -> Result<(Bytes, Header), ObjectError> {
    let Mapped(Envelope { metadata: raw }) = serde_json::from_slice(stored).map_err(ObjectError::Json)?;
    let raw = raw.get();
    let Mapped::<Metadata<'_>>(metadata) = serde_json::from_str(raw).map_err(ObjectError::Json)?;
    match metadata.resource_version.map(RawValue::get) {
        None => {}
        Some("null" | r#""""#) => return Err(irregular("an empty resourceVersion")),
        Some(_) => return Err(ObjectError::OwnRevision),
    }
    let name = metadata.name.as_ref().filter(|name| !name.0.is_empty()).ok_or(ObjectError::NoName)?;
    let found = fields::extract(stored, paths).map_err(ObjectError::Json)?;

    // Just behind the brace that opens metadata.
    let splice_at = raw.as_ptr().addr() - stored.as_ptr().addr() + 1;
    // It has a name, so it is not empty and the comma is due.
    let splice = format!("\"resourceVersion\":\"{revision}\",");
    let head = kind.head();
    let frame = [head, &stored[..splice_at], splice.as_bytes(), &stored[splice_at..], TAIL].concat();

    let at = Locator {
        stored: stored.as_ptr().addr(),
        stored_len: stored.len(),
        head: head.len(),
        splice_at,
        splice_len: splice.len(),
    };
    let empty = Str(Cow::Borrowed(""));
    let mut labels = metadata.labels.map(|labels| labels.0).unwrap_or_default();
    labels.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0));
    if labels.windows(2).any(|pair| pair[0].0.0 == pair[1].0.0) {
        return Err(irregular("a label twice"));
    }
    let owners = metadata.owner_references.iter().flatten().flatten();
    let header = Header {
        namespace: at.some(metadata.namespace.as_ref()),
        name: at.text(&name.0),
        uid: at.some(metadata.uid.as_ref()),
        deletion_timestamp: at.some(metadata.deletion_timestamp.as_ref()),
        labels: labels.iter().map(|(k, v)| (at.text(&k.0), at.text(&v.as_ref().unwrap_or(&empty).0))).collect(),
        owners: owners.filter_map(|Mapped(owner)| at.some(owner.uid.as_ref())).collect(),
        fields: found.iter().map(|value| value.as_ref().map(|value| at.text(value))).collect(),
        // Both fit: the whole frame is below MAX_BYTES plus a little.
        splice: (narrow(head.len() + splice_at), narrow(splice.len())),
    };
    Ok((frame.into(), header))
}

fn irregular(what: &str) -> ObjectError {
    ObjectError::Json(serde_json::Error::custom(what))
}

fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).expect("frames are smaller than 4 GiB")
}
