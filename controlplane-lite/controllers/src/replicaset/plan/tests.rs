//! Tests of `controllers::replicaset::plan`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use k8s_openapi::serde_json::{Value, from_value, json};

use super::super::pods::{from_template, slow_start};
use super::*;
use client::objects::controller_ref;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn rs(replicas: i32) -> ReplicaSet {
    from_value(json!({
        "metadata": {"name": "rs", "namespace": "ns", "uid": "rs-uid", "generation": 3},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        }
    }))
    .unwrap()
}

/// A ready pod made at 0 on node n; `patch` overrides.
fn pod(name: &str, patch: Value) -> Arc<Pod> {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "a"}, "creationTimestamp": at(0).to_string()},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": at(0).to_string()}]}
    });
    json_patch::merge(&mut value, &patch);
    Arc::new(from_value(value).unwrap())
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|p| p.metadata.name.as_deref().unwrap()).collect()
}

#[test]
fn candidates_are_adopted_released_or_left() {
    let other = pod("other", json!({"metadata": {"labels": {"app": "b"}}}));
    let orphan = pod("orphan", json!({}));
    let dying = pod("dying", json!({"metadata": {"deletionTimestamp": at(1).to_string()}}));
    let done = pod("done", json!({"status": {"phase": "Failed"}}));
    let claimed = claim(&rs(1), vec![pod("mine", json!({})), other.clone()], vec![orphan, dying, done, other.clone()]);
    assert_eq!(
        (names(&claimed.owned), names(&claimed.adopt), names(&claimed.release)),
        (vec!["mine"], vec!["orphan"], vec!["other"])
    );
    let mut gone = rs(1);
    gone.metadata.deletion_timestamp = Some(Time(at(0)));
    let claimed = claim(&gone, vec![other], vec![pod("orphan", json!({}))]);
    assert!(claimed.adopt.is_empty() && claimed.release.is_empty());
}

#[test]
fn counts_lead_to_creation_or_deletion() {
    let two = [pod("a", json!({})), pod("b", json!({}))];
    assert_eq!(scale(&rs(2), &two, &two, at(9)), Scale::Keep);
    assert_eq!(scale(&rs(5), &two, &two, at(9)), Scale::Create(3));
    assert_eq!(scale(&rs(5000), &two, &two, at(9)), Scale::Create(BURST));
    assert!(matches!(scale(&rs(0), &two, &two, at(9)), Scale::Delete(p) if p.len() == 2));
    let ended = [two[0].clone(), pod("b", json!({"status": {"phase": "Succeeded"}}))];
    assert_eq!(scale(&rs(2), &ended, &ended, at(9)), Scale::Create(1), "an ended pod is replaced");
    let mut gone = rs(5);
    gone.metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(scale(&gone, &two, &two, at(9)), Scale::Keep);
    assert_eq!(scale(&rs(-1), &[], &[], at(9)), Scale::Keep, "garbage asks for nothing");
}

#[test]
fn victims_in_upstreams_order() {
    let best = pod("best", json!({}));
    for (worse, why) in [
        (pod("x", json!({"spec": {"nodeName": null}})), "unassigned"),
        (pod("x", json!({"status": {"phase": "Pending"}})), "pending"),
        (pod("x", json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})), "not ready"),
        (pod("x", json!({"metadata": {"annotations": {DELETION_COST: "-5"}}})), "cheap"),
        (
            pod(
                "x",
                json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(900).to_string()}]}}),
            ),
            "shortly ready",
        ),
        (
            pod(
                "x",
                json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 7}]}}),
            ),
            "restarting",
        ),
        (pod("x", json!({"metadata": {"creationTimestamp": at(900).to_string()}})), "young"),
    ] {
        let mut pods = [best.clone(), worse];
        let related = pods.to_vec();
        rank(&mut pods, &related, at(1000));
        assert_eq!(names(&pods), ["x", "best"], "{why}");
    }
    let related = vec![
        best.clone(),
        pod("r1", json!({"spec": {"nodeName": "m"}})),
        pod("r2", json!({"spec": {"nodeName": "m"}})),
    ];
    let mut pods = [best, pod("crowded", json!({"spec": {"nodeName": "m"}}))];
    rank(&mut pods, &related, at(1000));
    assert_eq!(names(&pods), ["crowded", "best"]);
    assert!(matches!(scale(&rs(1), &pods, &related, at(1000)), Scale::Delete(p) if names(&p) == ["crowded"]));
}

#[test]
fn status_counts_and_wakes_for_min_ready() {
    let mut set = rs(3);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(10);
    let young = pod(
        "b",
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(5).to_string()}]}}),
    );
    let unlabelled = pod("c", json!({"metadata": {"labels": {"app": "b"}}, "status": {"conditions": null}}));
    let dying = pod("d", json!({"metadata": {"deletionTimestamp": at(1).to_string()}}));
    let (status, wake) = status(&set, &[pod("a", json!({})), young, unlabelled, dying], None, at(12));
    assert_eq!(
        (status.replicas, status.fully_labeled_replicas, status.ready_replicas, status.available_replicas),
        (3, Some(2), Some(2), Some(1))
    );
    assert_eq!((status.terminating_replicas, status.observed_generation), (Some(1), Some(3)));
    assert_eq!(wake, Some(SignedDuration::from_secs(3)));
}

#[test]
fn a_failure_shows_and_goes() {
    let mut set = rs(3);
    let (failed, _) = status(&set, &[], Some(("FailedCreate", "quota")), at(1));
    assert_eq!(failed.conditions.as_ref().unwrap()[0].message.as_deref(), Some("quota"));
    set.status = Some(failed.clone());
    let (again, _) = status(&set, &[], Some(("FailedCreate", "other words")), at(2));
    assert_eq!(again, failed, "no write for the same reason");
    assert_eq!(status(&set, &[], None, at(2)).0.conditions, None);
    // The server's words may hold what somebody has written into the template; upstream's Condition has this limit.
    let long = "x".repeat(1_400_000);
    let (failed, _) = status(&rs(3), &[], Some(("FailedCreate", &long)), at(1));
    assert_eq!(failed.conditions.unwrap()[0].message.as_ref().unwrap().len(), 32_768);
}

#[test]
fn pods_follow_the_template() {
    let set = rs(1);
    let p = from_template(set.spec.as_ref().unwrap().template.as_ref().unwrap(), "ns", controller_ref(&set));
    assert_eq!((p.metadata.generate_name.as_deref(), p.metadata.namespace.as_deref()), (Some("rs-"), Some("ns")));
    let owner = &p.metadata.owner_references.unwrap()[0];
    assert_eq!(
        (owner.api_version.as_str(), owner.kind.as_str(), owner.controller, owner.block_owner_deletion),
        ("apps/v1", "ReplicaSet", Some(true), Some(true))
    );
    assert_eq!(slow_start(0), Vec::<usize>::new());
    assert_eq!(slow_start(10), [1, 2, 4, 3]);
}
