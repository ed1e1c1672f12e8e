//! Lists: of JSON, or of values.

use std::sync::Arc;

use super::Value;
use crate::error::EvalError;
use crate::schema::Schema;

/// A list.
#[derive(Debug, Clone)]
pub enum List<'a> {
    /// An array of JSON, with its schema if it has one.
    Json(&'a [serde_json::Value], Option<&'a Schema>),
    /// Values.
    Owned(Arc<Vec<Value<'a>>>),
}

impl<'a> List<'a> {
    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Owned(items) => items.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element, if there is one at a place.
    ///
    /// # Errors
    /// If the JSON is not what its schema says.
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Json(items, schema) => {
                let items_schema = schema.and_then(|schema| schema.items.as_deref());
                items.get(index).map(|item| Value::of_json(item, items_schema))
            }
            Self::Owned(items) => items.get(index).cloned().map(Ok),
        }
    }

    /// Each element.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// All elements.
    ///
    /// # Errors
    /// If the JSON is not what its schema says.
    pub(crate) fn to_vec(&self) -> Result<Vec<Value<'a>>, EvalError> {
        match self {
            Self::Json(..) => self.iter().collect(),
            Self::Owned(items) => Ok(items.to_vec()),
        }
    }

    /// All elements, without a copy if nothing else has them.
    ///
    /// # Errors
    /// If the JSON is not what its schema says.
    pub(crate) fn into_vec(self) -> Result<Vec<Value<'a>>, EvalError> {
        match self {
            Self::Owned(items) => Ok(Arc::unwrap_or_clone(items)),
            json @ Self::Json(..) => json.to_vec(),
        }
    }
}
