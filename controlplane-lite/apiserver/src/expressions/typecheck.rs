//! What is told of expressions that do not fit the types of the objects that a policy is about
//! (`policy/validating/typechecking.go`). A policy is stored all the same: objects can have other versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::escape::unescape;
use cel::{CompileError, Env, Program, Type, TypeResolver};
use scheme::access::{at, list_at, str_at};
use scheme::schema::{ObjectType, Type as Declared};
use scheme::{Kind, Scheme};
use serde_json::{Value, json};

use super::declared;

/// The most kinds of a rule that are looked at.
const MAX_KINDS: usize = 10;

/// The warnings of a policy: `expressionWarnings` of its status.
pub(crate) fn warnings(policy: &Value, scheme: &Scheme) -> Vec<Value> {
    let spec = at(policy, &["spec"]);
    let param = at(spec, &["paramKind"]);
    let params = (!param.is_null())
        .then(|| scheme.by_api_version(str_at(param, &["apiVersion"]), str_at(param, &["kind"])).cloned());
    let scopes: Vec<Scope> =
        kinds(spec, scheme).into_iter().map(|kind| Scope::new(spec, kind, params.clone())).collect();
    let mut warnings = Vec::new();
    for (place, validation) in list_at(spec, &["validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = str_at(validation, &[field]);
            if text.is_empty() {
                continue;
            }
            let told: Vec<String> = scopes.iter().filter_map(|scope| scope.check(text)).collect();
            if !told.is_empty() {
                let field = format!("spec.validations[{place}].{field}");
                warnings.push(json!({"fieldRef": field, "warning": told.join("\n")}));
            }
        }
    }
    warnings
}

/// The kinds that a policy is about, as far as it names them.
fn kinds(spec: &Value, scheme: &Scheme) -> Vec<Arc<Kind>> {
    let mut found: BTreeMap<(String, String, String), Arc<Kind>> = BTreeMap::new();
    for rule in list_at(spec, &["matchConstraints", "resourceRules"]) {
        let texts = |field: &str| -> Vec<&str> { list_at(rule, &[field]).iter().filter_map(Value::as_str).collect() };
        let (groups, versions, resources) = (texts("apiGroups"), texts("apiVersions"), texts("resources"));
        let open = |names: &[&str]| names.iter().any(|name| name.contains('*'));
        if open(&groups) || open(&versions) {
            continue;
        }
        let named = resources.iter().filter(|resource| !resource.contains(['*', '/']));
        let all = named.flat_map(|resource| {
            groups
                .iter()
                .flat_map(|group| versions.iter().filter_map(|version| scheme.by_gvr(group, version, resource)))
        });
        for kind in all.take(MAX_KINDS) {
            let key = (kind.group.to_string(), kind.version.to_string(), kind.kind.to_string());
            found.insert(key, kind.clone());
        }
    }
    found.into_values().collect()
}

/// What expressions may refer to, if the object is of a kind.
struct Scope {
    kind: Arc<Kind>,
    env: Env,
}

impl Scope {
    /// `params`: the kind of parameters, if there are any, which may not be known.
    fn new(spec: &Value, kind: Arc<Kind>, params: Option<Option<Arc<Kind>>>) -> Self {
        let has_params = params.is_some();
        let roots: Vec<(&'static str, Arc<Kind>)> = [("object", Some(kind.clone())), ("params", params.flatten())]
            .into_iter()
            .filter_map(|(name, kind)| kind.map(|kind| (name, kind)))
            .collect();
        let declared = declared::Declared { params: has_params, authorizer: true, mutation: false };
        let typed: Vec<(&'static str, Type)> =
            roots.iter().map(|(name, kind)| (*name, Type::named(&root_name(name, kind)))).collect();
        let resolver: Arc<dyn TypeResolver> = Arc::new(Kinds { roots });
        let env = |variables: &[(Arc<str>, Type)]| {
            let mut env = declared::env(declared, variables.iter().cloned()).with_resolver(resolver.clone());
            for (name, of) in &typed {
                env = env.with_variable(name, of.clone());
                if *name == "object" {
                    env = env.with_variable("oldObject", of.clone());
                }
            }
            env
        };
        let mut variables: Vec<(Arc<str>, Type)> = Vec::new();
        for variable in list_at(spec, &["variables"]) {
            let program = Program::compile(str_at(variable, &["expression"]), &env(&variables));
            let of = program.map_or(Type::Dyn, |program| program.result_type().clone());
            variables.push((str_at(variable, &["name"]).into(), of));
        }
        Self { env: env(&variables), kind }
    }

    /// What is told of an expression, if anything.
    fn check(&self, text: &str) -> Option<String> {
        match Program::compile(text, &self.env) {
            Err(CompileError::Issues(issues)) => {
                let kind = &self.kind;
                Some(format!("{}/{}, Kind={}: {issues}\n", kind.group, kind.version, kind.kind))
            }
            _ => None,
        }
    }
}

/// The name of the type of a variable.
fn root_name(variable: &str, kind: &Kind) -> String {
    if variable == "object" { kind.kind.to_string() } else { format!("{}Params", kind.kind) }
}

/// Types of built-in kinds, named by the paths of their fields.
struct Kinds {
    roots: Vec<(&'static str, Arc<Kind>)>,
}

impl std::fmt::Debug for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.roots.iter().map(|(name, _)| name)).finish()
    }
}

impl Kinds {
    /// The object whose type has a name.
    fn object(&self, name: &str) -> Option<&ObjectType> {
        let mut steps = name.split('.');
        let root = steps.next()?;
        let (_, kind) = self.roots.iter().find(|(variable, kind)| root_name(variable, kind) == root)?;
        let mut object: &ObjectType = kind.schema();
        let mut found: Option<&Declared> = None;
        for step in steps {
            let next = match (step, found) {
                ("@idx", Some(Declared::List(items))) => items,
                ("@elem", Some(Declared::Map(values))) => values,
                _ => &object.field(&unescape(step)?)?.ty,
            };
            found = Some(next);
            if let Declared::Object(inner) = next {
                object = inner;
            }
        }
        match found {
            None | Some(Declared::Object(_)) => Some(object),
            Some(_) => None,
        }
    }
}

impl TypeResolver for Kinds {
    fn is_struct(&self, name: &str) -> bool {
        self.object(name).is_some()
    }

    fn field(&self, name: &str, field: &str) -> Option<Type> {
        let declared = self.object(name)?.field(&unescape(field)?)?;
        Some(type_of(&declared.ty, format!("{name}.{field}")))
    }
}

/// The type of values of a schema, which has a name if it has fields.
fn type_of(declared: &Declared, name: String) -> Type {
    match declared {
        Declared::String => Type::String,
        Declared::Bytes => Type::Bytes,
        Declared::Time | Declared::MicroTime => Type::Timestamp,
        Declared::Int32 | Declared::Int64 => Type::Int,
        Declared::Float => Type::Double,
        Declared::Bool => Type::Bool,
        Declared::List(items) => Type::list(type_of(items, format!("{name}.@idx"))),
        Declared::Map(values) => Type::map(Type::String, type_of(values, format!("{name}.@elem"))),
        Declared::Object(object) if !object.open() && !object.fields().is_empty() => Type::named(&name),
        Declared::Object(_) | Declared::Any | Declared::IntOrString | Declared::Quantity => Type::Dyn,
    }
}
