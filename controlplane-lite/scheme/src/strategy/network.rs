//! Service, Endpoints, EndpointSlice and networking.k8s.io (`pkg/registry/{core,discovery,networking}`).

use serde_json::Value;

use super::{Context, Facts, Strategy};
use crate::defaults::network;
use crate::field::FieldErrors;
use crate::meta::NameRule;
use crate::validation as check;
use crate::{prepare, warnings};

pub(crate) struct Service;

impl Strategy for Service {
    fn facts(&self) -> Facts {
        Facts {
            name: NameRule::Dns1035Label,
            create_on_update: true,
            holds_addresses: true,
            returns_deleted: true,
            ..Facts::PLAIN
        }
    }

    fn default(&self, object: &mut Value) {
        network::service(object);
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        prepare::service_create(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _: &Context<'_>) {
        prepare::service_update(new, old);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::network::service(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::network::service_update(new, old, errors);
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::network::service_status(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::service(object)
    }
}

pub(crate) struct Endpoints;

impl Strategy for Endpoints {
    fn facts(&self) -> Facts {
        Facts { create_on_update: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        network::endpoints(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::network::endpoints(object, errors);
    }
}

pub(crate) struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        network::endpoint_slice(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::network::endpoint_slice(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::network::endpoint_slice_update(new, old, errors);
    }
}

pub(crate) struct Ingress;

impl Strategy for Ingress {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::network::ingress(object, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::ingress(object)
    }
}

pub(crate) struct IngressClass;

impl Strategy for IngressClass {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        network::ingress_class(object);
    }
}

pub(crate) struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn facts(&self) -> Facts {
        Facts { generation: true, ..Facts::PLAIN }
    }

    fn default(&self, object: &mut Value) {
        network::network_policy(object);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::network::network_policy(object, errors);
    }
}

pub(crate) struct IpAddress;

impl Strategy for IpAddress {
    fn facts(&self) -> Facts {
        Facts { name: NameRule::IpAddress, ..Facts::PLAIN }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::network::ip_address(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::network::ip_address_update(new, old, errors);
    }
}

pub(crate) struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        check::network::service_cidr(object, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        check::network::service_cidr_update(new, old, errors);
    }
}
