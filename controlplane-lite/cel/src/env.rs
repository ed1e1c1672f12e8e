//! What an expression may refer to: variables with their types, and types with their fields. The functions are always
//! those of Kubernetes' environment of v1.36 (`pkg/cel/environment/base.go`).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::types::Type;

/// The fields of a type, by the names that expressions use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StructType {
    /// The type of each field.
    pub fields: BTreeMap<Arc<str>, Type>,
}

/// Types that are not listed but follow from their names, such as `Object.spec` of mutations.
pub trait TypeResolver: fmt::Debug + Send + Sync {
    /// Whether a name is of a type that can be made in an expression.
    fn is_struct(&self, name: &str) -> bool;
    /// The type of a field. `None` if the type has no such field.
    fn field(&self, name: &str, field: &str) -> Option<Type>;
}

/// Declarations for expressions.
#[derive(Debug, Clone, Default)]
pub struct Env {
    variables: HashMap<Arc<str>, Type>,
    structs: HashMap<Arc<str>, Arc<StructType>>,
    resolver: Option<Arc<dyn TypeResolver>>,
}

impl Env {
    /// One without variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a variable of a type.
    #[must_use]
    pub fn with_variable(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.into(), of);
        self
    }

    /// The same with a type of a name.
    #[must_use]
    pub fn with_struct(mut self, name: &str, of: StructType) -> Self {
        self.structs.insert(name.into(), Arc::new(of));
        self
    }

    /// The same with types of names.
    #[must_use]
    pub fn with_structs(mut self, types: impl IntoIterator<Item = (Arc<str>, StructType)>) -> Self {
        self.structs.extend(types.into_iter().map(|(name, of)| (name, Arc::new(of))));
        self
    }

    /// The same with types that follow from their names.
    #[must_use]
    pub fn with_resolver(mut self, resolver: Arc<dyn TypeResolver>) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// The type of a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    /// The type that an identifier names: a type's name is a value too.
    pub(crate) fn type_named(name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "null_type" => Type::Null,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "type" => Type::Type(None),
            "optional_type" => Type::optional(Type::Param("V".into())),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            "net.IP" | "net.CIDR" => Type::Opaque(name.into(), [].into()),
            "kubernetes.URL" | "kubernetes.Quantity" | "kubernetes.Semver" | "kubernetes.NamedFormat" => {
                Type::named(name)
            }
            _ => return None,
        })
    }

    /// Whether a type of a name has fields.
    pub(crate) fn is_struct(&self, name: &str) -> bool {
        self.structs.contains_key(name) || self.resolver.as_ref().is_some_and(|resolver| resolver.is_struct(name))
    }

    /// Whether an expression can make values of a type.
    pub(crate) fn is_made(&self, name: &str) -> bool {
        self.resolver.as_ref().is_some_and(|resolver| resolver.is_struct(name))
    }

    /// The type of a field. A word that the grammar reserves may be written as it is, beside its escaped form.
    pub(crate) fn field(&self, name: &str, field: &str) -> Option<Type> {
        if let Some(of) = self.structs.get(name) {
            let found = of.fields.get(field).or_else(|| {
                crate::escape::is_reserved(field).then(|| of.fields.get(&*format!("__{field}__"))).flatten()
            });
            return found.cloned();
        }
        self.resolver.as_ref()?.field(name, field)
    }
}
