//! Bodies in `application/vnd.kubernetes.protobuf`, which kubectl since 1.32 and most controllers send for built-in
//! kinds: decoded into the JSON object they stand for, guided by the kind's schema. Answers are always JSON, which
//! these clients list second.
//!
//! Pure. Field numbers come from one table; everything else (types, lists, maps) from the schema. Go's encoder writes
//! the zero values of fields that are no pointers, which JSON leaves out: they are dropped here by the schema's one
//! fact about it.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use scheme::Kind;
use scheme::decode::size::{Budget, TooLarge};
use scheme::decode::{self, MediaType};
use scheme::schema::{Field, ObjectType, Type};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
/// Nesting a body may have.
const MAX_DEPTH: usize = 100;

/// Why a body is no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// Not the envelope.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The bytes end within a value, or a value cannot be.
    #[error("proto: cannot parse invalid wire-format data")]
    Wire,
    /// Deeper than anything real.
    #[error("exceeded max depth")]
    Depth,
    /// Small on the wire, and too large when decoded.
    #[error(transparent)]
    Large(#[from] TooLarge),
    /// No field numbers are known for the type.
    #[error("no protobuf form is known for {0}")]
    Unknown(String),
}

/// Decodes an envelope into the object, with its `apiVersion` and `kind`.
///
/// # Errors
/// When the bytes are no message of the kind.
pub fn decode(kind: &Kind, body: &[u8]) -> Result<Value, ProtobufError> {
    let body = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut name, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(body) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for part in Fields(meta) {
                    match part? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => name = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let mut object = Map::new();
    let budget = Budget::default();
    message(kind.schema(), kind.schema().name(), raw, &mut object, Level { depth: 0, budget: &budget })?;
    for (key, text) in [("apiVersion", api_version), ("kind", name)] {
        if !text.is_empty() {
            object.insert(key.to_owned(), json!(text));
        }
    }
    Ok(Value::Object(object))
}

/// How deep a message lies, and what memory is left for the object.
#[derive(Debug, Clone, Copy)]
struct Level<'a> {
    depth: usize,
    budget: &'a Budget,
}

impl Level<'_> {
    fn below(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

/// One value on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    Fixed64(u64),
    Fixed32(u32),
}

/// The fields of a message.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(ProtobufError::Wire)?;
            self.0 = rest;
            if shift < 64 {
                value |= u64::from(first & 0x7f) << shift;
            }
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Wire)
    }

    fn take(&mut self, count: u64) -> Result<&'b [u8], ProtobufError> {
        let count = usize::try_from(count).map_err(|_| ProtobufError::Wire)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ProtobufError::Wire)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Wire<'b>), ProtobufError> {
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| ProtobufError::Wire)?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| ProtobufError::Wire)?)),
            _ => return Err(ProtobufError::Wire),
        };
        Ok((key >> 3, wire))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u64, Wire<'b>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// What a field number means.
#[derive(Debug)]
struct Known {
    /// JSON name in lower case.
    name: &'static str,
    /// The message whose fields JSON writes inline.
    inline: Option<&'static str>,
    /// Of which things it is one.
    either: Option<Either>,
}

/// A message that JSON writes as one of several things, which its fields say.
#[derive(Debug, Clone, Copy)]
enum Either {
    /// 1: a boolean, 2: an object of the enclosing type.
    Bool,
    /// 1: such an object, 2: many of them.
    Array,
    /// Of each key, 1: such an object, 2: texts.
    Texts,
    /// Nothing but that it is there.
    Empty,
}

impl Either {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "bool" => Some(Self::Bool),
            "array" => Some(Self::Array),
            "texts" => Some(Self::Texts),
            "empty" => Some(Self::Empty),
            _ => None,
        }
    }
}

type Table = HashMap<&'static str, Vec<(u64, Known)>>;

/// Field numbers by message in lower case, without the `io.k8s.` of definition names.
fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let lines = include_str!("protobuf/fields.txt").lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| {
                let mut words = line.split(' ');
                let message = words.next()?;
                let fields = words.filter_map(|word| {
                    let (number, rest) = word.split_once(':')?;
                    let (rest, either) = match rest.split_once('=') {
                        Some((name, word)) => (name, Either::parse(word)),
                        None => (rest, None),
                    };
                    let (name, inline) = match rest.split_once('>') {
                        Some((name, inline)) => (name, Some(inline)),
                        None => (rest, None),
                    };
                    Some((number.parse().ok()?, Known { name, inline, either }))
                });
                Some((message, fields.collect()))
            })
            .collect()
    })
}

