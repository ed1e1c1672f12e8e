//! The pure model of every kind the server speaks: names, schemas, decoding,
//! defaulting, validation, patching, printing and discovery documents.
//! Objects are `serde_json::Value`; nothing here does I/O, reads a clock or
//! keeps state beyond lazily built, immutable schemas.
//!
//! A [`Kind`] is made of an entry of the static table, or of whatever somebody has at run time; a [`Scheme`] is the
//! kinds that are served at one moment. Both never change: a change makes another scheme, which shares its kinds.

use std::sync::{Arc, OnceLock};

pub mod access;
pub mod apiregistration;
pub mod convert;
pub mod crd;
pub mod decode;
mod defaults;
pub mod discovery;
pub mod expressions;
pub mod field;
pub mod flowcontrol;
pub mod jsonpath;
pub mod kind;
mod kinds;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod prepare;
pub mod schema;
mod scheme;
pub mod selector;
pub mod strategy;
pub mod table;
pub mod validation;
mod warnings;

pub use decode::{DecodeError, Decoded, FieldValidation, MediaType};
pub use field::{FieldError, FieldErrorKind, FieldErrors, Path};
pub use kind::{Kind, Names, Schema, Subresource, Text};
pub use scheme::{Conflict, Group, Scheme};
pub use strategy::Strategy;

/// Splits `apps/v1` into (`apps`, `v1`) and `v1` into (``, `v1`).
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Every built-in kind.
#[must_use]
pub fn builtin() -> &'static Arc<Scheme> {
    static SCHEME: OnceLock<Arc<Scheme>> = OnceLock::new();
    SCHEME.get_or_init(|| {
        let kinds = kinds::ALL.iter().copied().flatten().map(Kind::from).collect();
        Arc::new(Scheme::new(kinds).expect("a test reads the table"))
    })
}

/// The same with the schemas of CustomResourceDefinitions checked: for a server that publishes what they define.
#[must_use]
pub fn builtin_with(check: &Arc<crd::SchemaCheck>) -> Arc<Scheme> {
    let rules = || Arc::new(strategy::CustomResourceDefinition::new(Arc::clone(check))) as Arc<dyn Strategy>;
    Arc::new(builtin().with_strategies(|kind| (kind.group == crd::GROUP).then(rules)))
}

/// The same scheme, whose expressions of admission are checked.
#[must_use]
pub fn with_expressions(scheme: &Scheme, check: &Arc<expressions::ExpressionCheck>) -> Arc<Scheme> {
    Arc::new(scheme.with_strategies(|kind| strategy::admission(kind, check)))
}

#[cfg(test)]
mod tests;
