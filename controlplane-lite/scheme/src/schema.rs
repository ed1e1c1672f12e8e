//! Compact runtime schemas of kinds, built on first use from the table of types
//! and shared between kinds. Types and list facts only: descriptions belong to
//! the OpenAPI documents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

mod facts;
mod own;
pub(crate) mod status;
mod structs;
mod types;
mod zero;

pub(crate) use types::find;

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Anything (raw extensions, managed fields).
    Any,
    /// A string.
    String,
    /// Base64 in a string.
    Bytes,
    /// RFC 3339 with whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating point number.
    Float,
    /// A boolean.
    Bool,
    /// An int32 or a string.
    IntOrString,
    /// A resource quantity, written as string or number.
    Quantity,
    /// A list.
    List(Box<Type>),
    /// A map with string keys.
    Map(Box<Type>),
    /// An object with known fields.
    Object(Arc<ObjectType>),
}

impl Type {
    /// The type's name in Go, as decoding errors print it.
    #[must_use]
    pub fn go_name(&self) -> String {
        match self {
            Self::Any => "interface {}".to_owned(),
            Self::String => "string".to_owned(),
            Self::Bytes => "[]uint8".to_owned(),
            Self::Time => "v1.Time".to_owned(),
            Self::MicroTime => "v1.MicroTime".to_owned(),
            Self::Int32 => "int32".to_owned(),
            Self::Int64 => "int64".to_owned(),
            Self::Float => "float64".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::IntOrString => "intstr.IntOrString".to_owned(),
            Self::Quantity => "resource.Quantity".to_owned(),
            Self::List(item) => format!("[]{}", item.go_name()),
            Self::Map(item) => match **item {
                Self::Quantity => "v1.ResourceList".to_owned(),
                ref item => format!("map[string]{}", item.go_name()),
            },
            Self::Object(object) => object.go_name(),
        }
    }

    /// The object type behind this type or its items.
    #[must_use]
    pub fn object(&self) -> Option<&Arc<ObjectType>> {
        match self {
            Self::Object(object) => Some(object),
            Self::List(item) | Self::Map(item) => item.object(),
            _ => None,
        }
    }
}

/// The fields that tell the items of a list apart, sorted as the definition has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// Of a built-in type.
    Static(&'static [&'static str]),
    /// Of a type that a kind brought along.
    Own(Arc<[Box<str>]>),
}

impl Keys {
    /// Their names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (fixed, own): (&[&str], &[Box<str>]) = match self {
            Self::Static(keys) => (keys, &[]),
            Self::Own(keys) => (&[], keys),
        };
        fixed.iter().copied().chain(own.iter().map(|key| &**key))
    }
}

/// How a list (or map) merges: `x-kubernetes-list-type` and `-map-type`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// Upstream's default: atomic for lists, granular for maps.
    #[default]
    Default,
    /// A list of unique scalars.
    Set,
    /// A list of objects, unique by these keys.
    Map(Keys),
    /// A map or struct that is replaced as a whole.
    AtomicMap,
}

/// How strategic merge patch treats a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Patch {
    /// Lists are merged rather than replaced.
    pub merge: bool,
    /// The key that identifies a list item; empty for lists of scalars.
    pub merge_key: &'static str,
    /// Whether the client names the keys to keep.
    pub retain_keys: bool,
}

/// What Go sees of a field that is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Absent {
    /// Nothing: the encoder leaves it out.
    #[default]
    Nothing,
    /// Null, or the zero of a scalar: the encoder always writes it.
    Zero,
    /// An empty struct, which is held without a pointer.
    Struct,
}

/// A field of an object type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// JSON name.
    pub name: Box<str>,
    /// Type of the value.
    pub ty: Type,
    /// How server-side apply merges it.
    pub list: ListType,
    /// How strategic merge patch merges it.
    pub patch: Patch,
    /// Whether the schema demands the field.
    pub required: bool,
    /// Whether the zero value means the same as absence (a Go field without pointer, left out when empty).
    drops_zero: bool,
    /// What is there, for Go, where nothing is written.
    pub absent: Absent,
    /// What the definition gives a field that nobody wrote; of built-in types that is the kinds' own business.
    pub default: Option<Box<serde_json::Value>>,
}

impl Field {
    /// Whether `value` is a zero that says no more than absence: the one answer to that, for bodies of all kinds.
    #[must_use]
    pub fn is_zero(&self, value: &serde_json::Value) -> bool {
        use serde_json::Value;
        self.drops_zero
            && match value {
                Value::Bool(set) => !set,
                Value::String(text) => text.is_empty(),
                Value::Number(number) => number.as_i64() == Some(0),
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            }
    }
}

