//! APIService (k8s.io/kube-aggregator/pkg/registry/apiservice/strategy.go).

use serde_json::{Value, json};

use super::{Context, Facts, Strategy};
use crate::access::{at, ensure_map};
use crate::apiregistration::local_condition;
use crate::defaults::apiregistration as defaults;
use crate::field::FieldErrors;
use crate::meta::NameRule;
use crate::validation::apiregistration as check;

pub(crate) struct ApiService;

impl Strategy for ApiService {
    fn facts(&self) -> Facts {
        Facts { name: NameRule::PathSegment, unconditional_update: false, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        defaults::api_service(object);
    }

    /// What this server serves itself is there at once.
    fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        if at(object, &["spec", "service"]).is_null() {
            ensure_map(object, &["status"]).insert("conditions".to_owned(), json!([local_condition(context.now)]));
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::api_service(object, errors);
    }

    fn validate_status(&self, new: &Value, _: &Value, errors: &mut FieldErrors) {
        check::status(new, errors);
    }
}
