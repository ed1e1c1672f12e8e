//! What the server knows about one kind: names, verbs, subresources, schema. What is particular about a kind when it is
//! written is in its [`Strategy`].
//!
//! A kind owns what it is made of, so that one can come and go while the server runs; whoever works with one holds it
//! by an `Arc`. What the table of built-in kinds says is borrowed from it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::crd::ScalePaths;
use super::openapi::Dialect;
use super::schema::{self, ObjectType};
use super::selector::Selectable;
use super::strategy::{Facts, Strategy};
use super::table::{DEFAULT, Print};

mod info;
mod write;

pub use info::{ConversionInfo, KindInfo};

/// A name: borrowed from the table of built-in kinds, or a kind's own.
pub type Text = Cow<'static, str>;

/// Verbs of an ordinary stored resource, sorted as discovery prints them.
pub const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Verbs of a resource that can only be posted.
pub const CREATE_ONLY: &[&str] = &["create"];
/// Verbs of a status-like subresource.
pub const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

/// A subresource as discovery shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// Path segment, e.g. `status` or `scale`.
    pub name: &'static str,
    /// Group, version and kind of the body when it differs from the resource's own.
    pub body: Option<(&'static str, &'static str, &'static str)>,
    /// Verbs, sorted.
    pub verbs: &'static [&'static str],
}

impl Subresource {
    /// A subresource whose body is the resource itself.
    #[must_use]
    pub const fn own(name: &'static str, verbs: &'static [&'static str]) -> Self {
        Self { name, body: None, verbs }
    }

    /// A subresource with a body of another kind.
    #[must_use]
    pub const fn of(
        name: &'static str,
        body: (&'static str, &'static str, &'static str),
        verbs: &'static [&'static str],
    ) -> Self {
        Self { name, body: Some(body), verbs }
    }
}

/// How a kind is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// Its objects are stored.
    Stored,
    /// It is only a body of other requests and has no path of its own.
    Body,
    /// Posting one binds the pod that it names.
    Binding,
    /// It tells how the control plane's components are.
    ComponentStatus,
    /// Posting one asks a question, which is answered in its status.
    Review(Review),
}

/// What a review asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Review {
    /// Whose token is this?
    Token,
    /// Who am I?
    SelfSubject,
    /// May they?
    SubjectAccess,
    /// May they, in this namespace?
    LocalSubjectAccess,
    /// May I?
    SelfSubjectAccess,
    /// What may I do in this namespace?
    SelfSubjectRules,
}

/// Something the table of built-in kinds has, or that a kind brought along.
pub enum Shared<T: ?Sized + 'static> {
    /// Of the table.
    Static(&'static T),
    /// The kind's own.
    Own(Arc<T>),
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Static(value) => Self::Static(value),
            Self::Own(value) => Self::Own(Arc::clone(value)),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Static(_) => "Static",
            Self::Own(_) => "Own",
        })
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Static(value) => value,
            Self::Own(value) => value,
        }
    }
}

/// Makes another form of an object.
pub type Convert = Shared<dyn Fn(Value) -> Value + Send + Sync>;

/// Converts between the served and the stored form of a kind that shares its storage with another: of another group
/// (events.k8s.io with core events), or of another version.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Group whose storage is used.
    pub group: Text,
    /// Version of the stored form.
    pub version: Text,
    /// Kind of the stored form.
    pub kind: Text,
    /// Plural under which objects are stored.
    pub plural: Text,
    /// Served form → stored form.
    pub to_storage: Convert,
    /// Stored form → served form.
    pub from_storage: Convert,
    /// The name that a selectable field of the served form has in the stored one.
    pub stored_field: fn(&str) -> String,
}

impl From<&'static ConversionInfo> for Conversion {
    fn from(info: &'static ConversionInfo) -> Self {
        Self {
            group: info.group.into(),
            version: info.version.into(),
            kind: info.kind.into(),
            plural: info.plural.into(),
            to_storage: Shared::Static(&info.to_storage),
            from_storage: Shared::Static(&info.from_storage),
            stored_field: info.stored_field,
        }
    }
}

