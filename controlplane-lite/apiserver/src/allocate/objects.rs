//! The objects that show what Services hold: an IPAddress for every cluster IP and the default ServiceCIDR, as
//! upstream's allocator (pkg/registry/core/service/ipallocator/cidrallocator.go) and its repair make them. Pure.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::Cidr;
use super::fields::addresses;
use scheme::access::{ensure_map, list_at, str_at};

/// Name of the ServiceCIDR that every cluster has.
pub const DEFAULT_SERVICE_CIDR: &str = "kubernetes";
/// What keeps a ServiceCIDR until no Service has an address of it.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGED_BY: &str = "ipallocator.k8s.io";

/// The Service that an IPAddress belongs to: namespace and name.
pub type Holder = (String, String);

/// The IPAddresses that a Service ought to have, by name.
pub fn ip_addresses(service: &Value) -> Vec<(String, Value)> {
    let holder = holder(service);
    addresses(service).into_iter().map(|address| (address.to_string(), ip_address(address, &holder))).collect()
}

/// The namespace and name of a Service.
pub fn holder(service: &Value) -> Holder {
    let text = |field| str_at(service, &["metadata", field]).to_owned();
    (text("namespace"), text("name"))
}

fn ip_address(address: Ipv4Addr, (namespace, name): &Holder) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address.to_string(), "labels": {FAMILY_LABEL: "IPv4", MANAGED_BY_LABEL: MANAGED_BY}},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
}

/// The Service of an IPAddress that the allocator made; none for those of others.
pub fn allocated_to(ip_address: &Value) -> Option<Holder> {
    let parent = |field: &str| str_at(ip_address, &["spec", "parentRef", field]).to_owned();
    let ours = str_at(ip_address, &["metadata", "labels", MANAGED_BY_LABEL]) == MANAGED_BY;
    ours.then(|| (parent("namespace"), parent("name")))
}

/// The same, by the header alone.
pub fn is_managed(ip_address: &storage::Object) -> bool {
    ip_address.label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
}

/// What is to become of a stored IPAddress that a Service holds.
#[derive(Debug, PartialEq)]
pub enum Repair {
    Keep,
    /// It is the allocator's and says something else.
    Replace(Value),
    /// It is somebody else's: two holders of one address.
    Conflict,
}

/// Compares a stored IPAddress with what it ought to be.
pub fn repair(stored: &Value, wanted: &Value) -> Repair {
    let same_parent = ["resource", "namespace", "name"]
        .iter()
        .all(|field| str_at(stored, &["spec", "parentRef", field]) == str_at(wanted, &["spec", "parentRef", field]));
    let labels = [FAMILY_LABEL, MANAGED_BY_LABEL]
        .iter()
        .all(|label| stored["metadata"]["labels"][label] == wanted["metadata"]["labels"][label]);
    match (same_parent, labels) {
        (true, true) => Repair::Keep,
        (false, _) if allocated_to(stored).is_none() => Repair::Conflict,
        _ => {
            let mut next = stored.clone();
            for label in [FAMILY_LABEL, MANAGED_BY_LABEL] {
                next["metadata"]["labels"][label] = wanted["metadata"]["labels"][label].clone();
            }
            next["spec"]["parentRef"] = wanted["spec"]["parentRef"].clone();
            Repair::Replace(next)
        }
    }
}

/// The ServiceCIDR of the range that this server allocates from
/// (pkg/controlplane/controller/defaultservicecidr/default_servicecidr_controller.go), with the finalizer of
/// pkg/controller/servicecidrs.
pub fn default_service_cidr(cidr: Cidr, now: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": DEFAULT_SERVICE_CIDR, "finalizers": [FINALIZER]},
        "spec": {"cidrs": [cidr.to_string()]},
        "status": {"conditions": [ready(now)]},
    })
}

fn ready(now: &str) -> Value {
    json!({
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": now,
    })
}

