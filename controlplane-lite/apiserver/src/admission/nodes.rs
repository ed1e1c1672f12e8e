//! TaintNodesByCondition: a new node takes no pods before its controller saw it ready.

use serde_json::{Value, json};

use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{ensure_map, list_at};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn mutate(request: &Request<'_>, object: Option<&mut Value>, _: &dyn View) -> Result<Mutated, Refusal> {
    let Some(node) = object else { return Ok(Mutated::No) };
    if !request.is("", "nodes") || request.operation != Operation::Create || !request.subresource.is_empty() {
        return Ok(Mutated::No);
    }
    let there = list_at(node, &["spec", "taints"])
        .iter()
        .any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule");
    if !there {
        let taints = ensure_map(node, &["spec"]).entry("taints").or_insert_with(|| json!([]));
        if let Some(list) = taints.as_array_mut() {
            list.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
    }
    Ok(Mutated::Whole)
}
