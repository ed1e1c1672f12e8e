//! JSON and YAML text → `Value`, noting duplicate keys. Error texts are Go's.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::MediaType;
use super::problems::{MAX_PROBLEMS, Problem};
use super::repeated;
use super::size::Budget;
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
    /// The duplicate keys, in order, each once; the first hundred. Those of YAML in one text, where their lines are
    /// known.
    pub duplicates: Vec<Problem>,
}

/// Values that YAML text with aliases may expand to. Upstream's parser bounds the part that aliases have in a document,
/// from this many values on.
const MAX_ALIASED: usize = 400_000;

/// Parses a body. Depth is limited to 128 levels, what aliases and small values expand to by a [`Budget`].
///
/// # Errors
/// For text that is not of the media type, or that expands to too much.
pub fn parse(media: MediaType, body: &[u8]) -> Result<Parsed, ParseError> {
    let text = match media {
        MediaType::Json => None,
        MediaType::Yaml => Some(yaml_text(body)?),
    };
    let state = State { yaml: text, ..State::default() };
    let seed = Node { path: &Path::ROOT, state: &state };
    let value = match text {
        None => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            seed.deserialize(&mut deserializer)
                .and_then(|value| deserializer.end().map(|()| value))
                .map_err(|e| ParseError::Json(go_syntax_error(body, &e)))?
        }
        Some(text) => {
            if text.contains('*') {
                state.nodes.set(MAX_ALIASED);
            }
            seed.deserialize(serde_norway::Deserializer::from_str(text)).map_err(|e| {
                let text = e.to_string();
                let aliases = text.contains(EXCESSIVE_ALIASING) || text.contains("repetition limit exceeded");
                ParseError::Yaml(if aliases { EXCESSIVE_ALIASING.to_owned() } else { text })
            })?
        }
    };
    let mut duplicates = state.duplicates.into_inner();
    if media == MediaType::Yaml
        && let Some(told) = std::str::from_utf8(body).ok().and_then(|text| repeated::told(text, duplicates.len()))
    {
        duplicates = vec![Problem::of_yaml(told)];
    }
    Ok(Parsed { value, duplicates })
}

/// The text of YAML that does not nest too deep.
fn yaml_text(body: &[u8]) -> Result<&str, ParseError> {
    let text = std::str::from_utf8(body).map_err(|_| ParseError::Yaml("invalid leading UTF-8 octet".to_owned()))?;
    if nests_too_deep(text) { Err(ParseError::Yaml("exceeded max depth".to_owned())) } else { Ok(text) }
}

const EXCESSIVE_ALIASING: &str = "document contains excessive aliasing";

/// What is counted and noted while reading.
struct State<'t> {
    /// The text, where it is YAML.
    yaml: Option<&'t str>,
    duplicates: RefCell<Vec<Problem>>,
    known: RefCell<HashSet<u64>>,
    /// Duplicates still to be looked at; those of one place count each time.
    looks: Cell<usize>,
    budget: Budget,
    nodes: Cell<usize>,
}

impl Default for State<'_> {
    fn default() -> Self {
        Self {
            yaml: None,
            duplicates: RefCell::default(),
            known: RefCell::default(),
            looks: (2 * MAX_PROBLEMS).into(),
            budget: Budget::default(),
            nodes: usize::MAX.into(),
        }
    }
}

impl State<'_> {
    /// What YAML's word stands for that is no text.
    fn word(&self, scalar: &str) -> Option<Value> {
        self.yaml.and_then(|text| gojson::yaml::word(text, scalar))
    }

    fn node(&self) -> Result<(), &'static str> {
        self.nodes.set(self.nodes.get().checked_sub(1).ok_or(EXCESSIVE_ALIASING)?);
        Ok(())
    }

    fn duplicate(&self, path: &Path<'_>) {
        // A path can be as long as the body, so looking at one is bounded, too.
        let Some(looks) = self.looks.get().checked_sub(1) else { return };
        self.looks.set(looks);
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() < MAX_PROBLEMS && self.known.borrow_mut().insert(path.fingerprint()) {
            duplicates.push(Problem::duplicate(path));
        }
    }
}

/// Deepest nesting of a body, which is also the parsers' limit: what nests so deep is not read.
pub(crate) const MAX_DEPTH: usize = 128;

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
    state: &'a State<'a>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.state.node().map_err(D::Error::custom)?;
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

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Value, E> {
        self.state.word(value).map_or_else(|| self.visit_str(value), Ok)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.state.budget.text(value.len()).map_err(E::custom)?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.state.budget.text(value.len()).map_err(E::custom)?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = self.path.index(items.len());
            match access.next_element_seed(Node { path: &path, state: self.state })? {
                Some(item) => {
                    self.state.budget.item(items.is_empty()).map_err(A::Error::custom)?;
                    items.push(item);
                }
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let (mut repeated, mut merged) = (HashSet::new(), None);
        while let Some(key) = access.next_key_seed(Key { state: self.state })? {
            self.state.budget.entry(&key, map.is_empty()).map_err(A::Error::custom)?;
            let path = self.path.child(&key);
            let value = access.next_value_seed(Node { path: &path, state: self.state })?;
            if key == "<<" && self.state.yaml.is_some() {
                merged = Some(value);
                continue;
            }
            if map.contains_key(&key) && repeated.insert(key.clone()) {
                self.state.duplicate(&path);
            }
            map.insert(key, value);
        }
        if let Some(merged) = merged {
            gojson::yaml::merge(&mut map, merged).map_err(A::Error::custom)?;
        }
        Ok(Value::Object(map))
    }
}

/// A map key; YAML's scalars become strings, as upstream's conversion to JSON does.
struct Key<'a> {
    state: &'a State<'a>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<String, E> {
        Ok(self.state.word(value).map_or_else(|| value.to_owned(), |word| word.to_string()))
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
