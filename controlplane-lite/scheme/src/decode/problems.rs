//! Unknown and duplicate fields: noted with their paths while decoding, told in the order in which a decoder that reads
//! the text once, as Go's, meets them.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::MediaType;
use crate::field::{Path, ROOT_FINGERPRINT, child_fingerprint, index_fingerprint};

/// Problems that are noted of one body, as upstream.
pub(super) const MAX_PROBLEMS: usize = 100;

/// An unknown or duplicate field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    text: String,
    fingerprint: u64,
}

impl Problem {
    /// What upstream says of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What Go's YAML decoder says of all duplicates.
    pub(super) fn of_yaml(text: String) -> Self {
        Self { text, fingerprint: 0 }
    }

    pub(super) fn duplicate(path: &Path<'_>) -> Self {
        Self { text: format!("duplicate field \"{}\"", shown(path)), fingerprint: path.fingerprint() }
    }

    /// An unknown field whose path somebody else tells; its place in the body is not known.
    pub(super) fn unknown_at(path: &str) -> Self {
        Self { text: format!("unknown field \"{path}\""), fingerprint: 0 }
    }

    pub(super) fn unknown(path: &Path<'_>) -> Self {
        Self { text: format!("unknown field \"{}\"", shown(path)), fingerprint: path.fingerprint() }
    }
}

/// A path as it is told: a key can be as long as the body.
fn shown(path: &Path<'_>) -> String {
    const LONGEST: usize = 4096;
    let text = path.to_string();
    if text.len() <= LONGEST { text } else { text.chars().take(LONGEST / 4).collect() }
}

/// The texts of problems as they are; for objects that were not read from one text.
pub(super) fn texts(duplicates: Vec<Problem>, unknown: Vec<Problem>) -> Vec<String> {
    let mut problems: Vec<String> = duplicates.into_iter().chain(unknown).map(|problem| problem.text).collect();
    problems.truncate(MAX_PROBLEMS);
    problems
}

/// The texts of problems in the order of a body.
pub(super) fn ordered(media: MediaType, body: &[u8], duplicates: Vec<Problem>, unknown: Vec<Problem>) -> Vec<String> {
    if unknown.len() + duplicates.len() < 2 || media == MediaType::Yaml {
        // Upstream looks for YAML's duplicates before it decodes.
        return texts(duplicates, unknown);
    }
    let mut scan = Scan { wanted: HashMap::new(), next: 0 };
    for (problem, nth) in duplicates.iter().map(|d| (d, 2)).chain(unknown.iter().map(|u| (u, 1))) {
        scan.wanted.insert(problem.fingerprint, Wanted { nth, seen: 0, place: usize::MAX });
    }
    // It was parsed before; an error only ends the scan.
    let _ = Keys { at: ROOT_FINGERPRINT, scan: &mut scan }.deserialize(&mut serde_json::Deserializer::from_slice(body));
    let mut problems: Vec<Problem> = duplicates.into_iter().chain(unknown).collect();
    problems.sort_by_key(|problem| scan.wanted.get(&problem.fingerprint).map_or(usize::MAX, |wanted| wanted.place));
    problems.truncate(MAX_PROBLEMS);
    problems.into_iter().map(|problem| problem.text).collect()
}

struct Wanted {
    /// Which occurrence is the problem: a key's first when it is unknown, its second when it is a duplicate.
    nth: usize,
    seen: usize,
    place: usize,
}

struct Scan {
    wanted: HashMap<u64, Wanted>,
    next: usize,
}

impl Scan {
    fn meet(&mut self, fingerprint: u64) {
        self.next += 1;
        if let Some(wanted) = self.wanted.get_mut(&fingerprint) {
            wanted.seen += 1;
            if wanted.seen == wanted.nth {
                wanted.place = self.next;
            }
        }
    }
}

/// Visits the keys below a value whose path has this fingerprint.
struct Keys<'a> {
    at: u64,
    scan: &'a mut Scan,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        while let Some(key) = access.next_key::<std::borrow::Cow<'de, str>>()? {
            let at = child_fingerprint(self.at, &key);
            self.scan.meet(at);
            access.next_value_seed(Keys { at, scan: self.scan })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut index = 0;
        while access.next_element_seed(Keys { at: index_fingerprint(self.at, index), scan: self.scan })?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
