//! CertificateSigningRequest (`pkg/registry/certificates/certificates/strategy.go`).

use serde_json::{Value, json};

use super::subresource::{copy_path, keep_all_but};
use super::{Context, Facts, Strategy};
use crate::access::{ensure_map, is_empty};
use crate::field::FieldErrors;
use crate::meta::NameRule;
use crate::prepare;
use crate::validation::certificates as check;

pub(crate) struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn facts(&self) -> Facts {
        // Upstream's kubelets name theirs by a hash with capitals in it.
        Facts { name: NameRule::PathSegment, ..Facts::PLAIN }
    }

    /// Who asks is what the server knows, and nothing that the client wrote there.
    fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        let user = &context.user;
        let spec = ensure_map(object, &["spec"]);
        for (field, value) in [
            ("username", json!(user.username)),
            ("uid", json!(user.uid)),
            ("groups", json!(user.groups)),
            ("extra", json!(user.extra)),
        ] {
            spec.remove(field);
            if !is_empty(&value) {
                spec.insert(field.into(), value);
            }
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _: &Context<'_>) {
        prepare::request_update(new, old);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value, context: &Context<'_>) {
        prepare::request_status(new, old);
        prepare::request_conditions(new, old, context.now);
    }

    fn prepare_subresource(&self, name: &str, new: &mut Value, old: &Value, context: &Context<'_>) {
        if name != "approval" {
            new.clone_from(old);
            return;
        }
        keep_all_but(new, old, |new, kept| {
            copy_path(new, kept, ["status", "conditions"]);
            copy_path(new, kept, ["metadata", "annotations"]);
            copy_path(new, kept, ["metadata", "labels"]);
        });
        prepare::request_conditions(new, old, context.now);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::request(object, errors);
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::status_update(new, old, errors);
    }

    fn validate_subresource(&self, _: &str, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::approval_update(new, old, errors);
    }
}
