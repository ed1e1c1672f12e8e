//! `meta.k8s.io/v1` Tables, which `kubectl get` prints: columns and rows as
//! upstream's printers make them. The time "now" is an argument.

use std::fmt;

use serde_json::{Map, Value, json};

use super::access::{at, str_at};
use super::kind::Kind;

pub mod admission;
pub mod core;
mod duration;
pub mod flowcontrol;
mod format;
pub mod policy;
pub mod resource;
pub mod storage;
pub mod workloads;

pub use duration::{age, human_duration};

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// Header; kubectl prints it in upper case.
    pub name: &'a str,
    /// `string`, `integer`, `date`, `boolean`, `number`.
    pub ty: &'a str,
    /// `name` for the name column, else empty.
    pub format: &'a str,
    /// 0 always, 1 only in wide output.
    pub priority: i32,
    /// Shown by nobody, sent as upstream does.
    pub description: &'a str,
}

impl Column<'static> {
    /// The name column.
    pub const NAME: Self = Self {
        name: "Name",
        ty: "string",
        format: "name",
        priority: 0,
        description: "Name must be unique within a namespace.",
    };
    /// The age column.
    pub const AGE: Self = Self::text("Age");

    /// A text column.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self { name, ty: "string", format: "", priority: 0, description: "" }
    }

    /// A number column.
    #[must_use]
    pub const fn int(name: &'static str) -> Self {
        Self { name, ty: "integer", format: "", priority: 0, description: "" }
    }

    /// A text column of wide output.
    #[must_use]
    pub const fn wide(name: &'static str) -> Self {
        Self { name, ty: "string", format: "", priority: 1, description: "" }
    }
}

/// How a kind is printed.
pub trait Print: Send + Sync {
    /// Columns, wide ones included.
    fn columns(&self) -> Vec<Column<'_>>;

    /// One cell per column; `now` is what ages are counted to.
    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value>;

    /// Row conditions (`Completed` pods), usually none.
    fn conditions(&self, _object: &Value) -> Vec<Value> {
        Vec::new()
    }
}

/// How a built-in kind is printed.
#[derive(Clone, Copy)]
pub struct Printer {
    /// Columns, wide ones included.
    pub columns: &'static [Column<'static>],
    /// One cell per column; `now` is what ages are counted to.
    pub cells: fn(&Value, jiff::Timestamp) -> Vec<Value>,
    /// Row conditions (`Completed` pods), usually none.
    pub conditions: fn(&Value) -> Vec<Value>,
}

fn no_conditions(_: &Value) -> Vec<Value> {
    Vec::new()
}

impl Printer {
    /// Columns and cells, no row conditions.
    #[must_use]
    pub const fn new(columns: &'static [Column<'static>], cells: fn(&Value, jiff::Timestamp) -> Vec<Value>) -> Self {
        Self { columns, cells, conditions: no_conditions }
    }
}

impl Print for Printer {
    fn columns(&self) -> Vec<Column<'_>> {
        self.columns.to_vec()
    }

    fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        (self.cells)(object, now)
    }

    fn conditions(&self, object: &Value) -> Vec<Value> {
        (self.conditions)(object)
    }
}

impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// For kinds without printer of their own: NAME and CREATED AT, as upstream.
pub static DEFAULT: Printer = DEFAULT_PRINTER;

const DEFAULT_PRINTER: Printer = Printer::new(
    &[
        Column::NAME,
        Column {
            name: "Created At",
            ty: "date",
            format: "",
            priority: 0,
            description: "CreationTimestamp is a timestamp representing the server time when this object was created.",
        },
    ],
    |object, _| vec![name(object), at(object, &["metadata", "creationTimestamp"]).clone()],
);

/// What each row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The object's metadata, as PartialObjectMetadata (the default).
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// The value of the `includeObject` query parameter; `None` when it is not one of upstream's.
    #[must_use]
    pub fn from_query(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// The `columnDefinitions` of a kind.
#[must_use]
pub fn column_definitions(kind: &Kind) -> Value {
    kind.printer
        .columns()
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "type": c.ty, "format": c.format,
                "description": c.description, "priority": c.priority,
            })
        })
        .collect()
}

/// One row of a Table.
#[must_use]
pub fn row(kind: &Kind, object: &Value, include: IncludeObject, now: jiff::Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array(kind.printer.cells(object, now)));
    let conditions = kind.printer.conditions(object);
    if !conditions.is_empty() {
        row.insert("conditions".to_owned(), Value::Array(conditions));
    }
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial_metadata(object),
        IncludeObject::Object => object.clone(),
    };
    row.insert("object".to_owned(), object);
    Value::Object(row)
}

/// A Table of objects. `list_meta` becomes its metadata (resourceVersion, continue, remainingItemCount).
/// Watch events and single objects are Tables of one row; `with_columns` is false for all but a watch's first.
#[must_use]
pub fn table<'a>(
    kind: &Kind,
    list_meta: Value,
    objects: impl IntoIterator<Item = &'a Value>,
    include: IncludeObject,
    with_columns: bool,
    now: jiff::Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|o| row(kind, o, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": if with_columns { column_definitions(kind) } else { Value::Null },
        "rows": rows,
    })
}

/// An object reduced to its metadata.
#[must_use]
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": at(object, &["metadata"]),
    })
}

/// The name cell.
fn name(object: &Value) -> Value {
    str_at(object, &["metadata", "name"]).into()
}

#[cfg(test)]
mod tests;
