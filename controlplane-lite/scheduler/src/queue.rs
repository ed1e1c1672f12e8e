//! The scheduling queue: pods ready to be tried, pods that back off, pods that
//! wait for something to change, and gated pods. Owned by the scheduler's one
//! task. Takes the time as an argument. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::framework::QueueSortPlugin;
use super::pod::{PodInfo, PodUid};

/// Back-off after the first failed attempt.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Largest back-off.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// After this an unschedulable pod is tried again whatever happened.
pub const UNSCHEDULABLE_TIMEOUT: SignedDuration = SignedDuration::from_mins(5);

/// Where a waiting pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Active(Order),
    /// Until this time; `error` pods wait it out, others may go earlier when idle.
    Backoff {
        until: Timestamp,
        error: bool,
    },
    Unschedulable {
        since: Timestamp,
    },
    Gated,
    /// Taken by the scheduler: being decided or bound.
    InFlight,
}

/// Order among active pods: rank, then arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order(i64, u64);

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    attempts: u32,
    place: Place,
    rejected_by: BTreeSet<&'static str>,
    /// Something changed while the pod was in flight.
    moved: bool,
}

/// Pods that wait for a node.
#[derive(Debug)]
pub struct Queue {
    sort: Arc<dyn QueueSortPlugin>,
    pods: HashMap<PodUid, Waiting>,
    active: BTreeMap<Order, PodUid>,
    backoff: BTreeSet<(Timestamp, PodUid)>,
    arrivals: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(sort: Arc<dyn QueueSortPlugin>) -> Self {
        Self { sort, pods: HashMap::new(), active: BTreeMap::new(), backoff: BTreeSet::new(), arrivals: 0 }
    }

    /// How many pods wait, in flight ones included.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// A new pod, or a new state of a waiting one. `gated` pods wait until they
    /// are no longer. A changed unschedulable pod is tried again at once.
    pub fn upsert(&mut self, pod: Arc<PodInfo>, gated: bool, now: Timestamp) {
        let Some(waiting) = self.pods.get_mut(&pod.uid) else {
            let uid = pod.uid.clone();
            let waiting = Waiting { pod, attempts: 0, place: Place::Gated, rejected_by: BTreeSet::new(), moved: false };
            self.pods.insert(uid.clone(), waiting);
            if !gated {
                self.activate(&uid);
            }
            return;
        };
        let changed = pod.differs_for_scheduling(&waiting.pod);
        waiting.pod = pod.clone();
        match (&waiting.place, gated) {
            (Place::InFlight, _) => waiting.moved |= changed,
            (Place::Gated, true) => {}
            (_, true) => self.shelve(&pod.uid, Place::Gated),
            (Place::Gated, false) => self.activate(&pod.uid),
            (Place::Unschedulable { .. }, false) if changed => self.requeue(&pod.uid, now),
            (Place::Active(_), false) if changed => self.activate(&pod.uid),
            _ => {}
        }
    }

    /// The pod is bound, gone, or no longer ours.
    pub fn remove(&mut self, uid: &PodUid) -> bool {
        if !self.pods.contains_key(uid) {
            return false;
        }
        self.unlink(uid);
        self.pods.remove(uid).is_some()
    }

    /// Whether the pod waits here.
    pub fn contains(&self, uid: &PodUid) -> bool {
        self.pods.contains_key(uid)
    }

    /// Every waiting pod's uid.
    pub fn uids(&self) -> Vec<PodUid> {
        self.pods.keys().cloned().collect()
    }

    /// Takes the next pod: an active one, or with none left one that backs off
    /// without having met an error.
    pub fn pop(&mut self, now: Timestamp) -> Option<Arc<PodInfo>> {
        self.promote(now);
        let uid = match self.active.first_key_value() {
            Some((_, uid)) => uid.clone(),
            None => {
                let early = |(_, uid): &&(Timestamp, PodUid)| {
                    self.pods.get(uid).is_some_and(|w| matches!(w.place, Place::Backoff { error: false, .. }))
                };
                self.backoff.iter().find(early)?.1.clone()
            }
        };
        self.unlink(&uid);
        let waiting = self.pods.get_mut(&uid)?;
        waiting.place = Place::InFlight;
        waiting.moved = false;
        waiting.attempts += 1;
        waiting.rejected_by.clear();
        Some(waiting.pod.clone())
    }

