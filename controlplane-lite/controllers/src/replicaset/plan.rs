//! What a ReplicaSet wants done, out of the set, its candidates and the time. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use client::objects::{
    Matcher, active, annotation, availability, created, deleting, phase, ready, ready_since, terminated, uid,
};
use client::text::{CONDITION_MESSAGE, cut};

/// Pods created or deleted in one sync at most.
pub const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do with candidates before anything is counted.
#[derive(Debug, Default, PartialEq)]
pub struct Claim {
    /// Pods the set controls and wants.
    pub owned: Vec<Arc<Pod>>,
    /// Matching orphans to adopt.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods it controls that no longer match.
    pub release: Vec<Arc<Pod>>,
}

/// Sorts candidates: pods controlled by the set, and orphans of its namespace.
pub fn claim(rs: &ReplicaSet, owned: Vec<Arc<Pod>>, orphans: Vec<Arc<Pod>>) -> Claim {
    let mut out = Claim::default();
    let Some(spec) = &rs.spec else { return out };
    let matcher = Matcher::new(&spec.selector);
    for pod in owned {
        if matcher.matches(&pod.metadata) {
            out.owned.push(pod);
        } else if !deleting(&rs.metadata) {
            out.release.push(pod);
        }
    }
    if !deleting(&rs.metadata) {
        let wanted = |p: &Arc<Pod>| matcher.matches(&p.metadata) && !deleting(&p.metadata) && !terminated(p);
        out.adopt = orphans.into_iter().filter(wanted).collect();
    }
    out
}

/// How many pods to create, or which to delete.
#[derive(Debug, PartialEq)]
pub enum Scale {
    /// As many as wanted.
    Keep,
    /// So many are missing.
    Create(usize),
    /// These are too many.
    Delete(Vec<Arc<Pod>>),
}

/// Compares the active pods with `spec.replicas`. `related` are pods of sets with
/// the same controller; a node holding many of them gives its pods up first.
pub fn scale(rs: &ReplicaSet, pods: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Scale {
    if deleting(&rs.metadata) {
        return Scale::Keep;
    }
    let want = wanted(rs);
    let mut actives: Vec<Arc<Pod>> = pods.iter().filter(|p| active(p)).cloned().collect();
    match actives.len().cmp(&want) {
        Ordering::Equal => Scale::Keep,
        Ordering::Less => Scale::Create((want - actives.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (actives.len() - want).min(BURST);
            if surplus < actives.len() {
                rank(&mut actives, related, now);
            }
            actives.truncate(surplus);
            Scale::Delete(actives)
        }
    }
}

/// `spec.replicas`, 1 when absent.
pub fn wanted(rs: &ReplicaSet) -> usize {
    let replicas = rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// Orders pods so that those to be deleted first come first, as upstream's
/// `ActivePodsWithRanks`.
pub fn rank(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| active(p)) {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    pods.sort_by_cached_key(|p| {
        let crowd = on_node.get(node(p)).copied().unwrap_or(0);
        Key {
            assigned: !node(p).is_empty(),
            phase: match phase(p) {
                "Pending" => 0,
                "Unknown" => 1,
                _ => 2,
            },
            ready: ready(p),
            cost: annotation(&p.metadata, DELETION_COST).and_then(|c| c.parse().ok()).unwrap_or(0),
            spread: -i64::try_from(crowd).unwrap_or(i64::MAX),
            ready_age: ready_since(p).map_or(0, |t| magnitude(now, t)),
            restarts: -max_restarts(p),
            age: magnitude(now, created(&p.metadata)),
            uid: uid(&p.metadata).to_owned(),
        }
    });
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    spread: i64,
    ready_age: u32,
    restarts: i64,
    age: u32,
    uid: String,
}

/// Ages are compared by their order of magnitude (base 2), so that of pods of
/// about the same age any may go.
fn magnitude(now: Timestamp, since: Timestamp) -> u32 {
    let seconds = u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0);
    seconds.checked_ilog2().map_or(0, |n| n + 1)
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("")
}

fn max_restarts(pod: &Pod) -> i64 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|c| i64::from(c.restart_count)).max().unwrap_or(0)
}

/// The status to show, and when a pod will become available by mere waiting.
/// `failure` is (reason, message) of creating or deleting pods in this sync.
pub fn status(
    rs: &ReplicaSet,
    pods: &[Arc<Pod>],
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<SignedDuration>) {
    let spec = rs.spec.clone().unwrap_or_default();
    let template_labels = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let mut out = rs.status.clone().unwrap_or_default();
    let (mut replicas, mut labelled, mut readies, mut available) = (0, 0, 0, 0);
    let mut wake: Option<SignedDuration> = None;
    for pod in pods.iter().filter(|p| active(p)) {
        replicas += 1;
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        labelled += i32::from(template_labels.iter().all(|(k, v)| labels.get(k) == Some(v)));
        readies += i32::from(ready(pod));
        match availability(pod, spec.min_ready_seconds.unwrap_or(0), now) {
            Ok(()) => available += 1,
            Err(Some(wait)) => wake = Some(wake.map_or(wait, |w| w.min(wait))),
            Err(None) => {}
        }
    }
    let terminating = pods.iter().filter(|p| deleting(&p.metadata) && !terminated(p)).count();
    let some = |n: i32| (n != 0).then_some(n);
    out.replicas = replicas;
    out.fully_labeled_replicas = some(labelled);
    out.ready_replicas = some(readies);
    out.available_replicas = some(available);
    out.terminating_replicas = Some(i32::try_from(terminating).unwrap_or(i32::MAX));
    out.observed_generation = rs.metadata.generation;
    out.conditions = conditions(out.conditions, failure, now);
    (out, wake)
}

fn conditions(
    before: Option<Vec<ReplicaSetCondition>>,
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut all = before.unwrap_or_default();
    match failure {
        None => all.retain(|c| c.type_ != "ReplicaFailure"),
        // Upstream keeps a present condition with the same reason.
        Some((reason, _)) if all.iter().any(|c| c.type_ == "ReplicaFailure" && c.reason.as_deref() == Some(reason)) => {
        }
        Some((reason, message)) => {
            all.retain(|c| c.type_ != "ReplicaFailure");
            all.push(ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(Time(now)),
                reason: Some(reason.to_owned()),
                message: Some(cut(message, CONDITION_MESSAGE)),
            });
        }
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests;
