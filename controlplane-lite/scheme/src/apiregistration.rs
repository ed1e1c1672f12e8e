//! What APIServices say of the group versions that are served, here or elsewhere. Pure.

use std::cmp::Reverse;

use serde_json::{Value, json};

use crate::access::{at, ensure_map, int_at, list_at, str_at};
use crate::scheme::Priority;

/// The group of APIServices.
pub const GROUP: &str = "apiregistration.k8s.io";
/// Says that somebody makes and removes an APIService by itself, and until when.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// What [`AUTOMANAGED`] says of built-in groups.
pub const ON_START: &str = "onstart";
/// What [`AUTOMANAGED`] says of groups that come and go.
pub const CONTINUOUSLY: &str = "true";

/// The name of the APIService of a group version.
#[must_use]
pub fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

/// The group and version that an APIService of this name is of.
#[must_use]
pub fn group_version(name: &str) -> (&str, &str) {
    let (version, group) = name.split_once('.').unwrap_or((name, ""));
    (group, version)
}

/// The condition of what this server serves itself.
#[must_use]
pub fn local_condition(now: &str) -> Value {
    json!({
        "type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local",
        "message": "Local APIServices are always available",
    })
}

/// The condition `Available` of an APIService.
#[must_use]
pub fn available(service: &Value) -> Option<&Value> {
    list_at(service, &["status", "conditions"]).iter().find(|condition| str_at(condition, &["type"]) == "Available")
}

/// Whether requests may be sent where an APIService says.
#[must_use]
pub fn is_available(service: &Value) -> bool {
    available(service).is_some_and(|condition| condition["status"] == "True")
}

