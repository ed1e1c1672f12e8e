//! Services, endpoints, ingress, network policies.

use serde_json::{Value, json};

use crate::access::{at, ensure_map, is_empty, list_at, list_at_mut, set_default, set_default_str, str_at};

/// Service. Addresses, node ports and IP families are the allocator's.
pub fn service(object: &mut Value) {
    let spec = ensure_map(object, &["spec"]);
    set_default_str(spec, "sessionAffinity", "None");
    set_default_str(spec, "type", "ClusterIP");
    match spec["sessionAffinity"].as_str() {
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        Some("ClientIP") => {
            let client = ensure_map(object, &["spec", "sessionAffinityConfig", "clientIP"]);
            set_default(client, "timeoutSeconds", 10800);
        }
        _ => {}
    }
    for port in list_at_mut(object, &["spec", "ports"]) {
        let number = at(port, &["port"]).clone();
        let Some(map) = port.as_object_mut() else { continue };
        set_default_str(map, "protocol", "TCP");
        let unset = match map.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(Value::Number(n)) => n.as_i64() == Some(0),
            Some(Value::String(s)) => s.is_empty(),
            Some(_) => false,
        };
        if unset && !number.is_null() {
            map.insert("targetPort".to_owned(), number);
        }
    }
    let ty = str_at(object, &["spec", "type"]).to_owned();
    let external = externally_accessible(object);
    let spec = ensure_map(object, &["spec"]);
    if external {
        set_default_str(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(ty.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_default_str(spec, "internalTrafficPolicy", "Cluster");
    }
    if ty == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
        for ingress in list_at_mut(object, &["status", "loadBalancer", "ingress"]) {
            if !str_at(ingress, &["ip"]).is_empty() {
                set_default_str(ensure_map(ingress, &[]), "ipMode", "VIP");
            }
        }
    }
}

/// Whether traffic from outside the cluster may reach the Service.
#[must_use]
pub fn externally_accessible(service: &Value) -> bool {
    match str_at(service, &["spec", "type"]) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list_at(service, &["spec", "externalIPs"]).is_empty(),
        _ => false,
    }
}

/// Endpoints.
pub fn endpoints(object: &mut Value) {
    for subset in list_at_mut(object, &["subsets"]) {
        for port in list_at_mut(subset, &["ports"]) {
            set_default_str(ensure_map(port, &[]), "protocol", "TCP");
        }
    }
}

/// EndpointSlice.
pub fn endpoint_slice(object: &mut Value) {
    for port in list_at_mut(object, &["ports"]) {
        let map = ensure_map(port, &[]);
        set_default(map, "name", "");
        set_default(map, "protocol", "TCP");
    }
}

/// NetworkPolicy.
pub fn network_policy(object: &mut Value) {
    for (list, _) in [("ingress", "from"), ("egress", "to")] {
        for rule in list_at_mut(object, &["spec", list]) {
            for port in list_at_mut(rule, &["ports"]) {
                set_default(ensure_map(port, &[]), "protocol", "TCP");
            }
        }
    }
    if is_empty(at(object, &["spec", "policyTypes"])) {
        let egress = !list_at(object, &["spec", "egress"]).is_empty();
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        ensure_map(object, &["spec"]).insert("policyTypes".to_owned(), types);
    }
}

/// IngressClass parameters.
pub fn ingress_class(object: &mut Value) {
    if let Some(parameters) = object.pointer_mut("/spec/parameters").and_then(Value::as_object_mut) {
        set_default_str(parameters, "scope", "Cluster");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        let mut object = json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "http"}]}});
        service(&mut object);
        assert_eq!(
            object["spec"],
            json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ports": [
                {"port": 80, "protocol": "TCP", "targetPort": 80},
                {"port": 81, "protocol": "TCP", "targetPort": "http"}]})
        );
        let mut object = json!({"spec": {"type": "NodePort", "sessionAffinity": "ClientIP"}});
        service(&mut object);
        assert_eq!(object["spec"]["externalTrafficPolicy"], "Cluster");
        assert_eq!(object["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
    }

    #[test]
    fn network_policies() {
        let mut object = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        network_policy(&mut object);
        assert_eq!(object["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(object["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    }
}
