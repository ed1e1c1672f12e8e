//! What an update of a pod's status may say (`ValidatePodStatusUpdate` in upstream's
//! `pkg/apis/core/validation/validation.go`): others act on it without looking twice.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use serde_json::Value;

use super::{annotations, dns_subdomain};
use crate::access::{at, int_at, list_at, str_at};
use crate::field::{FieldErrors, Path};
use crate::meta;

const STATUS: Path<'static> = Path::new("status");
const IP_WORDS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Everything wrong with a new status.
pub fn update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    annotations::update(new, old, errors);
    conditions(list_at(new, &["status", "conditions"]), errors);
    let nominated = str_at(new, &["status", "nominatedNodeName"]);
    if !nominated.is_empty() && nominated != str_at(old, &["status", "nominatedNodeName"]) {
        dns_subdomain(nominated, &STATUS.child("nominatedNodeName"), errors);
    }
    transitions(new, old, errors);
    pod_ips(new, old, errors);
    host_ips(at(new, &["status"]), errors);
}

/// Types of conditions that are not the system's are qualified names. (The path is upstream's.)
fn conditions(conditions: &[Value], errors: &mut FieldErrors) {
    let metadata = Path::new("metadata");
    let path = metadata.child("conditions");
    for (i, condition) in conditions.iter().enumerate() {
        let name = str_at(condition, &["type"]);
        if matches!(name, "PodScheduled" | "Ready" | "Initialized") {
            continue;
        }
        for problem in meta::qualified_name(name) {
            errors.invalid(&path.index(i).child("Type"), name, problem);
        }
    }
}

/// Containers that have ended for good stay so.
fn transitions(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let policy = str_at(old, &["spec", "restartPolicy"]);
    let named = |list: &str, restarts: fn(&str) -> bool| -> HashSet<&str> {
        let all = list_at(old, &["spec", list]).iter();
        all.filter(|c| restarts(str_at(c, &["restartPolicy"]))).map(|c| str_at(c, &["name"])).collect()
    };
    if policy != "Always" {
        // A container's own policy and rules decide for themselves.
        let ruled = named("containers", |policy| !policy.is_empty());
        stay_ended(new, old, "containerStatuses", policy, &ruled, errors);
        let sidecars = named("initContainers", |policy| policy == "Always");
        stay_ended(new, old, "initContainerStatuses", policy, &sidecars, errors);
    }
    stay_ended(new, old, "ephemeralContainerStatuses", "Never", &HashSet::new(), errors);
}

