//! Tests of `controllers::deployment::plan`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use serde_json::{Value, from_value, json};

use super::super::revision::{HASH_LABEL, REVISION_HISTORY, template_hash};
use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn deployment(replicas: i32, image: &str, patch: Value) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "d", "namespace": "ns", "uid": "d-uid", "generation": 1},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
        }
    });
    json_patch::merge(&mut value, &patch);
    from_value(value).unwrap()
}

/// Keeps sets as an API server and a ReplicaSet controller would.
struct World {
    d: Deployment,
    sets: Vec<ReplicaSet>,
    clock: i64,
    old_pods: bool,
}

impl World {
    fn new(d: Deployment) -> Self {
        Self { d, sets: Vec::new(), clock: 0, old_pods: false }
    }

    fn step(&mut self) -> Plan {
        self.clock += 1;
        let sets: Vec<Set> = self.sets.iter().cloned().map(Arc::new).collect();
        let old_pods = self.old_pods;
        let plan = plan(&self.d, &sets, &|_| old_pods, at(self.clock));
        if let Some(new) = &plan.create {
            let mut rs = (**new).clone();
            rs.metadata.uid = rs.metadata.name.clone();
            rs.metadata.generation = Some(1);
            rs.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(self.clock)));
            self.sets.push(rs);
        }
        for change in &plan.changes {
            let rs = self.sets.iter_mut().find(|rs| name(&rs.metadata) == change.name).unwrap();
            rs.metadata.annotations.get_or_insert_default().extend(change.annotations.clone());
            if let Some((from, to)) = change.replicas {
                assert_eq!(replicas(rs), from);
                rs.spec.as_mut().unwrap().replicas = Some(to);
                rs.metadata.generation = Some(rs.metadata.generation.unwrap_or(1) + 1);
            }
        }
        self.sets.retain(|rs| !plan.delete.contains(&name(&rs.metadata).to_owned()));
        if let Some(revision) = &plan.revision {
            self.d.metadata.annotations.get_or_insert_default().insert(REVISION.into(), revision.clone());
        }
        self.d.status = Some(plan.status.clone());
        plan
    }

    /// Every pod asked for exists, and is available where `healthy` says so.
    fn pods(&mut self, healthy: impl Fn(&ReplicaSet) -> bool) {
        for rs in &mut self.sets {
            let n = replicas(rs);
            let available = if healthy(rs) { n } else { 0 };
            let status = rs.status.get_or_insert_default();
            status.replicas = n;
            status.ready_replicas = Some(available);
            status.available_replicas = Some(available);
            status.observed_generation = rs.metadata.generation;
        }
    }

    /// Whether the next step shares out a new size.
    fn resized(&self) -> bool {
        let desired = |rs: &ReplicaSet| annotation(&rs.metadata, DESIRED_REPLICAS)?.parse().ok();
        self.sets.iter().any(|rs| replicas(rs) > 0 && desired(rs) != Some(bounds(&self.d).desired))
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(replicas).collect()
    }

    /// Steps until nothing changes; asserts the promises of the strategy on the way.
    fn roll(&mut self) {
        for _ in 0..100 {
            let plan = self.step();
            let b = bounds(&self.d);
            let total: i32 = self.sizes().iter().sum();
            assert!(total <= b.desired + b.surge, "{:?}", self.sizes());
            self.pods(|_| true);
            if plan.create.is_none() && plan.changes.is_empty() && plan.delete.is_empty() {
                // Once more, for the status of the last step.
                self.step();
                return;
            }
        }
        panic!("does not settle: {:?}", self.sizes());
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let all = self.d.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let c = all.iter().find(|c| c.type_ == type_).unwrap();
        (c.status.clone(), c.reason.clone().unwrap())
    }

    fn update(&mut self, image: &str) {
        self.d.metadata.generation = self.d.metadata.generation.map(|g| g + 1);
        let spec = self.d.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    }
}

