//! RuntimeClass: a pod takes overhead, node selector and tolerations of the class it names. Follows
//! `plugin/pkg/admission/runtimeclass`.

use std::collections::BTreeMap;

use quantity::Quantity;
use serde_json::Value;

use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{at, ensure_map, entries_at, is_empty, list_at, str_at};

pub(super) fn mutate(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<Mutated, Refusal> {
    let Some(pod) = object.filter(|_| creates_pod(request)) else { return Ok(Mutated::No) };
    let Some(class) = class_of(request, pod, view)? else { return Ok(Mutated::No) };
    let overhead = at(&class, &["overhead", "podFixed"]);
    if !is_empty(overhead) {
        if is_empty(at(pod, &["spec", "overhead"])) {
            ensure_map(pod, &["spec"]).insert("overhead".into(), overhead.clone());
        }
        check_overhead(request, pod, overhead)?;
    }
    select_nodes(request, pod, &class)?;
    tolerate(pod, &class);
    Ok(Mutated::Whole)
}

pub(super) fn validate(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let Some(pod) = object.filter(|_| creates_pod(request)) else { return Ok(()) };
    match class_of(request, pod, view)? {
        Some(class) => check_overhead(request, pod, at(&class, &["overhead", "podFixed"])),
        None => check_overhead(request, pod, &Value::Null),
    }
}

fn creates_pod(request: &Request<'_>) -> bool {
    request.is("", "pods") && request.operation == Operation::Create && request.subresource.is_empty()
}

/// The class that a pod names, if it does.
fn class_of(request: &Request<'_>, pod: &Value, view: &dyn View) -> Result<Option<Value>, Refusal> {
    let name = str_at(pod, &["spec", "runtimeClassName"]);
    if name.is_empty() {
        return Ok(None);
    }
    let class = view.get("node.k8s.io", "runtimeclasses", "", name);
    class.map(Some).ok_or_else(|| request.forbidden(format!("pod rejected: RuntimeClass {name:?} not found")))
}

/// Overhead comes from the class and from nowhere else.
fn check_overhead(request: &Request<'_>, pod: &Value, class: &Value) -> Result<(), Refusal> {
    let own = at(pod, &["spec", "overhead"]);
    if is_empty(own) && is_empty(class) {
        return Ok(());
    }
    if is_empty(class) {
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return Err(request.forbidden(why));
    }
    if same_amounts(own, class) {
        return Ok(());
    }
    Err(request.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
}

fn same_amounts(a: &Value, b: &Value) -> bool {
    let amounts = |list: &Value| -> Option<BTreeMap<String, Quantity>> {
        list.as_object()?.iter().map(|(name, text)| Some((name.clone(), text.as_str()?.parse().ok()?))).collect()
    };
    amounts(a).is_some_and(|a| Some(a) == amounts(b))
}

fn select_nodes(request: &Request<'_>, pod: &mut Value, class: &Value) -> Result<(), Refusal> {
    let wanted: Vec<(&String, &Value)> = entries_at(class, &["scheduling", "nodeSelector"]).collect();
    for (key, of_class) in &wanted {
        let own = at(pod, &["spec", "nodeSelector", key]);
        if !own.is_null() && own != *of_class {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            return Err(request.forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(of_class),
                text(own)
            )));
        }
    }
    if !wanted.is_empty() {
        let selector = ensure_map(pod, &["spec", "nodeSelector"]);
        selector.extend(wanted.into_iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    Ok(())
}

fn tolerate(pod: &mut Value, class: &Value) {
    let more = list_at(class, &["scheduling", "tolerations"]);
    if !more.is_empty() {
        let merged = merge(list_at(pod, &["spec", "tolerations"]), more);
        ensure_map(pod, &["spec"]).insert("tolerations".into(), merged.into());
    }
}

/// Lists longer than this are only rid of equal tolerations: each would be compared with each.
const MAX_COMPARED: usize = 1000;

/// Both lists in order, without what another toleration includes.
fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    if all.len() > MAX_COMPARED {
        let mut seen = std::collections::HashSet::with_capacity(all.len());
        return all.into_iter().filter(|one| seen.insert(one.to_string())).cloned().collect();
    }
    let mut merged: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let before = merged.iter().any(|other| includes(other, one));
        // Of equals the first stays.
        let after = all[index + 1..].iter().any(|other| other != one && includes(other, one));
        if !before && !after {
            merged.push((*one).clone());
        }
    }
    merged
}

/// Whether `wide` tolerates all that `narrow` does.
fn includes(wide: &Value, narrow: &Value) -> bool {
    let text = |of: &'_ Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let exists = text(wide, "operator") == "Exists";
    let key = text(wide, "key");
    let effect = text(wide, "effect");
    if wide == narrow {
        return true;
    }
    if key != text(narrow, "key") && !(key.is_empty() && exists) {
        return false;
    }
    if !effect.is_empty() && effect != text(narrow, "effect") {
        return false;
    }
    let seconds = |of: &Value| of["tolerationSeconds"].as_i64();
    if effect == "NoExecute"
        && let Some(limit) = seconds(wide)
        && seconds(narrow).is_none_or(|own| own > limit)
    {
        return false;
    }
    let equal = |of: &Value| matches!(text(of, "operator").as_str(), "" | "Equal");
    exists || equal(wide) && equal(narrow) && text(wide, "value") == text(narrow, "value")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_lists_of_tolerations_are_merged_in_linear_time() {
        let many: Vec<Value> = (0..60_000).map(|n| json!({"key": "k", "value": format!("v{n}")})).collect();
        assert_eq!(merge(&many, &many), many);
    }

    #[test]
    fn tolerations_that_others_include_are_left_out() {
        let exists = |key: &str| json!({"key": key, "operator": "Exists"});
        let equal = |key: &str, value: &str| json!({"key": key, "value": value, "effect": "NoSchedule"});
        let everything = json!({"operator": "Exists"});
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9});
        for (first, second, expect) in [
            (vec![], vec![exists("a")], vec![exists("a")]),
            (vec![exists("a")], vec![exists("a")], vec![exists("a")]),
            (vec![equal("a", "1")], vec![exists("a")], vec![exists("a")]),
            (vec![exists("a")], vec![equal("a", "1")], vec![exists("a")]),
            (vec![equal("a", "1")], vec![equal("a", "2")], vec![equal("a", "1"), equal("a", "2")]),
            (vec![exists("a"), exists("b")], vec![everything.clone()], vec![everything]),
            (vec![short.clone()], vec![long.clone()], vec![long]),
            (vec![exists("a")], vec![short], vec![exists("a")]),
        ] {
            assert_eq!(merge(&first, &second), expect);
        }
    }
}