/// An object type with named fields. Shared: recursive types refer to themselves.
pub struct ObjectType {
    /// Full definition name, e.g. `io.k8s.api.core.v1.PodSpec`.
    name: Box<str>,
    /// Whether server-side apply replaces values as a whole (`x-kubernetes-map-type: atomic`).
    atomic: bool,
    /// Whether there may be fields that it does not name (`x-kubernetes-preserve-unknown-fields`).
    open: bool,
    fields: OnceLock<Box<[Field]>>,
}

impl std::fmt::Debug for ObjectType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ObjectType").field(&self.name).finish()
    }
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ObjectType {}

impl ObjectType {
    /// Full definition name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last part of the name: Go's type name without package.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// Whether server-side apply replaces a value as a whole, wherever it stands (`x-kubernetes-map-type: atomic`).
    #[must_use]
    pub fn atomic(&self) -> bool {
        self.atomic
    }

    /// Whether there may be fields that the type does not name.
    #[must_use]
    pub fn open(&self) -> bool {
        self.open
    }

    /// Go's type name with package: `v1.PodSpec`.
    #[must_use]
    pub fn go_name(&self) -> String {
        let mut parts = self.name.rsplit('.');
        match (parts.next(), parts.next()) {
            (Some(name), Some(package)) => format!("{package}.{name}"),
            _ => self.name.to_string(),
        }
    }

    /// All fields, sorted by name.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        self.fields.get().map_or(&[], |f| f)
    }

    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let fields = self.fields();
        fields.binary_search_by(|f| (*f.name).cmp(name)).ok().map(|i| &fields[i])
    }
}

type Registry = HashMap<Box<str>, Arc<ObjectType>>;

fn registry() -> &'static Mutex<Registry> {
    static REGISTRY: OnceLock<Mutex<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(Mutex::default)
}

/// The compact schema of a definition; parts that other kinds already use are shared.
pub(crate) fn build(definition: &str) -> Arc<ObjectType> {
    let mut registry = registry().lock().unwrap_or_else(PoisonError::into_inner);
    object(definition, types::TABLE, &mut registry)
}

/// The type of a definition that a kind brought along.
pub(crate) fn own(name: &str, definition: &serde_json::Value) -> Arc<ObjectType> {
    own::object(name, definition)
}

/// The type by which objects are read whose schema their strategy knows: metadata, and anything beside it.
pub(crate) fn envelope() -> Arc<ObjectType> {
    own::envelope()
}

/// The built-in type of this name; anything when there is none.
fn named(name: &str) -> Type {
    type_of(name, types::TABLE, &mut registry().lock().unwrap_or_else(PoisonError::into_inner))
}

fn object(name: &str, table: &str, registry: &mut Registry) -> Arc<ObjectType> {
    if let Some(known) = registry.get(name) {
        return Arc::clone(known);
    }
    let ty =
        Arc::new(ObjectType { name: name.into(), atomic: structs::atomic(name), open: false, fields: OnceLock::new() });
    // Registered before its fields are known, so that recursive types end here.
    registry.insert(name.into(), Arc::clone(&ty));
    let mut fields: Vec<Field> = types::properties(find(table, name).unwrap_or(""))
        .map(|property| {
            let (list, patch) = facts_of(name, property.name);
            Field {
                name: property.name.into(),
                ty: type_of(property.ty, table, registry),
                list,
                patch,
                required: property.required,
                drops_zero: zero::drops(name, property.name),
                absent: structs::absent(name, &property),
                default: None,
            }
        })
        .collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    ty.fields.get_or_init(|| fields.into());
    ty
}

/// The type of a word of the table; anything goes where the word says nothing.
fn type_of(word: &str, table: &str, registry: &mut Registry) -> Type {
    if let Some(items) = word.strip_prefix("[]") {
        return Type::List(Box::new(type_of(items, table, registry)));
    }
    if let Some(items) = word.strip_prefix("{}") {
        return Type::Map(Box::new(type_of(items, table, registry)));
    }
    types::scalar(word).unwrap_or_else(|| match find(table, word) {
        Some(_) => Type::Object(object(word, table, registry)),
        None => Type::Any,
    })
}