#[test]
fn the_first_step_creates_the_full_set() {
    let mut w = World::new(deployment(3, "v1", json!({"metadata": {"annotations": {"note": "x"}}})));
    let plan = w.step();
    let rs = plan.create.unwrap();
    let hash = template_hash(&w.d.spec.as_ref().unwrap().template, None);
    assert_eq!(name(&rs.metadata), format!("d-{hash}"));
    assert_eq!(replicas(&rs), 3);
    let annotations = rs.metadata.annotations.as_ref().unwrap();
    for (key, value) in [("note", "x"), (REVISION, "1"), (DESIRED_REPLICAS, "3"), (MAX_REPLICAS, "4")] {
        assert_eq!(annotations.get(key).map(String::as_str), Some(value), "{key}");
    }
    let spec = rs.spec.as_ref().unwrap();
    assert_eq!(spec.selector.match_labels.as_ref().unwrap()[HASH_LABEL], hash);
    assert_eq!(spec.template.as_ref().unwrap().metadata.as_ref().unwrap().labels.as_ref().unwrap()[HASH_LABEL], hash);
    assert_eq!(
        (plan.revision.as_deref(), w.condition("Progressing")),
        (Some("1"), ("True".into(), "NewReplicaSetCreated".into()))
    );
    assert_eq!(w.condition("Available"), ("False".into(), "MinimumReplicasUnavailable".into()));
    w.roll();
    assert_eq!(w.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(w.condition("Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    let s = w.d.status.as_ref().unwrap();
    assert_eq!(
        (s.replicas, s.updated_replicas, s.available_replicas, s.unavailable_replicas),
        (Some(3), Some(3), Some(3), None)
    );
    let settled = w.d.status.clone();
    w.step();
    assert_eq!(w.d.status, settled, "nothing is written when nothing changed");
}

#[test]
fn an_update_rolls_without_breaking_its_bounds() {
    let mut w = World::new(deployment(10, "v1", json!({})));
    w.roll();
    w.update("v2");
    w.roll();
    assert_eq!(w.sizes(), [0, 10]);
    assert_eq!(w.d.metadata.annotations.as_ref().unwrap()[REVISION], "2");
}

#[test]
fn a_broken_template_stops_at_the_bounds_and_times_out() {
    let mut w = World::new(deployment(10, "v1", json!({})));
    w.roll();
    w.update("broken");
    for _ in 0..10 {
        w.step();
        w.pods(|rs| rs.metadata.annotations.as_ref().unwrap()[REVISION] == "1");
    }
    assert_eq!(w.sizes(), [8, 5], "8 available of 10, 13 in all");
    let wake = w.step().wake.unwrap();
    assert!(wake > SignedDuration::from_secs(580) && wake < SignedDuration::from_secs(602), "{wake:?}");
    w.clock += 700;
    w.step();
    assert_eq!(w.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    w.update("v1");
    w.roll();
    assert_eq!((w.sizes(), w.condition("Progressing").1), (vec![10, 0], "NewReplicaSetAvailable".into()));
}

#[test]
fn a_rollback_takes_the_old_set_with_a_new_revision() {
    let mut w = World::new(deployment(2, "v1", json!({})));
    w.roll();
    w.update("v2");
    w.roll();
    w.update("v1");
    w.roll();
    assert_eq!((w.sizes(), w.sets.len()), (vec![2, 0], 2));
    let annotations = w.sets[0].metadata.annotations.as_ref().unwrap();
    assert_eq!((annotations[REVISION].as_str(), annotations[REVISION_HISTORY].as_str()), ("3", "1"));
    assert_eq!(w.d.metadata.annotations.as_ref().unwrap()[REVISION], "3");
}

#[test]
fn a_resize_in_the_middle_is_shared() {
    let mut w = World::new(deployment(
        10,
        "v1",
        json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}}),
    ));
    w.roll();
    w.update("broken");
    for _ in 0..10 {
        w.step();
        w.pods(|rs| rs.metadata.annotations.as_ref().unwrap()[REVISION] == "1");
    }
    assert_eq!(w.sizes(), [8, 5]);
    w.d.spec.as_mut().unwrap().replicas = Some(15);
    w.step();
    assert_eq!(w.sizes(), [11, 7]);
    w.d.spec.as_mut().unwrap().replicas = Some(0);
    w.step();
    assert_eq!(w.sizes(), [0, 0]);
}

#[test]
fn a_simple_resize_scales_the_one_set() {
    let mut w = World::new(deployment(3, "v1", json!({})));
    w.roll();
    for n in [7, 0, 2] {
        w.d.spec.as_mut().unwrap().replicas = Some(n);
        w.roll();
        assert_eq!(w.sizes(), [n]);
    }
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut w = World::new(deployment(3, "v1", json!({})));
    w.roll();
    w.d.spec.as_mut().unwrap().paused = Some(true);
    w.update("v2");
    w.d.spec.as_mut().unwrap().replicas = Some(5);
    w.roll();
    assert_eq!((w.sizes(), w.condition("Progressing").1), (vec![5], "DeploymentPaused".into()));
    w.d.spec.as_mut().unwrap().paused = None;
    w.roll();
    assert_eq!((w.sizes(), w.condition("Progressing").1), (vec![0, 5], "NewReplicaSetAvailable".into()));
}

#[test]
fn recreate_waits_for_the_old_pods() {
    let mut w =
        World::new(deployment(3, "v1", json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}})));
    w.roll();
    w.update("v2");
    w.old_pods = true;
    w.step();
    assert_eq!(w.sizes(), [0]);
    w.pods(|_| true);
    w.step();
    assert_eq!(w.sizes(), [0], "old pods still run");
    w.old_pods = false;
    w.roll();
    assert_eq!(w.sizes(), [0, 3]);
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut w = World::new(deployment(1, "v0", json!({"spec": {"revisionHistoryLimit": 2}})));
    for i in 0..6 {
        w.update(&format!("v{i}"));
        w.roll();
    }
    let revisions: Vec<i64> = w.sets.iter().map(|rs| revision(&rs.metadata)).collect();
    assert_eq!(revisions, [4, 5, 6]);
}

