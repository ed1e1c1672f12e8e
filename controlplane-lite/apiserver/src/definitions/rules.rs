//! Pure: the rules of custom resources, one version's by its schema
//! (k8s.io/apiextensions-apiserver/pkg/registry/customresource/{strategy,status_strategy,validator}.go), and how an
//! object becomes one of another version where a definition says nothing of that (pkg/apiserver/conversion).

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use scheme::access::{int_at, list_at, str_at};
use scheme::crd::ScalePaths;
use scheme::strategy::Facts;
use scheme::{FieldErrorKind, FieldErrors, Path, Strategy, convert, meta};
use structural::Structural;

/// What reads a definition.
pub type Read = dyn Fn() -> Value + Send + Sync;

/// The schemas of the versions of a definition, each parsed when somebody first needs it.
pub struct Schemas {
    versions: Vec<(Box<str>, OnceLock<Option<Structural>>)>,
    read: Arc<Read>,
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.versions.iter().map(|(name, _)| name)).finish()
    }
}

impl Schemas {
    /// Those of a definition, which is read again when one is needed.
    ///
    /// # Errors
    /// The first schema that cannot be read.
    pub fn new(crd: &Value, read: Arc<Read>) -> Result<Self, String> {
        let versions = list_at(crd, &["spec", "versions"]);
        for version in versions {
            parse(version).map_err(|problem| format!("version {}: {problem}", str_at(version, &["name"])))?;
        }
        let empty = |version: &Value| (str_at(version, &["name"]).into(), OnceLock::new());
        Ok(Self { versions: versions.iter().map(empty).collect(), read })
    }

    /// The schema of a version; none of one that the definition has no more.
    fn get(&self, version: &str) -> Option<&Structural> {
        let (name, schema) = self.versions.iter().find(|(name, _)| **name == *version)?;
        let read = || {
            let crd = (self.read)();
            let known =
                list_at(&crd, &["spec", "versions"]).iter().find(|known| str_at(known, &["name"]) == &**name)?;
            parse(known).ok()
        };
        schema.get_or_init(read).as_ref()
    }

    /// A stored object as one of a version: as the schema by which it was stored has it now, then with what the version
    /// knows of it.
    pub fn read_stored(&self, mut object: Value, group: &str, version: &str) -> Value {
        let (_, stored) = scheme::split_api_version(str_at(&object, &["apiVersion"]));
        let stored = stored.to_owned();
        if let Some(schema) = self.get(&stored) {
            schema.prune(&mut object);
            schema.default(&mut object);
        }
        if stored != version {
            self.turn(&mut object, group, version);
        }
        if int_at(&object, &["metadata", "generation"]).is_none_or(|generation| generation == 0) {
            meta::set_generation(&mut object, 1);
        }
        object
    }

    /// An object as one of the version that is stored.
    pub fn to_storage(&self, mut object: Value, group: &str, version: &str) -> Value {
        self.turn(&mut object, group, version);
        object
    }

    fn turn(&self, object: &mut Value, group: &str, version: &str) {
        if let Some(map) = object.as_object_mut() {
            map.insert("apiVersion".to_owned(), format!("{group}/{version}").into());
        }
        if let Some(schema) = self.get(version) {
            schema.prune(object);
        }
    }
}

fn parse(version: &Value) -> Result<Structural, String> {
    let schema = &version["schema"]["openAPIV3Schema"];
    if schema.is_null() {
        return Structural::parse(&serde_json::json!({"x-kubernetes-preserve-unknown-fields": true}));
    }
    Structural::parse(schema)
}

/// The rules of one version.
#[derive(Debug)]
pub struct Rules {
    /// All schemas.
    pub schemas: Arc<Schemas>,
    /// The version.
    pub version: Box<str>,
    /// The kind.
    pub kind: Box<str>,
    /// Where the Scale is.
    pub scale: Option<ScalePaths>,
}

impl Rules {
    fn schema(&self) -> Option<&Structural> {
        self.schemas.get(&self.version)
    }

    /// The schema, or that there is none: nothing passes by it then.
    fn by(&self, errors: &mut FieldErrors) -> Option<&Structural> {
        let schema = self.schema();
        if schema.is_none() {
            errors.push(&Path::ROOT, FieldErrorKind::Internal, "", "the server could not properly serve the CR schema");
        }
        schema
    }

    /// Whether an object says that it is of the kind; nothing else is looked at where it does not.
    fn is_of_kind(&self, object: &Value, errors: &mut FieldErrors) -> bool {
        let said = str_at(object, &["kind"]);
        if said == &*self.kind {
            return true;
        }
        errors.invalid(&Path::new("kind"), said, format!("must be {}", self.kind));
        false
    }

    fn scale(&self, object: &Value, status_alone: bool, errors: &mut FieldErrors) {
        if let Some(paths) = &self.scale {
            convert::check_scale(object, paths, status_alone, errors);
        }
    }
}

impl Strategy for Rules {
    fn facts(&self) -> Facts {
        Facts { generation: true, unconditional_update: false, warns_on_update: false, ..Facts::PLAIN }
    }

    fn prune(&self, object: &mut Value) -> Vec<String> {
        self.schema().map(|schema| schema.prune(object)).unwrap_or_default()
    }

