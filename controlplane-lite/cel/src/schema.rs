//! What a schema says of values in expressions: how JSON is read, which types expressions see, and how large values can
//! get. Whoever has schemas of other shapes makes these of them (`pkg/cel/common` of `k8s.io/apiserver`).

mod declared;

use std::collections::{BTreeMap, BTreeSet};

pub use declared::{Declared, MAX_REQUEST_BYTES, Structs, declare};

/// The `type` of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SchemaType {
    /// No type.
    #[default]
    None,
    /// An object or a map.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A number that may have a fraction.
    Number,
    /// A whole number.
    Integer,
    /// A boolean.
    Boolean,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// Elements are what they are by their place.
    #[default]
    Atomic,
    /// Elements are distinct; their order does not matter.
    Set,
    /// Elements are told apart by keys.
    Map,
}

/// A schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema {
    /// The type.
    pub of: SchemaType,
    /// The format, such as `date-time`.
    pub format: String,
    /// The pattern, if any.
    pub pattern: String,
    /// Of an array's elements.
    pub items: Option<Box<Schema>>,
    /// Of an object's fields, by their names in JSON.
    pub properties: Option<BTreeMap<String, Schema>>,
    /// Of a map's values.
    pub additional: Option<Box<Schema>>,
    /// Fields that must be there.
    pub required: BTreeSet<String>,
    /// Whether null is a value.
    pub nullable: bool,
    /// Whether the field has a default.
    pub has_default: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `x-kubernetes-list-type`.
    pub list_type: ListType,
    /// `x-kubernetes-list-map-keys`.
    pub list_map_keys: Vec<String>,
    /// The longest string.
    pub max_length: Option<i64>,
    /// The most elements.
    pub max_items: Option<i64>,
    /// The most entries.
    pub max_properties: Option<i64>,
    /// The texts that an enumeration has.
    pub enumeration: Vec<String>,
}

impl Schema {
    /// A schema of a type.
    #[must_use]
    pub fn new(of: SchemaType) -> Self {
        Self { of, ..Self::default() }
    }

    /// An object with fields.
    #[must_use]
    pub fn object<'n>(properties: impl IntoIterator<Item = (&'n str, Self)>) -> Self {
        let properties = properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
        Self { properties: Some(properties), ..Self::new(SchemaType::Object) }
    }

    /// An array of elements.
    #[must_use]
    pub fn array(items: Self) -> Self {
        Self { items: Some(items.into()), ..Self::new(SchemaType::Array) }
    }

    /// A map to values.
    #[must_use]
    pub fn map(values: Self) -> Self {
        Self { additional: Some(values.into()), ..Self::new(SchemaType::Object) }
    }

    /// The schema with `apiVersion`, `kind` and `metadata`, which every resource has (`WithTypeAndObjectMeta`).
    #[must_use]
    pub fn with_type_and_meta(&self) -> Self {
        let mut schema = self.clone();
        let text = || Self::new(SchemaType::String);
        let properties = schema.properties.get_or_insert_default();
        properties.insert("kind".to_owned(), text());
        properties.insert("apiVersion".to_owned(), text());
        properties.insert("metadata".to_owned(), Self::object([("name", text()), ("generateName", text())]));
        schema
    }
}
