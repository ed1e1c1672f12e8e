//! JSON and YAML text → `Value`, noting duplicate keys. Error texts are Go's.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::MediaType;
use crate::field::Path;

/// Why text does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Json(String),
    /// Not YAML, or YAML that has no JSON form.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
}

/// Parsed text.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The value; of duplicate keys the last one counts, as in Go.
    pub value: Value,
    /// Paths of duplicate keys, in order, each once.
    pub duplicates: Vec<String>,
}

/// Parses a body. Depth is limited to 128 levels by the parsers, aliases by YAML's repetition limit.
///
/// # Errors
/// For text that is not of the media type.
pub fn parse(media: MediaType, body: &[u8]) -> Result<Parsed, ParseError> {
    let duplicates = RefCell::new(Vec::new());
    let seed = Node { path: &Path::ROOT, duplicates: &duplicates };
    let value = match media {
        MediaType::Json => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            seed.deserialize(&mut deserializer)
                .and_then(|value| deserializer.end().map(|()| value))
                .map_err(|e| ParseError::Json(go_syntax_error(body, &e)))?
        }
        MediaType::Yaml => {
            let text =
                std::str::from_utf8(body).map_err(|_| ParseError::Yaml("invalid leading UTF-8 octet".to_owned()))?;
            if nests_too_deep(text) {
                return Err(ParseError::Yaml("exceeded max depth".to_owned()));
            }
            seed.deserialize(serde_norway::Deserializer::from_str(text)).map_err(|e| ParseError::Yaml(e.to_string()))?
        }
    };
    Ok(Parsed { value, duplicates: duplicates.into_inner() })
}

/// Deepest nesting of a body, which is also the parsers' limit.
const MAX_DEPTH: usize = 128;

/// Whether YAML text nests deeper than [`MAX_DEPTH`], judged by its brackets and leading dashes.
/// The YAML scanner's time grows with size times depth, so depth is bounded before it sees the text.
/// Brackets in scalars count as well; balanced ones do no harm.
fn nests_too_deep(text: &str) -> bool {
    let mut flow = 0_usize;
    text.lines().any(|line| {
        let mut block = 0;
        for b in line.bytes() {
            match b {
                b'-' | b'?' | b':' => block += 1,
                b' ' | b'\t' => {}
                _ => break,
            }
        }
        let too_deep = line.bytes().any(|b| {
            match b {
                b'[' | b'{' => flow += 1,
                b']' | b'}' => flow = flow.saturating_sub(1),
                _ => {}
            }
            flow > MAX_DEPTH
        });
        // A line of dashes only is a document mark or a ruler in a text.
        let ruler = line.bytes().all(|b| b == b'-');
        too_deep || (block > MAX_DEPTH && !ruler)
    })
}

/// One value to be read, knowing where it is.
#[derive(Clone, Copy)]
struct Node<'a> {
    path: &'a Path<'a>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number has no JSON form"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = self.path.index(items.len());
            match access.next_element_seed(Node { path: &path, duplicates: self.duplicates })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key)? {
            let path = self.path.child(&key);
            let value = access.next_value_seed(Node { path: &path, duplicates: self.duplicates })?;
            if map.contains_key(&key) {
                let mut duplicates = self.duplicates.borrow_mut();
                let name = path.to_string();
                if !duplicates.contains(&name) {
                    duplicates.push(name);
                }
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A map key; YAML's scalars become strings, as upstream's conversion to JSON does.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<String, E> {
        Err(E::custom("map key is null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("invalid map key"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("invalid map key"))
    }
}

/// Go's words for a JSON syntax error.
fn go_syntax_error(body: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() || body.iter().all(u8::is_ascii_whitespace) {
        return "unexpected end of JSON input".to_owned();
    }
    let text = error.to_string();
    let context = if text.starts_with("expected value") {
        "looking for beginning of value"
    } else if text.starts_with("key must be a string") || text.starts_with("trailing comma") {
        "looking for beginning of object key string"
    } else if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else if text.starts_with("trailing characters") {
        "after top-level value"
    } else if text.starts_with("control character") {
        "in string literal"
    } else if text.starts_with("invalid number") {
        "in numeric literal"
    } else if text.starts_with("expected ident") {
        "in literal"
    } else if text.starts_with("invalid escape") {
        "in string escape code"
    } else if text.starts_with("recursion limit") {
        return "exceeded max depth".to_owned();
    } else {
        return text;
    };
    match byte_at(body, error.line(), error.column()) {
        Some(byte) => format!("invalid character {} {context}", quote_byte(byte)),
        None => format!("invalid character {context}"),
    }
}

/// The byte at a 1-based line and column.
fn byte_at(body: &[u8], line: usize, column: usize) -> Option<u8> {
    let line = body.split(|b| *b == b'\n').nth(line.checked_sub(1)?)?;
    line.get(column.saturating_sub(1)).or(line.last()).copied()
}

fn quote_byte(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        0xa1.. => format!("'{}'", char::from(byte)),
        other => format!("'\\x{other:02x}'"),
    }
}
