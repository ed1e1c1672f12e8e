//! The arithmetic of rollouts: surge, unavailability, and how a change of size
//! is shared among ReplicaSets. Pure.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Sizes of one ReplicaSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// Name.
    pub name: String,
    /// Creation order, oldest first.
    pub age: usize,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// The max-replicas annotation.
    pub annotated_max: Option<i32>,
}

/// What a Deployment allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// `spec.replicas`.
    pub desired: i32,
    /// Pods above that.
    pub surge: i32,
    /// Pods that may be missing.
    pub unavailable: i32,
}

/// Resolves `spec.strategy`. Recreate has no surge and no unavailability of its
/// own. Surge rounds up, unavailability down; both zero becomes one unavailable.
pub fn bounds(d: &Deployment) -> Bounds {
    let spec = d.spec.as_ref();
    let desired = spec.and_then(|s| s.replicas).unwrap_or(1).max(0);
    let strategy = spec.and_then(|s| s.strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") || desired == 0 {
        let rolling = desired == 0 && strategy.and_then(|s| s.type_.as_deref()) != Some("Recreate");
        let surge = if rolling {
            resolve(strategy.and_then(|s| s.rolling_update.as_ref()?.max_surge.as_ref()), 0, true)
        } else {
            0
        };
        return Bounds { desired, surge, unavailable: 0 };
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()), desired, true);
    let unavailable = resolve(rolling.and_then(|r| r.max_unavailable.as_ref()), desired, false);
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    Bounds { desired, surge, unavailable: unavailable.min(desired) }
}

/// An absolute number, or a percentage of `of`; 25 % when absent, 0 for garbage.
fn resolve(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    let percent = |p: i64| {
        let product = i64::from(of) * p;
        let whole = if up { (product + 99) / 100 } else { product / 100 };
        i32::try_from(whole.max(0)).unwrap_or(i32::MAX)
    };
    match value {
        None => percent(25),
        Some(IntOrString::Int(n)) => (*n).max(0),
        Some(IntOrString::String(text)) => text.strip_suffix('%').and_then(|t| t.parse().ok()).map_or(0, percent),
    }
}

/// The size the new set should have now, given the size of all sets together.
pub fn new_size(bounds: Bounds, recreate: bool, new_replicas: i32, total: i32) -> i32 {
    if recreate {
        return bounds.desired;
    }
    if new_replicas > bounds.desired {
        return bounds.desired;
    }
    let room = bounds.desired.saturating_add(bounds.surge) - total;
    if room <= 0 {
        return new_replicas;
    }
    new_replicas + room.min(bounds.desired - new_replicas)
}

/// Sizes of the old sets after this step, oldest first: pods that are not
/// available go first, then as many as availability allows. Only changes are listed.
pub fn shrink_old(bounds: Bounds, new: Option<&Size>, old: &[Size]) -> Vec<(String, i32)> {
    let old_total: i32 = old.iter().map(|s| s.replicas).sum();
    if old_total == 0 {
        return Vec::new();
    }
    let (new_replicas, new_available) = new.map_or((0, 0), |n| (n.replicas, n.available));
    let min_available = bounds.desired - bounds.unavailable;
    let new_unavailable = new_replicas - new_available;
    let mut may_go = old_total + new_replicas - min_available - new_unavailable;
    if may_go <= 0 {
        return Vec::new();
    }
    let mut sets: Vec<Size> = old.to_vec();
    sets.sort_by_key(|s| s.age);
    let before = sets.clone();
    for set in &mut sets {
        let unhealthy = (set.replicas - set.available).clamp(0, may_go.max(0));
        set.replicas -= unhealthy;
        may_go -= unhealthy;
    }
    let available: i32 = sets.iter().map(|s| s.available).sum::<i32>() + new_available;
    let mut surplus = (available - min_available).max(0);
    for set in &mut sets {
        let step = set.replicas.min(surplus);
        set.replicas -= step;
        surplus -= step;
    }
    let changed = before.iter().zip(&sets).filter(|(b, a)| b.replicas != a.replicas);
    changed.map(|(_, a)| (a.name.clone(), a.replicas)).collect()
}

