//! What plugins that ask others are told of a request beyond the object: its options, and what they remembered.

use std::any::Any;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::Operation;
use crate::options::{DeleteOptions, Propagation};
use crate::request_info::Query;

/// The options of a request, made into an object for who asks.
#[derive(Debug, Clone, Copy, Default)]
pub enum Options<'a> {
    /// It has none.
    #[default]
    None,
    /// Those of a create or an update, which are in its query.
    Write(&'a Query),
    /// Those of a delete.
    Delete(&'a DeleteOptions),
}

impl Options<'_> {
    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions` of `meta.k8s.io/v1`; null when there are none.
    #[must_use]
    pub fn to_value(self, operation: Operation) -> Value {
        let (kind, mut fields) = match (self, operation) {
            (Self::Write(query), Operation::Create) => ("CreateOptions", written(query)),
            (Self::Write(query), Operation::Update) => ("UpdateOptions", written(query)),
            (Self::Delete(options), _) => ("DeleteOptions", deleted(options)),
            _ => return Value::Null,
        };
        fields.insert("kind".to_owned(), kind.into());
        fields.insert("apiVersion".to_owned(), "meta.k8s.io/v1".into());
        Value::Object(fields)
    }
}

fn written(query: &Query) -> Map<String, Value> {
    let mut fields = Map::new();
    let dry_run: Vec<&str> = query.all("dryRun").filter(|text| !text.is_empty()).collect();
    if !dry_run.is_empty() {
        fields.insert("dryRun".to_owned(), json!(dry_run));
    }
    for field in ["fieldManager", "fieldValidation"] {
        if let Some(text) = query.get(field).filter(|text| !text.is_empty()) {
            fields.insert(field.to_owned(), text.into());
        }
    }
    fields
}

fn deleted(options: &DeleteOptions) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Some(seconds) = options.grace_period {
        fields.insert("gracePeriodSeconds".to_owned(), seconds.into());
    }
    let mut preconditions = Map::new();
    for (field, value) in [("uid", &options.uid), ("resourceVersion", &options.resource_version)] {
        if let Some(text) = value {
            preconditions.insert(field.to_owned(), text.as_str().into());
        }
    }
    if !preconditions.is_empty() {
        fields.insert("preconditions".to_owned(), preconditions.into());
    }
    if let Some(propagation) = options.propagation {
        let word = match propagation {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        };
        fields.insert("propagationPolicy".to_owned(), word.into());
    }
    if options.dry_run {
        fields.insert("dryRun".to_owned(), json!(["All"]));
    }
    fields
}

/// What plugins remember of one request, from its first round to its second: upstream's `ReinvocationContext`.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Vec<(&'static str, Box<dyn Any + Send>)>>);

impl Memory {
    /// Shows what a plugin remembers, nothing yet at first.
    pub fn of<T: Default + Send + 'static, R>(&self, plugin: &'static str, visit: impl FnOnce(&mut T) -> R) -> R {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|(name, _)| *name == plugin);
        let place = place.unwrap_or_else(|| {
            all.push((plugin, Box::new(T::default())));
            all.len() - 1
        });
        match all[place].1.downcast_mut::<T>() {
            Some(kept) => visit(kept),
            // Two plugins of one name; neither sees the other's.
            None => visit(&mut T::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_objects() {
        let query = Query::parse(Some("dryRun=All&fieldManager=me&fieldValidation=Strict&pretty=true"));
        let expect = json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"],
            "fieldManager": "me", "fieldValidation": "Strict"});
        assert_eq!(Options::Write(&query).to_value(Operation::Create), expect);
        let options = DeleteOptions {
            grace_period: Some(0),
            uid: Some("u".into()),
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        let expect = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 0,
            "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"});
        assert_eq!(Options::Delete(&options).to_value(Operation::Delete), expect);
        assert_eq!(Options::None.to_value(Operation::Connect), Value::Null);
    }

    #[test]
    fn each_plugin_remembers_its_own() {
        let memory = Memory::default();
        memory.of("a", |kept: &mut u8| *kept = 7);
        memory.of("b", |kept: &mut String| kept.push('x'));
        assert_eq!(
            (memory.of("a", |kept: &mut u8| *kept), memory.of("b", |kept: &mut String| kept.clone())),
            (7, "x".into())
        );
    }
}
