//! APIServices (k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/defaults.go).

use serde_json::Value;

use crate::access::{map_at_mut, set_default};

/// The port of a Service that serves an API.
pub fn api_service(object: &mut Value) {
    if let Some(service) = map_at_mut(object, &["spec", "service"]) {
        set_default(service, "port", 443);
    }
}