/// Shares a change of the Deployment's size among its active sets in proportion
/// to their sizes. `status_replicas` stands in where a set has no annotation.
/// Every active set is listed.
pub fn proportional(bounds: Bounds, status_replicas: i32, active: &[Size]) -> Vec<(String, i32)> {
    let total: i32 = active.iter().map(|s| s.replicas).sum();
    let allowed = if bounds.desired > 0 { bounds.desired.saturating_add(bounds.surge) } else { 0 };
    let to_add = allowed - total;
    let mut sets: Vec<&Size> = active.iter().collect();
    // The largest takes what rounding leaves; among equals the newer when growing.
    sets.sort_by(|a, b| {
        b.replicas.cmp(&a.replicas).then(if to_add > 0 { b.age.cmp(&a.age) } else { a.age.cmp(&b.age) })
    });
    let mut added = 0;
    let mut out: Vec<(String, i32)> = Vec::new();
    for set in &sets {
        let share = share(bounds, status_replicas, set, to_add, added);
        added += share;
        out.push((set.name.clone(), set.replicas + share));
    }
    if let Some((_, first)) = out.first_mut().filter(|_| to_add != 0) {
        *first = (*first + to_add - added).max(0);
    }
    out
}

fn share(bounds: Bounds, status_replicas: i32, set: &Size, to_add: i32, added: i32) -> i32 {
    if set.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(bounds, status_replicas, set);
    let left = to_add - added;
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// What the set would gain if it kept its share of the Deployment.
fn fraction(bounds: Bounds, status_replicas: i32, set: &Size) -> i32 {
    if bounds.desired == 0 {
        return -set.replicas;
    }
    let base = set.annotated_max.filter(|n| *n > 0).unwrap_or(status_replicas);
    if base <= 0 {
        return 0;
    }
    let max = i64::from(bounds.desired) + i64::from(bounds.surge);
    let product = i64::from(set.replicas) * max;
    let rounded = (2 * product + i64::from(base)) / (2 * i64::from(base));
    i32::try_from(rounded).unwrap_or(i32::MAX).saturating_sub(set.replicas)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn size(name: &str, age: usize, replicas: i32, available: i32) -> Size {
        Size { name: name.to_owned(), age, replicas, available, annotated_max: None }
    }

    fn check_bounds(replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value, want: (i32, i32)) {
        let d: Deployment = serde_json::from_value(json!({"metadata": {}, "spec": {
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
        .unwrap();
        let b = bounds(&d);
        assert_eq!((b.surge, b.unavailable), want, "{replicas}");
    }

    #[test]
    fn percentages_round_away_from_trouble() {
        check_bounds(10, json!("25%"), json!("25%"), (3, 2));
        check_bounds(3, json!("25%"), json!("25%"), (1, 0));
        check_bounds(1, json!("0%"), json!("25%"), (0, 1));
        check_bounds(4, json!(2), json!(9), (2, 4));
        check_bounds(4, json!(0), json!(0), (0, 1));
        check_bounds(4, json!("garbage"), json!("150%"), (0, 4));
        check_bounds(0, json!(2), json!(1), (2, 0));
        check_bounds(4, json!(null), json!(null), (1, 1));
    }

    #[test]
    fn the_new_set_grows_into_the_surge() {
        let b = Bounds { desired: 10, surge: 3, unavailable: 2 };
        assert_eq!(new_size(b, false, 0, 10), 3);
        assert_eq!(new_size(b, false, 3, 13), 3);
        assert_eq!(new_size(b, false, 3, 8), 8);
        assert_eq!(new_size(b, false, 12, 12), 10);
        assert_eq!(new_size(b, true, 0, 0), 10);
    }

    #[test]
    fn old_sets_shrink_by_availability() {
        let b = Bounds { desired: 10, surge: 3, unavailable: 2 };
        let new = size("new", 9, 3, 0);
        assert_eq!(shrink_old(b, Some(&new), &[size("old", 0, 10, 10)]), [("old".to_owned(), 8)]);
        assert_eq!(shrink_old(b, Some(&new), &[size("old", 0, 8, 8)]), []);
        let ready = size("new", 9, 5, 5);
        assert_eq!(shrink_old(b, Some(&ready), &[size("old", 0, 8, 8)]), [("old".to_owned(), 3)]);
        let broken = [size("broken", 1, 5, 0), size("old", 0, 5, 5)];
        assert_eq!(shrink_old(b, Some(&size("new", 9, 3, 3)), &broken), [("broken".to_owned(), 0)]);
        let stuck = Bounds { desired: 3, surge: 1, unavailable: 0 };
        assert_eq!(shrink_old(stuck, Some(&size("new", 9, 1, 0)), &[size("old", 0, 3, 3)]), []);
        assert_eq!(shrink_old(stuck, Some(&size("new", 9, 1, 1)), &[size("old", 0, 3, 3)]), [("old".to_owned(), 2)]);
    }

    #[test]
    fn growth_is_shared_in_proportion() {
        let b = Bounds { desired: 15, surge: 3, unavailable: 2 };
        let mut sets = [size("old", 0, 8, 8), size("new", 1, 5, 0)];
        for set in &mut sets {
            set.annotated_max = Some(13);
        }
        // 10 (+3) grows to 15 (+3): five more, three for the larger set, two for the other.
        assert_eq!(proportional(b, 13, &sets), [("old".to_owned(), 11), ("new".to_owned(), 7)]);
        let zero = Bounds { desired: 0, surge: 3, unavailable: 0 };
        assert_eq!(proportional(zero, 13, &sets), [("old".to_owned(), 0), ("new".to_owned(), 0)]);
    }

    proptest! {
        #[test]
        fn proportional_scaling_reaches_the_allowed_size(
            desired in 1i32..60, surge in 0i32..10, sizes in proptest::collection::vec(1i32..40, 1..6), slack in 0i32..5,
        ) {
            let total: i32 = sizes.iter().sum();
            let max = total + slack;
            let sets: Vec<Size> = sizes.iter().enumerate().map(|(i, n)| {
                Size { annotated_max: Some(max), ..size(&format!("s{i}"), i, *n, *n) }
            }).collect();

            let after = proportional(Bounds { desired, surge, unavailable: 0 }, total, &sets);
            prop_assert_eq!(after.len(), sets.len());
            prop_assert!(after.iter().all(|(_, n)| *n >= 0));
            let sum: i32 = after.iter().map(|(_, n)| n).sum();
            // Growing never overshoots, shrinking never undershoots what is allowed.
            if desired + surge >= total { prop_assert_eq!(sum, desired + surge); } else { prop_assert!(sum <= total && sum >= desired + surge); }
        }

        #[test]
        fn shrinking_keeps_the_promised_availability(
            desired in 1i32..30, unavailable in 0i32..10, new in (0i32..30, 0i32..30), old in proptest::collection::vec((0i32..20, 0i32..20), 1..4),
        ) {
            let b = Bounds { desired, surge: 1, unavailable: unavailable.min(desired) };
            let new = size("new", 9, new.0, new.1.min(new.0));
            let old: Vec<Size> = old.iter().enumerate().map(|(i, (r, a))| size(&format!("o{i}"), i, *r, *(a.min(r)))).collect();
            let available = |sets: &[Size]| sets.iter().map(|s| s.available.min(s.replicas)).sum::<i32>() + new.available;
            let before = available(&old);
            let mut after = old.clone();
            for (name, n) in shrink_old(b, Some(&new), &old) {
                after.iter_mut().find(|s| s.name == name).unwrap().replicas = n;
            }
            prop_assert!(available(&after) >= before.min(desired - b.unavailable), "{before} -> {}", available(&after));
        }
    }
}