    /// The pod taken before fits nowhere.
    pub fn unschedulable(&mut self, uid: &PodUid, by: BTreeSet<&'static str>, now: Timestamp) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.rejected_by = by;
        if waiting.moved {
            self.requeue(uid, now);
        } else {
            self.shelve(uid, Place::Unschedulable { since: now });
        }
    }

    /// The pod taken before could not be bound for a reason that is not its own.
    pub fn failed(&mut self, uid: &PodUid, now: Timestamp) {
        let Some(waiting) = self.pods.get(uid) else { return };
        let until = now.checked_add(backoff(waiting.attempts)).unwrap_or(now);
        self.shelve(uid, Place::Backoff { until, error: true });
    }

    /// Something changed: each unschedulable pod for which `helps` holds is tried again.
    pub fn changed(&mut self, now: Timestamp, mut helps: impl FnMut(&PodInfo, &BTreeSet<&'static str>) -> bool) {
        let mut moved = Vec::new();
        for (uid, waiting) in &mut self.pods {
            match waiting.place {
                Place::Unschedulable { .. } if helps(&waiting.pod, &waiting.rejected_by) => moved.push(uid.clone()),
                Place::InFlight => waiting.moved = true,
                _ => {}
            }
        }
        for uid in moved {
            self.requeue(&uid, now);
        }
    }

    /// When to look again although nothing happened.
    pub fn deadline(&self) -> Option<Timestamp> {
        let backoff = self.backoff.first().map(|(at, _)| *at);
        let stale = self.pods.values().filter_map(|w| match w.place {
            Place::Unschedulable { since } => since.checked_add(UNSCHEDULABLE_TIMEOUT).ok(),
            _ => None,
        });
        stale.chain(backoff).min()
    }

    /// Moves pods whose time has come.
    fn promote(&mut self, now: Timestamp) {
        while let Some((at, uid)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
            self.activate(&uid);
        }
    }

    /// Moves pods that have been unschedulable for too long.
    pub fn flush(&mut self, now: Timestamp) {
        let old = |w: &Waiting| match w.place {
            Place::Unschedulable { since } => now.duration_since(since) >= UNSCHEDULABLE_TIMEOUT,
            _ => false,
        };
        let stale: Vec<PodUid> = self.pods.iter().filter(|(_, w)| old(w)).map(|(u, _)| u.clone()).collect();
        for uid in stale {
            self.activate(&uid);
        }
    }

    fn requeue(&mut self, uid: &PodUid, now: Timestamp) {
        let Some(waiting) = self.pods.get(uid) else { return };
        let since = match waiting.place {
            Place::Unschedulable { since } => since,
            _ => now,
        };
        let until = since.checked_add(backoff(waiting.attempts)).unwrap_or(now);
        if until <= now {
            self.activate(uid);
        } else {
            self.shelve(uid, Place::Backoff { until, error: false });
        }
    }

    fn activate(&mut self, uid: &PodUid) {
        self.unlink(uid);
        self.arrivals += 1;
        let arrivals = self.arrivals;
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let order = Order(self.sort.rank(&waiting.pod), arrivals);
        waiting.place = Place::Active(order);
        self.active.insert(order, uid.clone());
    }

    fn shelve(&mut self, uid: &PodUid, place: Place) {
        self.unlink(uid);
        if let Place::Backoff { until, .. } = place {
            self.backoff.insert((until, uid.clone()));
        }
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.place = place;
        }
    }

    fn unlink(&mut self, uid: &PodUid) {
        match self.pods.get(uid).map(|w| &w.place) {
            Some(Place::Active(order)) => {
                self.active.remove(order);
            }
            Some(Place::Backoff { until, .. }) => {
                self.backoff.remove(&(*until, uid.clone()));
            }
            _ => {}
        }
    }
}

/// Back-off after so many attempts.
pub fn backoff(attempts: u32) -> Duration {
    INITIAL_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests;
