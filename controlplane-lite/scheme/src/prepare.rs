//! What create and update set or keep beyond defaults: upstream's
//! `PrepareForCreate` and `PrepareForUpdate` of each kind. Metadata, status and
//! the generation are kept by `Kind` itself.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::access::{at, copy_field, ensure_map, int_at, is_empty, list_at, list_at_mut, map_at_mut, str_at};
use super::defaults::network::externally_accessible;
use super::defaults::pod::qos_class;

/// Pod: a fresh status with QoS class, and the condition of gated pods.
pub fn pod_create(object: &mut Value) {
    let mut status = json!({ "phase": "Pending", "qosClass": qos_class(at(object, &["spec"])) });
    if !list_at(object, &["spec", "schedulingGates"]).is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    object["status"] = status;
}

/// Pod status: the QoS class never changes.
pub fn pod_status(new: &mut Value, old: &Value) {
    let class = at(old, &["status", "qosClass"]);
    if !class.is_null() {
        ensure_map(new, &["status"]).insert("qosClass".to_owned(), class.clone());
    }
}

/// Deployment status: labels stay, they are the owner's.
pub fn deployment_status(new: &mut Value, old: &Value) {
    if let Some(meta) = new.get_mut("metadata") {
        copy_field(meta, at(old, &["metadata"]), "labels");
    }
}

/// Namespace: the finalizer that makes deletion wait for its content.
pub fn namespace_create(object: &mut Value) {
    super::defaults::cluster::namespace(object);
    object["status"] = json!({ "phase": "Active" });
    let spec = ensure_map(object, &["spec"]);
    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
    if let Value::Array(list) = finalizers
        && !list.iter().any(|f| f == "kubernetes")
    {
        list.push("kubernetes".into());
    }
}

/// Namespace: spec holds only finalizers, which change through `finalize`.
pub fn namespace_update(new: &mut Value, old: &Value) {
    copy_field(new, old, "spec");
    copy_field(new, old, "status");
}

/// Job: labels and selector from the uid, which is set before.
pub fn job_create(object: &mut Value) {
    super::defaults::workloads::job_selector(object);
}

/// PersistentVolume: starts Pending, and says since when.
pub fn persistent_volume_create(object: &mut Value, now: &str) {
    object["status"] = json!({ "phase": "Pending", "lastPhaseTransitionTime": now });
}

/// PersistentVolume status: the time of the last change of phase is the server's, unless a client gives another.
pub fn persistent_volume_status(new: &mut Value, old: &Value, now: &str) {
    const SINCE: &str = "lastPhaseTransitionTime";
    let of = |object: &Value, field: &str| at(object, &["status", field]).clone();
    let same_phase = str_at(new, &["status", "phase"]) == str_at(old, &["status", "phase"]);
    let (before, given) = (of(old, SINCE), of(new, SINCE));
    if same_phase && given.is_null() && !before.is_null() {
        ensure_map(new, &["status"]).insert(SINCE.to_owned(), before);
    } else if !same_phase && (given.is_null() || given == before) {
        ensure_map(new, &["status"]).insert(SINCE.to_owned(), now.into());
    }
}

/// PersistentVolumeClaim starts Pending.
pub fn claim_create(object: &mut Value) {
    object["status"] = json!({ "phase": "Pending" });
}

/// Secret and ConfigMap: nothing is kept; type may be left out of an update.
pub fn secret_update(new: &mut Value, old: &Value) {
    if is_empty(at(new, &["type"])) {
        copy_field(new, old, "type");
    }
}

/// CertificateSigningRequest: the requester's part of spec never changes.
pub fn request_update(new: &mut Value, old: &Value) {
    copy_field(new, old, "spec");
}

