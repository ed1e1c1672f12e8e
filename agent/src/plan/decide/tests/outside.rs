//! What happens outside of the pod: clocks are set, others write its status, the Node is not there yet.

use super::*;

fn said_to_be(phase: &str) -> Scene {
    let mut s = scene(ONE, &[("a", 0, Running, 0)]);
    s.pod.status = Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
    s
}

#[test]
fn a_pod_that_is_said_to_be_over_ends() {
    for phase in ["Failed", "Succeeded"] {
        assert_eq!(said_to_be(phase).shows(0), "Containers stop:30s", "{phase}");
    }
    for phase in ["Pending", "Running", "Unknown"] {
        assert_eq!(said_to_be(phase).shows(0), "Syncing keep", "{phase}");
    }
}

#[test]
fn the_node_is_waited_for_before_anything_begins() {
    let mut s = Scene::bare(ONE);
    (s.memory.admission, s.node_awaited) = (Admission::NotAsked, true);
    let d = s.decide(10);
    assert_eq!((show(&d).as_str(), d.wake_at), ("Syncing @10", Some(after(at(10), NODE_LOOK))));
    s.runtime = scene(ONE, &[("a", 0, Running, 0)]).runtime;
    assert_eq!(s.shows(10), "Syncing admit!", "what runs goes on");
    (s.node_awaited, s.runtime) = (false, runtime(vec![], vec![]));
    assert_eq!(s.shows(10), "Syncing admit");
}

#[test]
fn a_clock_that_is_set_back_holds_up_no_restart() {
    let mut s = scene(ONE, &[("a", 0, Exited, 1)]);
    let Some(Effect::Start(mut start)) = s.decide(12).effects.pop() else { panic!() };
    s.memory.note(Outcome::Starting(start.containers.remove(0)), at(12));
    s.runtime = scene(ONE, &[("a", 0, Exited, 1), ("a", 1, Exited, 1)]).runtime;
    // It ended at 112, which is an hour ahead: it counts from when it was started.
    s.wall = Some(at(112 - 3600));
    assert_eq!(s.shows(15), "Syncing keep @22 (BackOff)");
    let Some(Effect::Start(mut start)) = s.decide(22).effects.pop() else { panic!() };
    s.memory.note(Outcome::Starting(start.containers.remove(0)), at(22));
    assert_eq!(s.shows(22), "Syncing keep @42 (BackOff)", "and the waits grow on");
    // By a clock that shows something else altogether, what it shows is translated.
    s.wall = Some(at(112 + 5));
    assert_eq!(s.shows(100), "Syncing keep @115 (BackOff)");
}

#[test]
fn a_deadline_is_counted_by_the_clock_that_wrote_the_start() {
    let mut s = scene("  activeDeadlineSeconds: 60\n  containers: [{name: a}]", &[("a", 0, Running, 0)]);
    s.status = Some(PodStatus { start_time: Some(Time(at(3600))), ..PodStatus::default() });
    s.wall = Some(at(3600 + 59));
    assert_eq!(s.shows(10), "Syncing keep @11");
    s.wall = Some(at(3600 + 60));
    assert_eq!(s.shows(11), "Containers stop:30s (DeadlineExceeded)");
}

/// Whatever numbers the runtime gives them: a container that runs needs no second instance.
#[test]
fn what_runs_is_not_started_again_for_a_dead_instance() {
    assert_eq!(scene(ONE, &[("a", 0, Running, 0), ("a", 1, Exited, 1)]).shows(200), "Syncing keep");
    assert_eq!(scene(ONE, &[("a", 0, Exited, 1), ("a", 1, Exited, 1)]).shows(200), "Syncing start:s0[a#2/2]");
}

/// Numbers come from the runtime and from what it refuses: none of them ends the worker.
#[test]
fn the_greatest_attempt_is_followed_by_itself() {
    let mut s = scene(ONE, &[]);
    let (sandbox, mut ended) = instance(&s.pod, "a", 0, Exited, 1);
    ended.metadata.attempt = u32::MAX;
    ended.annotations.clear();
    s.runtime = runtime(s.runtime.sandboxes.clone(), vec![(sandbox, ended)]);
    let most = "Syncing start:s0[a#4294967295/4294967295]";
    assert_eq!(s.shows(200), most);
    let Some(Effect::Start(mut start)) = s.decide(200).effects.pop() else { panic!() };
    let (start, why) = (start.containers.remove(0), WaitReason { reason: String::new(), message: String::new() });
    s.memory.note(Outcome::StartFailed { start, why, cause: StartFailure::NameTaken }, at(200));
    assert_eq!(s.shows(400), most);
    let mut none = Scene::bare(ONE);
    none.memory.note(Outcome::SandboxNameTaken(u32::MAX), at(0));
    assert_eq!(none.shows(0), "Syncing start:new:4294967295[a#0/0]");
}
