//! Small facts about API objects that several controllers need: readiness,
//! activity, ownership, selectors. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::{Selector, SelectorExt};

use crate::ObjectKey;

/// A parsed label selector. One that cannot be parsed matches nothing.
#[derive(Debug, Clone)]
pub struct Matcher(Option<Selector>);

impl Matcher {
    /// Parses the selector of a workload: an empty one matches nothing, as upstream's controllers treat it.
    pub fn new(selector: &LabelSelector) -> Self {
        let empty = selector.match_labels.as_ref().is_none_or(|m| m.is_empty())
            && selector.match_expressions.as_ref().is_none_or(|e| e.is_empty());
        if empty {
            return Self(None);
        }
        Self::or_everything(selector)
    }

    /// Parses a selector of which an empty one matches everything, as upstream's LabelSelectorAsSelector.
    pub fn or_everything(selector: &LabelSelector) -> Self {
        Self(Selector::try_from(selector.clone()).ok())
    }

    /// Whether the selector can match at all.
    pub fn matches_something(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the labels of an object match.
    pub fn matches(&self, meta: &ObjectMeta) -> bool {
        static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
        self.0.as_ref().is_some_and(|s| s.matches(meta.labels.as_ref().unwrap_or(&NONE)))
    }
}

/// The controlling owner.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// The group of an owner, whatever version it is named in.
pub fn owner_group(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether two references of objects in one namespace name the same owner.
pub fn same_owner(a: &OwnerReference, b: &OwnerReference) -> bool {
    (&a.uid, &a.name, &a.kind, owner_group(a)) == (&b.uid, &b.name, &b.kind, owner_group(b))
}

/// The key of the controlling owner if it is of this kind.
pub fn controller_key<O: Resource<DynamicType = ()>>(meta: &ObjectMeta) -> Option<ObjectKey> {
    let owner = controller_of(meta)?;
    (owner.kind == O::kind(&()) && owner_group(owner) == O::group(&()))
        .then(|| ObjectKey::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone()))
}

/// An owner reference that makes `owner` the controller.
pub fn controller_ref<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether deletion has been asked for.
pub fn deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The uid, or an empty string.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// The name, or an empty string.
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// An annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str)
}

/// A label.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref().and_then(|a| a.get(key)).map(String::as_str)
}

/// The phase, `Pending` when none is set.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod has come to its end.
pub fn terminated(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts for its controller: neither ended nor being deleted.
pub fn active(pod: &Pod) -> bool {
    !terminated(pod) && !deleting(&pod.metadata)
}

/// One condition of a pod.
pub fn pod_condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// Whether the Ready condition is True.
pub fn ready(pod: &Pod) -> bool {
    pod_condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when the pod is ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = pod_condition(pod, "Ready").filter(|c| c.status == "True")?;
    condition.last_transition_time.as_ref().map(|t| t.0)
}

/// Whether the pod is ready for at least `min_ready_seconds`, and else, if it is
/// ready, how long until then.
pub fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Result<(), Option<SignedDuration>> {
    if !ready(pod) {
        return Err(None);
    }
    if min_ready_seconds <= 0 {
        return Ok(());
    }
    let Some(since) = ready_since(pod) else { return Err(None) };
    let wait = SignedDuration::from_secs(min_ready_seconds.into());
    let age = now.duration_since(since);
    if age >= wait { Ok(()) } else { Err(Some(wait - age)) }
}

/// Seconds since creation order: the creation time, or the smallest time.
pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |t| t.0)
}

/// The time as the API writes it.
pub fn time(at: Timestamp) -> Option<Time> {
    Some(Time(at))
}