/// CertificateSigningRequest status: the approver's conditions stay as they are, unless their number changes, which
/// validation refuses.
pub fn request_status(new: &mut Value, old: &Value) {
    let of = |object: &Value, kind: &str| -> Vec<Value> {
        list_at(object, &["status", "conditions"]).iter().filter(|c| str_at(c, &["type"]) == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied"] {
        let before = of(old, kind);
        if before.len() == of(new, kind).len() {
            let now = list_at_mut(new, &["status", "conditions"]).iter_mut().filter(|c| str_at(c, &["type"]) == kind);
            now.zip(before).for_each(|(now, before)| *now = before);
        }
    }
}

/// CertificateSigningRequest conditions: the times that a client left out. A condition that says what it said before
/// keeps the time of its last transition.
pub fn request_conditions(new: &mut Value, old: &Value, now: &str) {
    let said = |c: &Value| (str_at(c, &["type"]).to_owned(), str_at(c, &["status"]).to_owned());
    let mut before = HashMap::new();
    for condition in list_at(old, &["status", "conditions"]) {
        before.entry(said(condition)).or_insert(&condition["lastTransitionTime"]);
    }
    for condition in list_at_mut(new, &["status", "conditions"]) {
        let since = before.get(&said(condition)).map(|time| Value::clone(time)).filter(|t| !t.is_null());
        let Some(map) = condition.as_object_mut() else { continue };
        super::access::set_default(map, "lastUpdateTime", now);
        super::access::set_default(map, "lastTransitionTime", since.unwrap_or_else(|| now.into()));
    }
}

/// Service: both forms of the address agree, status is empty.
pub fn service_create(object: &mut Value) {
    normalize_cluster_ips(object, None);
    object["status"] = json!({ "loadBalancer": {} });
}

/// Service: keeps allocated values a client leaves out, drops those the new type has no use for.
pub fn service_update(new: &mut Value, old: &Value) {
    normalize_cluster_ips(new, Some(old));
    patch_allocated(new, old);
    drop_type_dependent(new, old);
}

fn service_type(service: &Value) -> &str {
    str_at(service, &["spec", "type"])
}

/// Whether a Service of this type has cluster addresses.
#[must_use]
pub fn needs_cluster_ip(service: &Value) -> bool {
    matches!(service_type(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether a Service's ports may have node ports. A load balancer for which none are drawn may still name some.
#[must_use]
pub fn needs_node_port(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
}

/// Whether a Service has a health check node port.
#[must_use]
pub fn needs_health_check_port(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && str_at(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

/// `clusterIP` is the first of `clusterIPs`: fills in whichever a client left out.
fn normalize_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let single = str_at(new, &["spec", "clusterIP"]).to_owned();
    let list = list_at(new, &["spec", "clusterIPs"]).to_vec();
    let spec = ensure_map(new, &["spec"]);
    match old {
        None => {
            if !single.is_empty() && list.is_empty() {
                spec.insert("clusterIPs".to_owned(), json!([single]));
            }
        }
        Some(old) => {
            let old_single = str_at(old, &["spec", "clusterIP"]);
            let old_list = list_at(old, &["spec", "clusterIPs"]);
            if single != old_single && !old_single.is_empty() {
                // A client that knows only the old field changed it: the list follows.
                if single.is_empty() && list == old_list {
                    spec.remove("clusterIPs");
                } else if !single.is_empty() && list == old_list {
                    spec.insert("clusterIPs".to_owned(), json!([single]));
                }
            } else if !single.is_empty() && list.is_empty() && old_single.is_empty() {
                spec.insert("clusterIPs".to_owned(), json!([single]));
            }
        }
    }
}

fn patch_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if str_at(new, &["spec", "clusterIP"]).is_empty() {
            copy_spec(new, old, "clusterIP");
        }
        if list_at(new, &["spec", "clusterIPs"]).is_empty()
            && at(new, &["spec", "clusterIP"]) == at(old, &["spec", "clusterIP"])
        {
            copy_spec(new, old, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if is_empty(at(new, &["spec", key])) {
                copy_spec(new, old, key);
            }
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let ports = |service: &Value| -> Vec<i64> {
            list_at(service, &["spec", "ports"])
                .iter()
                .filter_map(|p| int_at(p, &["nodePort"]))
                .filter(|p| *p != 0)
                .collect()
        };
        let mine: HashSet<i64> = ports(new).into_iter().collect();
        let mut used: HashSet<i64> = ports(old).into_iter().filter(|p| mine.contains(p)).collect();
        let mut by_name: HashMap<&str, i64> = HashMap::new();
        for port in list_at(old, &["spec", "ports"]) {
            by_name.entry(str_at(port, &["name"])).or_insert(int_at(port, &["nodePort"]).unwrap_or(0));
        }
        for port in list_at_mut(new, &["spec", "ports"]) {
            if int_at(port, &["nodePort"]).unwrap_or(0) != 0 {
                continue;
            }
            let name = str_at(port, &["name"]);
            let before = by_name.get(name).copied().filter(|p| *p != 0 && !used.contains(p));
            if let (Some(number), Some(map)) = (before, port.as_object_mut()) {
                map.insert("nodePort".to_owned(), number.into());
                used.insert(number);
            }
        }
    }
    if needs_health_check_port(old)
        && needs_health_check_port(new)
        && int_at(new, &["spec", "healthCheckNodePort"]).unwrap_or(0) == 0
    {
        copy_spec(new, old, "healthCheckNodePort");
    }
}

fn copy_spec(new: &mut Value, old: &Value, key: &str) {
    let from = at(old, &["spec"]);
    if let Some(spec) = new.get_mut("spec") {
        copy_field(spec, from, key);
    }
}

fn drop_type_dependent(new: &mut Value, old: &Value) {
    let same = |new: &Value, key: &str| at(new, &["spec", key]) == at(old, &["spec", key]);
    let mut drop = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if same(new, "clusterIP") && same(new, "clusterIPs") {
            drop.extend(["clusterIP", "clusterIPs"]);
        }
        for key in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if same(new, key) {
                drop.push(key);
            }
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) && same(new, "healthCheckNodePort") {
        drop.push("healthCheckNodePort");
    }
    if service_type(old) == "LoadBalancer" && service_type(new) != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(new, key) {
                drop.push(key);
            }
        }
    }
    // The addresses of a balancer that is not there any more are somebody else's by and by.
    if service_type(new) != "LoadBalancer" && !is_empty(at(new, &["status", "loadBalancer"])) {
        ensure_map(new, &["status"]).insert("loadBalancer".to_owned(), json!({}));
    }
    if externally_accessible(old) && !externally_accessible(new) && same(new, "externalTrafficPolicy") {
        drop.push("externalTrafficPolicy");
    }
    let node_ports = |service: &Value| -> Vec<i64> {
        list_at(service, &["spec", "ports"]).iter().map(|p| int_at(p, &["nodePort"]).unwrap_or(0)).collect()
    };
    if needs_node_port(old) && !needs_node_port(new) {
        let before: HashSet<i64> = node_ports(old).into_iter().collect();
        let unchanged = node_ports(new).iter().all(|p| *p == 0 || before.contains(p));
        if unchanged {
            for port in list_at_mut(new, &["spec", "ports"]) {
                if let Some(map) = port.as_object_mut() {
                    map.remove("nodePort");
                }
            }
        }
    }
    if let Some(spec) = map_at_mut(new, &["spec"]) {
        for key in drop {
            spec.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_update_keeps_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"],
            "ports": [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30002}]}});
        let mut new = json!({"spec": {"type": "NodePort",
            "ports": [{"name": "b", "port": 81}, {"name": "c", "port": 82, "nodePort": 30001}]}});
        service_update(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.43.0.7");
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.43.0.7"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30002);
        let mut plain = old.clone();
        plain["spec"]["type"] = "ClusterIP".into();
        service_update(&mut plain, &old);
        assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
        assert_eq!(plain["spec"]["clusterIP"], "10.43.0.7");
        let mut external = old.clone();
        external["spec"]["type"] = "ExternalName".into();
        service_update(&mut external, &old);
        assert!(external["spec"].get("clusterIP").is_none());
    }

    #[test]
    fn conditions_of_a_request_get_their_times() {
        let old = json!({"status": {"conditions": [
            {"type": "Approved", "status": "True", "lastUpdateTime": "t0", "lastTransitionTime": "t0"}]}});
        let mut new = json!({"status": {"conditions": [
            {"type": "Approved", "status": "True", "message": "forged", "lastUpdateTime": "t9"},
            {"type": "Failed", "status": "True"}, 3]}});
        request_status(&mut new, &old);
        request_conditions(&mut new, &old, "t1");
        let conditions = &new["status"]["conditions"];
        assert_eq!(conditions[0], old["status"]["conditions"][0]);
        assert_eq!(
            (&conditions[1]["lastUpdateTime"], &conditions[1]["lastTransitionTime"]),
            (&json!("t1"), &json!("t1"))
        );
        let mut again = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
        request_conditions(&mut again, &old, "t1");
        assert_eq!(again["status"]["conditions"][0]["lastTransitionTime"], "t0");
    }

    #[test]
    fn gated_pods_say_so() {
        let mut pod = json!({"spec": {"schedulingGates": [{"name": "x"}], "containers": []}});
        pod_create(&mut pod);
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
        assert_eq!(pod["status"]["qosClass"], "BestEffort");
    }
}
