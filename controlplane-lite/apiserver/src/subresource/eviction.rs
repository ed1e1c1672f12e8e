//! pods/eviction: a delete that asks the pod's disruption budget first.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::{Call, decode_body};
use crate::options::{self, DeleteOptions};
use crate::registry::{Change, Resource};
use crate::respond;
use crate::status::{self, ApiError};
use crate::write;
use scheme::access::{ensure_map, int_at, is_empty, str_at};
use scheme::selector::LabelSelector;
use storage::watch_cache::Filter;

/// How often an eviction is judged again because its pod changed, as upstream's EvictionsRetry.
const EVICTION_RETRIES: usize = 20;
/// Names in disruptedPods of a budget at most, as upstream.
const MAX_DISRUPTED: usize = 2000;

/// Evicts a pod.
///
/// # Errors
/// 404 for the pod, 429 when the budget forbids it, 500 when several budgets match.
pub async fn create(call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let asked = options::write(&call.query, "CreateOptions")?;
    let kind = scheme::builtin().by_gvk("policy", "v1", "Eviction").ok_or_else(ApiError::no_such_path)?;
    let mut eviction = decode_body(kind, &call.headers, &body, asked.field_validation)?.object;
    let name = call.info.name.as_str();
    let named = str_at(&eviction, &["metadata", "name"]);
    if !named.is_empty() && named != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    write::ask_admission(call, &call.resource.kind, kind, &mut eviction, asked.dry_run).await?;
    let mut options = options::delete(&options_query(), Some(&eviction["deleteOptions"]))?;
    options.dry_run |= asked.dry_run;
    let mut pod = call.resource.read_value(&call.info.namespace, name).await?;
    for _ in 0..EVICTION_RETRIES {
        match evict(call, &pod, options.clone()).await {
            // It is no longer what it was judged by. Only what took nothing from a budget is judged again.
            Err(error) if error.is_conflict() && ignores_budget(&pod) && is_asked_for(&pod, &options) => {
                pod = call.resource.read_value(&call.info.namespace, name).await?;
            }
            other => {
                other?;
                return respond::document(call, StatusCode::CREATED, &status::success(Some(201)));
            }
        }
    }
    Err(ApiError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10))
}

/// Judges the pod as it is, says in it why it goes, and deletes it. A pod that goes without taking from a budget must
/// still be the one that was judged: it may have become ready meanwhile, and count.
async fn evict(call: &Call, pod: &Value, mut options: DeleteOptions) -> Result<(), ApiError> {
    let name = call.info.name.as_str();
    // Before anything is taken from a budget.
    if options.uid.as_deref().is_some_and(|asked| asked != str_at(pod, &["metadata", "uid"])) {
        return Err(ApiError::conflict(call.subject(), name, "the UID in the precondition is not the pod's"));
    }
    let free = if ignores_budget(pod) { true } else { check_budget(call, pod, &options).await? == Taken::Nothing };
    let deleting = !pod["metadata"]["deletionTimestamp"].is_null();
    if options.uid.is_none() {
        options.uid = Some(str_at(pod, &["metadata", "uid"]).to_owned());
    }
    if free && !deleting && options.resource_version.is_none() && !is_over(pod) {
        options.resource_version = Some(str_at(pod, &["metadata", "resourceVersion"]).to_owned());
    }
    if !options.dry_run && !deleting {
        let (uid, version) = (options.uid.clone(), options.resource_version.clone());
        let written = call
            .resource
            .change(&call.info.namespace, name, false, |pod| {
                let is = |field: &str, want: &Option<String>| {
                    want.as_deref().is_none_or(|want| str_at(pod, &["metadata", field]) == want)
                };
                if !is("uid", &uid) || !is("resourceVersion", &version) {
                    return Err(ApiError::conflict(call.subject(), name, "the pod has changed"));
                }
                Ok(Change::Write(with_disruption_target(pod)))
            })
            .await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(written.object.revision().to_string());
        }
    }
    write::delete_admitted(&call.for_object(&call.info.namespace, name), name, &options).await.map(drop)
}

/// The pod with the condition that says who ends it, as upstream's addConditionAndDeletePod writes it.
fn with_disruption_target(pod: &Value) -> Value {
    let now = crate::deletion::timestamp(jiff::Timestamp::now());
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": now,
    });
    let mut next = pod.clone();
    let status = ensure_map(&mut next, &["status"]);
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "DisruptionTarget");
        conditions.push(condition);
    }
    next
}

/// Whether the client's own preconditions leave the choice of what is evicted to us, as far as this pod goes.
fn is_asked_for(pod: &Value, options: &DeleteOptions) -> bool {
    let uid = str_at(pod, &["metadata", "uid"]);
    options.resource_version.is_none() && options.uid.as_deref().is_none_or(|asked| asked == uid)
}

fn is_over(pod: &Value) -> bool {
    matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

/// What an eviction takes from the pod's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// One disruption, or there is no budget.
    Disruption,
    /// Nothing, since the pod is not ready.
    Nothing,
}

fn options_query() -> crate::request_info::Query {
    crate::request_info::Query::default()
}

/// Pods that do not run do not count for any budget.
fn ignores_budget(pod: &Value) -> bool {
    matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending")
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

async fn check_budget(call: &Call, pod: &Value, options: &DeleteOptions) -> Result<Taken, ApiError> {
    let Some(budgets) = call.server.registry.get("policy", "poddisruptionbudgets") else {
        return Ok(Taken::Disruption);
    };
    call.server.registry.fresh().await?;
    let budget = match names_of(&budgets, &call.info.namespace, pod).as_slice() {
        [] => return Ok(Taken::Disruption),
        [one] => one.clone(),
        _ => {
            return Err(ApiError::plain(
                500,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let pod_name = str_at(pod, &["metadata", "name"]);
    let mut took = Taken::Disruption;
    let taken = budgets
        .change::<_, ApiError>(&call.info.namespace, &budget, options.dry_run, |budget| {
            let change = take(budget, pod_name, pod)?;
            took = if matches!(change, Change::Keep) { Taken::Nothing } else { Taken::Disruption };
            Ok(change)
        })
        .await;
    match taken {
        Ok(_) => Ok(took),
        Err(error) if error.is_not_found() => Ok(Taken::Disruption),
        Err(error) if error.is_conflict() => {
            Err(ApiError::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10))
        }
        Err(error) => Err(error),
    }
}

/// The names of the budgets that select a pod, two at most: more are one too many already. One is decoded at a time,
/// and dropped: all of a namespace's may be much, and most are about other pods.
fn names_of(budgets: &Resource, namespace: &str, pod: &Value) -> Vec<String> {
    let mut names = Vec::new();
    budgets.cache().for_each(&Filter::all().in_namespace(namespace), |stored| {
        if names.len() < 2 && selects(&stored.value(), pod) {
            names.push(stored.name().to_owned());
        }
    });
    names
}

/// An empty selector selects everything in policy/v1, an absent one nothing.
fn selects(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    !selector.is_null() && LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches_object(pod))
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
