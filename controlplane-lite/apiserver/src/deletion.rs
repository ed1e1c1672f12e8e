//! Pure: what a delete does to an object: goes at once, waits for grace or finalizers, or is already on its way.
//! Follows upstream's registry store (BeforeDelete, deletionFinalizersForGarbageCollection) and the strategies of pods
//! and namespaces.

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::options::{DeleteOptions, Propagation};
use scheme::Kind;
use scheme::access::{ensure_map, int_at, list_at, str_at};
use scheme::meta;
use scheme::strategy::{Deletes, GarbageCollection};

/// Finalizer that makes the garbage collector orphan dependents first.
pub const ORPHAN: &str = "orphan";
/// Finalizer that makes the garbage collector delete dependents first.
pub const FOREGROUND: &str = "foregroundDeletion";

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// Remove it.
    Now,
    /// Write this, then remove it.
    MarkThenRemove(Value),
    /// Write this and answer it; something else finishes the deletion.
    Mark(Value),
    /// Nothing: an earlier delete is still being carried out.
    Pending,
}

/// RFC 3339 in whole seconds, UTC, as upstream writes times.
pub fn timestamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Decides a delete of `object`.
pub fn plan(kind: &Kind, object: &Value, options: &DeleteOptions, now: Timestamp) -> Deletion {
    let mut object = object.clone();
    let finalizers_changed = set_finalizers(kind, &mut object, options);
    if object["metadata"]["deletionTimestamp"].is_null() {
        kind.strategy.prepare_delete(&mut object, &timestamp(now));
    }
    let finalizers = !list_at(&object, &["metadata", "finalizers"]).is_empty();
    match kind.facts.deletes {
        Deletes::AfterContent => return plan_content(object, now),
        Deletes::Gracefully => return plan_graceful(kind, object, options, finalizers, finalizers_changed, now),
        Deletes::AtOnce => {}
    }
    if !finalizers {
        return Deletion::Now;
    }
    if object["metadata"]["deletionTimestamp"].is_null() {
        meta::mark_deleted(&mut object, &timestamp(now), 0);
    } else if !finalizers_changed {
        return Deletion::Pending;
    }
    Deletion::Mark(object)
}

fn plan_content(mut namespace: Value, now: Timestamp) -> Deletion {
    if namespace["metadata"]["deletionTimestamp"].is_null() {
        let metadata = ensure_map(&mut namespace, &["metadata"]);
        metadata.insert("deletionTimestamp".into(), json!(timestamp(now)));
        ensure_map(&mut namespace, &["status"]).insert("phase".into(), json!("Terminating"));
        return Deletion::Mark(namespace);
    }
    if list_at(&namespace, &["spec", "finalizers"]).is_empty()
        && list_at(&namespace, &["metadata", "finalizers"]).is_empty()
    {
        return Deletion::Now;
    }
    Deletion::Pending
}

fn plan_graceful(
    kind: &Kind,
    mut pod: Value,
    options: &DeleteOptions,
    finalizers: bool,
    finalizers_changed: bool,
    now: Timestamp,
) -> Deletion {
    let running_grace = int_at(&pod, &["metadata", "deletionGracePeriodSeconds"]);
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        let Some(running) = running_grace else {
            return if finalizers { Deletion::Pending } else { Deletion::Now };
        };
        let shorter = options.grace_period.map(|p| if p < 0 { 1 } else { p }).filter(|p| *p < running);
        let Some(grace) = shorter else {
            // A retried removal after a crash between marking and removing.
            let finish = running == 0 && !finalizers && options.grace_period == Some(0);
            return match (finish, finalizers_changed) {
                (true, _) => Deletion::Now,
                (false, true) => Deletion::Mark(pod),
                (false, false) => Deletion::Pending,
            };
        };
        shorten(&mut pod, running, grace, now);
        return mark_or_remove(pod, grace, finalizers);
    }
    let grace = kind.strategy.grace_period(&pod, options.grace_period);
    let end = now.checked_add(grace.seconds()).unwrap_or(now);
    meta::mark_deleted(&mut pod, &timestamp(end), grace);
    mark_or_remove(pod, grace, finalizers)
}

fn mark_or_remove(pod: Value, grace: i64, finalizers: bool) -> Deletion {
    if grace == 0 && !finalizers { Deletion::MarkThenRemove(pod) } else { Deletion::Mark(pod) }
}

fn shorten(pod: &mut Value, running: i64, grace: i64, now: Timestamp) {
    let end: Timestamp = str_at(pod, &["metadata", "deletionTimestamp"]).parse().unwrap_or(now);
    let end = end.checked_add((grace - running).seconds()).unwrap_or(now);
    let metadata = ensure_map(pod, &["metadata"]);
    metadata.insert("deletionTimestamp".into(), json!(timestamp(end)));
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
}

/// Puts the garbage collector's finalizers as the options (or the kind's default) say; true when that changed any.
fn set_finalizers(kind: &Kind, object: &mut Value, options: &DeleteOptions) -> bool {
    if kind.facts.garbage_collection == GarbageCollection::Unsupported {
        return false;
    }
    let old: Vec<String> =
        list_at(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let has = |name: &str| old.iter().any(|f| f == name);
    let orphans = kind.facts.garbage_collection == GarbageCollection::OrphanDependents;
    let (orphan, foreground) = match options.propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Background) => (false, false),
        Some(Propagation::Foreground) => (false, true),
        None => {
            let foreground = has(FOREGROUND);
            (has(ORPHAN) || (orphans && !foreground), foreground)
        }
    };
    let mut new: Vec<String> = old.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    if orphan {
        new.push(ORPHAN.to_owned());
    }
    if foreground {
        new.push(FOREGROUND.to_owned());
    }
    let (mut a, mut b) = (old, new.clone());
    a.sort();
    b.sort();
    if a == b {
        return false;
    }
    let metadata = ensure_map(object, &["metadata"]);
    if new.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), json!(new));
    }
    true
}

/// Whether an update that leaves `object` so finishes its deletion: no finalizers hold it and no grace runs.
pub fn ends_with_update(kind: &Kind, object: &Value) -> bool {
    if object["metadata"]["deletionTimestamp"].is_null() || !list_at(object, &["metadata", "finalizers"]).is_empty() {
        return false;
    }
    if kind.facts.deletes == Deletes::AfterContent {
        return list_at(object, &["spec", "finalizers"]).is_empty();
    }
    int_at(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests;
