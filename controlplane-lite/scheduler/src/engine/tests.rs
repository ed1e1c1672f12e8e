//! Tests of `scheduler::engine`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::super::cycle::XorShift;
use super::super::profile::{PluginArgs, default_profile};
use super::super::testing::{node, pod, pod_on};
use super::*;

fn engine(nodes: Vec<Node>, pods: Vec<PodInfo>) -> Engine {
    let profiles = vec![default_profile("default-scheduler", &PluginArgs::default())];
    let mut engine = Engine::new(profiles, Box::new(XorShift::new(1)));
    engine.take(Input::Nodes(nodes, vec![]), at(0));
    assert!(engine.next(at(0)).is_none(), "nothing is decided on half a picture");
    engine.take(Input::Pods(pods, vec![]), at(0));
    engine
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn bound(action: Option<Action>) -> Option<(String, String)> {
    match action? {
        Action::Bind { pod, node } => Some((pod.name.clone(), node)),
        Action::Report { message, .. } => Some(("report".into(), message)),
    }
}

fn pair(a: &str, b: &str) -> Option<(String, String)> {
    Some((a.to_owned(), b.to_owned()))
}

#[test]
fn a_pod_that_does_not_fit_goes_when_room_is_made() {
    let mut e = engine(vec![node("n", "1", "8Gi")], vec![pod_on("old", "800m", "n"), pod("new", "500m")]);
    let text = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption \
                victims found for incoming pod.";
    assert_eq!(bound(e.next(at(0))), pair("report", text));
    e.take(Input::Pod(Box::new(pod_on("other", "10m", "n"))), at(60));
    assert!(e.next(at(60)).is_none());
    e.take(Input::PodGone(pod("old", "").uid), at(60));
    assert_eq!(bound(e.next(at(60))), pair("new", "n"));
}

#[test]
fn only_a_node_that_helps_wakes_the_pod() {
    let mut e = engine(vec![node("n", "1", "8Gi")], vec![pod("new", "2")]);
    e.next(at(0));
    e.take(Input::Node(Box::new(node("small", "1", "8Gi"))), at(60));
    assert!(e.next(at(60)).is_none());
    e.take(Input::Node(Box::new(node("big", "4", "8Gi"))), at(60));
    assert_eq!(bound(e.next(at(60))), pair("new", "big"));
}

#[test]
fn finished_pods_make_room() {
    let mut e = engine(vec![node("n", "1", "8Gi")], vec![pod_on("job", "1", "n"), pod("new", "1")]);
    e.next(at(0));
    let done = PodInfo { terminal: true, ..pod_on("job", "1", "n") };
    e.take(Input::Pod(Box::new(done)), at(60));
    assert_eq!(bound(e.next(at(60))), pair("new", "n"));
}

#[test]
fn a_failed_binding_gives_the_room_back_and_is_retried() {
    let mut e = engine(vec![node("n", "1", "8Gi")], vec![pod("a", "1"), pod("b", "1")]);
    let (first, _) = bound(e.next(at(0))).unwrap();
    assert_eq!(bound(e.next(at(0))).unwrap().0, "report");
    let other = if first == "a" { "b" } else { "a" };
    e.take(Input::BindFailed { uid: pod(&first, "").uid, retry: true }, at(60));
    assert_eq!(bound(e.next(at(60))), pair(other, "n"));
    e.take(Input::BindFailed { uid: pod(other, "").uid, retry: false }, at(60));
    assert_eq!(e.waiting(), 1);
    assert_eq!(bound(e.next(at(62))), pair(&first, "n"));
}

#[test]
fn a_late_event_does_not_bind_twice() {
    let mut e = engine(vec![node("n", "4", "8Gi")], vec![pod("a", "1")]);
    assert_eq!(bound(e.next(at(0))), pair("a", "n"));
    e.take(Input::Pod(Box::new(pod("a", "1"))), at(0));
    e.take(Input::Bound(pod("a", "").uid), at(0));
    e.take(Input::Pod(Box::new(pod("a", "1"))), at(1));
    assert!(e.next(at(1)).is_none());
    e.take(Input::Pod(Box::new(pod_on("a", "1", "n"))), at(2));
    e.take(Input::Pod(Box::new(pod("a", "1"))), at(3));
    assert!(e.next(at(3)).is_none());
    assert_eq!(e.waiting(), 0);
}

#[test]
fn foreign_gated_and_dying_pods_are_left_alone() {
    let foreign = PodInfo { scheduler_name: "other".into(), ..pod("f", "1") };
    let gated = PodInfo { gates: vec!["g".into()], ..pod("g", "1") };
    let dying = PodInfo { deleting: true, ..pod("d", "1") };
    let mut e = engine(vec![node("n", "4", "8Gi")], vec![foreign, gated, dying]);
    assert!(e.next(at(0)).is_none());
    e.take(Input::Pod(Box::new(pod("g", "1"))), at(0));
    assert_eq!(bound(e.next(at(0))), pair("g", "n"));
}

#[test]
fn a_relist_drops_what_is_gone() {
    let mut e = engine(vec![node("n", "1", "8Gi")], vec![pod_on("old", "1", "n"), pod("a", "1"), pod("b", "5")]);
    e.next(at(0));
    e.next(at(0));
    e.take(Input::Nodes(vec![node("n", "1", "8Gi")], vec![]), at(60));
    e.take(Input::Pods(vec![pod("a", "1")], vec![]), at(60));
    assert_eq!(bound(e.next(at(60))), pair("a", "n"));
    assert!(e.next(at(60)).is_none());
}

#[test]
fn a_new_reason_takes_the_place_of_one_that_is_gone() {
    use k8s_openapi::api::core::v1::Taint;
    let mut tainted = node("n", "1", "8Gi");
    let taint = Taint { key: "k".into(), effect: "NoSchedule".into(), ..Taint::default() };
    tainted.spec.as_mut().unwrap().taints = Some(vec![taint]);
    let mut e = engine(vec![tainted], vec![pod("new", "2")]);
    assert!(bound(e.next(at(0))).unwrap().1.contains("untolerated taint(s)"));
    e.take(Input::Node(Box::new(node("n", "1", "8Gi"))), at(60));
    assert!(bound(e.next(at(60))).unwrap().1.contains("Insufficient cpu"));
}
