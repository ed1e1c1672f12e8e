//! What the types of kinds say about merging (`structured-merge-diff/schema`): what is a scalar, which lists have keys,
//! which maps and lists are replaced as a whole.

use std::sync::LazyLock;

use scheme::schema::{Absent, Field, Keys, ListType, ObjectType, Type};
use serde_json::{Map as JsonMap, Value};

use crate::path::PathElement;

/// A struct in which nothing is set, and what else Go writes of what is not.
static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(JsonMap::new()));
static NO_TEXT: Value = Value::String(String::new());
static NO_NUMBER: LazyLock<Value> = LazyLock::new(|| 0.into());
static NO: Value = Value::Bool(false);
static NULL: Value = Value::Null;

/// The type of what stands at one place of an object.
#[derive(Debug, Clone, Copy)]
pub struct Place<'t> {
    ty: Kind<'t>,
    list: &'t ListType,
}

#[derive(Debug, Clone, Copy)]
enum Kind<'t> {
    Type(&'t Type),
    Object(&'t ObjectType),
}

/// How the value at a place is merged.
#[derive(Debug, Clone, Copy)]
pub enum Atom<'t> {
    /// As one value.
    Scalar(Scalar),
    /// As a list.
    List(List<'t>),
    /// Field by field, or as a whole.
    Map(Map<'t>),
}

/// What scalars may stand somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Numbers.
    Numeric,
    /// Texts.
    String,
    /// Booleans.
    Boolean,
    /// Any of them.
    Untyped,
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy)]
pub struct List<'t> {
    /// By what.
    pub by: By<'t>,
    items: &'t Type,
}

/// What tells the items of a list apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'t> {
    /// Nothing: the list is one value.
    Atomic,
    /// Their values.
    Value,
    /// The values of these fields.
    Keys(&'t Keys),
}

/// An object, or a map with keys of its own.
#[derive(Debug, Clone, Copy)]
pub struct Map<'t> {
    /// Whether it is one value.
    pub atomic: bool,
    object: Option<&'t ObjectType>,
    items: Option<&'t Type>,
}

static ANY: Type = Type::Any;
static DEFAULT: ListType = ListType::Default;

impl<'t> Place<'t> {
    /// The place of a whole object.
    pub fn root(object: &'t ObjectType) -> Self {
        Self { ty: Kind::Object(object), list: &DEFAULT }
    }

    fn of(ty: &'t Type, list: &'t ListType) -> Self {
        Self { ty: Kind::Type(ty), list }
    }

    fn object(&self) -> Option<&'t ObjectType> {
        match self.ty {
            Kind::Object(object) => Some(object),
            Kind::Type(Type::Object(object)) => Some(object),
            Kind::Type(_) => None,
        }
    }

    /// How `value` is merged here. Where anything may stand, the value decides; without one that is as a map.
    pub fn atom(&self, value: Option<&Value>) -> Atom<'t> {
        let atomic = *self.list == ListType::AtomicMap;
        if let Some(object) = self.object() {
            let items = object.open().then_some(&ANY);
            return Atom::Map(Map { atomic: atomic || object.atomic(), object: Some(object), items });
        }
        let Kind::Type(ty) = self.ty else { return Atom::Scalar(Scalar::Untyped) };
        match ty {
            Type::Any => match value {
                Some(Value::Array(_)) => Atom::List(List { by: By::Atomic, items: &ANY }),
                None | Some(Value::Object(_) | Value::Null) => {
                    Atom::Map(Map { atomic, object: None, items: Some(&ANY) })
                }
                Some(_) => Atom::Scalar(Scalar::Untyped),
            },
            Type::List(items) => {
                let by = match self.list {
                    ListType::Map(keys) => By::Keys(keys),
                    ListType::Set => By::Value,
                    ListType::Default | ListType::AtomicMap => By::Atomic,
                };
                Atom::List(List { by, items })
            }
            Type::Map(items) => Atom::Map(Map { atomic, object: None, items: Some(items) }),
            Type::String | Type::Bytes => Atom::Scalar(Scalar::String),
            Type::Int32 | Type::Int64 | Type::Float => Atom::Scalar(Scalar::Numeric),
            Type::Bool => Atom::Scalar(Scalar::Boolean),
            _ => Atom::Scalar(Scalar::Untyped),
        }
    }

    /// Whether two values are merged alike here; only where anything may stand they may not be.
    pub fn alike(&self, a: Option<&Value>, b: Option<&Value>) -> bool {
        matches!(
            (self.atom(a), self.atom(b)),
            (Atom::Scalar(_), Atom::Scalar(_)) | (Atom::List(_), Atom::List(_)) | (Atom::Map(_), Atom::Map(_))
        )
    }

    /// The place of an element of what stands here, where it can be said.
    pub fn descend(&self, element: &PathElement) -> Option<Self> {
        match (element, self.atom(None)) {
            (PathElement::Field(name), Atom::Map(map)) => map.place(name),
            (_, Atom::List(list)) => Some(list.place()),
            _ => None,
        }
    }
}

impl<'t> List<'t> {
    /// The place of each item.
    pub fn place(&self) -> Place<'t> {
        Place::of(self.items, &DEFAULT)
    }

    /// What stands for a key that an item leaves out: fields that Go always writes have their zero value.
    pub fn key_default(&self, key: &str) -> Option<Value> {
        let Type::Object(object) = self.items else { return None };
        let field = object.field(key)?;
        if let Some(default) = &field.default {
            return Some(Value::clone(default));
        }
        match (&field.ty, object.short_name(), key) {
            (Type::String, "ContainerPort" | "ServicePort", "protocol") => Some("TCP".into()),
            (Type::String, ..) if field.required => Some("".into()),
            (Type::Int32 | Type::Int64, ..) if field.required => Some(0.into()),
            _ => None,
        }
    }

    /// Whether items are objects or anything.
    pub fn of_maps(&self) -> bool {
        matches!(self.items, Type::Object(_) | Type::Map(_) | Type::Any)
    }
}

impl<'t> Map<'t> {
    /// Whether this is a field of the type, and not a key of a map.
    pub fn declares(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    fn field(&self, name: &str) -> Option<&'t Field> {
        self.object.and_then(|object| object.field(name))
    }

    /// Whether it is a map of which nothing is known.
    pub fn of_anything(&self) -> bool {
        self.object.is_none() && matches!(self.items, Some(Type::Any))
    }

    /// The place of a field or key; none for a field that the type does not have.
    pub fn place(&self, name: &str) -> Option<Place<'t>> {
        match self.field(name) {
            Some(field) => Some(Place::of(&field.ty, &field.list)),
            None => self.items.map(|items| Place::of(items, &DEFAULT)),
        }
    }

    /// What Go sees of a field of this object: of some there is something where nothing is written.
    pub fn get<'v>(&self, object: &'v JsonMap<String, Value>, name: &str) -> Option<&'v Value> {
        object.get(name).or_else(|| {
            let field = self.field(name)?;
            match (field.absent, &field.ty) {
                (Absent::Nothing, _) => None,
                (Absent::Struct, _) => Some(&EMPTY),
                (Absent::Zero, Type::String) => Some(&NO_TEXT),
                (Absent::Zero, Type::Int32 | Type::Int64 | Type::Float) => Some(&NO_NUMBER),
                (Absent::Zero, Type::Bool) => Some(&NO),
                (Absent::Zero, _) => Some(&NULL),
            }
        })
    }
}
