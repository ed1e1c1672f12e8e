//! Tests of `scheduler::queue`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::super::plugins::basic::PrioritySort;
use super::super::testing::pod;
use super::*;

fn queue() -> Queue {
    Queue::new(Arc::new(PrioritySort))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn pop(queue: &mut Queue, now: Timestamp) -> Option<String> {
    queue.pop(now).map(|pod| pod.name.clone())
}

fn add(queue: &mut Queue, name: &str, priority: i32) -> PodUid {
    let pod = PodInfo { priority, ..pod(name, "") };
    let uid = pod.uid.clone();
    queue.upsert(Arc::new(pod), false, at(0));
    uid
}

#[test]
fn priority_first_then_arrival() {
    let mut q = queue();
    add(&mut q, "a", 0);
    add(&mut q, "b", 5);
    add(&mut q, "c", 0);
    assert_eq!(
        [pop(&mut q, at(0)), pop(&mut q, at(0)), pop(&mut q, at(0))],
        [Some("b".into()), Some("a".into()), Some("c".into())]
    );
    assert_eq!(pop(&mut q, at(0)), None, "pods in flight are not given twice");
}

#[test]
fn an_unschedulable_pod_waits_for_a_helpful_change() {
    let mut q = queue();
    let uid = add(&mut q, "a", 0);
    pop(&mut q, at(0));
    q.unschedulable(&uid, ["NodeResourcesFit"].into(), at(0));
    assert_eq!(pop(&mut q, at(100)), None);
    q.changed(at(100), |_, by| by.contains("NodeAffinity"));
    assert_eq!(pop(&mut q, at(100)), None);
    q.changed(at(100), |_, by| by.contains("NodeResourcesFit"));
    assert_eq!(pop(&mut q, at(100)), Some("a".into()));
}

#[test]
fn backing_off_pods_go_last_but_do_not_idle() {
    let mut q = queue();
    let a = add(&mut q, "a", 9);
    pop(&mut q, at(0));
    q.unschedulable(&a, BTreeSet::new(), at(0));
    q.changed(at(0), |_, _| true);
    add(&mut q, "b", 0);
    assert_eq!(pop(&mut q, at(0)), Some("b".into()), "a backs off, whatever its priority");
    assert_eq!(pop(&mut q, at(0)), Some("a".into()), "nothing else to do");
}

#[test]
fn errors_wait_out_their_backoff() {
    let mut q = queue();
    let a = add(&mut q, "a", 0);
    for (attempt, wait) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10)] {
        let start = at(attempt * 100);
        assert_eq!(pop(&mut q, start), Some("a".into()), "attempt {attempt}");
        q.failed(&a, start);
        assert_eq!(q.deadline(), Some(start + SignedDuration::from_secs(wait)));
        assert_eq!(pop(&mut q, start + SignedDuration::from_millis(wait * 1000 - 1)), None);
    }
}

#[test]
fn five_minutes_flush_the_forgotten() {
    let mut q = queue();
    let a = add(&mut q, "a", 0);
    pop(&mut q, at(0));
    q.unschedulable(&a, BTreeSet::new(), at(0));
    assert_eq!(q.deadline(), Some(at(300)));
    q.flush(at(299));
    assert_eq!(pop(&mut q, at(299)), None);
    q.flush(at(300));
    assert_eq!(pop(&mut q, at(300)), Some("a".into()));
}

#[test]
fn gates_hold_a_pod_until_they_are_gone() {
    let mut q = queue();
    let p = Arc::new(pod("a", ""));
    q.upsert(p.clone(), true, at(0));
    assert_eq!(pop(&mut q, at(0)), None);
    q.changed(at(0), |_, _| true);
    assert_eq!(pop(&mut q, at(0)), None);
    q.upsert(p, false, at(0));
    assert_eq!(pop(&mut q, at(0)), Some("a".into()));
}

#[test]
fn a_changed_pod_is_tried_again_a_removed_one_is_not() {
    let mut q = queue();
    let a = add(&mut q, "a", 0);
    pop(&mut q, at(0));
    q.unschedulable(&a, BTreeSet::new(), at(0));
    q.upsert(Arc::new(pod("a", "")), false, at(50));
    assert_eq!(pop(&mut q, at(50)), None, "nothing of interest changed");
    q.upsert(Arc::new(pod("a", "1")), false, at(50));
    assert_eq!(pop(&mut q, at(50)), Some("a".into()));
    assert!(q.remove(&a) && !q.remove(&a) && q.len() == 0);
    q.failed(&a, at(50));
    q.unschedulable(&a, BTreeSet::new(), at(50));
    assert!(q.len() == 0);
}