fn stay_ended(new: &Value, old: &Value, list: &str, policy: &str, except: &HashSet<&str>, errors: &mut FieldErrors) {
    let path = STATUS.child(list);
    let running = list_at(new, &["status", list]).iter().enumerate();
    let running = running.filter(|(_, s)| at(s, &["state", "terminated"]).is_null());
    let running: HashMap<&str, usize> = running.map(|(i, s)| (str_at(s, &["name"]), i)).collect();
    for before in list_at(old, &["status", list]) {
        let name = str_at(before, &["name"]);
        let ended = match int_at(before, &["state", "terminated", "exitCode"]) {
            None => false,
            Some(code) => code == 0 || policy != "OnFailure",
        };
        if let Some(i) = running.get(name).filter(|_| ended && !except.contains(name)) {
            errors.forbidden(&path.index(*i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// The addresses are new ones only when they are addresses: an invalid one that is stored stays.
fn pod_ips(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let path = STATUS.child("podIPs");
    let texts = |pod| list_at(pod, &["status", "podIPs"]).iter().map(|entry| str_at(entry, &["ip"]));
    let before: HashSet<&str> = texts(old).chain([str_at(old, &["status", "podIP"])]).collect();
    for (i, ip) in texts(new).enumerate().filter(|(_, ip)| !before.contains(ip)) {
        valid_ip(ip, &path.index(i), errors);
    }
    let single = str_at(new, &["status", "podIP"]);
    if !single.is_empty() && !before.contains(single) {
        valid_ip(single, &STATUS.child("podIP"), errors);
    }
    one_per_family(list_at(new, &["status", "podIPs"]), &path, errors);
}

fn host_ips(status: &Value, errors: &mut FieldErrors) {
    let path = STATUS.child("hostIPs");
    let list = list_at(status, &["hostIPs"]);
    let Some(first) = list.first().map(|entry| str_at(entry, &["ip"])) else { return };
    if first != str_at(status, &["hostIP"]) {
        errors.invalid(&path.index(0).child("ip"), first, "must be equal to `hostIP`");
    }
    for (i, entry) in list.iter().enumerate() {
        valid_ip(str_at(entry, &["ip"]), &path.index(i), errors);
    }
    one_per_family(list, &path, errors);
}

fn valid_ip(text: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if text.parse::<IpAddr>().is_err() {
        errors.invalid(path, text, IP_WORDS);
    }
}

/// Of several addresses there is one of each family.
fn one_per_family(list: &[Value], path: &Path<'_>, errors: &mut FieldErrors) {
    if list.len() < 2 {
        return;
    }
    let texts = || list.iter().map(|entry| str_at(entry, &["ip"]));
    let families: HashSet<bool> = texts().filter_map(|ip| ip.parse::<IpAddr>().ok()).map(|ip| ip.is_ipv4()).collect();
    if list.len() > 2 || families.len() < 2 {
        errors.invalid(path, list, "may specify no more than one IP for each IP family");
    }
    let mut seen = HashSet::new();
    for (i, entry) in list.iter().enumerate() {
        if !seen.insert(str_at(entry, &["ip"])) {
            errors.duplicate(&path.index(i), entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(old: &Value, new: &Value) -> Vec<String> {
        let mut errors = FieldErrors::new();
        update(new, old, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    fn told(status: Value) -> Vec<String> {
        problems(&json!({}), &json!({"status": status}))
    }

    #[test]
    fn addresses_are_addresses() {
        assert_eq!(told(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})), [""; 0]);
        let bad = told(json!({"podIP": "x", "podIPs": [{"ip": "x"}]}));
        assert_eq!(
            bad,
            [
                format!("status.podIPs[0]: Invalid value: \"x\": {IP_WORDS}"),
                format!("status.podIP: Invalid value: \"x\": {IP_WORDS}")
            ]
        );
        let pod = json!({"status": {"podIP": "x", "podIPs": [{"ip": "x"}]}});
        assert_eq!(problems(&pod, &pod), [""; 0], "what is stored stays");
        let two = told(json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}));
        assert!(two.len() == 1 && two[0].ends_with("may specify no more than one IP for each IP family"), "{two:?}");
        let same = told(json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]}));
        assert_eq!(same.last().map(String::as_str), Some(r#"status.podIPs[1]: Duplicate value: {"ip":"10.0.0.1"}"#));
    }

    #[test]
    fn addresses_of_the_host_agree() {
        assert_eq!(told(json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}]})), [""; 0]);
        let other = told(json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]}));
        assert_eq!(other, [r#"status.hostIPs[0].ip: Invalid value: "10.0.0.2": must be equal to `hostIP`"#]);
    }

    #[test]
    fn conditions_have_names() {
        assert_eq!(told(json!({"conditions": [{"type": "Ready"}, {"type": "example.com/gate"}]})), [""; 0]);
        let bad = told(json!({"conditions": [{"type": "a b"}]}));
        assert!(bad.len() == 1 && bad[0].starts_with("metadata.conditions[0].Type: Invalid value: \"a b\""), "{bad:?}");
    }

    #[test]
    fn what_has_ended_for_good_does_not_run_again() {
        let ended = |code: i64| json!({"name": "c", "state": {"terminated": {"exitCode": code}}});
        let runs = json!({"name": "c", "state": {"running": {}}});
        for (list, policy, own, code, refused) in [
            ("initContainerStatuses", "Never", "", 1, true),
            ("initContainerStatuses", "OnFailure", "", 1, false),
            ("initContainerStatuses", "OnFailure", "", 0, true),
            ("initContainerStatuses", "Never", "Always", 0, false),
            ("initContainerStatuses", "Always", "", 0, false),
            ("ephemeralContainerStatuses", "Always", "", 0, true),
            ("containerStatuses", "Never", "", 0, true),
            ("containerStatuses", "Always", "", 0, false),
        ] {
            let init = json!([{"name": "c", "restartPolicy": own}]);
            let old =
                json!({"spec": {"restartPolicy": policy, "initContainers": init}, "status": {list: [ended(code)]}});
            let new = json!({"spec": old["spec"], "status": {list: [runs]}});
            let expect = format!("status.{list}[0].state: Forbidden: may not be transitioned to non-terminated state");
            let expect: Vec<String> = refused.then_some(expect).into_iter().collect();
            assert_eq!(problems(&old, &new), expect, "{list} {policy} {own} {code}");
        }
    }
}
