//! What can be done with values of a type (`structured-merge-diff/typed`): each file one walk over them.

use std::fmt::{self, Display};

use serde_json::{Map, Value};

use crate::path::PathElement;
use crate::schema::{By, List};
use crate::value::Printed;
use scheme::schema::Keys;

mod compare;
mod fieldset;
mod merge;
mod reconcile;
mod remove;
mod validate;

pub use compare::{Comparison, compare};
pub use fieldset::field_set;
pub use merge::merge;
pub use reconcile::reconcile;
pub use remove::remove;
pub use validate::validate;

/// What does not fit the type, each with the path it is at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeErrors(pub Vec<(String, String)>);

impl Display for TypeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |f: &mut fmt::Formatter<'_>, (path, message): &(String, String)| match path.as_str() {
            "" => f.write_str(message),
            path => write!(f, "{path}: {message}"),
        };
        if let [only] = self.0.as_slice() {
            return one(f, only);
        }
        f.write_str("errors:")?;
        for error in &self.0 {
            f.write_str("\n  ")?;
            one(f, error)?;
        }
        Ok(())
    }
}

/// The element that tells an item of an associative list from the others.
///
/// # Errors
/// An item that has no such element, in upstream's words (`typed/helpers.go`).
pub fn element_of(list: &List<'_>, item: &Value) -> Result<PathElement, String> {
    match list.by {
        By::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        By::Keys(keys) => keyed(list, keys, item),
        By::Value => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Ok(PathElement::Value(scalar.clone())),
        },
    }
}

fn keyed(list: &List<'_>, keys: &Keys, item: &Value) -> Result<PathElement, String> {
    let item = match item {
        Value::Object(item) if list.of_maps() => item,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut found = Map::new();
    for key in keys.iter() {
        if let Some(value) = item.get(key).cloned().or_else(|| list.key_default(key)) {
            found.insert(key.to_owned(), value);
        }
    }
    if found.is_empty() {
        let keys: Vec<String> = keys.iter().map(|key| Printed(&Value::from(key)).to_string()).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            keys.join(" ")
        ));
    }
    Ok(PathElement::key(found))
}

/// The items of a list; none of what is none.
fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The fields of an object; none of what is none.
fn fields(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}
