//! How a Service is reached from outside: its traffic policies, the port at which a load balancer asks for its health,
//! and the balancer's addresses (upstream's `validateServiceExternalTrafficFieldsValue` and what is around it).

use serde_json::Value;

use super::super::{one_of, port_number};
use super::SPEC;
use crate::access::{at, int_at, list_at, str_at};
use crate::defaults::network::externally_accessible;
use crate::field::{FieldErrors, Path};
use crate::prepare::needs_health_check_port;

fn health_port(service: &Value) -> i64 {
    int_at(service, &["spec", "healthCheckNodePort"]).unwrap_or(0)
}

pub(super) fn policies(object: &Value, errors: &mut FieldErrors) {
    let spec = at(object, &["spec"]);
    one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], false, &SPEC, errors);
    let external = str_at(spec, &["externalTrafficPolicy"]);
    let path = SPEC.child("externalTrafficPolicy");
    if !externally_accessible(object) {
        if !external.is_empty() {
            errors.invalid(&path, external, "may only be set for externally-accessible services");
        }
    } else if external.is_empty() {
        errors.required(&path, "");
    } else {
        one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], true, &SPEC, errors);
    }
}

/// Only a load balancer that asks the nodes has a port for it. One that leaves it out is given one later.
pub(super) fn health_check_port(object: &Value, errors: &mut FieldErrors) {
    let port = health_port(object);
    let path = SPEC.child("healthCheckNodePort");
    if port == 0 {
        return;
    }
    if needs_health_check_port(object) {
        port_number(port, &path, errors);
    } else {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&path, port, why);
    }
}

/// The port never moves while it is asked at.
pub(super) fn update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (before, after) = (health_port(old), health_port(new));
    if needs_health_check_port(new) && needs_health_check_port(old) && before != 0 && after != before {
        errors.forbidden(&SPEC.child("healthCheckNodePort"), "field is immutable");
    }
}

/// Status of a Service: the proxies serve the addresses of a load balancer, which nothing else has.
pub fn status(new: &Value, _: &Value, errors: &mut FieldErrors) {
    let balancer = str_at(new, &["spec", "type"]) == "LoadBalancer";
    if !balancer && !list_at(new, &["status", "loadBalancer", "ingress"]).is_empty() {
        let path = Path::new("status");
        let path = path.child("loadBalancer");
        errors.forbidden(&path.child("ingress"), "may only be used when `spec.type` is \"LoadBalancer\"");
    }
}
