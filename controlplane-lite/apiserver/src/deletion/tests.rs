//! Tests of `apiserver::deletion`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::*;
use scheme::builtin;

fn kind(group: &str, plural: &str) -> &'static Kind {
    builtin().by_gvr(group, "v1", plural).unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn grace(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace_period: Some(seconds), ..DeleteOptions::default() }
}

fn propagate(propagation: Propagation) -> DeleteOptions {
    DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() }
}

fn bound() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}})
}

#[test]
fn pods_wait_for_their_grace() {
    let pods = kind("", "pods");
    let Deletion::Mark(marked) = plan(pods, &bound(), &DeleteOptions::default(), now()) else { panic!("not marked") };
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    // A second delete changes nothing unless it is shorter.
    assert_eq!(plan(pods, &marked, &DeleteOptions::default(), now()), Deletion::Pending);
    assert_eq!(plan(pods, &marked, &grace(60), now()), Deletion::Pending);
    let Deletion::Mark(shorter) = plan(pods, &marked, &grace(5), now()) else { panic!("not shortened") };
    assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
    let Deletion::MarkThenRemove(last) = plan(pods, &marked, &grace(0), now()) else { panic!("not removed") };
    // Dead between marking and removing: the next delete removes.
    assert_eq!(plan(pods, &last, &grace(0), now()), Deletion::Now);
}

#[test]
fn pods_nobody_runs_go_at_once() {
    let pods = kind("", "pods");
    let unscheduled = json!({"metadata": {"name": "p"}, "spec": {}});
    assert!(matches!(plan(pods, &unscheduled, &DeleteOptions::default(), now()), Deletion::MarkThenRemove(_)));
    let mut over = bound();
    over["status"] = json!({"phase": "Succeeded"});
    assert!(matches!(plan(pods, &over, &DeleteOptions::default(), now()), Deletion::MarkThenRemove(_)));
    let Deletion::Mark(one) = plan(pods, &bound(), &grace(-7), now()) else { panic!("not marked") };
    assert_eq!(one["metadata"]["deletionGracePeriodSeconds"], 1);
    assert!(matches!(plan(pods, &bound(), &grace(i64::MAX), now()), Deletion::Mark(_)));
}

#[test]
fn finalizers_hold() {
    let maps = kind("", "configmaps");
    let held = json!({"metadata": {"name": "c", "finalizers": ["a/b"]}});
    let Deletion::Mark(marked) = plan(maps, &held, &DeleteOptions::default(), now()) else { panic!("not marked") };
    assert_eq!(plan(maps, &marked, &DeleteOptions::default(), now()), Deletion::Pending);
    assert!(!ends_with_update(maps, &marked));
    let mut freed = marked.clone();
    freed["metadata"]["finalizers"] = json!([]);
    assert!(ends_with_update(maps, &freed));
    assert_eq!(plan(maps, &json!({"metadata": {"name": "c"}}), &grace(30), now()), Deletion::Now);
}

#[test]
fn propagation_is_a_finalizer() {
    let deployments = kind("apps", "deployments");
    let object = json!({"metadata": {"name": "d"}});
    for (policy, finalizer) in [(Propagation::Orphan, ORPHAN), (Propagation::Foreground, FOREGROUND)] {
        let Deletion::Mark(marked) = plan(deployments, &object, &propagate(policy), now()) else { panic!("no mark") };
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        // Asked again for the background, the finalizer goes and the object with it.
        assert_eq!(plan(deployments, &marked, &propagate(Propagation::Background), now()), Deletion::Now);
    }
    assert_eq!(plan(deployments, &object, &propagate(Propagation::Background), now()), Deletion::Now);
    assert!(matches!(plan(kind("batch", "jobs"), &object, &DeleteOptions::default(), now()), Deletion::Mark(_)));
}

#[test]
fn namespaces_end_when_their_finalizers_are_gone() {
    let namespaces = kind("", "namespaces");
    let object = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}});
    let Deletion::Mark(marked) = plan(namespaces, &object, &DeleteOptions::default(), now()) else { panic!("no mark") };
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert_eq!(plan(namespaces, &marked, &DeleteOptions::default(), now()), Deletion::Pending);
    let mut empty = marked.clone();
    empty["spec"]["finalizers"] = json!([]);
    assert!(ends_with_update(namespaces, &empty));
    assert_eq!(plan(namespaces, &empty, &DeleteOptions::default(), now()), Deletion::Now);
}
