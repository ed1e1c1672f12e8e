//! The types that schemas give to expressions, and the most that their values can have (`pkg/cel/common/schemas.go` and
//! `pkg/cel/types.go` of `k8s.io/apiserver`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Schema, SchemaType};
use crate::env::StructType;
use crate::escape::escape;
use crate::types::Type;

/// The largest request, in bytes.
pub const MAX_REQUEST_BYTES: i64 = 3 * 1024 * 1024;

/// What a schema tells of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// The type.
    pub of: Type,
    /// The most elements, entries or code points; zero for what has none.
    pub max_elements: i64,
    /// The fewest bytes of JSON.
    pub min_size: i64,
    /// Of a list's elements or a map's values.
    pub element: Option<Box<Declared>>,
    /// Of a map's keys.
    pub key: Option<Box<Declared>>,
    /// Of an object's fields, by the names that expressions use.
    pub fields: BTreeMap<Arc<str>, Declared>,
}

/// The types with fields among those of a schema, by name.
pub type Structs = Vec<(Arc<str>, StructType)>;

impl Declared {
    fn simple(of: Type, min_size: i64, max_elements: i64) -> Self {
        Self { of, max_elements, min_size, element: None, key: None, fields: BTreeMap::new() }
    }

    /// The most values of this kind that a request has room for.
    #[must_use]
    pub fn max_cardinality(&self) -> u64 {
        u64::try_from(MAX_REQUEST_BYTES / (self.min_size + 1)).unwrap_or_default()
    }
}

/// What a schema tells, with names for its types with fields. `None` if it says nothing of a type, so that expressions
/// do not see the value.
#[must_use]
pub fn declare(schema: &Schema, root: bool, name: &str) -> Option<(Declared, Structs)> {
    let mut structs = Vec::new();
    let declared = declared(schema, root, name, &mut structs)?;
    Some((declared, structs))
}

fn declared(schema: &Schema, root: bool, name: &str, structs: &mut Structs) -> Option<Declared> {
    if schema.int_or_string {
        let most = schema.max_length.map_or(MAX_REQUEST_BYTES - 2, from_max_length);
        return Some(Declared::simple(Type::Dyn, 1, most));
    }
    let with_meta;
    let schema = if root {
        with_meta = schema.with_type_and_meta();
        &with_meta
    } else {
        schema
    };
    match schema.of {
        SchemaType::Array => {
            let items = schema.items.as_ref()?;
            let element = declared(items, items.embedded, &format!("{name}.@idx"), structs)?;
            let most = schema.max_items.map_or((MAX_REQUEST_BYTES - 2) / (element.min_size + 1), |max| max.max(0));
            let of = Type::list(element.of.clone());
            Some(Declared { element: Some(element.into()), ..Declared::simple(of, 2, most) })
        }
        SchemaType::Object => match &schema.additional {
            Some(values) => {
                let element = declared(values, values.embedded, &format!("{name}.@elem"), structs)?;
                let most =
                    schema.max_properties.map_or((MAX_REQUEST_BYTES - 2) / (element.min_size + 6), |max| max.max(0));
                let of = Type::map(Type::String, element.of.clone());
                let key = Declared::simple(Type::String, 2, 0);
                Some(Declared { element: Some(element.into()), key: Some(key.into()), ..Declared::simple(of, 2, most) })
            }
            None => Some(object(schema, name, structs)),
        },
        SchemaType::String => Some(string(schema)),
        SchemaType::Boolean => Some(Declared::simple(Type::Bool, 4, 0)),
        SchemaType::Number => Some(Declared::simple(Type::Double, 1, 0)),
        SchemaType::Integer => Some(Declared::simple(Type::Int, 1, 0)),
        SchemaType::None => None,
    }
}

fn object(schema: &Schema, name: &str, structs: &mut Structs) -> Declared {
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    for (key, property) in schema.properties.iter().flatten() {
        let escaped = escape(key);
        let field_name = format!("{name}.{}", escaped.as_deref().unwrap_or(key));
        let Some(field) = declared(property, property.embedded, &field_name, structs) else { continue };
        if schema.required.contains(key) && !property.has_default {
            min_size += i64::try_from(key.len()).unwrap_or(i64::MAX) + field.min_size + 4;
        }
        if let Some(escaped) = escaped {
            fields.insert(escaped.into(), field);
        }
    }
    let types = fields.iter().map(|(key, field)| (Arc::clone(key), field.of.clone())).collect();
    structs.push((name.into(), StructType { fields: types }));
    Declared { fields, ..Declared::simple(Type::named(name), min_size, 0) }
}

fn string(schema: &Schema) -> Declared {
    match &*schema.format {
        "byte" => {
            let most = schema.max_length.map_or(MAX_REQUEST_BYTES - 2, |max| max.max(0));
            Declared::simple(Type::Bytes, 2, most)
        }
        "duration" => Declared::simple(Type::Duration, 3, 32),
        "date" => Declared::simple(Type::Timestamp, 12, 12),
        "date-time" => Declared::simple(Type::Timestamp, 21, 32),
        _ => {
            let longest = schema.enumeration.iter().map(String::len).max();
            let most = match (schema.max_length, longest) {
                (Some(max), _) => from_max_length(max),
                (None, Some(longest)) => i64::try_from(longest).unwrap_or(i64::MAX),
                (None, None) => MAX_REQUEST_BYTES - 2,
            };
            Declared::simple(Type::String, 2, most)
        }
    }
}

/// Lengths are of code points, of which each can have four bytes.
fn from_max_length(max: i64) -> i64 {
    max.max(0).saturating_mul(4)
}