/// The stored default ServiceCIDR with the condition that it lacks; `None` when nothing is to be written. One that says
/// something else than this server's range is left alone, as is one that is being deleted.
pub fn with_ready(stored: &Value, cidr: Cidr, now: &str) -> Option<Value> {
    let conditions = list_at(stored, &["status", "conditions"]);
    let judged = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] != "Unknown");
    if judged
        || stored["spec"]["cidrs"] != json!([cidr.to_string()])
        || !stored["metadata"]["deletionTimestamp"].is_null()
    {
        return None;
    }
    let mut conditions: Vec<Value> = conditions.iter().filter(|c| c["type"] != "Ready").cloned().collect();
    conditions.push(ready(now));
    let mut next = stored.clone();
    ensure_map(&mut next, &["status"]).insert("conditions".into(), conditions.into());
    Some(next)
}

/// The IPv4 ranges that a ServiceCIDR says.
fn ranges(object: &Value) -> impl Iterator<Item = Cidr> + '_ {
    list_at(object, &["spec", "cidrs"]).iter().filter_map(|text| text.as_str()?.parse().ok())
}

/// The ranges that Services may have addresses of, beside that of the server: those of ServiceCIDRs that are ready, or
/// of which nobody says that they are not, and that stay (`MetaAllocator.syncAllocators`).
pub fn added_ranges<'o>(objects: impl Iterator<Item = &'o Value>, own: Cidr) -> Vec<Cidr> {
    let mut added = Vec::new();
    for object in objects.filter(|object| object["metadata"]["deletionTimestamp"].is_null()) {
        let mut conditions = list_at(object, &["status", "conditions"]).iter();
        if conditions.find(|c| c["type"] == "Ready").is_none_or(|c| c["status"] == "True") {
            added.extend(ranges(object).filter(|range| *range != own));
        }
    }
    added.sort_by_key(|range| (range.base, range.prefix));
    added.dedup();
    added
}

/// What is to be written of a ServiceCIDR (upstream's pkg/controller/servicecidrs): that it is ready and protected, or,
/// when it is being deleted, that it is in use or not protected any more. `used` are the addresses that Services have;
/// `others` the ranges of the ServiceCIDRs that stay without it.
pub fn settled(object: &Value, used: &[Ipv4Addr], others: &[Cidr], now: &str) -> Option<Value> {
    let mut next = object.clone();
    let is_protected = list_at(object, &["metadata", "finalizers"]).iter().any(|f| f == FINALIZER);
    if object["metadata"]["deletionTimestamp"].is_null() {
        if !is_protected {
            let mut finalizers = list_at(object, &["metadata", "finalizers"]).to_vec();
            finalizers.push(FINALIZER.into());
            ensure_map(&mut next, &["metadata"]).insert("finalizers".into(), finalizers.into());
        }
        let is_ready =
            list_at(object, &["status", "conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        if !is_ready {
            set_ready(&mut next, "True", "", "Kubernetes Service CIDR is ready", now);
        }
    } else if is_protected {
        let own: Vec<Cidr> = ranges(object).collect();
        let orphan = |ip: &Ipv4Addr| {
            own.iter().any(|range| range.contains(*ip)) && !others.iter().any(|range| range.contains(*ip))
        };
        if used.iter().any(orphan) {
            let is_told = list_at(object, &["status", "conditions"])
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "False" && c["reason"] == "Terminating");
            if !is_told {
                let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                           ServiceCIDR";
                set_ready(&mut next, "False", "Terminating", why, now);
            }
        } else {
            let kept = list_at(object, &["metadata", "finalizers"]).iter().filter(|f| *f != FINALIZER).cloned();
            let kept: Vec<Value> = kept.collect();
            ensure_map(&mut next, &["metadata"]).insert("finalizers".into(), kept.into());
        }
    }
    (next != *object).then_some(next)
}

