//! admissionregistration.k8s.io (`pkg/registry/admissionregistration`).

use std::sync::Arc;

use serde_json::Value;

use super::{Facts, Strategy};
use crate::access::str_at;
use crate::defaults::admission as defaults;
use crate::expressions::ExpressionCheck;
use crate::field::FieldErrors;
use crate::kind::Kind;
use crate::validation::admission as check;

const FACTS: Facts = Facts { generation: true, unconditional_update: false, ..Facts::PLAIN };
/// The end of names that stand for configurations in files, which upstream reads.
const STATIC: &str = ".static.k8s.io";

fn warnings(object: &Value) -> Vec<String> {
    let name = str_at(object, &["metadata", "name"]);
    let reserved = format!(
        "metadata.name: names ending with {STATIC:?} are reserved for static manifest-based configurations and cannot \
         be managed via the API"
    );
    if name.ends_with(STATIC) { vec![reserved] } else { Vec::new() }
}

/// The rules of a kind of the group, whose expressions are checked.
pub(crate) fn admission(kind: &Kind, check: &Arc<ExpressionCheck>) -> Option<Arc<dyn Strategy>> {
    if kind.group != "admissionregistration.k8s.io" {
        return None;
    }
    let check = Some(Arc::clone(check));
    match &*kind.kind {
        "MutatingWebhookConfiguration" => {
            Some(Arc::new(WebhookConfiguration { check, ..WebhookConfiguration::MUTATING }))
        }
        "ValidatingWebhookConfiguration" => {
            Some(Arc::new(WebhookConfiguration { check, ..WebhookConfiguration::VALIDATING }))
        }
        "MutatingAdmissionPolicy" => Some(Arc::new(AdmissionPolicy { check, ..AdmissionPolicy::MUTATING })),
        "ValidatingAdmissionPolicy" => Some(Arc::new(AdmissionPolicy { check, ..AdmissionPolicy::VALIDATING })),
        _ => None,
    }
}

/// MutatingWebhookConfiguration and ValidatingWebhookConfiguration. Whether expressions are any is somebody else's to
/// say.
pub(crate) struct WebhookConfiguration {
    mutating: bool,
    check: Option<Arc<ExpressionCheck>>,
}

impl WebhookConfiguration {
    /// Takes any expression.
    pub(crate) const MUTATING: Self = Self { mutating: true, check: None };
    /// Takes any expression.
    pub(crate) const VALIDATING: Self = Self { mutating: false, check: None };
}

impl Strategy for WebhookConfiguration {
    fn facts(&self) -> Facts {
        FACTS
    }

    fn default(&self, object: &mut Value) {
        if self.mutating { defaults::mutating_webhooks(object) } else { defaults::validating_webhooks(object) }
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        check::webhooks(object, None, self.check.as_deref(), errors);
    }

    /// Which rules hold depends on what was stored, so that nothing is checked without it.
    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::webhooks(new, Some(old), self.check.as_deref(), errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings(object)
    }
}

/// MutatingAdmissionPolicy and ValidatingAdmissionPolicy. Whether expressions are any is somebody else's to say.
pub(crate) struct AdmissionPolicy {
    mutating: bool,
    check: Option<Arc<ExpressionCheck>>,
}

impl AdmissionPolicy {
    /// Takes any expression.
    pub(crate) const MUTATING: Self = Self { mutating: true, check: None };
    /// Takes any expression.
    pub(crate) const VALIDATING: Self = Self { mutating: false, check: None };

    fn check(&self, policy: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        if self.mutating {
            check::mutating_policy(policy, old, self.check.as_deref(), errors);
        } else {
            check::validating_policy(policy, old, self.check.as_deref(), errors);
        }
    }
}

impl Strategy for AdmissionPolicy {
    fn facts(&self) -> Facts {
        FACTS
    }

    fn default(&self, object: &mut Value) {
        defaults::policy(object);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        self.check(object, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.check(new, Some(old), errors);
    }

    fn validate_status(&self, new: &Value, _: &Value, errors: &mut FieldErrors) {
        check::policy_status(new, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings(object)
    }
}

/// MutatingAdmissionPolicyBinding and ValidatingAdmissionPolicyBinding.
pub(crate) struct AdmissionPolicyBinding {
    mutating: bool,
}

impl AdmissionPolicyBinding {
    pub(crate) const MUTATING: Self = Self { mutating: true };
    pub(crate) const VALIDATING: Self = Self { mutating: false };
}

impl Strategy for AdmissionPolicyBinding {
    fn facts(&self) -> Facts {
        FACTS
    }

    fn default(&self, object: &mut Value) {
        defaults::binding(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::binding(object, self.mutating, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings(object)
    }
}