/// An APIService with a condition `Available`, unless it has it already. When it began stays, as long as the status
/// does (`SetAPIServiceCondition` of k8s.io/kube-aggregator/pkg/apis/apiregistration/helpers.go).
#[must_use]
pub fn with_available(service: &Value, mut wanted: Value) -> Option<Value> {
    let mut conditions = list_at(service, &["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|condition| str_at(condition, &["type"]) == "Available") {
        Some(known) => {
            if known["status"] == wanted["status"] {
                wanted["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            if *known == wanted {
                return None;
            }
            *known = wanted;
        }
        None => conditions.push(wanted),
    }
    let mut next = service.clone();
    ensure_map(&mut next, &["status"]).insert("conditions".to_owned(), conditions.into());
    Some(next)
}

/// A group with its priority, and its versions with theirs.
type Group = (&'static str, i32, &'static [(&'static str, i32)]);

/// Built-in groups with their priorities, and those of their versions: upstream's order of discovery
/// (`DefaultGenericAPIServicePriorities` of pkg/controlplane/apiserver/aggregator.go and the priorities of
/// cmd/kube-apiserver/app/aggregator.go). That of resource.k8s.io/v1 is not stated there; only its order is.
const PRIORITIES: &[Group] = &[
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15)]),
    ("authentication.k8s.io", 17_700, &[("v1", 15)]),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v2", 30), ("v1", 15)]),
    ("batch", 17_400, &[("v1", 15)]),
    ("certificates.k8s.io", 17_300, &[("v1", 15)]),
    ("networking.k8s.io", 17_200, &[("v1", 15)]),
    ("policy", 17_100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    ("storage.k8s.io", 16_800, &[("v1", 15)]),
    ("admissionregistration.k8s.io", 16_700, &[("v1", 15)]),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("scheduling.k8s.io", 16_600, &[("v1", 15)]),
    ("coordination.k8s.io", 16_500, &[("v1", 15)]),
    ("node.k8s.io", 16_300, &[("v1", 15)]),
    ("discovery.k8s.io", 16_200, &[("v1", 15)]),
    ("flowcontrol.apiserver.k8s.io", 16_100, &[("v1", 21)]),
    ("resource.k8s.io", 15_900, &[("v1", 15)]),
];

/// Priorities of a group and version that a CustomResourceDefinition defines (`handleVersionUpdate` of
/// pkg/controlplane/controller/crdregistration/crdregistration_controller.go).
const DEFINED: (i32, i32) = (1000, 100);

/// The APIService of a group version that this server serves itself. None for its own: it is there whatever others say.
#[must_use]
pub fn local(group: &str, version: &str) -> Option<Value> {
    if group == GROUP {
        return None;
    }
    let known = PRIORITIES.iter().find(|(name, ..)| *name == group).and_then(|(_, priority, versions)| {
        versions.iter().find(|(name, _)| *name == version).map(|(_, of_version)| (*priority, *of_version))
    });
    let (label, (priority, of_version)) = known.map_or((CONTINUOUSLY, DEFINED), |known| (ON_START, known));
    let mut spec = json!({"version": version, "groupPriorityMinimum": priority, "versionPriority": of_version});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    Some(json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "APIService",
        "metadata": {"name": name_of(group, version), "labels": {AUTOMANAGED: label}},
        "spec": spec,
    }))
}

/// What becomes of the stored APIService of a name for which `desired` is to be there, if any (`checkAPIService` of
/// k8s.io/kube-aggregator/pkg/controllers/autoregister/autoregister_controller.go).
#[derive(Debug, Clone, PartialEq)]
pub enum Registration {
    /// It is as it should be, or somebody else's.
    Keep,
    /// It is made.
    Create(Value),
    /// It gets this spec.
    Update(Value),
    /// It goes.
    Remove,
}

/// See [`Registration`].
#[must_use]
pub fn registration(stored: Option<&Value>, desired: Option<&Value>) -> Registration {
    let Some(stored) = stored else {
        return desired.map_or(Registration::Keep, |wanted| Registration::Create(wanted.clone()));
    };
    let label = at(stored, &["metadata", "labels"]).get(AUTOMANAGED).and_then(Value::as_str);
    if !matches!(label, Some(ON_START | CONTINUOUSLY)) {
        return Registration::Keep;
    }
    match desired {
        None => Registration::Remove,
        Some(wanted) if wanted["spec"] == stored["spec"] => Registration::Keep,
        Some(wanted) => {
            let mut next = stored.clone();
            next["spec"] = wanted["spec"].clone();
            Registration::Update(next)
        }
    }
}

/// The groups of some APIServices with their versions, in the order of discovery: the groups by the priority of their
/// first, then by name; versions by priority, then by how much they are preferred (`SortedByGroupAndVersion` of
/// k8s.io/kube-aggregator/pkg/apis/apiregistration/helpers.go).
#[must_use]
pub fn by_group<'a>(services: impl IntoIterator<Item = &'a Value>) -> Vec<(&'a str, Vec<&'a Value>)> {
    let number = |service: &Value, field: &str| int_at(service, &["spec", field]).unwrap_or(0);
    let mut services: Vec<&Value> = services.into_iter().collect();
    let name = |service: &'a Value| str_at(service, &["metadata", "name"]);
    services.sort_by_key(|service| (Reverse(number(service, "groupPriorityMinimum")), name(service)));
    let mut groups: Vec<(&str, Vec<&Value>)> = Vec::new();
    for service in services {
        let group = str_at(service, &["spec", "group"]);
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, versions)) => versions.push(service),
            None => groups.push((group, vec![service])),
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|service| {
            let version = Priority::of(str_at(service, &["spec", "version"]));
            (Reverse(number(service, "versionPriority")), Reverse(version))
        });
    }
    groups
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::builtin;

    /// The order of the table of kinds is that of the priorities.
    #[test]
    fn groups_are_served_in_the_order_of_their_priorities() {
        let groups = builtin().groups();
        let mut made = Vec::new();
        for group in &groups {
            made.extend(group.versions.iter().filter_map(|version| local(group.name, version)));
        }
        assert!(made.iter().all(|service| service["metadata"]["labels"][AUTOMANAGED] == ON_START), "{made:?}");
        let sorted: Vec<(&str, Vec<&str>)> = by_group(&made)
            .into_iter()
            .map(|(name, of)| (name, of.into_iter().map(|s| str_at(s, &["spec", "version"])).collect()))
            .collect();
        let served: Vec<(&str, Vec<&str>)> =
            groups.iter().filter(|g| g.name != GROUP).map(|g| (g.name, g.versions.clone())).collect();
        assert_eq!(sorted, served);
        assert_eq!(groups[0].name, "");
        assert_eq!(groups[1].name, GROUP, "always the first of the groups");
    }

    fn service(group: &str, version: &str, priorities: (i32, i32)) -> Value {
        json!({
            "metadata": {"name": name_of(group, version)},
            "spec": {"group": group, "version": version, "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1},
        })
    }

    #[test]
    fn order() {
        let services = [
            service("b", "v1", (100, 10)),
            service("a", "v1", (100, 10)),
            service("a", "v2beta1", (50, 20)),
            service("c", "v1alpha1", (200, 1)),
            service("c", "v1", (1, 1)),
        ];
        let names: Vec<Vec<&str>> = by_group(&services)
            .into_iter()
            .map(|(_, versions)| versions.into_iter().map(|s| str_at(s, &["metadata", "name"])).collect())
            .collect();
        assert_eq!(names, [vec!["v1.c", "v1alpha1.c"], vec!["v2beta1.a", "v1.a"], vec!["v1.b"]]);
    }

    /// The table above `checkAPIService`.
    #[test]
    fn registrations() {
        let desired = local("apps", "v1").unwrap();
        let stored = |label: Option<&str>, priority: i32| {
            let mut service = desired.clone();
            service["metadata"]["labels"] = label.map_or(json!({}), |label| json!({AUTOMANAGED: label}));
            service["spec"]["groupPriorityMinimum"] = priority.into();
            service
        };
        assert_eq!(registration(None, None), Registration::Keep);
        assert_eq!(registration(None, Some(&desired)), Registration::Create(desired.clone()));
        for label in [ON_START, CONTINUOUSLY] {
            let other = stored(Some(label), 7);
            assert_eq!(registration(Some(&stored(Some(label), 17_800)), Some(&desired)), Registration::Keep);
            let Registration::Update(next) = registration(Some(&other), Some(&desired)) else { panic!("{label}") };
            assert_eq!(next["spec"], desired["spec"]);
            assert_eq!(registration(Some(&other), None), Registration::Remove);
        }
        for label in [None, Some("no")] {
            assert_eq!(registration(Some(&stored(label, 7)), Some(&desired)), Registration::Keep);
            assert_eq!(registration(Some(&stored(label, 7)), None), Registration::Keep);
        }
    }

    #[test]
    fn a_condition_begins_when_its_status_changes() {
        let condition = |status: &str, reason: &str, at: &str| json!({"type": "Available", "status": status, "reason": reason, "message": "m", "lastTransitionTime": at});
        let service = with_available(&json!({}), condition("False", "A", "t1")).unwrap();
        assert!(!is_available(&service));
        assert_eq!(with_available(&service, condition("False", "A", "t2")), None);
        let other = with_available(&service, condition("False", "B", "t3")).unwrap();
        assert_eq!(available(&other), Some(&condition("False", "B", "t1")));
        let now = with_available(&other, condition("True", "B", "t4")).unwrap();
        assert_eq!(available(&now), Some(&condition("True", "B", "t4")));
        assert!(is_available(&now));
    }
}
