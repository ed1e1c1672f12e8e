//! pods/eviction: a delete that asks the pod's disruption budget first.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::body::Body;
use crate::call::{Call, decode_body};
use crate::options::{self, DeleteOptions};
use crate::registry::{Change, RETRIES};
use crate::respond;
use crate::status::{self, ApiError};
use crate::verbs::delete::delete_object;
use scheme::access::{ensure_map, int_at, is_empty, str_at};
use scheme::selector::LabelSelector;
use storage::watch_cache::Filter;

/// Names in disruptedPods of a budget at most, as upstream.
const MAX_DISRUPTED: usize = 2000;

/// Evicts a pod.
///
/// # Errors
/// 404 for the pod, 429 when the budget forbids it, 500 when several budgets match.
pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let write = options::write(&call.query, "CreateOptions")?;
    let kind = scheme::builtin().by_gvk("policy", "v1", "Eviction").ok_or_else(ApiError::no_such_path)?;
    let eviction = decode_body(kind, &call.headers, &body, write.field_validation)?.object;
    let name = call.info.name.as_str();
    let named = str_at(&eviction, &["metadata", "name"]);
    if !named.is_empty() && named != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = options::delete(&options_query(), Some(&eviction["deleteOptions"]))?;
    options.dry_run |= write.dry_run;
    let pod = call.resource.read_value(&call.info.namespace, name).await?;
    call.admit(Operation::Create, None, Some(&pod))?;
    if !ignores_budget(&pod) {
        check_budget(call, &pod, &options).await?;
    }
    if options.uid.is_none() {
        options.uid = Some(str_at(&pod, &["metadata", "uid"]).to_owned());
    }
    delete_object(&call.for_object(&call.info.namespace, name), name, &options).await?;
    respond::document(call, StatusCode::CREATED, &status::success(Some(201)))
}

fn options_query() -> crate::request_info::Query {
    crate::request_info::Query::default()
}

/// Pods that do not run do not count for any budget.
fn ignores_budget(pod: &Value) -> bool {
    matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending")
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

async fn check_budget(call: &Call, pod: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let Some(budgets) = call.server.registry.get("policy", "poddisruptionbudgets") else { return Ok(()) };
    call.server.registry.fresh().await?;
    let mut matching: Vec<Value> = Vec::new();
    budgets.cache().for_each(&Filter::all().in_namespace(&call.info.namespace), |budget| {
        let budget = budget.value();
        let selector = &budget["spec"]["selector"];
        // An empty selector selects everything in policy/v1, an absent one nothing.
        let selected = LabelSelector::from_object(selector).is_ok_and(|s| s.matches_object(pod));
        if !selector.is_null() && selected {
            matching.push(budget);
        }
    });
    let budget = match matching.as_slice() {
        [] => return Ok(()),
        [one] => str_at(one, &["metadata", "name"]).to_owned(),
        _ => {
            return Err(ApiError::plain(
                500,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let pod_name = str_at(pod, &["metadata", "name"]);
    let taken = budgets
        .change(&call.info.namespace, &budget, options.dry_run, RETRIES, |budget| take(budget, pod_name, pod))
        .await;
    match taken {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) if error.is_conflict() => {
            Err(ApiError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10))
        }
        Err(error) => Err(error),
    }
}

fn ready(pod: &Value) -> bool {
    scheme::access::list_at(pod, &["status", "conditions"])
        .iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Takes one disruption out of the budget.
fn take(budget: &Value, pod_name: &str, pod: &Value) -> Result<Change, ApiError> {
    let refused = |message: String| {
        Err(ApiError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
            .with_cause("DisruptionBudget", message, ""))
    };
    let name = str_at(budget, &["metadata", "name"]);
    let count = |field: &str| int_at(budget, &["status", field]).unwrap_or(0);
    let always = str_at(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
    let enough = count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
    if !ready(pod) && (always || enough) {
        return Ok(Change::Keep);
    }
    if count("observedGeneration") < int_at(budget, &["metadata", "generation"]).unwrap_or(0) {
        return Err(ApiError::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            10,
        )
        .with_cause(
            "DisruptionBudget",
            format!("The disruption budget {name} is still being processed by the server."),
            "",
        ));
    }
    let allowed = count("disruptionsAllowed");
    if allowed <= 0 {
        return refused(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("desiredHealthy"),
            count("currentHealthy")
        ));
    }
    let mut next = budget.clone();
    let status = ensure_map(&mut next, &["status"]);
    status.insert("disruptionsAllowed".into(), json!(allowed - 1));
    let disrupted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    if is_empty(disrupted) {
        *disrupted = json!({});
    }
    if let Some(map) = disrupted.as_object_mut() {
        if map.len() > MAX_DISRUPTED {
            return refused("DisruptedPods map too big - too many evictions not confirmed by PDB controller".into());
        }
        map.insert(pod_name.to_owned(), json!(crate::deletion::timestamp(jiff::Timestamp::now())));
    }
    Ok(Change::Write(next))
}
