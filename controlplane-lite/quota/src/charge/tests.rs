//! What is charged and what is refused, in upstream's words.

#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

fn quota(name: &str, spec: Value, hard: Value, used: Value) -> Quota {
    Quota::read(&json!({"metadata": {"name": name}, "spec": spec, "status": {"hard": hard, "used": used}}))
}

fn pod(requests: Value, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": requests}}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"spec": spec})
}

fn demand(evaluator: Evaluator, new: &Value, old: Option<&Value>) -> Demand {
    let measure = |object: &Value| evaluator.measure(object);
    let (new, old) = (measure(new), old.map(measure));
    Demand { new, old, told: false, now: Timestamp::UNIX_EPOCH, evaluator }
}

fn used(quotas: &[Quota]) -> Vec<String> {
    quotas.iter().map(|quota| print(&quota.used)).collect()
}

#[test]
fn what_fits_is_charged() {
    let hard = json!({"cpu": "3", "memory": "100Gi", "pods": "5"});
    let mut quotas = [quota("q", json!({}), hard, json!({"cpu": "1", "memory": "50Gi", "pods": "3"}))];
    let new = pod(json!({"cpu": "100m", "memory": "2Gi"}), json!({}));
    assert_eq!(charge(&mut quotas, &demand(Evaluator::Pods, &new, None)), Ok(true));
    assert_eq!(used(&quotas), ["cpu=1100m,memory=52Gi,pods=4"]);
}

#[test]
fn what_does_not_fit_is_refused_and_charged_nowhere() {
    let wide = quota("a", json!({}), json!({"pods": "9"}), json!({"pods": "0"}));
    let tight = quota("b", json!({}), json!({"cpu": "3", "pods": "5"}), json!({"cpu": "1", "pods": "5"}));
    let mut quotas = [wide, tight];
    let new = pod(json!({"cpu": "2500m"}), json!({}));
    let refused = charge(&mut quotas, &demand(Evaluator::Pods, &new, None)).unwrap_err();
    assert_eq!(refused, "exceeded quota: b, requested: cpu=2500m,pods=1, used: cpu=1,pods=5, limited: cpu=3,pods=5");
    assert_eq!(used(&quotas), ["pods=0", "cpu=1,pods=5"]);
    let told = Demand { told: true, ..demand(Evaluator::Pods, &new, None) };
    assert_eq!(charge(&mut quotas, &told), Ok(true), "a status only says what is so");
    assert_eq!(used(&quotas), ["pods=1", "cpu=3500m,pods=6"]);
}

#[test]
fn what_a_quota_restricts_has_to_be_set_and_counted() {
    let hard = json!({"limits.memory": "1Gi", "memory": "1Gi"});
    let new = pod(json!({"memory": "1Mi"}), json!({}));
    let asked = |used: Value, new: &Value| {
        charge(&mut [quota("q", json!({}), hard.clone(), used)], &demand(Evaluator::Pods, new, None)).unwrap_err()
    };
    assert_eq!(asked(json!({}), &new), "failed quota: q: must specify limits.memory for: c");
    let mut whole = new.clone();
    whole["spec"]["containers"][0]["resources"]["limits"] = json!({"memory": "1Mi"});
    assert_eq!(asked(json!({"memory": "0"}), &whole), "status unknown for quota: q, resources: limits.memory,memory");
    let negative = pod(json!({"cpu": "-1"}), json!({}));
    let refused = charge(&mut [], &demand(Evaluator::Pods, &negative, None)).unwrap_err();
    assert_eq!(refused, "quota usage is negative for resource(s): cpu,requests.cpu");
}

#[test]
fn updates_are_charged_with_what_they_add() {
    let hard = json!({"services": "2", "services.nodeports": "2"});
    let service = |ty: &str, ports: usize| json!({"spec": {"type": ty, "ports": vec![json!({"port": 1}); ports]}});
    let check = |old: &Value, new: &Value| {
        let mut quotas = [quota("q", json!({}), hard.clone(), json!({"services": "1", "services.nodeports": "1"}))];
        let charged = charge(&mut quotas, &demand(Evaluator::Services, new, Some(old)));
        (charged, used(&quotas).remove(0))
    };
    let (plain, one, two) = (service("ClusterIP", 1), service("NodePort", 1), service("NodePort", 3));
    assert_eq!(check(&plain, &one), (Ok(true), "services=1,services.nodeports=2".into()));
    assert_eq!(check(&one, &plain), (Ok(false), "services=1,services.nodeports=1".into()), "the controller gives back");
    let refused = "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=1, limited: \
                   services.nodeports=2";
    assert_eq!(check(&one, &two).0, Err(refused.into()));
}