/// Reads the fields of message `name` into `out`, an object of type `ty`. The two differ for embedded structs.
fn message(
    ty: &ObjectType,
    name: &str,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    level: Level<'_>,
) -> Result<(), ProtobufError> {
    if level.depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let name = name.strip_prefix("io.k8s.").unwrap_or(name);
    let known = table().get(name.to_ascii_lowercase().as_str());
    let known = known.ok_or_else(|| ProtobufError::Unknown(name.to_owned()))?;
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let Some((_, meaning)) = known.iter().find(|(n, _)| *n == number) else { continue };
        let property = ty.fields().iter().find(|f| f.name.eq_ignore_ascii_case(meaning.name));
        match (property, meaning.inline, wire) {
            (Some(property), ..) => {
                if !out.contains_key(&*property.name) {
                    level.budget.entry(&property.name, out.is_empty())?;
                }
                match (meaning.either, wire) {
                    (Some(Either::Texts), Wire::Bytes(entry)) => keyed(ty, entry, out, property, level)?,
                    (Some(either), Wire::Bytes(bytes)) => {
                        out.insert(property.name.to_string(), one_of(ty, either, bytes, level)?);
                    }
                    _ => add(out, property, wire, level)?,
                }
            }
            (None, Some(embedded), Wire::Bytes(bytes)) => message(ty, embedded, bytes, out, level.below())?,
            _ => {}
        }
    }
    Ok(())
}

/// Adds an entry of a map whose values are one of several things.
fn keyed(
    ty: &ObjectType,
    entry: &[u8],
    out: &mut Map<String, Value>,
    field: &Field,
    level: Level<'_>,
) -> Result<(), ProtobufError> {
    let (mut key, mut value) = (String::new(), Value::Null);
    for field in Fields(entry) {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, Wire::Bytes(bytes)) => value = one_of(ty, Either::Texts, bytes, level)?,
            _ => {}
        }
    }
    let map = out.entry(field.name.to_string()).or_insert_with(|| json!({}));
    let Value::Object(map) = map else { return Err(ProtobufError::Wire) };
    level.budget.entry(&key, map.is_empty())?;
    map.insert(key, value);
    Ok(())
}

/// What such a message stands for.
fn one_of(ty: &ObjectType, either: Either, bytes: &[u8], level: Level<'_>) -> Result<Value, ProtobufError> {
    let object = |bytes: &[u8]| {
        let mut map = Map::new();
        message(ty, ty.name(), bytes, &mut map, level.below()).map(|()| Value::Object(map))
    };
    if matches!(either, Either::Empty) {
        return Ok(json!({}));
    }
    let (mut one, mut many) = (None, Vec::new());
    for field in Fields(bytes) {
        level.budget.item(many.is_empty())?;
        match (either, field?) {
            (Either::Bool, (1, Wire::Number(set))) => one = one.or(Some(json!(set != 0))),
            (Either::Bool, (2, Wire::Bytes(bytes))) | (Either::Array | Either::Texts, (1, Wire::Bytes(bytes))) => {
                one = Some(object(bytes)?);
            }
            (Either::Array, (2, Wire::Bytes(bytes))) => many.push(object(bytes)?),
            (Either::Texts, (2, Wire::Bytes(bytes))) => many.push(json!(utf8(bytes)?)),
            _ => {}
        }
    }
    Ok(if many.is_empty() { one.unwrap_or(Value::Null) } else { many.into() })
}

