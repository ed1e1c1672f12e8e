//! The columns that a definition gives its objects
//! (k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go).

use std::fmt;

use jiff::Timestamp;
use serde_json::{Number, Value};

use crate::access::{int_at, list_at, str_at};
use crate::jsonpath::{self, Template};
use crate::table::{Column, Print, human_duration};

/// The name, and what the definition says.
#[derive(Debug, Clone)]
pub struct Columns(Vec<Printed>);

#[derive(Clone)]
struct Printed {
    name: String,
    ty: String,
    format: String,
    priority: i32,
    description: String,
    path: Template,
}

impl fmt::Debug for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Columns {
    /// The columns of `additionalPrinterColumns`, or the age where there are none. A path that is none ends them.
    #[must_use]
    pub fn new(columns: &Value) -> Self {
        let columns = list_at(columns, &[]);
        if columns.is_empty() {
            let path = ".metadata.creationTimestamp";
            return Self(Printed::new("Age", "date", path, CREATED).into_iter().collect());
        }
        let printed = columns.iter().map_while(|column| {
            let text = |key: &str| str_at(column, &[key]);
            let mut printed = Printed::new(text("name"), text("type"), text("jsonPath"), text("description"))?;
            text("format").clone_into(&mut printed.format);
            printed.priority = int_at(column, &["priority"]).and_then(|n| n.try_into().ok()).unwrap_or(0);
            Some(printed)
        });
        Self(printed.collect())
    }
}

/// Values that the paths of one row look at.
const MAX_STEPS: usize = 1_000_000;
/// Bytes of text that take one step more.
const TEXT_PER_STEP: usize = 16;
/// What upstream says of an age; nobody is shown it.
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created.";

impl Printed {
    fn new(name: &str, ty: &str, path: &str, description: &str) -> Option<Self> {
        let said = format!("Custom resource definition column (in JSONPath format): {path}");
        Some(Self {
            name: name.to_owned(),
            ty: ty.to_owned(),
            format: String::new(),
            priority: 0,
            description: if description.is_empty() { said } else { description.to_owned() },
            path: Template::expression(path).ok()?,
        })
    }

    /// The first of what the path finds; nothing where that is not of the column's type, or the row has taken too much.
    fn cell(&self, object: &Value, now: Timestamp, steps: &mut usize) -> Value {
        let found = self.path.find_within(object, true, steps).unwrap_or_default();
        let Some(value) = found.first().and_then(|results| results.first()) else { return Value::Null };
        match (self.ty.as_str(), &**value) {
            // Go prints an interface that holds nothing so.
            ("string", Value::Null) => "<no value>".into(),
            ("string", value) => {
                let text = jsonpath::print(value);
                *steps = steps.saturating_sub(text.len() / TEXT_PER_STEP);
                if *steps == 0 { Value::Null } else { text.into() }
            }
            ("integer", Value::Number(number)) => integer(number),
            ("number", Value::Number(number)) => short(number),
            ("boolean", Value::Bool(set)) => (*set).into(),
            ("date", Value::String(text)) => since(text, now).into(),
            _ => Value::Null,
        }
    }
}

/// A number without what follows its point.
#[allow(clippy::cast_possible_truncation)]
fn integer(number: &Number) -> Value {
    let float = || number.as_f64().unwrap_or(0.0).trunc() as i64;
    number.as_i64().unwrap_or_else(float).into()
}

/// A number that Go would write without a point has none.
fn short(number: &Number) -> Value {
    let float = number.as_f64().unwrap_or(0.0);
    let whole = format!("{float}");
    match whole.parse::<i64>() {
        Ok(whole) => whole.into(),
        Err(_) => float.into(),
    }
}

/// How long ago.
fn since(text: &str, now: Timestamp) -> String {
    if text.is_empty() || text == "null" {
        return "<unknown>".to_owned();
    }
    match text.parse::<Timestamp>() {
        Ok(then) => human_duration(now.as_second() - then.as_second()),
        Err(_) => "<invalid>".to_owned(),
    }
}

impl Print for Columns {
    fn columns(&self) -> Vec<Column<'_>> {
        let own = self.0.iter().map(|printed| Column {
            name: &printed.name,
            ty: &printed.ty,
            format: &printed.format,
            priority: printed.priority,
            description: &printed.description,
        });
        [Column::NAME].into_iter().chain(own).collect()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = str_at(object, &["metadata", "name"]).into();
        let mut steps = MAX_STEPS;
        [name].into_iter().chain(self.0.iter().map(|printed| printed.cell(object, now, &mut steps))).collect()
    }
}
