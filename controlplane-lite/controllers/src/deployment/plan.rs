//! What a Deployment wants done next: one step of its rollout. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::revision::{
    DESIRED_REPLICAS, MAX_REPLICAS, REVISION, Set, find_new, max_revision, new_annotations, new_replica_set,
    replicas_annotations, revision,
};
use super::rolling::{Bounds, Size, bounds, new_size, proportional, shrink_old};
use super::status::{View, complete, status};
use client::objects::{annotation, created, deleting, name, uid};

/// A change of one ReplicaSet.
#[derive(Debug, Clone, PartialEq)]
pub struct SetChange {
    /// Its name.
    pub name: String,
    /// Annotations to set.
    pub annotations: BTreeMap<String, String>,
    /// New size, with the one before.
    pub replicas: Option<(i32, i32)>,
    /// New `minReadySeconds`.
    pub min_ready_seconds: Option<i32>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The new ReplicaSet to create.
    pub create: Option<Box<ReplicaSet>>,
    /// ReplicaSets to change.
    pub changes: Vec<SetChange>,
    /// Old ReplicaSets beyond the history limit.
    pub delete: Vec<String>,
    /// Revision to note on the Deployment.
    pub revision: Option<String>,
    /// The status to show.
    pub status: DeploymentStatus,
    /// When to look again although nothing changed.
    pub wake: Option<SignedDuration>,
}

/// Sets of a Deployment while a step is planned.
struct Step<'a> {
    d: &'a Deployment,
    sets: &'a [Set],
    new: Option<&'a Set>,
    old: Vec<&'a Set>,
    bounds: Bounds,
    changes: BTreeMap<String, SetChange>,
    create: Option<Box<ReplicaSet>>,
    delete: Vec<String>,
}

/// Plans the next step. `old_pods_run` says whether pods of earlier templates
/// have not ended yet (only asked for Recreate).
pub fn plan(d: &Deployment, sets: &[Set], old_pods_run: &dyn Fn(&[&Set]) -> bool, now: Timestamp) -> Plan {
    let new = find_new(d, sets);
    let old = sets.iter().filter(|rs| new.is_none_or(|n| uid(&n.metadata) != uid(&rs.metadata))).collect();
    let bounds = bounds(d);
    let mut step = Step { d, sets, new, old, bounds, changes: BTreeMap::new(), create: None, delete: Vec::new() };
    let paused = d.spec.as_ref().is_some_and(|s| s.paused == Some(true));
    let rolling_out = if deleting(&d.metadata) {
        false
    } else {
        step.annotate_new();
        if paused || step.resized() {
            step.rescale();
            if paused {
                step.clean_up();
            }
            false
        } else {
            step.roll(old_pods_run);
            true
        }
    };
    step.finish(rolling_out, now)
}