/// Adds one occurrence of a field.
fn add(out: &mut Map<String, Value>, field: &Field, wire: Wire<'_>, level: Level<'_>) -> Result<(), ProtobufError> {
    let (name, ty) = (&*field.name, &field.ty);
    match ty {
        Type::List(item) => {
            let list = out.entry(name.to_owned()).or_insert_with(|| json!([]));
            let Value::Array(list) = list else { return Err(ProtobufError::Wire) };
            if let (Type::Int32 | Type::Int64, Wire::Bytes(packed)) = (&**item, wire) {
                let mut numbers = Fields(packed);
                while !numbers.0.is_empty() {
                    level.budget.item(list.is_empty())?;
                    list.push(integer(item, numbers.varint()?));
                }
                return Ok(());
            }
            level.budget.item(list.is_empty())?;
            list.push(single(item, wire, level)?);
        }
        Type::Map(item) => {
            let Wire::Bytes(entry) = wire else { return Err(ProtobufError::Wire) };
            let (mut key, mut value) = (String::new(), None);
            for field in Fields(entry) {
                match field? {
                    (1, Wire::Bytes(text)) => key = utf8(text)?,
                    (2, wire) => value = Some(single(item, wire, level)?),
                    _ => {}
                }
            }
            let map = out.entry(name.to_owned()).or_insert_with(|| json!({}));
            let Value::Object(map) = map else { return Err(ProtobufError::Wire) };
            level.budget.entry(&key, map.is_empty())?;
            map.insert(key, value.unwrap_or_else(|| empty(item)));
        }
        _ => {
            let value = single(ty, wire, level)?;
            if !is_unset(field, &value) {
                out.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// Whether Go's JSON would leave the value out: the wire has every scalar that
/// is no pointer, set or not. What the schema demands JSON writes in any case.
fn is_unset(field: &Field, value: &Value) -> bool {
    if field.required {
        return value.is_null();
    }
    // An empty quantity or an empty slice of bytes is none. A port or a number of pods may be 0.
    let none = matches!(field.ty, Type::Quantity | Type::Bytes) && value.as_str() == Some("");
    value.is_null() || none || field.is_zero(value)
}

/// The value of a map entry that says none.
fn empty(ty: &Type) -> Value {
    match ty {
        Type::String | Type::Bytes | Type::Quantity => json!(""),
        Type::List(_) => json!([]),
        Type::Object(_) | Type::Map(_) => json!({}),
        _ => Value::Null,
    }
}

fn integer(ty: &Type, number: u64) -> Value {
    // Two's complement is how the wire carries negative numbers.
    let signed = number.cast_signed();
    match ty {
        Type::Int32 => json!(i32::try_from(signed).map_or(signed, i64::from)),
        _ => json!(signed),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Wire)
}

/// Decodes one value of a type.
fn single(ty: &Type, wire: Wire<'_>, level: Level<'_>) -> Result<Value, ProtobufError> {
    if let Wire::Bytes(bytes) = wire {
        level.budget.text(bytes.len().min(64))?;
    }
    match (ty, wire) {
        (Type::Bool, Wire::Number(number)) => Ok(json!(number != 0)),
        (Type::Int32 | Type::Int64, Wire::Number(number)) => Ok(integer(ty, number)),
        (Type::Float, Wire::Fixed64(bits)) => Ok(json!(f64::from_bits(bits))),
        (Type::Float, Wire::Fixed32(bits)) => Ok(json!(f32::from_bits(bits))),
        (Type::String, Wire::Bytes(bytes)) => Ok(json!(utf8(bytes)?)),
        (Type::Bytes, Wire::Bytes(bytes)) => Ok(json!(STANDARD.encode(bytes))),
        (Type::Time, Wire::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%SZ"),
        (Type::MicroTime, Wire::Bytes(bytes)) => time(bytes, "%Y-%m-%dT%H:%M:%S%.6fZ"),
        (Type::Quantity, Wire::Bytes(bytes)) => text_of(bytes),
        (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes),
        (Type::Any, Wire::Bytes(bytes)) => raw(bytes),
        // A list within a map or list is a message with the items.
        (Type::List(item), Wire::Bytes(bytes)) => {
            let items = Fields(bytes).map(|field| field.and_then(|(_, wire)| single(item, wire, level.below())));
            items.collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        (Type::Object(object), Wire::Bytes(bytes)) => {
            let mut map = Map::new();
            message(object, object.name(), bytes, &mut map, level.below())?;
            Ok(Value::Object(map))
        }
        _ => Err(ProtobufError::Wire),
    }
}

fn time(bytes: &[u8], format: &str) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(number)) => seconds = number.cast_signed(),
            (2, Wire::Number(number)) => nanos = number.cast_signed(),
            _ => {}
        }
    }
    // An empty message is Go's zero time, which JSON writes as null.
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| ProtobufError::Wire)?;
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Wire)?;
    Ok(json!(at.strftime(format).to_string()))
}

fn text_of(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut text = String::new();
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(found)) = field? {
            text = utf8(found)?;
        }
    }
    Ok(json!(text))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(found)) => number = found,
            (3, Wire::Bytes(found)) => text = utf8(found)?,
            _ => {}
        }
    }
    Ok(if is_text { json!(text) } else { integer(&Type::Int32, number) })
}

/// JSON within protobuf: RawExtension and FieldsV1.
fn raw(bytes: &[u8]) -> Result<Value, ProtobufError> {
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(text)) = field? {
            return Ok(decode::parse(MediaType::Json, text).map_err(|_| ProtobufError::Wire)?.value);
        }
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests;
