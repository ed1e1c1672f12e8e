//! The pure model of every kind the server speaks: names, schemas, decoding,
//! defaulting, validation, patching, printing and discovery documents.
//! Objects are `serde_json::Value`; nothing here does I/O, reads a clock or
//! keeps state beyond lazily built, immutable schemas.
//!
//! One [`Kind`] is one entry of a static table. Custom resources later use the
//! same type with interned names and a schema of their own.

use std::sync::OnceLock;

pub mod access;
pub mod convert;
pub mod decode;
pub mod defaults;
pub mod discovery;
pub mod field;
pub mod kind;
pub mod kinds;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod prepare;
pub mod schema;
pub mod selector;
pub mod strategy;
pub mod table;
pub mod validation;
pub mod warnings;

pub use decode::{DecodeError, Decoded, FieldValidation, MediaType};
pub use field::{FieldError, FieldErrorKind, FieldErrors, Path};
pub use kind::{Kind, Subresource};
pub use strategy::Strategy;

/// The set of kinds a server knows, in discovery order.
#[derive(Debug)]
pub struct Scheme {
    kinds: Vec<&'static Kind>,
}

/// One API group with its versions, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Group name, empty for the legacy core group.
    pub name: &'static str,
    /// Versions, preferred first.
    pub versions: Vec<&'static str>,
}

impl Scheme {
    /// A scheme over these kinds. Order decides discovery order of groups and resources.
    #[must_use]
    pub fn new(kinds: Vec<&'static Kind>) -> Self {
        Self { kinds }
    }

    /// Kinds that are served at a path of their own.
    pub fn served(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        self.kinds().filter(|k| !k.plural.is_empty())
    }

    /// All kinds, also those that are only bodies, in discovery order.
    pub fn kinds(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        self.kinds.iter().copied()
    }

    /// The kind served at `group/version/plural`.
    #[must_use]
    pub fn by_gvr(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.served().find(|k| k.plural == plural && k.group == group && k.version == version)
    }

    /// The kind called `kind` in `group/version`.
    #[must_use]
    pub fn by_gvk(&self, group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
        self.kinds().find(|k| k.kind == kind && k.group == group && k.version == version)
    }

    /// The kind called `kind` in an `apiVersion` string such as `v1` or `apps/v1`.
    #[must_use]
    pub fn by_api_version(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = split_api_version(api_version);
        self.by_gvk(group, version, kind)
    }

    /// Whether any kind lives in this group and version.
    #[must_use]
    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.served().any(|k| k.group == group && k.version == version)
    }

    /// Groups in discovery order with their versions, preferred first.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for kind in self.served() {
            match groups.iter_mut().find(|g| g.name == kind.group) {
                Some(group) if group.versions.contains(&kind.version) => {}
                Some(group) => group.versions.push(kind.version),
                None => groups.push(Group { name: kind.group, versions: vec![kind.version] }),
            }
        }
        groups
    }

    /// The kinds of one group and version, in discovery order.
    pub fn in_group_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'static Kind> + 'a {
        self.served().filter(move |k| k.group == group && k.version == version)
    }
}

/// Splits `apps/v1` into (`apps`, `v1`) and `v1` into (``, `v1`).
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Every built-in kind.
#[must_use]
pub fn builtin() -> &'static Scheme {
    static SCHEME: OnceLock<Scheme> = OnceLock::new();
    static KINDS: OnceLock<Vec<Kind>> = OnceLock::new();
    SCHEME.get_or_init(|| {
        let kinds = KINDS.get_or_init(|| kinds::ALL.iter().flat_map(|g| g.iter().copied().map(Kind::new)).collect());
        Scheme::new(kinds.iter().collect())
    })
}

#[cfg(test)]
mod tests;
