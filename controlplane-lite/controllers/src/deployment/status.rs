//! Status and conditions of a Deployment. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::revision::Set;
use super::rolling::Bounds;
use client::objects::name;

/// Upstream takes the largest number for "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

/// What a status is made from.
#[derive(Debug)]
pub struct View<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// All its sets.
    pub all: &'a [Set],
    /// The set of the current template.
    pub new: Option<&'a ReplicaSet>,
    /// What the Deployment allows.
    pub bounds: Bounds,
    /// The new set is being created in this sync.
    pub creating: Option<&'a str>,
    /// Whether a rollout is being driven, as opposed to paused or scaled only.
    pub rolling_out: bool,
}

/// The deadline for progress, if there is one.
pub fn deadline(d: &Deployment) -> Option<SignedDuration> {
    let seconds = d.spec.as_ref()?.progress_deadline_seconds.filter(|s| *s != NO_DEADLINE)?;
    Some(SignedDuration::from_secs(seconds.into()))
}

/// Whether the rollout has arrived.
pub fn complete(d: &Deployment, status: &DeploymentStatus) -> bool {
    let desired = d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let n = |v: Option<i32>| v.unwrap_or(0);
    n(status.updated_replicas) == desired
        && n(status.replicas) == desired
        && n(status.available_replicas) == desired
        && status.observed_generation >= d.metadata.generation
}

/// The new status, and when to look again for the progress deadline.
pub fn status(view: &View<'_>, now: Timestamp) -> (DeploymentStatus, Option<SignedDuration>) {
    let mut out = counts(view);
    let mut conditions = Conditions { all: out.conditions.take().unwrap_or_default(), now };
    available_condition(view, &out, &mut conditions);
    pause_condition(view, &mut conditions);
    if view.rolling_out {
        progress_condition(view, &mut out, &mut conditions);
        failure_condition(view, &mut conditions);
    }
    let wake = if view.rolling_out { recheck(view, &out, &conditions) } else { None };
    out.conditions = (!conditions.all.is_empty()).then_some(conditions.all);
    (out, wake)
}

fn counts(view: &View<'_>) -> DeploymentStatus {
    let before = view.deployment.status.clone().unwrap_or_default();
    let sum = |of: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        view.all.iter().filter_map(|rs| rs.status.as_ref()).map(of).sum()
    };
    let total = sum(|s| s.replicas);
    let available = sum(|s| s.available_replicas.unwrap_or(0));
    let some = |n: i32| (n != 0).then_some(n);
    DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: some(total),
        updated_replicas: some(view.new.and_then(|rs| rs.status.as_ref()).map_or(0, |s| s.replicas)),
        ready_replicas: some(sum(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: some(available),
        unavailable_replicas: some((total_wanted(view) - available).max(0)),
        terminating_replicas: Some(sum(|s| s.terminating_replicas.unwrap_or(0))),
        collision_count: before.collision_count,
        conditions: before.conditions,
    }
}

/// Pods the sets are to have, by which unavailability is counted.
fn total_wanted(view: &View<'_>) -> i32 {
    view.all.iter().filter_map(|rs| rs.spec.as_ref()).map(|s| s.replicas.unwrap_or(1)).sum()
}

struct Conditions {
    all: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.all.iter().find(|c| c.type_ == type_)
    }

    fn remove(&mut self, type_: &str) {
        self.all.retain(|c| c.type_ != type_);
    }

    /// Sets a condition; the same status and reason is left as it stands.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let same = |c: &DeploymentCondition| c.status == status && c.reason.as_deref() == Some(reason);
        if !self.get(type_).is_some_and(same) {
            self.refresh(type_, status, reason, message);
        }
    }

    /// Sets a condition with a new update time, keeping the transition time
    /// while the status stays.
    fn refresh(&mut self, type_: &str, status: &str, reason: &str, message: String) {
        let before = self.get(type_).filter(|c| c.status == status);
        let transition = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(self.now));
        self.remove(type_);
        self.all.push(DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(transition),
        });
    }
}

fn available_condition(view: &View<'_>, status: &DeploymentStatus, conditions: &mut Conditions) {
    let enough = status.available_replicas.unwrap_or(0) >= view.bounds.desired - view.bounds.unavailable;
    let (value, reason, text) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    conditions.set("Available", value, reason, text.to_owned());
}

