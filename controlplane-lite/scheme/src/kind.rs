//! What the server knows about one kind: names, verbs, subresources, schema, and what all kinds have in common when
//! they are written. What is particular about a kind is in its [`Strategy`].

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::field::{FieldErrors, Path};
use super::meta;
use super::schema::ObjectType;
use super::selector::Fields;
use super::strategy::{Body, Context, Facts, Plain, Strategy};
use super::table::Printer;

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

/// Converts between the served and the stored form of a kind that shares its
/// storage with another kind (events.k8s.io with core events).
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
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

/// The static facts of a kind: one table entry. Names of custom resources are interned.
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
    pub conversion: Option<Conversion>,
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
        printer: &super::table::DEFAULT,
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

/// A kind: its static facts and its lazily built schema.
pub struct Kind {
    info: KindInfo,
    /// What holds for every object of the kind.
    pub facts: Facts,
    schema: OnceLock<Arc<ObjectType>>,
}

impl Deref for Kind {
    type Target = KindInfo;

    fn deref(&self) -> &KindInfo {
        &self.info
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

impl Kind {
    /// A kind from its static facts.
    #[must_use]
    pub fn new(info: KindInfo) -> Self {
        Self { info, facts: info.strategy.facts(), schema: OnceLock::new() }
    }

    /// Whether objects are stored.
    #[must_use]
    pub fn stored(&self) -> bool {
        self.serving == Serving::Stored
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The kind of a list of these objects.
    #[must_use]
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// `deployments.apps`, or `pods` in the core group: how messages name the resource.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The group whose storage holds the objects; differs from `group` only with a conversion.
    #[must_use]
    pub fn storage_group(&self) -> &'static str {
        self.conversion.map_or(self.group, |c| c.group)
    }

    /// The resource name under which objects are stored.
    #[must_use]
    pub fn storage_plural(&self) -> &'static str {
        self.conversion.map_or(self.plural, |c| c.plural)
    }

    /// The subresource of this name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.info.subresources.iter().find(|s| s.name == name)
    }

    /// Whether status is a subresource, so that plain writes keep it.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// The compact schema, built on first use and kept.
    #[must_use]
    pub fn schema(&self) -> &Arc<ObjectType> {
        self.schema.get_or_init(|| super::schema::build(self.info.definition))
    }

    /// Fills in defaults. Runs on every decoded object before anything else.
    pub fn default(&self, object: &mut Value) {
        self.strategy.default(object);
    }

    /// Upstream's `FillObjectMetaSystemFields` and `PrepareForCreate`: what the system sets, an empty status, the first
    /// generation, then the kind's own rule. Expects a defaulted object with name and namespace.
    pub fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        meta::fill_create(object, context.uid, context.now);
        if self.has_status() {
            super::schema::status::begin(object, self.info.definition, self.facts.keep_status);
        }
        if self.facts.generation {
            meta::set_generation(object, 1);
        }
        self.strategy.prepare_create(object, context);
    }

    /// What a person should know about a change, which upstream says for the main resource alone.
    #[must_use]
    pub fn warnings_on_update(&self, subresource: &str, object: &Value) -> Vec<String> {
        let warns = subresource.is_empty() && self.facts.warns_on_update;
        if warns { self.strategy.warnings(object) } else { Vec::new() }
    }

    /// Everything wrong with a new object, metadata first.
    #[must_use]
    pub fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = FieldErrors::new();
        meta::validate(object, self.namespaced, self.facts.name, &Path::new("metadata"), &mut errors);
        self.strategy.validate(object, &mut errors);
        self.strategy.validate_create(object, &mut errors);
        errors
    }

    /// Upstream's `PrepareForUpdate` of the main resource (an empty name) or of a subresource whose body is the object:
    /// restores what a write there may not change.
    pub fn prepare_update(&self, subresource: &str, new: &mut Value, old: &Value, context: &Context<'_>) {
        match subresource {
            "" => self.prepare_main(new, old, context),
            "status" => self.prepare_status(new, old, context),
            other => self.strategy.prepare_subresource(other, new, old, context),
        }
    }

    /// Keeps status and the system's metadata, then the kind's own rule, then counts the generation when something
    /// besides metadata and status changed.
    fn prepare_main(&self, new: &mut Value, old: &Value, context: &Context<'_>) {
        meta::keep_system_fields(new, old);
        if self.has_status() {
            super::access::copy_field(new, old, "status");
        }
        self.strategy.prepare_update(new, old, context);
        if self.facts.generation {
            meta::bump_generation(new, old);
        }
    }

    /// An update through `/status`: only status and (as upstream) labels, annotations and managed
    /// metadata change; everything else stays as stored.
    fn prepare_status(&self, new: &mut Value, old: &Value, context: &Context<'_>) {
        meta::keep_system_fields(new, old);
        if let (Some(map), Some(old_map)) = (new.as_object_mut(), old.as_object()) {
            map.retain(|key, _| matches!(key.as_str(), "status" | "metadata" | "kind" | "apiVersion"));
            for (key, value) in old_map {
                if !matches!(key.as_str(), "status" | "metadata" | "kind" | "apiVersion") {
                    map.insert(key.clone(), value.clone());
                }
            }
        }
        meta::keep_on_status_update(new, old);
        self.strategy.prepare_status(new, old, context);
    }

    /// Everything wrong with an update of the main resource (an empty name) or of a subresource whose body is the object.
    #[must_use]
    pub fn validate_update(&self, subresource: &str, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = FieldErrors::new();
        meta::validate_update(new, old, self.namespaced, &Path::new("metadata"), &mut errors);
        match subresource {
            "" => {
                let mut found = FieldErrors::new();
                self.strategy.validate(new, &mut found);
                if !found.is_empty() && same_content(new, old) {
                    // What was stored under other rules can still be labelled, deleted and let go.
                    let mut before = FieldErrors::new();
                    self.strategy.validate(old, &mut before);
                    found.0.retain(|error| !before.0.contains(error));
                }
                errors.extend(found);
                self.strategy.validate_update(new, old, &mut errors);
            }
            "status" => self.strategy.validate_status(new, old, &mut errors),
            other => self.strategy.validate_subresource(other, new, old, &mut errors),
        }
        errors
    }
}

/// Whether two objects are the same but for metadata and status.
fn same_content(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let is_content = |key: &str| !matches!(key, "metadata" | "status");
    let kept = new.iter().filter(|(key, _)| is_content(key)).all(|(key, value)| old.get(key) == Some(value));
    kept && old.keys().filter(|key| is_content(key)).all(|key| new.contains_key(key))
}