/// What objects of a kind consist of.
#[derive(Clone, Debug)]
pub enum Schema {
    /// A definition that the build script knows, by its full name, e.g. `io.k8s.api.apps.v1.Deployment`.
    Builtin(&'static str),
    /// The kind's own definition.
    Own {
        /// Its full name in the OpenAPI documents, e.g. `com.example.v1.Widget`.
        name: Text,
        /// What it says.
        definition: Definition,
    },
}

/// Makes a definition anew whenever somebody asks: in OpenAPI 3, of which version 2 may need less.
pub type Define = Arc<dyn Fn(Dialect) -> Value + Send + Sync>;

/// A definition that a kind brought along.
#[derive(Clone)]
pub enum Definition {
    /// OpenAPI 3 as JSON text, which is smaller than the value.
    Text(Box<str>),
    /// Somebody has it.
    Made(Define),
}

impl Definition {
    /// The definition for a document of a dialect.
    #[must_use]
    pub fn value(&self, dialect: Dialect) -> Value {
        match self {
            Self::Text(text) => serde_json::from_str(text).unwrap_or_default(),
            Self::Made(make) => make(dialect),
        }
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Definition")
    }
}

impl Schema {
    /// A definition of its own in OpenAPI 3, which need not describe metadata and may refer to built-in definitions.
    #[must_use]
    pub fn own(name: impl Into<Text>, definition: &Value) -> Self {
        Self::Own { name: name.into(), definition: Definition::Text(definition.to_string().into()) }
    }

    /// The same of a definition that is made when it is asked for.
    #[must_use]
    pub fn made(name: impl Into<Text>, make: Define) -> Self {
        Self::Own { name: name.into(), definition: Definition::Made(make) }
    }
}

/// What a kind is called.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// API group, empty for core.
    pub group: Text,
    /// API version, e.g. `v1`.
    pub version: Text,
    /// Kind, e.g. `Deployment`.
    pub kind: Text,
    /// Resource name in paths, e.g. `deployments`; empty for kinds that are only bodies (`Scale`, `Eviction`).
    pub plural: Text,
    /// Singular name, as discovery shows it.
    pub singular: Text,
    /// Short names for kubectl.
    pub short_names: Vec<Text>,
    /// Categories such as `all`.
    pub categories: Vec<Text>,
}

/// A kind. Its names read like fields of it.
pub struct Kind {
    names: Names,
    /// The kind of a list of these objects, where it is not the kind and `List`.
    pub list_kind: Option<Text>,
    /// What every answer warns of, where the version is deprecated.
    pub deprecated: Option<Text>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs, sorted.
    pub verbs: &'static [&'static str],
    /// Subresources in discovery order.
    pub subresources: Vec<Subresource>,
    /// Whether objects are stored, or what else answers.
    pub serving: Serving,
    /// Set when objects are stored in the form of another kind.
    pub conversion: Option<Conversion>,
    /// Rules for create, update and delete.
    pub strategy: Shared<dyn Strategy>,
    /// What holds for every object of the kind, as its strategy says.
    pub facts: Facts,
    /// Columns for `kubectl get`.
    pub printer: Shared<dyn Print>,
    /// Fields beyond metadata.name and metadata.namespace that field selectors may name.
    pub fields: Selectable,
    /// Whether objects are custom resources: read by their metadata, pruned by the strategy, and judged in the version
    /// of the request.
    pub custom: bool,
    /// Whether it is only stored: it has no path.
    pub unserved: bool,
    /// Whether the definition of custom resources is being deleted, so that none is made.
    pub terminating: bool,
    /// Where custom resources keep what their Scale says.
    pub scale: Option<ScalePaths>,
    schema: Schema,
    ty: OnceLock<Arc<ObjectType>>,
}

impl Deref for Kind {
    type Target = Names;

    fn deref(&self) -> &Names {
        &self.names
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.kind)
    }
}

impl From<&'static KindInfo> for Kind {
    fn from(info: &'static KindInfo) -> Self {
        let texts = |texts: &'static [&'static str]| texts.iter().copied().map(Text::Borrowed).collect();
        let names = Names {
            group: info.group.into(),
            version: info.version.into(),
            kind: info.kind.into(),
            plural: info.plural.into(),
            singular: info.singular.into(),
            short_names: texts(info.short_names),
            categories: texts(info.categories),
        };
        Self {
            names,
            list_kind: None,
            deprecated: info.deprecated.map(Text::Borrowed),
            namespaced: info.namespaced,
            verbs: info.verbs,
            subresources: info.subresources.to_vec(),
            serving: info.serving,
            conversion: info.conversion.as_ref().map(Conversion::from),
            strategy: Shared::Static(info.strategy),
            facts: info.strategy.facts(),
            printer: Shared::Static(info.printer),
            fields: info.fields.into(),
            custom: false,
            unserved: false,
            terminating: false,
            scale: None,
            schema: Schema::Builtin(info.definition),
            ty: OnceLock::new(),
        }
    }
}