impl<'a> Step<'a> {
    fn recreate(&self) -> bool {
        let strategy = self.d.spec.as_ref().and_then(|s| s.strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
    }

    fn change(&mut self, rs: &ReplicaSet) -> &mut SetChange {
        let name = name(&rs.metadata).to_owned();
        self.changes.entry(name.clone()).or_insert_with(|| SetChange {
            name,
            annotations: BTreeMap::new(),
            replicas: None,
            min_ready_seconds: None,
        })
    }

    /// Brings annotations and minReadySeconds of the new set up to date.
    fn annotate_new(&mut self) {
        let Some(new) = self.new else { return };
        let next = max_revision(self.old.iter().copied()) + 1;
        let have = new.metadata.annotations.clone().unwrap_or_default();
        let want = new_annotations(self.d, &have, next);
        let min_ready = |v: Option<i32>| v.unwrap_or(0);
        let want_ready = min_ready(self.d.spec.as_ref().and_then(|s| s.min_ready_seconds));
        let have_ready = min_ready(new.spec.as_ref().and_then(|s| s.min_ready_seconds));
        if want == have && want_ready == have_ready {
            return;
        }
        let change = self.change(new);
        change.annotations = want.into_iter().filter(|(k, v)| have.get(k) != Some(v)).collect();
        change.min_ready_seconds = (want_ready != have_ready).then_some(want_ready);
    }

    /// Whether the Deployment was resized since its sets were last scaled.
    fn resized(&self) -> bool {
        self.sets.iter().filter(|rs| replicas(rs) > 0).any(|rs| {
            annotation(&rs.metadata, DESIRED_REPLICAS)
                .and_then(|n| n.parse::<i32>().ok())
                .is_some_and(|n| n != self.bounds.desired)
        })
    }

    fn scale(&mut self, rs: &ReplicaSet, size: i32) {
        let (desired, max) = (self.bounds.desired, self.bounds.desired.saturating_add(self.bounds.surge));
        let mut want = BTreeMap::new();
        replicas_annotations(&mut want, desired, max);
        want.retain(|k, v| annotation(&rs.metadata, k) != Some(v));
        let before = replicas(rs);
        if want.is_empty() && before == size {
            return;
        }
        let change = self.change(rs);
        change.annotations.extend(want);
        change.replicas = (before != size).then_some((before, size));
    }

    /// A new size without a new template: shared among the active sets.
    fn rescale(&mut self) {
        let active: Vec<&'a Set> = self.sets.iter().filter(|rs| replicas(rs) > 0).collect();
        let single = match active.as_slice() {
            [] => self.new.or_else(|| self.old.iter().copied().max_by_key(|rs| created(&rs.metadata))),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(one) = single {
            if replicas(one) != self.bounds.desired {
                self.scale(one, self.bounds.desired);
            } else if self.resized() {
                // Notes the size, or it would count as a resize for ever.
                self.scale(one, self.bounds.desired);
            }
            return;
        }
        if self.new.is_some_and(|new| self.saturated(new)) {
            for old in self.old.clone().into_iter().filter(|rs| replicas(rs) > 0) {
                self.scale(old, 0);
            }
            return;
        }
        if self.recreate() {
            return;
        }
        let sizes = self.sizes(active.iter().copied());
        let total = self.d.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        for (set, size) in proportional(self.bounds, total, &sizes) {
            if let Some(rs) = active.iter().find(|rs| name(&rs.metadata) == set) {
                self.scale(rs, size);
            }
        }
    }

    fn saturated(&self, new: &ReplicaSet) -> bool {
        let desired = annotation(&new.metadata, DESIRED_REPLICAS).and_then(|n| n.parse().ok());
        replicas(new) == self.bounds.desired
            && desired == Some(self.bounds.desired)
            && available(new) == self.bounds.desired
    }

    fn sizes<'b>(&self, sets: impl IntoIterator<Item = &'b Set>) -> Vec<Size> {
        let mut by_age: Vec<&Set> = sets.into_iter().collect();
        by_age.sort_by_key(|rs| (created(&rs.metadata), name(&rs.metadata).to_owned()));
        let size = |(age, rs): (usize, &Set)| Size {
            name: name(&rs.metadata).to_owned(),
            age,
            replicas: replicas(rs),
            // A set just shrunk may still count pods that are about to go.
            available: available(rs).min(replicas(rs)),
            annotated_max: annotation(&rs.metadata, MAX_REPLICAS).and_then(|n| n.parse().ok()),
        };
        by_age.into_iter().enumerate().map(size).collect()
    }

    fn roll(&mut self, old_pods_run: &dyn Fn(&[&Set]) -> bool) {
        let total: i32 = self.sets.iter().map(|rs| replicas(rs)).sum();
        if self.recreate() {
            let shrinking: Vec<&Set> = self.old.iter().copied().filter(|rs| replicas(rs) > 0).collect();
            for rs in &shrinking {
                self.scale(rs, 0);
            }
            if !shrinking.is_empty() || old_pods_run(&self.old) {
                return;
            }
        }
        let Some(new) = self.new else {
            let max = self.bounds.desired.saturating_add(self.bounds.surge);
            let size = new_size(self.bounds, self.recreate(), 0, total);
            let next = max_revision(self.sets) + 1;
            self.create = Some(Box::new(new_replica_set(self.d, size, max, next)));
            return;
        };
        let size = new_size(self.bounds, self.recreate(), replicas(new), total);
        if size != replicas(new) {
            self.scale(new, size);
            return;
        }
        if !self.recreate() {
            // What a set had before its size changed says nothing about which pods stay: its status comes first.
            let waits = |rs: &&Set| replicas(rs) > 0 && (stale(rs) || available(rs) > replicas(rs));
            if self.old.iter().copied().chain([new]).any(|rs| waits(&rs)) {
                return;
            }
            let old = self.sizes(self.old.iter().copied());
            let new_sizes = self.sizes([new]);
            let shrunk = shrink_old(self.bounds, new_sizes.first(), &old);
            for (set, size) in &shrunk {
                if let Some(rs) = self.old.iter().copied().find(|rs| name(&rs.metadata) == set) {
                    self.scale(rs, *size);
                }
            }
            if !shrunk.is_empty() {
                return;
            }
        }
        if self.d.status.as_ref().is_some_and(|s| complete(self.d, s)) {
            self.clean_up();
        }
    }

    /// Drops old sets without pods beyond `revisionHistoryLimit`.
    fn clean_up(&mut self) {
        let Some(limit) = self.d.spec.as_ref().and_then(|s| s.revision_history_limit) else { return };
        let mut old: Vec<&Set> = self.old.iter().copied().filter(|rs| !deleting(&rs.metadata)).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|rs| (revision(&rs.metadata), created(&rs.metadata)));
        for rs in old.into_iter().take(surplus) {
            let status = rs.status.clone().unwrap_or_default();
            let settled =
                status.replicas == 0 && replicas(rs) == 0 && rs.metadata.generation <= status.observed_generation;
            if settled {
                self.delete.push(name(&rs.metadata).to_owned());
            }
        }
    }

    fn finish(self, rolling_out: bool, now: Timestamp) -> Plan {
        let creating = self.create.as_ref().map(|rs| name(&rs.metadata));
        let view = View {
            deployment: self.d,
            all: self.sets,
            new: self.new.map(|rs| &**rs),
            bounds: self.bounds,
            creating,
            rolling_out,
        };
        let (status, wake) = status(&view, now);
        let current = self.create.as_deref().or(self.new.map(|rs| &**rs));
        let planned = current.and_then(|rs| self.changes.get(name(&rs.metadata))?.annotations.get(REVISION).cloned());
        let revision = planned.or_else(|| current.and_then(|rs| annotation(&rs.metadata, REVISION)).map(str::to_owned));
        let revision = revision.filter(|r| annotation(&self.d.metadata, REVISION) != Some(r));
        Plan {
            create: self.create,
            changes: self.changes.into_values().collect(),
            delete: self.delete,
            revision: if deleting(&self.d.metadata) { None } else { revision },
            status,
            wake,
        }
    }
}

fn replicas(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Whether the status of a set is older than its spec.
fn stale(rs: &ReplicaSet) -> bool {
    rs.metadata.generation > rs.status.as_ref().and_then(|s| s.observed_generation)
}

fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

#[cfg(test)]
mod tests;
