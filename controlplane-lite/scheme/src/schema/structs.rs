//! What Go's structs say of fields that the OpenAPI schemas of k8s-openapi do not: which are always there, and which
//! types server-side apply replaces as a whole.

use super::Absent;
use super::types::Property;

/// Lines of a type and its fields, sorted by type after the comments.
static STRUCTS: &str = include_str!("structs.txt");

/// Types with `+structType=atomic` or `+mapType=atomic` in k8s.io/api and k8s.io/apimachinery, sorted.
static ATOMIC: &[&str] = &[
    "io.k8s.api.admissionregistration.v1.MatchResources",
    "io.k8s.api.admissionregistration.v1.NamedRuleWithOperations",
    "io.k8s.api.admissionregistration.v1.ParamKind",
    "io.k8s.api.admissionregistration.v1.ParamRef",
    "io.k8s.api.admissionregistration.v1.Variable",
    "io.k8s.api.autoscaling.v1.CrossVersionObjectReference",
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.EndpointAddress",
    "io.k8s.api.core.v1.EndpointPort",
    "io.k8s.api.core.v1.FileKeySelector",
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.NodeSelector",
    "io.k8s.api.core.v1.NodeSelectorTerm",
    "io.k8s.api.core.v1.ObjectFieldSelector",
    "io.k8s.api.core.v1.ObjectReference",
    "io.k8s.api.core.v1.ResourceFieldSelector",
    "io.k8s.api.core.v1.ScopeSelector",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.SecretReference",
    "io.k8s.api.core.v1.TopologySelectorTerm",
    "io.k8s.api.core.v1.TypedLocalObjectReference",
    "io.k8s.api.discovery.v1.EndpointPort",
    "io.k8s.api.networking.v1.ServiceBackendPort",
    "io.k8s.api.rbac.v1.RoleRef",
    "io.k8s.api.rbac.v1.Subject",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
    "io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// What this field is where nobody wrote it. What the schema demands is what has no `omitempty`.
pub(super) fn absent(ty: &str, property: &Property<'_>) -> Absent {
    if super::find(STRUCTS, ty).is_some_and(|fields| fields.split(' ').any(|f| f == property.name)) {
        Absent::Struct
    } else if property.required {
        Absent::Zero
    } else {
        Absent::Nothing
    }
}

/// Whether values of this type are replaced as a whole.
pub(super) fn atomic(ty: &str) -> bool {
    ATOMIC.binary_search(&ty).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::builtin;
    use crate::schema::{Type, registry};

    #[test]
    fn the_tables_name_real_types_and_structs() {
        assert!(ATOMIC.is_sorted());
        let lines = || STRUCTS.lines().filter(|line| !line.starts_with('#'));
        assert!(lines().is_sorted());
        for kind in builtin().kinds() {
            let _ = kind.schema();
        }
        let registry = registry().lock().unwrap();
        for name in ATOMIC {
            assert!(registry.get(*name).is_none_or(|ty| ty.atomic()), "{name}");
        }
        let mut seen = 0;
        for line in lines() {
            let (ty, fields) = line.split_once(' ').unwrap();
            let Some(object) = registry.get(ty) else { continue };
            for field in fields.split(' ') {
                let found = object.field(field).unwrap();
                assert!(found.absent == Absent::Struct && matches!(found.ty, Type::Object(_)), "{ty} {field}");
                seen += 1;
            }
        }
        assert!(seen > 100, "{seen}");
    }
}