impl Kind {
    /// A namespaced stored kind of which nothing but its names, rules and schema is special; whoever makes it changes
    /// what is.
    #[must_use]
    pub fn new(names: Names, strategy: Arc<dyn Strategy>, schema: Schema) -> Self {
        Self {
            names,
            list_kind: None,
            deprecated: None,
            namespaced: true,
            verbs: ALL_VERBS,
            subresources: Vec::new(),
            serving: Serving::Stored,
            conversion: None,
            facts: strategy.facts(),
            strategy: Shared::Own(strategy),
            printer: Shared::Static(&DEFAULT),
            fields: Selectable::default(),
            custom: false,
            unserved: false,
            terminating: false,
            scale: None,
            schema,
            ty: OnceLock::new(),
        }
    }

    /// The same with other rules, whose facts are those of the ones before.
    pub(crate) fn with_strategy(&self, strategy: Arc<dyn Strategy>) -> Self {
        Self {
            names: self.names.clone(),
            list_kind: self.list_kind.clone(),
            deprecated: self.deprecated.clone(),
            scale: self.scale.clone(),
            subresources: self.subresources.clone(),
            conversion: self.conversion.clone(),
            strategy: Shared::Own(strategy),
            printer: self.printer.clone(),
            fields: self.fields.clone(),
            schema: self.schema.clone(),
            ty: OnceLock::new(),
            ..*self
        }
    }

    /// Whether it is found by a path of its own.
    #[must_use]
    pub fn has_path(&self) -> bool {
        !self.plural.is_empty() && !self.unserved
    }

    /// Whether objects are stored.
    #[must_use]
    pub fn stored(&self) -> bool {
        self.serving == Serving::Stored
    }

    /// Whether objects are stored in its form: it converts to no other. One that converts to itself brings objects up
    /// to date that were stored in a form of before. All versions of custom resources do, since each reads any.
    #[must_use]
    pub fn stores(&self) -> bool {
        let own = [&self.group, &self.version, &self.kind, &self.plural];
        self.stored()
            && (self.custom
                || self.conversion.as_ref().is_none_or(|c| [&c.group, &c.version, &c.kind, &c.plural] == own))
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The kind of a list of these objects.
    #[must_use]
    pub fn list_kind(&self) -> String {
        self.list_kind.as_ref().map_or_else(|| format!("{}List", self.kind), Text::to_string)
    }

    /// `deployments.apps`, or `pods` in the core group: how messages name the resource.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The group whose storage holds the objects; differs from `group` only with a conversion.
    #[must_use]
    pub fn storage_group(&self) -> &str {
        self.conversion.as_ref().map_or(&self.group, |c| &c.group)
    }

    /// The resource name under which objects are stored.
    #[must_use]
    pub fn storage_plural(&self) -> &str {
        self.conversion.as_ref().map_or(&self.plural, |c| &c.plural)
    }

    /// The subresource of this name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether status is a subresource, so that plain writes keep it.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// The compact schema, built on first use and kept.
    #[must_use]
    pub fn schema(&self) -> &Arc<ObjectType> {
        self.ty.get_or_init(|| match &self.schema {
            Schema::Builtin(name) => schema::build(name),
            Schema::Own { name, definition } => schema::own(name, &definition.value(Dialect::V3)),
        })
    }

    /// The type by which bodies are read.
    #[must_use]
    pub fn shape(&self) -> Arc<ObjectType> {
        if self.custom { schema::envelope() } else { self.schema().clone() }
    }

    /// Full name of the definition that is the schema.
    #[must_use]
    pub fn definition(&self) -> &str {
        match &self.schema {
            Schema::Builtin(name) => name,
            Schema::Own { name, .. } => name,
        }
    }

    /// The definition that the kind brought along.
    pub(crate) fn own_definition(&self) -> Option<&Definition> {
        match &self.schema {
            Schema::Builtin(_) => None,
            Schema::Own { definition, .. } => Some(definition),
        }
    }
}
