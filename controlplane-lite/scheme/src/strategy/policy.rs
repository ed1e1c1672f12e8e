//! RBAC, policy, scheduling, coordination, node (`pkg/registry/{rbac,policy,scheduling,coordination,node}`).

use serde_json::Value;

use super::{Facts, Strategy, same_metadata};
use crate::defaults::cluster;
use crate::field::FieldErrors;
use crate::meta::NameRule;
use crate::validation as check;

pub(crate) struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn facts(&self) -> Facts {
        Facts { unconditional_update: false, generation: true, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::rbac::disruption_budget(object, errors);
    }
}

pub(crate) struct Role;

impl Strategy for Role {
    fn facts(&self) -> Facts {
        Facts { name: NameRule::PathSegment, create_on_update: true, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::rbac::role(object, errors);
    }
}

pub(crate) struct ClusterRole;

impl Strategy for ClusterRole {
    fn facts(&self) -> Facts {
        Facts { name: NameRule::PathSegment, create_on_update: true, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::rbac::cluster_role(object, errors);
    }
}

/// RoleBinding and ClusterRoleBinding.
pub(crate) struct RoleBinding;

impl Strategy for RoleBinding {
    fn facts(&self) -> Facts {
        Facts { name: NameRule::PathSegment, create_on_update: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        cluster::role_binding(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::rbac::role_binding(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::rbac::role_binding_update(new, old, errors);
    }
}

pub(crate) struct Lease;

impl Strategy for Lease {
    fn facts(&self) -> Facts {
        Facts { create_on_update: true, unconditional_update: false, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::rbac::lease(object, errors);
    }

    /// Its holder renews it.
    fn is_heartbeat(&self, _: &str, new: &Value, old: &Value) -> bool {
        let still = |lease: &Value| {
            let mut spec = lease["spec"].clone();
            if let Some(spec) = spec.as_object_mut() {
                spec.remove("renewTime");
            }
            spec
        };
        same_metadata(new, old) && still(new) == still(old)
    }
}

pub(crate) struct PriorityClass;

impl Strategy for PriorityClass {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        cluster::priority_class(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::rbac::priority_class(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::rbac::priority_class_update(new, old, errors);
    }
}

pub(crate) struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn facts(&self) -> Facts {
        Facts { unconditional_update: false, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::rbac::runtime_class(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::rbac::runtime_class_update(new, old, errors);
    }
}
