//! The table of built-in kinds as it is written down: constants, complete but for what a kind does not say. A
//! [`Kind`](super::Kind) is made of each once.

use std::fmt;

use serde_json::Value;

use super::{ALL_VERBS, CREATE_ONLY, Serving, Subresource};
use crate::selector::Fields;
use crate::strategy::{Body, Plain, Strategy};
use crate::table::{DEFAULT, Printer};

/// How a built-in kind shares the storage of another (events.k8s.io with core events).
#[derive(Debug, Clone, Copy)]
pub struct ConversionInfo {
    /// Group whose storage is used.
    pub group: &'static str,
    /// Version of the stored form.
    pub version: &'static str,
    /// Kind of the stored form.
    pub kind: &'static str,
    /// Plural under which objects are stored.
    pub plural: &'static str,
    /// Served form → stored form.
    pub to_storage: fn(Value) -> Value,
    /// Stored form → served form.
    pub from_storage: fn(Value) -> Value,
    /// The name that a selectable field of the served form has in the stored one.
    pub stored_field: fn(&str) -> String,
}

/// The facts of a built-in kind: one entry of the table.
#[derive(Clone, Copy)]
pub struct KindInfo {
    /// API group, empty for core.
    pub group: &'static str,
    /// API version, e.g. `v1`.
    pub version: &'static str,
    /// Kind, e.g. `Deployment`.
    pub kind: &'static str,
    /// Resource name in paths, e.g. `deployments`; empty for kinds that are only bodies (`Scale`, `Eviction`).
    pub plural: &'static str,
    /// Singular name, as discovery shows it.
    pub singular: &'static str,
    /// Short names for kubectl.
    pub short_names: &'static [&'static str],
    /// What every answer warns of, where upstream's API lifecycle says that the version is deprecated.
    pub deprecated: Option<&'static str>,
    /// Categories such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs, sorted.
    pub verbs: &'static [&'static str],
    /// Subresources in discovery order.
    pub subresources: &'static [Subresource],
    /// Whether objects are stored, or what else answers.
    pub serving: Serving,
    /// Set when objects are stored in the form of another kind.
    pub conversion: Option<ConversionInfo>,
    /// Rules for create, update and delete.
    pub strategy: &'static dyn Strategy,
    /// Columns for `kubectl get`.
    pub printer: &'static Printer,
    /// Fields beyond metadata.name and metadata.namespace that field selectors may name.
    pub fields: &'static Fields,
    /// Full name of the definition that is the schema, e.g. `io.k8s.api.apps.v1.Deployment`.
    pub definition: &'static str,
}

impl KindInfo {
    /// A namespaced stored kind without anything special.
    pub const NAMESPACED: Self = Self {
        group: "",
        version: "v1",
        kind: "",
        plural: "",
        singular: "",
        short_names: &[],
        deprecated: None,
        categories: &[],
        namespaced: true,
        verbs: ALL_VERBS,
        subresources: &[],
        serving: Serving::Stored,
        conversion: None,
        strategy: &Plain,
        printer: &DEFAULT,
        fields: &Fields::NONE,
        definition: "",
    };

    /// A cluster-scoped stored kind without anything special.
    pub const CLUSTER: Self = Self { namespaced: false, ..Self::NAMESPACED };

    /// A kind that is posted and answered, never stored.
    pub const VIRTUAL: Self =
        Self { namespaced: false, serving: Serving::Body, strategy: &Body, verbs: CREATE_ONLY, ..Self::NAMESPACED };
}

impl fmt::Debug for KindInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.kind)
    }
}