#[test]
fn a_deployment_being_deleted_only_reports() {
    let mut w = World::new(deployment(3, "v1", json!({"metadata": {"deletionTimestamp": at(0).to_string()}})));
    let plan = w.step();
    assert!(plan.create.is_none() && plan.changes.is_empty() && plan.revision.is_none());
}

#[test]
fn a_failure_to_create_pods_shows() {
    let mut w = World::new(deployment(3, "v1", json!({})));
    w.step();
    w.sets[0].status = from_value(json!({"replicas": 0, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]})).unwrap();
    w.step();
    assert_eq!(w.condition("ReplicaFailure"), ("True".into(), "FailedCreate".into()));
    w.roll();
    w.sets[0].status.as_mut().unwrap().conditions = None;
    w.step();
    assert!(w.d.status.unwrap().conditions.unwrap().iter().all(|c| c.type_ != "ReplicaFailure"));
}

#[test]
fn the_hash_is_stable_and_depends_on_collisions() {
    let d = deployment(3, "v1", json!({}));
    let template = &d.spec.as_ref().unwrap().template;
    assert_eq!(template_hash(template, None), template_hash(template, None));
    assert_ne!(template_hash(template, None), template_hash(template, Some(1)));
    assert!(template_hash(template, None).bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
}

#[test]
fn empty_structs_make_no_new_template() {
    use super::super::revision::equal;
    let template = |spec: Value| from_value(json!({"metadata": {"labels": {"app": "a"}}, "spec": spec})).unwrap();
    let bare = json!({"containers": [{"name": "c"}], "volumes": [{"name": "v"}]});
    let wordy = json!({"containers": [{"name": "c", "resources": {}, "env": []}], "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {}});
    assert!(equal(&template(bare.clone()), &template(wordy)));
    let strict =
        json!({"containers": [{"name": "c"}], "volumes": [{"name": "v"}], "automountServiceAccountToken": false});
    assert!(!equal(&template(bare.clone()), &template(strict)));
    let other = json!({"containers": [{"name": "d"}], "volumes": [{"name": "v"}]});
    assert!(!equal(&template(bare), &template(other)));
    // Pointers in Go: no class is another wish than the default one, and a zero than none.
    let claim = |spec: Value| {
        template(
            json!({"containers": [], "volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}]}),
        )
    };
    assert!(!equal(&claim(json!({"storageClassName": ""})), &claim(json!({}))));
    let affinity = |term: Value| {
        template(
            json!({"containers": [], "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}),
        )
    };
    assert!(!equal(
        &affinity(json!({"topologyKey": "z", "labelSelector": {}})),
        &affinity(json!({"topologyKey": "z"}))
    ));
}

/// Who acts next.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// The Deployment controller plans on what it sees.
    Deployment,
    /// The ReplicaSet controller makes pods of the n-th set fit and writes its status.
    Set(usize),
    /// Somebody resizes the Deployment.
    Resize(i32),
}

fn turns() -> impl proptest::strategy::Strategy<Value = Vec<Turn>> {
    use proptest::prelude::*;
    let turn = prop_oneof![
        4 => Just(Turn::Deployment),
        2 => (0usize..2).prop_map(Turn::Set),
        1 => (1i32..20).prop_map(Turn::Resize),
    ];
    proptest::collection::vec(turn, 1..40)
}

proptest::proptest! {
    /// A rollout to an image that never starts: in whatever order the two controllers and a user act, nobody takes
    /// good pods below what the strategy promises for the size then asked for.
    #[test]
    fn good_pods_are_kept_however_old_the_statuses_are(from in 2i32..20, turns in turns()) {
        let strategy = json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}});
        let mut w = World::new(deployment(from, "good", strategy));
        w.roll();
        w.update("missing");
        let good = w.sets[0].metadata.name.clone();
        let mut pods = from;
        for turn in turns {
            let asked = |w: &World| w.sets.iter().find(|rs| rs.metadata.name == good).map_or(0, replicas);
            let promised = (bounds(&w.d).desired - bounds(&w.d).unavailable).min(pods).min(asked(&w));
            match turn {
                // A resize is shared among the sets in proportion, healthy or not.
                Turn::Deployment if w.resized() => {
                    w.step();
                    continue;
                }
                Turn::Deployment => drop(w.step()),
                Turn::Resize(n) => {
                    w.d.spec.as_mut().unwrap().replicas = Some(n);
                    w.d.metadata.generation = w.d.metadata.generation.map(|g| g + 1);
                    continue;
                }
                Turn::Set(n) => {
                    let Some(rs) = w.sets.get_mut(n) else { continue };
                    let available = if rs.metadata.name == good { replicas(rs) } else { 0 };
                    let status = rs.status.get_or_insert_default();
                    (status.replicas, status.available_replicas) = (rs.spec.as_ref().unwrap().replicas.unwrap(), Some(available));
                    status.observed_generation = rs.metadata.generation;
                    if rs.metadata.name == good {
                        pods = available;
                    }
                    continue;
                }
            }
            let asked = asked(&w);
            proptest::prop_assert!(asked.min(pods) >= promised, "{asked} of {pods} good pods stay, {promised} are promised");
        }
    }
}
