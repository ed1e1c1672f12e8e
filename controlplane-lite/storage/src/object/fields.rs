//! Reads selectable fields out of encoded JSON by path, without decoding the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Where a selectable field is found, and what it is worth when it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    name: Box<str>,
    path: Vec<Box<str>>,
    /// Where it is found when the first path has nothing.
    fallback: Vec<Box<str>>,
    default: Box<str>,
}

impl FieldPath {
    /// A field whose selector name is its path, such as `spec.nodeName`; empty
    /// when absent.
    pub fn new(name: &str) -> Self {
        Self::at(name, name)
    }

    /// A field found elsewhere than its name says.
    pub fn at(name: &str, path: &str) -> Self {
        Self { name: name.into(), path: split(path), fallback: Vec::new(), default: "".into() }
    }

    /// The same field, also found at another path when it is absent or empty at the first.
    #[must_use]
    pub fn or_at(self, path: &str) -> Self {
        Self { fallback: split(path), ..self }
    }

    /// The same field with another value for "absent", such as `false`.
    #[must_use]
    pub fn or(self, default: &str) -> Self {
        Self { default: default.into(), ..self }
    }

    /// The selector name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of an absent field.
    pub fn default_value(&self) -> &str {
        &self.default
    }
}

fn split(path: &str) -> Vec<Box<str>> {
    path.split('.').map(Into::into).collect()
}

/// The values of `paths` in `json`, in order; `None` where absent, null, or not a
/// scalar.
///
/// # Errors
/// When a key on one of the paths stands there twice: of which the last counts, and not what both have.
pub(super) fn extract<'de>(
    json: &'de [u8],
    paths: &[FieldPath],
) -> Result<Vec<Option<Cow<'de, str>>>, serde_json::Error> {
    let mut found = vec![None; paths.len()];
    if !paths.is_empty() {
        let first =
            paths.iter().enumerate().map(|(index, field)| (Place { index, fallback: false }, field.path.as_slice()));
        let second = paths.iter().enumerate().filter(|(_, field)| !field.fallback.is_empty());
        let second = second.map(|(index, field)| (Place { index, fallback: true }, field.fallback.as_slice()));
        let wanted = first.chain(second).collect();
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        Descend { wanted, found: &mut found }.deserialize(&mut deserializer)?;
    }
    Ok(found)
}

/// Which field a path belongs to.
#[derive(Clone, Copy)]
struct Place {
    index: usize,
    fallback: bool,
}

/// One level of the descent: the paths that lead through here, relative to here.
struct Descend<'p, 'de, 'o> {
    wanted: Vec<(Place, &'p [Box<str>])>,
    found: &'o mut Vec<Option<Cow<'de, str>>>,
}

impl<'de> Descend<'_, 'de, '_> {
    fn scalar(self, value: Cow<'de, str>) {
        for (place, _) in self.wanted.iter().filter(|(_, rest)| rest.is_empty()) {
            let found = &mut self.found[place.index];
            // Neither the fallback nor an empty text replaces what was found.
            let replaces = !place.fallback && !value.is_empty();
            if replaces || found.as_ref().is_none_or(|found| found.is_empty()) {
                *found = Some(value.clone());
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Descend<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Descend<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut entered: Vec<&str> = Vec::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let inside: Vec<_> = self
                .wanted
                .iter()
                .filter_map(|(index, path)| {
                    let (first, rest) = path.split_first()?;
                    (**first == *key).then_some((*index, rest))
                })
                .collect();
            let first = self.wanted.iter().filter_map(|(_, path)| path.first()).find(|first| ***first == *key);
            if let Some(first) = first {
                if entered.contains(&&**first) {
                    return Err(A::Error::custom(format_args!("duplicate field `{first}`")));
                }
                entered.push(first);
            }
            if inside.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Descend { wanted: inside, found: self.found })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        self.scalar(Cow::Borrowed(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.scalar(Cow::Owned(value.to_owned()));
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(Cow::Borrowed(if value { "true" } else { "false" }));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(Cow::Owned(value.to_string()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(Cow::Owned(value.to_string()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(Cow::Owned(value.to_string()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_are_found_at_either_path() {
        let source = FieldPath::at("source", "source.component").or_at("reportingComponent");
        for (json, expect) in [
            (r#"{"source":{"component":"a"},"reportingComponent":"b"}"#, Some("a")),
            (r#"{"reportingComponent":"b","source":{"component":"a"}}"#, Some("a")),
            (r#"{"reportingComponent":"b","source":{}}"#, Some("b")),
            (r#"{"source":{"component":""},"reportingComponent":"b"}"#, Some("b")),
            (r#"{"reportingComponent":"","source":{"component":"a"}}"#, Some("a")),
            (r#"{"source":5}"#, None),
        ] {
            let found = extract(json.as_bytes(), std::slice::from_ref(&source)).unwrap();
            assert_eq!(found[0].as_deref(), expect, "{json}");
        }
    }
}