    fn default(&self, object: &mut Value) {
        if let Some(schema) = self.schema() {
            schema.default(object);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        if !self.is_of_kind(object, errors) {
            return;
        }
        if let Some(schema) = self.by(errors) {
            schema.validate(object, errors);
            schema.evaluate(object, None, errors);
        }
        self.scale(object, false, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if !self.is_of_kind(new, errors) {
            return;
        }
        if let Some(schema) = self.by(errors) {
            schema.validate_update(new, old, errors);
            schema.evaluate(new, Some(old), errors);
        }
        self.scale(new, false, errors);
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if let Some(schema) = self.by(errors) {
            schema.validate_status(new, old, errors);
            schema.evaluate(new, Some(old), errors);
        }
        self.scale(new, true, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let finalizers = list_at(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str);
        finalizers.flat_map(finalizer).collect()
    }
}

/// What a person should know of a finalizer's name (`validateKubeFinalizerName`).
fn finalizer(name: &str) -> Vec<String> {
    const PLACE: &str = "metadata.finalizers";
    const STANDARD: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let quoted = scheme::field::go_quote(name);
    let mut out: Vec<String> =
        meta::qualified_name(name).into_iter().map(|problem| format!("{PLACE}: {quoted}: {problem}")).collect();
    if !name.contains('/') && !STANDARD.contains(&name) {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        out.push(format!(
            "{PLACE}: {quoted}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with \
             other finalizer writers"
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn definition() -> Value {
        let schema = |fields: Value| {
            json!({"openAPIV3Schema": {"type": "object", "properties": {"spec":
            {"type": "object", "properties": fields}, "status": {"type": "object",
            "properties": {"n": {"type": "integer"}}}}}})
        };
        json!({"spec": {"versions": [
            {"name": "v1",
                "schema": schema(json!({"a": {"type": "string", "default": "x"}, "b": {"type": "integer"}}))},
            {"name": "v2", "schema": schema(json!({"a": {"type": "string"}, "c": {"type": "integer"}}))},
        ]}})
    }

    fn schemas() -> Arc<Schemas> {
        Arc::new(Schemas::new(&definition(), Arc::new(definition)).unwrap())
    }

    #[test]
    fn versions_are_read_by_both_schemas() {
        let stored = json!({"apiVersion": "example.com/v1", "metadata": {"name": "n"}, "spec": {"b": 1, "c": 2}});
        let of = |version: &str| schemas().read_stored(stored.clone(), "example.com", version);
        assert_eq!(of("v1")["spec"], json!({"a": "x", "b": 1}));
        assert_eq!((&of("v2")["spec"], &of("v2")["apiVersion"]), (&json!({"a": "x"}), &json!("example.com/v2")));
        assert_eq!(of("v1")["metadata"], json!({"name": "n", "generation": 1}));
        let sent = json!({"apiVersion": "example.com/v2", "spec": {"c": 2}});
        let kept = schemas().to_storage(sent, "example.com", "v1");
        assert_eq!(kept, json!({"apiVersion": "example.com/v1", "spec": {}}));
    }

    #[test]
    fn what_cannot_be_read_is_told_at_once() {
        let mut crd = definition();
        crd["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"] = json!(3);
        let problem = Schemas::new(&crd, Arc::new(definition)).unwrap_err();
        assert!(problem.starts_with("version v2: "), "{problem}");
    }

    #[test]
    fn objects_are_judged_by_their_version() {
        let scale =
            ScalePaths { spec_replicas: ".spec.b".into(), status_replicas: ".status.n".into(), label_selector: None };
        let rules = Rules { schemas: schemas(), version: "v1".into(), kind: "W".into(), scale: Some(scale) };
        let texts = |errors: FieldErrors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut errors = FieldErrors::new();
        rules.validate_create(&json!({"kind": "W", "spec": {"b": -1, "a": 1}}), &mut errors);
        assert_eq!(
            texts(errors),
            [
                "spec.a: Invalid value: \"integer\": spec.a in body must be of type string: \"integer\"",
                ".spec.b: Invalid value: -1: should be a non-negative integer"
            ]
        );
        let mut errors = FieldErrors::new();
        rules.validate_create(&json!({"kind": "X", "spec": 1}), &mut errors);
        assert_eq!(texts(errors), ["kind: Invalid value: \"X\": must be W"]);
        let mut errors = FieldErrors::new();
        let old = json!({"spec": {"a": 1}, "status": {}});
        rules.validate_update(&json!({"kind": "W", "spec": {"a": 1}}), &old, &mut errors);
        rules.validate_status(&json!({"spec": {"a": 1}, "status": {"n": "x"}}), &old, &mut errors);
        assert_eq!(
            texts(errors),
            [
                "status.n: Invalid value: \"string\": n in body must be of type integer: \"string\"",
                ".status.n: Invalid value: 0: .status.n accessor error: x is of the type string, expected int64"
            ]
        );
    }

    #[test]
    fn finalizers_without_a_domain_are_warned_of() {
        let warned = |name: &str| finalizer(name).len();
        assert_eq!((warned("orphan"), warned("example.com/a"), warned("a"), warned("example.com")), (0, 0, 1, 1));
        assert!(finalizer("example.com")[0].contains("including a path (/)"));
    }
}
