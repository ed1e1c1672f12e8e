//! LimitRanger: containers get the requests and limits that their namespace's LimitRanges give, and pods and claims
//! that ask for less or more than these allow are refused. Follows `plugin/pkg/admission/limitranger`.

use std::collections::BTreeSet;

use quantity::Quantity;
use quota::{Amounts, Asked, asked, read};
use serde_json::{Map, Value};

use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{ensure_map, entries_at, list_at, list_at_mut, str_at};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Sets what containers leave open.
pub(super) fn mutate(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<Mutated, Refusal> {
    let Some(pod) = object.filter(|_| request.is("", "pods") && limited(request, view)) else {
        return Ok(Mutated::No);
    };
    let mut mutated = Mutated::No;
    view.each_in("", "limitranges", request.namespace, &mut |range| {
        let set = set_defaults(pod, range);
        if !set.is_empty() {
            let text = format!("LimitRanger plugin set: {}", set.join("; "));
            ensure_map(pod, &["metadata", "annotations"]).insert(ANNOTATION.into(), text.into());
            mutated = Mutated::Whole;
        }
    });
    Ok(mutated)
}

/// Refuses what is out of bounds.
pub(super) fn validate(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let Some(object) = object.filter(|_| limited(request, view)) else { return Ok(()) };
    let mut refused = Ok(());
    view.each_in("", "limitranges", request.namespace, &mut |range| {
        if refused.is_ok() {
            refused = check(request, object, range);
        }
    });
    refused.map_err(|why| request.forbidden(why))
}

/// Whether the request is one that LimitRanges are for, and there are any. A pod's containers change in a resize alone.
fn limited(request: &Request<'_>, view: &dyn View) -> bool {
    let asks = match (request.operation, request.subresource) {
        (Operation::Create, "") => request.is("", "pods") || request.is("", "persistentvolumeclaims"),
        (Operation::Update, "") => request.is("", "persistentvolumeclaims"),
        (Operation::Update, "resize") => request.is("", "pods"),
        _ => false,
    };
    let going = |old: &Value| !old["metadata"]["deletionTimestamp"].is_null();
    asks && view.any_in("", "limitranges", request.namespace) && !request.old.is_some_and(going)
}

/// What was set, in words.
fn set_defaults(pod: &mut Value, range: &Value) -> Vec<String> {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for item in list_at(range, &["spec", "limits"]).iter().filter(|item| str_at(item, &["type"]) == "Container") {
        for (name, quantity) in entries_at(item, &["defaultRequest"]) {
            requests.insert(name.clone(), quantity.clone());
        }
        for (name, quantity) in entries_at(item, &["default"]) {
            limits.insert(name.clone(), quantity.clone());
        }
    }
    let mut told = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in list_at_mut(pod, &["spec", list]) {
            for (kind, singular, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                let set = fill(container, kind, defaults);
                if !set.is_empty() {
                    let (set, name) = (set.join(", "), str_at(container, &["name"]));
                    told.push(format!("{set} {singular} for {word} {name}"));
                }
            }
        }
    }
    told
}

/// Sets what is missing of a container's requests or limits; which these are, in order.
fn fill(container: &mut Value, kind: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let set: BTreeSet<&String> =
        defaults.keys().filter(|name| container["resources"][kind][name.as_str()].is_null()).collect();
    for name in &set {
        ensure_map(container, &["resources", kind]).insert((*name).clone(), defaults[name.as_str()].clone());
    }
    set.into_iter().cloned().collect()
}

fn check(request: &Request<'_>, object: &Value, range: &Value) -> Result<(), String> {
    let mut problems = Vec::new();
    let is_pod = request.is("", "pods");
    for item in list_at(range, &["spec", "limits"]) {
        let limit = Limit::of(item);
        match limit.kind {
            "Container" if is_pod => {
                for list in ["containers", "initContainers"] {
                    for container in list_at(object, &["spec", list]) {
                        limit.check(&Asked::of(&container["resources"]), &mut problems);
                    }
                }
            }
            "Pod" if is_pod => limit.check(&asked(object), &mut problems),
            "PersistentVolumeClaim" if !is_pod => {
                limit.check_claim(&read(&object["spec"]["resources"]["requests"]), &mut problems);
            }
            _ => {}
        }
    }
    // As Go's lists of errors print: each once.
    let mut told = BTreeSet::new();
    problems.retain(|problem| told.insert(problem.clone()));
    match &problems[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// What a LimitRange says of one type.
struct Limit<'r> {
    kind: &'r str,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl<'r> Limit<'r> {
    fn of(item: &'r Value) -> Self {
        let (min, max) = (read(&item["min"]), read(&item["max"]));
        Self { kind: str_at(item, &["type"]), min, max, ratio: read(&item["maxLimitRequestRatio"]) }
    }

    fn check(&self, asked: &Asked, problems: &mut Vec<String>) {
        self.check_least(asked, problems);
        for (name, most) in &self.max {
            let why = match (asked.limits.get(name), asked.requests.get(name)) {
                (None, _) => ".  No limit is specified".to_owned(),
                (Some(limit), _) if limit > most => format!(", but limit is {limit}"),
                (_, Some(request)) if request > most => format!(", but request is {request}"),
                _ => continue,
            };
            problems.push(format!("maximum {name} usage per {} is {most}{why}", self.kind));
        }
        for (name, ratio) in &self.ratio {
            if let Some(why) = exceeds(*ratio, name, asked) {
                problems.push(format!("{name} max limit to request ratio per {} is {ratio}, but {why}", self.kind));
            }
        }
    }

    fn check_least(&self, asked: &Asked, problems: &mut Vec<String>) {
        for (name, least) in &self.min {
            let why = match (asked.requests.get(name), asked.limits.get(name)) {
                (None, _) => ".  No request is specified".to_owned(),
                (Some(request), _) if request < least => format!(", but request is {request}"),
                (_, Some(limit)) if limit < least => format!(", but limit is {limit}"),
                _ => continue,
            };
            problems.push(format!("minimum {name} usage per {} is {least}{why}", self.kind));
        }
    }

    /// A claim's limits are nobody's affair.
    fn check_claim(&self, requests: &Amounts, problems: &mut Vec<String>) {
        self.check_least(&Asked { requests: requests.clone(), limits: Amounts::new() }, problems);
        for (name, most) in &self.max {
            let why = match requests.get(name) {
                None => ".  No request is specified".to_owned(),
                Some(request) if request > most => format!(", but request is {request}"),
                Some(_) => continue,
            };
            problems.push(format!("maximum {name} usage per {} is {most}{why}", self.kind));
        }
    }
}

/// Why a limit is too many times its request, if it is.
fn exceeds(ratio: Quantity, name: &str, asked: &Asked) -> Option<String> {
    let set = |list: &Amounts| list.get(name).copied().filter(|quantity| !quantity.is_zero());
    let Some(request) = set(&asked.requests) else { return Some("no request is specified or request is 0".into()) };
    let Some(limit) = set(&asked.limits) else { return Some("no limit is specified or limit is 0".into()) };
    // limit / request > ratio, without a remainder to lose; what does not fit is far beyond any ratio.
    let one = Quantity::from_milli(1000).nanos();
    let (given, allowed) = (limit.nanos().checked_mul(one), request.nanos().checked_mul(ratio.nanos()));
    let exceeds = match (given, allowed) {
        (Some(given), Some(allowed)) => given > allowed,
        (given, _) => given.is_none(),
    };
    let provided = || limit.nanos() as f64 / request.nanos() as f64;
    exceeds.then(|| format!("provided ratio is {:.6}", provided()))
}

#[cfg(test)]
mod tests;
