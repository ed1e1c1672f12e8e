//! DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or unreachable.

use serde_json::{Value, json};

use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{ensure_map, list_at};

const SECONDS: i64 = 300;
const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) fn mutate(request: &Request<'_>, object: Option<&mut Value>, _: &dyn View) -> Result<Mutated, Refusal> {
    let Some(pod) = object else { return Ok(Mutated::No) };
    if !request.is("", "pods") || request.operation == Operation::Delete || !request.subresource.is_empty() {
        return Ok(Mutated::No);
    }
    // On update, too: a client may send a list of its own without them.
    for key in KEYS {
        let tolerated = list_at(pod, &["spec", "tolerations"]).iter().any(|toleration| {
            let text = |field: &str| toleration[field].as_str().unwrap_or("");
            (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
        });
        if tolerated {
            continue;
        }
        let list = ensure_map(pod, &["spec"]).entry("tolerations").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
    Ok(Mutated::Whole)
}