fn set_ready(object: &mut Value, status: &str, reason: &str, message: &str, now: &str) {
    let others = list_at(object, &["status", "conditions"]).iter().filter(|c| c["type"] != "Ready").cloned();
    let mut conditions: Vec<Value> = others.collect();
    conditions.push(json!({
        "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    }));
    ensure_map(object, &["status"]).insert("conditions".into(), conditions.into());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn service(name: &str, ip: &str) -> Value {
        json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"clusterIP": ip, "clusterIPs": [ip]}})
    }

    #[test]
    fn a_service_has_an_object_for_its_address() {
        let (name, object) = ip_addresses(&service("web", "10.43.0.7")).remove(0);
        assert_eq!((name.as_str(), allocated_to(&object)), ("10.43.0.7", Some(("ns".into(), "web".into()))));
        assert!(ip_addresses(&service("headless", "None")).is_empty());
        let kind = scheme::builtin().by_gvk("networking.k8s.io", "v1", "IPAddress").unwrap();
        assert!(kind.validate_create(&object).is_empty(), "what is made is valid");
    }

    #[test]
    fn what_says_something_else_is_put_right_and_what_is_foreign_is_not() {
        let wanted = ip_addresses(&service("web", "10.43.0.7")).remove(0).1;
        assert_eq!(repair(&wanted, &wanted), Repair::Keep);
        let other = ip_addresses(&service("gone", "10.43.0.7")).remove(0).1;
        assert_eq!(repair(&other, &wanted), Repair::Replace(wanted.clone()));
        let mut foreign = other.clone();
        foreign["metadata"]["labels"] = json!({});
        assert_eq!((repair(&foreign, &wanted), allocated_to(&foreign)), (Repair::Conflict, None));
        let mut unlabelled = wanted.clone();
        unlabelled["metadata"]["labels"] = json!({"mine": "x"});
        let Repair::Replace(next) = repair(&unlabelled, &wanted) else { panic!("labels are repaired") };
        assert_eq!((&next["metadata"]["labels"]["mine"], allocated_to(&next)), (&json!("x"), allocated_to(&wanted)));
    }

    #[test]
    fn a_range_that_is_added_is_ready_and_stays_as_long_as_it_is_used() {
        let own: Cidr = "10.43.0.0/16".parse().unwrap();
        let range = |text: &str| json!({"metadata": {"name": "more"}, "spec": {"cidrs": [text, "2001:db8::/64"]}});
        let bare = range("203.0.113.0/24");
        let added = |objects: &[&Value]| {
            let added = added_ranges(objects.iter().copied(), own);
            added.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            added(&[&bare, &range("10.43.0.0/16"), &range("10.0.0.0/8"), &bare]),
            ["10.0.0.0/8", "203.0.113.0/24"]
        );
        let ready = settled(&bare, &[], &[], "t1").unwrap();
        assert_eq!(ready["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(ready["status"]["conditions"][0]["status"], "True");
        assert_eq!((settled(&ready, &[], &[], "t2"), added(&[&ready]).len()), (None, 1));

        let mut going = ready.clone();
        going["metadata"]["deletionTimestamp"] = json!("t");
        assert!(added(&[&going]).is_empty());
        let used = ["203.0.113.7".parse().unwrap(), "10.43.0.1".parse().unwrap()];
        let waits = settled(&going, &used, &[own], "t2").unwrap();
        assert_eq!(waits["metadata"]["finalizers"], json!([FINALIZER]));
        let condition = &waits["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("Terminating")));
        assert_eq!(settled(&waits, &used, &[own], "t3"), None);
        for (used, others) in [(&used[1..], &[own][..]), (&used[..], &[own, "203.0.113.0/25".parse().unwrap()])] {
            let gone = settled(&waits, used, others, "t3").unwrap();
            assert_eq!(gone["metadata"]["finalizers"], json!([]));
        }
    }

    #[test]
    fn the_default_range_is_ready_once() {
        let cidr: Cidr = "10.43.0.0/16".parse().unwrap();
        let made = default_service_cidr(cidr, "2026-01-01T00:00:00Z");
        assert_eq!(with_ready(&made, cidr, "2026-02-01T00:00:00Z"), None);
        let mut bare = made.clone();
        bare["status"] = json!({});
        assert_eq!(with_ready(&bare, cidr, "2026-01-01T00:00:00Z"), Some(made.clone()));
        assert_eq!(with_ready(&bare, "10.44.0.0/16".parse().unwrap(), ""), None, "another range");
        bare["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(with_ready(&bare, cidr, ""), None);
        let kind = scheme::builtin().by_gvk("networking.k8s.io", "v1", "ServiceCIDR").unwrap();
        assert!(kind.validate_create(&made).is_empty());
    }
}
