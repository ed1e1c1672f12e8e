//! The objects that every cluster has: the mandatory ones, without which no request would have a place, and those that
//! are suggested (k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go).

use serde_json::{Value, json};

use super::{AUTO_UPDATE, CATCH_ALL, EXEMPT, GROUP};

/// An object that the server makes and keeps.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Its resource.
    pub plural: &'static str,
    /// Whether it is kept as it is, whatever its annotation says.
    pub mandatory: bool,
    /// The object, with all defaults.
    pub object: Value,
}

/// What a schema distinguishes flows by.
type By = Option<&'static str>;
const BY_USER: By = Some("ByUser");
const BY_NAMESPACE: By = Some("ByNamespace");

/// All of them, in the order in which they are made: what is suggested first, so that nothing of it waits for what
/// catches all.
#[must_use]
pub fn bootstrap() -> Vec<Bootstrap> {
    let object = |plural, mandatory| move |object| Bootstrap { plural, mandatory, object };
    let schemas = suggested_schemas().into_iter().map(object("flowschemas", false));
    let levels = suggested_levels().into_iter().map(object("prioritylevelconfigurations", false));
    let mandatory = [exempt_schema(), catch_all_schema()].into_iter().map(object("flowschemas", true));
    let last = [catch_all_level(), exempt_level()].into_iter().map(object("prioritylevelconfigurations", true));
    schemas.chain(levels).chain(mandatory).chain(last).collect()
}

/// The FlowSchema of this name that cannot be changed.
#[must_use]
pub fn mandatory_schema(name: &str) -> Option<Value> {
    match name {
        EXEMPT => Some(exempt_schema()),
        CATCH_ALL => Some(catch_all_schema()),
        _ => None,
    }
}

/// The PriorityLevelConfiguration of this name that cannot be changed, but for how much an exempt one lends.
#[must_use]
pub fn mandatory_level(name: &str) -> Option<Value> {
    match name {
        EXEMPT => Some(exempt_level()),
        CATCH_ALL => Some(catch_all_level()),
        _ => None,
    }
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}, "generation": 1},
        "spec": spec,
    })
}

fn exempt_level() -> Value {
    let exempt = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    object("PriorityLevelConfiguration", EXEMPT, json!({"type": "Exempt", "exempt": exempt}))
}

fn limited(name: &str, shares: i64, lendable: i64, response: Value) -> Value {
    let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
    object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
}

fn catch_all_level() -> Value {
    limited(CATCH_ALL, 5, 0, json!({"type": "Reject"}))
}

fn suggested_levels() -> Vec<Value> {
    [
        ("system", 30, 33, (64, 6)),
        ("node-high", 40, 25, (64, 6)),
        ("leader-election", 10, 0, (16, 4)),
        ("workload-high", 40, 50, (128, 6)),
        ("workload-low", 100, 90, (128, 6)),
        ("global-default", 20, 50, (128, 6)),
    ]
    .into_iter()
    .map(|(name, shares, lendable, (queues, hand))| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        limited(name, shares, lendable, json!({"type": "Queue", "queuing": queuing}))
    })
    .collect()
}

fn schema(name: &str, level: &str, precedence: i64, by: By, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
    });
    if let Some(by) = by {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("FlowSchema", name, spec)
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

/// All accounts of kube-system.
fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn resource(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// Whatever these subjects ask for.
fn anything(subjects: Vec<Value>) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resource(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

/// Everybody, with a name or without.
fn everybody() -> Vec<Value> {
    groups(&["system:unauthenticated", "system:authenticated"])
}

fn exempt_schema() -> Value {
    schema(EXEMPT, EXEMPT, 1, None, anything(groups(&["system:masters"])))
}

fn catch_all_schema() -> Value {
    schema(CATCH_ALL, CATCH_ALL, 10_000, BY_USER, anything(everybody()))
}

fn suggested_schemas() -> Vec<Value> {
    let nodes = || groups(&["system:nodes"]);
    let leases = |verbs| resource(verbs, "coordination.k8s.io", &["leases"], false);
    let own = resource(&["*"], "", &["nodes", "nodes/status"], true);
    let node_high = json!({"subjects": nodes(), "resourceRules": [own, leases(&["*"])]});
    let probes = json!({
        "subjects": everybody(),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let mut leaders = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    leaders.push(system_accounts());
    let election = json!({"subjects": leaders, "resourceRules": [leases(&["get", "create", "update"])]});
    let by_one = |name: &str| anything(users(&[name]));
    vec![
        schema("system-nodes", "system", 500, BY_USER, anything(nodes())),
        schema("system-node-high", "node-high", 400, BY_USER, node_high),
        schema("probes", EXEMPT, 2, None, probes),
        schema("system-leader-election", "leader-election", 100, BY_USER, election),
        schema("kube-controller-manager", "workload-high", 800, BY_NAMESPACE, by_one("system:kube-controller-manager")),
        schema("kube-scheduler", "workload-high", 800, BY_NAMESPACE, by_one("system:kube-scheduler")),
        schema("kube-system-service-accounts", "workload-high", 900, BY_NAMESPACE, anything(vec![system_accounts()])),
        schema("service-accounts", "workload-low", 9000, BY_USER, anything(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, BY_USER, anything(everybody())),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::access::str_at;
    use crate::builtin;

    /// As pkg/apis/flowcontrol/internalbootstrap/default-internal_test.go: what is made is valid, and has its defaults.
    #[test]
    fn all_are_valid_and_complete() {
        let all = bootstrap();
        assert_eq!(all.len(), 19);
        for Bootstrap { plural, object, .. } in &all {
            let kind = builtin().by_gvr(GROUP, "v1", plural).unwrap();
            assert_eq!(object["kind"], *kind.kind);
            let mut defaulted = object.clone();
            kind.default(&mut defaulted);
            assert_eq!(defaulted, *object);
            assert_eq!(kind.validate_create(object).0, [], "{object}");
        }
        // Each schema leads to a level that is made, too.
        let levels: Vec<&str> = all
            .iter()
            .filter(|b| b.plural == "prioritylevelconfigurations")
            .map(|b| str_at(&b.object, &["metadata", "name"]))
            .collect();
        for schema in all.iter().filter(|b| b.plural == "flowschemas") {
            assert!(levels.contains(&super::super::level_of(&schema.object)), "{}", schema.object);
        }
    }
}
