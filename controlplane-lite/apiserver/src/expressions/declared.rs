//! The variables of expressions and their types (`plugin/cel/compile.go`).

use std::sync::{Arc, OnceLock};

use cel::{Env, StructType, Type, TypeResolver};

/// The name of the type of `variables`.
pub(super) const VARIABLES: &str = "kubernetes.variables";
/// The variable for the check that the request itself is.
pub(super) const REQUEST_RESOURCE: &str = "authorizer.requestResource";

/// What is declared beside what every expression has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Declared {
    pub params: bool,
    pub authorizer: bool,
    /// Whether objects can be made: `Object{}` and `JSONPatch{}`.
    pub mutation: bool,
}

fn object(fields: &[(&str, Type)]) -> StructType {
    StructType { fields: fields.iter().map(|(name, of)| (Arc::from(*name), of.clone())).collect() }
}

fn texts() -> Type {
    Type::list(Type::String)
}

fn base() -> Env {
    let (kind, resource) = (Type::named("kubernetes.GroupVersionKind"), Type::named("kubernetes.GroupVersionResource"));
    let text = Type::String;
    let request = object(&[
        ("kind", kind.clone()),
        ("resource", resource.clone()),
        ("subResource", text.clone()),
        ("requestKind", kind),
        ("requestResource", resource),
        ("requestSubResource", text.clone()),
        ("name", text.clone()),
        ("namespace", text.clone()),
        ("operation", text.clone()),
        ("userInfo", Type::named("kubernetes.UserInfo")),
        ("dryRun", Type::Bool),
        ("options", Type::Dyn),
    ]);
    let named = |last: &str| object(&[("group", Type::String), ("version", Type::String), (last, Type::String)]);
    let user = object(&[
        ("username", text.clone()),
        ("uid", text),
        ("groups", texts()),
        ("extra", Type::map(Type::String, texts())),
    ]);
    let env = Env::new()
        .with_struct("kubernetes.AdmissionRequest", request)
        .with_struct("kubernetes.GroupVersionKind", named("kind"))
        .with_struct("kubernetes.GroupVersionResource", named("resource"))
        .with_struct("kubernetes.UserInfo", user);
    namespace(env)
        .with_variable("object", Type::Dyn)
        .with_variable("oldObject", Type::Dyn)
        .with_variable("namespaceObject", Type::named("kubernetes.Namespace"))
        .with_variable("request", Type::named("kubernetes.AdmissionRequest"))
}

/// The fields of a namespace that expressions see.
fn namespace(env: Env) -> Env {
    let metadata = object(&[
        ("name", Type::String),
        ("generateName", Type::String),
        ("namespace", Type::String),
        ("labels", Type::map(Type::String, Type::String)),
        ("annotations", Type::map(Type::String, Type::String)),
        ("UID", Type::String),
        ("creationTimestamp", Type::Timestamp),
        ("deletionGracePeriodSeconds", Type::Int),
        ("deletionTimestamp", Type::Timestamp),
        ("generation", Type::Int),
        ("resourceVersion", Type::String),
        ("finalizers", texts()),
    ]);
    let condition = object(&[
        ("status", Type::String),
        ("type", Type::String),
        ("lastTransitionTime", Type::Timestamp),
        ("message", Type::String),
        ("reason", Type::String),
    ]);
    let conditions = Type::list(Type::named("kubernetes.NamespaceCondition"));
    env.with_struct("kubernetes.NamespaceMetadata", metadata)
        .with_struct("kubernetes.NamespaceCondition", condition)
        .with_struct("kubernetes.NamespaceSpec", object(&[("finalizers", texts())]))
        .with_struct("kubernetes.NamespaceStatus", object(&[("conditions", conditions), ("phase", Type::String)]))
        .with_struct(
            "kubernetes.Namespace",
            object(&[
                ("metadata", Type::named("kubernetes.NamespaceMetadata")),
                ("spec", Type::named("kubernetes.NamespaceSpec")),
                ("status", Type::named("kubernetes.NamespaceStatus")),
            ]),
        )
}

/// What an expression may refer to.
pub(super) fn env(declared: Declared, variables: impl IntoIterator<Item = (Arc<str>, Type)>) -> Env {
    static BASE: OnceLock<Env> = OnceLock::new();
    let mut env = BASE.get_or_init(base).clone();
    if declared.params {
        env = env.with_variable("params", Type::Dyn);
    }
    if declared.authorizer {
        env = env
            .with_variable("authorizer", Type::named("kubernetes.authorization.Authorizer"))
            .with_variable(REQUEST_RESOURCE, Type::named("kubernetes.authorization.ResourceCheck"));
    }
    if declared.mutation {
        env = env.with_resolver(Arc::new(Mutations));
    }
    let fields = StructType { fields: variables.into_iter().collect() };
    env.with_struct(VARIABLES, fields).with_variable("variables", Type::named(VARIABLES))
}

/// The types that mutations make (`pkg/cel/mutation`): `JSONPatch`, and `Object` with one type for each path of fields.
#[derive(Debug)]
struct Mutations;

impl TypeResolver for Mutations {
    fn is_struct(&self, name: &str) -> bool {
        name == "JSONPatch" || name == "Object" || name.starts_with("Object.")
    }

    fn field(&self, name: &str, field: &str) -> Option<Type> {
        if name != "JSONPatch" {
            return Some(Type::Dyn);
        }
        match field {
            "op" | "path" | "from" => Some(Type::String),
            "value" => Some(Type::Dyn),
            _ => None,
        }
    }
}
