//! FlowSchema and PriorityLevelConfiguration (`pkg/registry/flowcontrol`).

use serde_json::Value;

use super::{Facts, Strategy};
use crate::defaults::flowcontrol as defaults;
use crate::field::FieldErrors;
use crate::validation::flowcontrol as check;

pub(crate) struct FlowSchema;

impl Strategy for FlowSchema {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        defaults::flow_schema(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::flow_schema(object, errors);
    }

    fn validate_status(&self, new: &Value, _: &Value, errors: &mut FieldErrors) {
        check::status(new, errors);
    }
}

pub(crate) struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        defaults::priority_level(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::priority_level(object, errors);
    }

    fn validate_status(&self, new: &Value, _: &Value, errors: &mut FieldErrors) {
        check::status(new, errors);
    }
}
