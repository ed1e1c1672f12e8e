//! Bodies in `application/vnd.kubernetes.protobuf`, which kubectl since 1.32 and most controllers send for built-in
//! kinds: decoded into the JSON object they stand for, guided by the kind's schema. Answers are always JSON, which
//! these clients list second.
//!
//! Pure. Field numbers come from one table; everything else (types, lists, maps) from the schema. Go's encoder writes
//! the zero values of fields that are no pointers, which JSON leaves out: they are dropped here by the schema's one fact
//! about it.

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
                    let (name, inline) = match rest.split_once('>') {
                        Some((name, inline)) => (name, Some(inline)),
                        None => (rest, None),
                    };
                    Some((number.parse().ok()?, Known { name, inline }))
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
                add(out, property, wire, level)?;
            }
            (None, Some(embedded), Wire::Bytes(bytes)) => message(ty, embedded, bytes, out, level.below())?,
            _ => {}
        }
    }
    Ok(())
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
    match value {
        Value::Null => true,
        // An empty quantity or an empty slice of bytes is none.
        Value::String(text) => {
            text.is_empty() && (field.drops_zero || matches!(field.ty, Type::Quantity | Type::Bytes))
        }
        // A port or a number of pods may be 0.
        Value::Number(number) => field.drops_zero && number.as_i64() == Some(0),
        Value::Bool(set) => field.drops_zero && !set,
        Value::Array(_) | Value::Object(_) => false,
    }
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use scheme::builtin;

    fn kind(group: &str, name: &str) -> &'static Kind {
        builtin().by_gvk(group, "v1", name).unwrap()
    }

    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(value.len()).unwrap()];
        out.extend_from_slice(value);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn a_config_map() {
        let meta = [bytes(1, b"name"), bytes(2, b""), bytes(8, b""), vec![7 << 3, 0]].concat();
        let entry = [bytes(1, b"k"), bytes(2, b"v")].concat();
        let binary = [bytes(1, b"b"), bytes(2, &[0, 1])].concat();
        let raw = [bytes(1, &meta), bytes(2, &entry), bytes(3, &binary)].concat();
        assert_eq!(
            decode(kind("", "ConfigMap"), &envelope("v1", "ConfigMap", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "name"},
                   "data": {"k": "v"}, "binaryData": {"b": "AAE="}})
        );
    }

    #[test]
    fn zeros_are_left_out_as_go_leaves_them_out() {
        // hostNetwork false, terminationGracePeriodSeconds 0, shareProcessNamespace false, nodeName "".
        let spec = [vec![11 << 3, 0], vec![4 << 3, 0], vec![0xd8, 1, 0], bytes(10, b"")].concat();
        let pod = decode(kind("", "Pod"), &envelope("v1", "Pod", &bytes(2, &spec))).unwrap();
        assert_eq!(pod["spec"], json!({"terminationGracePeriodSeconds": 0, "shareProcessNamespace": false}));
        // What the schema demands is there: ready false, restartCount 0.
        let status = [bytes(1, b"a"), vec![4 << 3, 0], vec![5 << 3, 0], bytes(6, b""), bytes(7, b""), vec![9 << 3, 0]];
        let status = bytes(3, &bytes(8, &status.concat()));
        let pod = decode(kind("", "Pod"), &envelope("v1", "Pod", &status)).unwrap();
        assert_eq!(
            pod["status"]["containerStatuses"][0],
            json!({"name": "a", "ready": false, "restartCount": 0, "image": "", "imageID": "", "started": false})
        );
    }

    #[test]
    fn embedded_structs_are_inline() {
        let source = bytes(2, &bytes(1, b"Memory"));
        let volume = [bytes(1, b"tmp"), bytes(2, &source)].concat();
        let port = [vec![1 << 3, 1, 2 << 3, 0], bytes(3, b"web")].concat();
        let probe = [bytes(1, &bytes(2, &bytes(2, &port))), vec![2 << 3, 0, 3 << 3, 5]].concat();
        let container = [bytes(1, b"c"), bytes(10, &probe)].concat();
        let spec = [bytes(1, &volume), bytes(2, &container), vec![4 << 3, 0]].concat();
        let pod = decode(kind("", "Pod"), &envelope("v1", "Pod", &bytes(2, &spec))).unwrap();
        assert_eq!(pod["spec"]["volumes"][0]["name"], "tmp");
        assert!(pod["spec"]["volumes"][0]["emptyDir"].is_object() || pod["spec"]["volumes"][0]["hostPath"].is_object());
        assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], "web");
        assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["timeoutSeconds"], 5);
        assert_eq!(pod["spec"]["containers"][0]["livenessProbe"].get("initialDelaySeconds"), None);
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
    }

    /// `maxSurge: 0` and `maxUnavailable: 0` are not the defaults.
    #[test]
    fn zero_pods_are_a_number() {
        let zero = bytes(1, &[vec![1 << 3, 0, 2 << 3, 0], bytes(3, b"")].concat());
        let zero_second = bytes(2, &[vec![1 << 3, 0, 2 << 3, 0], bytes(3, b"")].concat());
        let rolling = bytes(2, &[zero, zero_second].concat());
        let strategy = bytes(4, &[bytes(1, b"RollingUpdate"), rolling].concat());
        let spec = bytes(2, &[vec![1 << 3, 0], strategy, vec![5 << 3, 0]].concat());
        let deployment = decode(kind("apps", "Deployment"), &envelope("apps/v1", "Deployment", &spec)).unwrap();
        assert_eq!(
            deployment["spec"],
            json!({"replicas": 0, "strategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}})
        );
        let none = bytes(2, &bytes(3, &[vec![1 << 3, 0, 2 << 3, 0], bytes(3, b"")].concat()));
        let budget = kind("policy", "PodDisruptionBudget");
        let budget = decode(budget, &envelope("policy/v1", "PodDisruptionBudget", &none)).unwrap();
        assert_eq!(budget["spec"]["maxUnavailable"], 0);
    }

    #[test]
    fn messages_cannot_explode() {
        // A container of two bytes, some hundred times as large in memory.
        let mut raw = vec![2 << 3 | 2];
        let containers = [2 << 3 | 2, 2, 10 << 3 | 2, 0].repeat(400_000);
        let mut length = containers.len();
        while length >= 0x80 {
            raw.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        raw.push(u8::try_from(length).unwrap());
        raw.extend_from_slice(&containers);
        let mut out = Map::new();
        let budget = Budget::default();
        let pod = kind("", "Pod").schema();
        let level = Level { depth: 0, budget: &budget };
        assert_eq!(message(pod, pod.name(), &raw, &mut out, level), Err(ProtobufError::Large(TooLarge)));
    }

    /// Every field of every message is in the table, but for what is newer than the table: fields that 1.36 added
    /// behind gates that are off by default.
    #[test]
    fn every_kind_has_field_numbers() {
        fn check(ty: &ObjectType, seen: &mut Vec<String>, missing: &mut Vec<String>) {
            if seen.contains(&ty.name().to_owned()) {
                return;
            }
            seen.push(ty.name().to_owned());
            let name = ty.name().strip_prefix("io.k8s.").unwrap_or(ty.name()).to_ascii_lowercase();
            let fields = names(&name);
            for field in ty.fields() {
                let known = fields.iter().any(|f| field.name.eq_ignore_ascii_case(f));
                if !known && !matches!(&*field.name, "apiVersion" | "kind") {
                    missing.push(format!("{}.{}", ty.short_name(), field.name));
                }
            }
            ty.fields().iter().filter_map(|f| f.ty.object()).for_each(|inner| check(inner, seen, missing));
        }
        fn names(message: &str) -> Vec<&'static str> {
            let known = table().get(message).map(Vec::as_slice).unwrap_or_default();
            let embedded = known.iter().filter_map(|(_, k)| k.inline).flat_map(names);
            known.iter().map(|(_, k)| k.name).chain(embedded).collect()
        }
        let (mut seen, mut missing) = (Vec::new(), Vec::new());
        builtin().kinds().for_each(|kind| check(kind.schema(), &mut seen, &mut missing));
        missing.sort();
        const NEWER: [&str; 13] = [
            "CSIDriverSpec.preventPodSchedulingIfMissing",
            "ImageVolumeStatus.imageRef",
            "ListMeta.shardInfo",
            "NodeAllocatableResourceClaimStatus.containers",
            "NodeAllocatableResourceClaimStatus.resourceClaimName",
            "NodeAllocatableResourceClaimStatus.resources",
            "PodSchedulingGroup.podGroupName",
            "PodSpec.schedulingGroup",
            "PodStatus.nodeAllocatableResourceClaimStatuses",
            "ResourceHealth.message",
            "ShardInfo.selector",
            "VolumeMountStatus.volumeStatus",
            "VolumeStatus.image",
        ];
        assert_eq!(missing, NEWER);
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_an_error_or_an_object(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = decode(kind("", "Pod"), &envelope("v1", "Pod", &body[..body.len().min(120)]));
            let _ = decode(kind("apps", "Deployment"), &body);
            let mut prefixed = MAGIC.to_vec();
            prefixed.extend_from_slice(&body);
            let _ = decode(kind("", "Service"), &prefixed);
        }
    }
}