#[test]
fn scopes_choose_what_counts() {
    let selector = |scope: &str, operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": scope, "operator": operator, "values": values}]}})
    };
    let scoped = |scope: &str| json!({"scopes": [scope]});
    let best = pod(json!({}), json!({}));
    let asks = pod(json!({"cpu": "1"}), json!({}));
    let ends = pod(json!({}), json!({"activeDeadlineSeconds": 30}));
    let high = pod(json!({}), json!({"priorityClassName": "high"}));
    let across = pod(
        json!({}),
        json!({"affinity": {"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {"namespaces": ["other"]}}]}}}),
    );
    for (spec, object, expect) in [
        (json!({}), &best, true),
        (scoped("BestEffort"), &best, true),
        (scoped("BestEffort"), &asks, false),
        (scoped("NotBestEffort"), &asks, true),
        (scoped("NotBestEffort"), &best, false),
        (scoped("Terminating"), &ends, true),
        (scoped("Terminating"), &best, false),
        (scoped("NotTerminating"), &best, true),
        (json!({"scopes": ["NotTerminating", "BestEffort"]}), &asks, false),
        (scoped("PriorityClass"), &high, true),
        (scoped("PriorityClass"), &best, false),
        (selector("PriorityClass", "In", json!(["low", "high"])), &high, true),
        (selector("PriorityClass", "In", json!(["low"])), &high, false),
        (selector("PriorityClass", "NotIn", json!(["high"])), &high, false),
        (selector("PriorityClass", "NotIn", json!(["high"])), &best, true),
        (selector("PriorityClass", "DoesNotExist", json!([])), &best, true),
        (selector("PriorityClass", "Exists", json!([])), &high, true),
        (selector("CrossNamespacePodAffinity", "Exists", json!([])), &across, true),
        (selector("CrossNamespacePodAffinity", "Exists", json!([])), &best, false),
        (scoped("VolumeAttributesClass"), &best, false),
        (scoped("unknown"), &best, false),
    ] {
        let mut quotas = [quota("q", spec.clone(), json!({"pods": "1"}), json!({"pods": "0"}))];
        assert_eq!(charge(&mut quotas, &demand(Evaluator::Pods, object, None)), Ok(expect), "{spec} {object}");
    }
    let claim =
        json!({"spec": {"volumeAttributesClassName": "a"}, "status": {"currentVolumeAttributesClassName": "b"}});
    for (spec, expect) in [
        (scoped("VolumeAttributesClass"), true),
        (selector("VolumeAttributesClass", "In", json!(["b"])), true),
        (selector("VolumeAttributesClass", "In", json!(["c"])), false),
        (scoped("BestEffort"), false),
    ] {
        let hard = json!({"persistentvolumeclaims": "1"});
        let mut quotas = [quota("q", spec.clone(), hard, json!({"persistentvolumeclaims": "0"}))];
        assert_eq!(charge(&mut quotas, &demand(Evaluator::Claims, &claim, None)), Ok(expect), "{spec}");
    }
    let mut quotas = [quota("q", scoped("Terminating"), json!({"services": "0"}), json!({"services": "0"}))];
    let service = demand(Evaluator::Services, &json!({}), None);
    assert_eq!(charge(&mut quotas, &service), Ok(false), "scopes are for pods");
}

#[test]
fn whoever_comes_into_a_scope_is_charged_in_full() {
    let spec = json!({"scopes": ["VolumeAttributesClass"]});
    let hard = json!({"requests.storage": "5Gi"});
    let claim = |class: Value| json!({"spec": {"volumeAttributesClassName": class, "resources": {"requests": {"storage": "3Gi"}}}});
    let mut quotas = [quota("q", spec, hard, json!({"requests.storage": "0"}))];
    let asked = demand(Evaluator::Claims, &claim(json!("a")), Some(&claim(json!(null))));
    assert_eq!(charge(&mut quotas, &asked), Ok(true));
    assert_eq!(used(&quotas), ["requests.storage=3Gi"]);
    let again = demand(Evaluator::Claims, &claim(json!("b")), Some(&claim(json!("a"))));
    assert_eq!(charge(&mut quotas, &again), Ok(false));
}
