//! How far the deletion of a namespace has come, and what it says about that. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use client::objects::deleting;
use client::text::{CONDITION_MESSAGE, cut};

/// The finalizer in `spec.finalizers` that this controller removes.
pub(super) const FINALIZER: &str = "kubernetes";

/// What a pass over all content has found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct RemainingContent {
    /// Objects left, by resource.
    pub objects: BTreeMap<String, usize>,
    /// Finalizers they have, with the number of objects.
    pub finalizers: BTreeMap<String, usize>,
    /// Groups that did not answer.
    pub discovery_failures: Vec<String>,
    /// Deletions that failed.
    pub content_failures: Vec<String>,
    /// The longest grace period of what is left, in seconds.
    pub grace_seconds: i64,
}

impl RemainingContent {
    /// Whether nothing is left, for sure.
    pub fn nothing(&self) -> bool {
        self.objects.is_empty() && self.discovery_failures.is_empty() && self.content_failures.is_empty()
    }
}

/// Whether the namespace waits for this controller.
pub(super) fn waits(namespace: &Namespace) -> bool {
    deleting(&namespace.metadata)
        && namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| f.iter().any(|f| f == FINALIZER))
}

/// The order of deletion: pods first, so that what they need outlives them.
pub(super) fn rank(plural: &str) -> u8 {
    u8::from(plural != "pods")
}

/// The conditions to show.
pub(super) fn conditions(
    before: Option<&[NamespaceCondition]>,
    remaining: &RemainingContent,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let mut out: Vec<NamespaceCondition> = before.unwrap_or_default().to_vec();
    for (type_, trouble, reason, good_reason, good_text) in rows(remaining) {
        match trouble {
            Some(text) => set(&mut out, type_, "True", reason, text, now),
            None => set(&mut out, type_, "False", good_reason, good_text.to_owned(), now),
        }
    }
    out
}

/// Type, what is wrong, the reason for that, and reason and text when all is well.
type Row = (&'static str, Option<String>, &'static str, &'static str, &'static str);

fn rows(remaining: &RemainingContent) -> [Row; 5] {
    let some =
        |list: &[String], text: &str| (!list.is_empty()).then(|| format!("{text}{}: {}", list.len(), list.join("; ")));
    let counted = |map: &BTreeMap<String, usize>, text: &str, verb: &str| {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let part = |(k, n): (&String, &usize)| format!("{k} {verb} {n} resource instance{}", plural(*n));
        let parts: Vec<String> = map.iter().map(part).collect();
        (!parts.is_empty()).then(|| format!("{text}: {}", parts.join(", ")))
    };
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            some(&remaining.discovery_failures, "Discovery failed for some groups, "),
            "DiscoveryFailed",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            some(&remaining.content_failures, "Failed to delete all resource types, remaining "),
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            counted(&remaining.objects, "Some resources are remaining", "has"),
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            counted(&remaining.finalizers, "Some content in the namespace has finalizers remaining", "in"),
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
}

fn set(all: &mut Vec<NamespaceCondition>, type_: &str, status: &str, reason: &str, text: String, now: Timestamp) {
    let have = all.iter_mut().find(|c| c.type_ == type_);
    let mut condition = NamespaceCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(cut(text, CONDITION_MESSAGE)),
        last_transition_time: Some(Time(now)),
    };
    match have {
        Some(have) => {
            if have.status == status {
                condition.last_transition_time = have.last_transition_time.clone();
            }
            *have = condition;
        }
        None => all.push(condition),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn only_a_deleted_namespace_with_our_finalizer_waits() {
        let check = |v, want| assert_eq!(waits(&from_value(v).unwrap()), want);
        check(json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}}), false);
        check(
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}}),
            true,
        );
        check(
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["other"]}}),
            false,
        );
    }

    #[test]
    fn conditions_say_what_holds_up() {
        let (t0, t1) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let remaining = RemainingContent {
            objects: [("pods".to_owned(), 2)].into(),
            finalizers: [("example.com/x".to_owned(), 1)].into(),
            ..RemainingContent::default()
        };
        let first = conditions(None, &remaining, t0);
        let text = |all: &[NamespaceCondition], t: &str| {
            let c = all.iter().find(|c| c.type_ == t).unwrap();
            (c.status.clone(), c.message.clone().unwrap(), c.last_transition_time.clone().unwrap().0)
        };
        assert_eq!(
            text(&first, "NamespaceContentRemaining"),
            ("True".into(), "Some resources are remaining: pods has 2 resource instances".into(), t0)
        );
        assert_eq!(
            text(&first, "NamespaceFinalizersRemaining").1,
            "Some content in the namespace has finalizers remaining: example.com/x in 1 resource instance"
        );
        assert_eq!(conditions(Some(&first), &remaining, t1), first, "nothing new, nothing written");
        let last = conditions(Some(&first), &RemainingContent::default(), t1);
        assert!(last.iter().all(|c| c.status == "False"));
        assert_eq!(text(&last, "NamespaceContentRemaining").2, t1);
        assert_eq!(text(&last, "NamespaceDeletionContentFailure").2, t0);
        let long = RemainingContent { content_failures: vec!["x".repeat(1_400_000)], ..RemainingContent::default() };
        assert_eq!(text(&conditions(None, &long, t0), "NamespaceDeletionContentFailure").1.len(), 32_768);
    }
}