/// List and patch facts of one field.
pub(crate) fn facts_of(ty: &str, field: &str) -> (ListType, Patch) {
    facts::ROWS
        .binary_search_by(|row| (row.0, row.1).cmp(&(ty, field)))
        .map_or((ListType::Default, Patch::default()), |i| (facts::ROWS[i].2.clone(), facts::ROWS[i].3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::builtin;

    #[test]
    fn facts_are_sorted_and_name_real_fields() {
        assert!(facts::ROWS.windows(2).all(|w| (w[0].0, w[0].1) < (w[1].0, w[1].1)));
        for kind in builtin().kinds() {
            let _ = kind.schema();
        }
        let registry = registry().lock().unwrap();
        for (ty, field, ..) in facts::ROWS {
            if let Some(object) = registry.get(*ty) {
                assert!(object.field(field).is_some(), "{ty} has no field {field}");
            }
        }
        assert!(zero::rows().is_sorted());
        for (ty, fields) in zero::rows() {
            let object = registry.get(ty);
            for field in fields.split(' ').filter(|_| object.is_some()) {
                let ty = object.and_then(|o| o.field(field)).map(|f| &f.ty);
                let scalar = matches!(ty, Some(Type::String | Type::Bool | Type::Int32 | Type::Int64 | Type::Float));
                assert!(scalar, "{ty:?} {field}");
            }
        }
        assert!(zero::drops("io.k8s.api.core.v1.PodSpec", "hostNetwork"));
        assert!(!zero::drops("io.k8s.api.apps.v1.RollingUpdateDeployment", "maxSurge"));
        assert!(!zero::drops("io.k8s.api.core.v1.PodSpec", "terminationGracePeriodSeconds"));
    }

    #[test]
    fn every_kind_has_metadata_or_is_a_body() {
        for kind in builtin().kinds() {
            let schema = kind.schema();
            assert!(!schema.fields().is_empty(), "{kind:?}");
            assert!(schema.field("apiVersion").is_some() && schema.field("kind").is_some(), "{kind:?}");
        }
    }

    #[test]
    fn types_are_what_go_has() {
        let deployment = builtin().by_gvk("apps", "v1", "Deployment").unwrap().schema();
        let spec = deployment.field("spec").unwrap().ty.object().unwrap().clone();
        assert_eq!(spec.go_name(), "v1.DeploymentSpec");
        assert_eq!(spec.field("replicas").unwrap().ty, Type::Int32);
        assert!(spec.field("strategy").unwrap().patch.retain_keys);
        let template = spec.field("template").unwrap().ty.object().unwrap().clone();
        let pod = template.field("spec").unwrap().ty.object().unwrap().clone();
        let containers = pod.field("containers").unwrap();
        assert_eq!(containers.ty.go_name(), "[]v1.Container");
        assert_eq!(containers.patch.merge_key, "name");
        let container = containers.ty.object().unwrap();
        let resources = container.field("resources").unwrap().ty.object().unwrap();
        assert_eq!(resources.field("limits").unwrap().ty, Type::Map(Box::new(Type::Quantity)));
        let secret = builtin().by_gvk("", "v1", "Secret").unwrap().schema();
        assert_eq!(secret.field("data").unwrap().ty, Type::Map(Box::new(Type::Bytes)));
    }

    #[test]
    fn every_kind_names_a_definition() {
        for kind in builtin().kinds() {
            assert!(
                find(types::TABLE, kind.definition()).is_some(),
                "{kind:?}: no definition {:?}, name its type in build.rs",
                kind.definition()
            );
        }
    }

    #[test]
    fn words_become_types() {
        let table = "a.B bad child:a.B items!:[]{}int32 odd:[]\nc x:string y:nothing z:[]a.B\n";
        let mut registry = Registry::new();
        let c = object("c", table, &mut registry);
        let b = object("a.B", table, &mut registry);
        let field = |ty: &ObjectType, name: &str| ty.field(name).map(|f| (f.ty.clone(), f.required)).unwrap();
        assert_eq!(field(&c, "x"), (Type::String, false));
        assert_eq!(field(&c, "y"), (Type::Any, false));
        assert_eq!(field(&c, "z"), (Type::List(Box::new(Type::Object(Arc::clone(&b)))), false));
        assert_eq!(field(&b, "items"), (Type::List(Box::new(Type::Map(Box::new(Type::Int32)))), true));
        assert_eq!(field(&b, "odd"), (Type::List(Box::new(Type::Any)), false));
        assert!(Arc::ptr_eq(b.field("child").unwrap().ty.object().unwrap(), &b));
        assert_eq!(b.fields().len(), 3);
        assert_eq!(object("missing", table, &mut registry).fields(), []);
    }
}
