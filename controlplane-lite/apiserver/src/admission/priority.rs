//! Priority: resolves a pod's priorityClassName; only one class may be the global default. Follows
//! `plugin/pkg/admission/priority`.

use serde_json::{Value, json};

use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{at, bool_at, ensure_map, int_at, str_at};

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "priorityclasses";

pub(super) fn mutate(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<Mutated, Refusal> {
    let Some(pod) = object.filter(|_| request.is("", "pods") && request.subresource.is_empty()) else {
        return Ok(Mutated::No);
    };
    match (request.operation, request.old) {
        (Operation::Create, _) => resolve(request, pod, view)?,
        (Operation::Update, Some(old)) => keep(pod, old),
        _ => return Ok(Mutated::No),
    }
    Ok(Mutated::Whole)
}

pub(super) fn validate(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let Some(class) = object.filter(|_| request.is(GROUP, CLASSES) && request.subresource.is_empty()) else {
        return Ok(());
    };
    if bool_at(class, &["globalDefault"]) { only_default(request, class, view) } else { Ok(()) }
}

/// A client that does not know what was resolved keeps it; what it changes, validation refuses.
fn keep(pod: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        let before = at(old, &["spec", field]);
        if at(pod, &["spec", field]).is_null() && !before.is_null() {
            ensure_map(pod, &["spec"]).insert(field.into(), before.clone());
        }
    }
}

fn only_default(request: &Request<'_>, object: &Value, view: &dyn View) -> Result<(), Refusal> {
    let name = str_at(object, &["metadata", "name"]);
    let mut others = None;
    view.each_in(GROUP, CLASSES, "", &mut |class| {
        let of = str_at(class, &["metadata", "name"]);
        if others.is_none() && of != name && bool_at(class, &["globalDefault"]) {
            others = Some(of.to_owned());
        }
    });
    others.map_or(Ok(()), |other| {
        Err(request
            .forbidden(format!("PriorityClass {other} is already marked as default. Only one default can exist")))
    })
}

fn resolve(request: &Request<'_>, pod: &mut Value, view: &dyn View) -> Result<(), Refusal> {
    let wanted = str_at(pod, &["spec", "priorityClassName"]).to_owned();
    let (name, priority, policy) = if wanted.is_empty() {
        default_class(view)
    } else {
        let Some(class) = view.get(GROUP, CLASSES, "", &wanted) else {
            return Err(request.forbidden(format!("no PriorityClass with name {wanted} was found")));
        };
        class_facts(&class)
    };
    if let Some(given) = int_at(pod, &["spec", "priority"])
        && given != priority
    {
        return Err(request.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        )));
    }
    let given_policy = str_at(pod, &["spec", "preemptionPolicy"]);
    if !given_policy.is_empty() && given_policy != policy {
        return Err(request.forbidden(format!(
            "the string value of PreemptionPolicy ({given_policy}) must not be provided in pod spec; priority \
             admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    let spec = ensure_map(pod, &["spec"]);
    if !name.is_empty() {
        spec.insert("priorityClassName".into(), json!(name));
    }
    spec.insert("priority".into(), json!(priority));
    spec.insert("preemptionPolicy".into(), json!(policy));
    Ok(())
}

fn class_facts(class: &Value) -> (String, i64, String) {
    let policy = match str_at(class, &["preemptionPolicy"]) {
        "" => "PreemptLowerPriority",
        given => given,
    };
    let name = str_at(class, &["metadata", "name"]).to_owned();
    (name, int_at(class, &["value"]).unwrap_or(0), policy.to_owned())
}

/// The global default class; of several (a race upstream allows too) the lowest value.
fn default_class(view: &dyn View) -> (String, i64, String) {
    let mut lowest: Option<(String, i64, String)> = None;
    view.each_in(GROUP, CLASSES, "", &mut |class| {
        let value = int_at(class, &["value"]).unwrap_or(0);
        if bool_at(class, &["globalDefault"]) && lowest.as_ref().is_none_or(|(_, before, _)| value < *before) {
            lowest = Some(class_facts(class));
        }
    });
    lowest.unwrap_or_else(|| (String::new(), 0, "PreemptLowerPriority".to_owned()))
}