/// Marks a pause and its end, so that the time spent paused counts for no deadline.
fn pause_condition(view: &View<'_>, conditions: &mut Conditions) {
    let d = view.deployment;
    if deadline(d).is_none() {
        return;
    }
    let paused = d.spec.as_ref().is_some_and(|s| s.paused == Some(true));
    let reason = conditions.get("Progressing").and_then(|c| c.reason.clone());
    if reason.as_deref() == Some("ProgressDeadlineExceeded") {
        return;
    }
    let marked = reason.as_deref() == Some("DeploymentPaused");
    if paused && !marked {
        conditions.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".to_owned());
    } else if !paused && marked {
        conditions.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
    }
}

fn subject(view: &View<'_>) -> String {
    match view.new.map(|rs| name(&rs.metadata)).or(view.creating) {
        Some(set) => format!("ReplicaSet \"{set}\""),
        None => format!("Deployment \"{}\"", name(&view.deployment.metadata)),
    }
}

fn progress_condition(view: &View<'_>, status: &mut DeploymentStatus, conditions: &mut Conditions) {
    let d = view.deployment;
    if deadline(d).is_none() {
        conditions.remove("Progressing");
        return;
    }
    if let Some(set) = view.creating {
        let text = format!("Created new replica set \"{set}\"");
        conditions.set("Progressing", "True", "NewReplicaSetCreated", text);
        return;
    }
    if let Some(rs) = view.new.filter(|_| conditions.get("Progressing").is_none()) {
        let text = format!("Found new replica set \"{}\"", name(&rs.metadata));
        conditions.set("Progressing", "True", "FoundNewReplicaSet", text);
    }
    let done = conditions.get("Progressing").is_some_and(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"));
    if done && status.replicas == status.updated_replicas {
        return;
    }
    if complete(d, status) {
        let text = format!("{} has successfully progressed.", subject(view));
        conditions.set("Progressing", "True", "NewReplicaSetAvailable", text);
    } else if progressed(d, status) {
        let text = format!("{} is progressing.", subject(view));
        conditions.refresh("Progressing", "True", "ReplicaSetUpdated", text);
    } else if timed_out(d, conditions) {
        let text = format!("{} has timed out progressing.", subject(view));
        conditions.set("Progressing", "False", "ProgressDeadlineExceeded", text);
    }
}

/// Whether anything got better since the last status.
fn progressed(d: &Deployment, new: &DeploymentStatus) -> bool {
    let old = d.status.clone().unwrap_or_default();
    let n = |v: Option<i32>| v.unwrap_or(0);
    let stale = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || stale(new) < stale(&old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn timed_out(d: &Deployment, conditions: &Conditions) -> bool {
    let Some(condition) = conditions.get("Progressing") else { return false };
    match condition.reason.as_deref() {
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => expires(d, condition).is_some_and(|at| at < conditions.now),
    }
}

fn expires(d: &Deployment, condition: &DeploymentCondition) -> Option<Timestamp> {
    condition.last_update_time.as_ref()?.0.checked_add(deadline(d)?).ok()
}

/// Copies the failure of a set to create its pods.
fn failure_condition(view: &View<'_>, conditions: &mut Conditions) {
    let failure = |rs: &ReplicaSet| {
        let all = rs.status.as_ref()?.conditions.as_ref()?;
        all.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True").cloned()
    };
    match view.new.and_then(failure).or_else(|| view.all.iter().find_map(|rs| failure(rs))) {
        Some(c) => {
            conditions.set("ReplicaFailure", "True", c.reason.as_deref().unwrap_or(""), c.message.unwrap_or_default());
        }
        None => conditions.remove("ReplicaFailure"),
    }
}

/// When the deadline will have passed without anything happening.
fn recheck(view: &View<'_>, status: &DeploymentStatus, conditions: &Conditions) -> Option<SignedDuration> {
    let d = view.deployment;
    let condition = conditions.get("Progressing")?;
    if complete(d, status) || condition.reason.as_deref() == Some("ProgressDeadlineExceeded") {
        return None;
    }
    let left = expires(d, condition)?.duration_since(conditions.now);
    // One second more, since the times in the API have no fractions.
    Some(left.max(SignedDuration::ZERO) + SignedDuration::from_secs(1))
}
