//! Tables of what `plan::pod_actions` decides; whole lives are played in
//! `plan::decide`'s tests.

#![allow(clippy::unwrap_used)]
use cri::types::ContainerState::{Created, Exited, Running, Unknown};

use super::*;
use crate::contract::ContainerProbes;
use crate::testutil::{instance, pod, runtime, sandbox};

/// Renders actions as one line: `kill-pod new:1 x:web i:init s:web`.
fn show(a: &PodActions) -> String {
    let mut out = Vec::new();
    if a.kill_pod {
        out.push("kill-pod".to_owned());
    }
    out.extend(a.create_sandbox.map(|n| format!("new:{n}")));
    out.extend(a.kill.iter().map(|k| format!("x:{}", k.id)));
    out.extend(a.start_ephemeral.iter().map(|s| format!("e:{}", s.name)));
    out.extend(a.start_init.iter().map(|s| format!("i:{}", s.name)));
    out.extend(a.start.iter().map(|s| format!("s:{}", s.name)));
    out.join(" ")
}

type Instance = (&'static str, u32, ContainerState, i32);

/// Instances of the sandbox with attempt 0, then those of the one with attempt 1.
type TwoLives<'a> = (&'a [Instance], &'a [Instance]);

/// What is decided once sandbox 0 is dead and sandbox 1 is there.
fn check_anew(spec: &str, (old, new): TwoLives<'_>, probes: &ProbeView, expect: &str) {
    let pod = pod(spec);
    let within = |sandbox: &str, all: &[Instance]| -> Vec<_> {
        let made = all.iter().map(|(n, a, s, e)| (SandboxId::new(sandbox), instance(&pod, n, *a, *s, *e).1));
        made.collect()
    };
    let all = [within("s0", old), within("s1", new)].concat();
    let boxes = vec![sandbox(0, false, false), sandbox(1, true, false)];
    let actions = pod_actions(&pod, &runtime(boxes, all), probes);
    assert_eq!(show(&actions), expect, "{spec}\n{old:?}\n{new:?}");
}

fn check(spec: &str, instances: &[Instance], expect: &str) {
    check_with(spec, vec![sandbox(0, true, false)], instances, &ProbeView::default(), expect);
}

fn check_with(spec: &str, boxes: Vec<SandboxStatus>, instances: &[Instance], probes: &ProbeView, expect: &str) {
    let pod = pod(spec);
    let all = instances.iter().map(|(n, a, s, e)| instance(&pod, n, *a, *s, *e)).collect();
    let actions = pod_actions(&pod, &runtime(boxes, all), probes);
    assert_eq!(show(&actions), expect, "{spec}\n{instances:?}");
}

fn probes(id: &str, results: ContainerProbes) -> ProbeView {
    ProbeView { containers: [(ContainerId::new(id), results)].into() }
}

const FAIL: ProbeOutcome = ProbeOutcome::Failure;
const TWO: &str = "  containers: [{name: a}, {name: b}]";
const NEVER: &str = "  restartPolicy: Never\n  containers: [{name: a}, {name: b}]";
const ON_FAILURE: &str = "  restartPolicy: OnFailure\n  containers: [{name: a}, {name: b}]";
const INIT: &str = "  initContainers: [{name: i1}, {name: i2}]\n  containers: [{name: a}]";
const INIT_NEVER: &str =
    "  restartPolicy: Never\n  initContainers: [{name: i1}, {name: i2}]\n  containers: [{name: a}]";
const SIDE: &str = "  initContainers: [{name: s, restartPolicy: Always}, {name: i}]\n  containers: [{name: a}]";
const SIDE_STARTUP: &str =
    "  initContainers: [{name: s, restartPolicy: Always, startupProbe: {}}, {name: i}]\n  containers: [{name: a}]";

#[test]
fn an_attempt_that_is_the_greatest_does_not_overflow() {
    check_with(
        TWO,
        vec![sandbox(u32::MAX, false, false)],
        &[],
        &ProbeView::default(),
        "kill-pod new:4294967295 s:a s:b",
    );
    let mut no_address = sandbox(u32::MAX, true, false);
    no_address.ips.clear();
    check_with(TWO, vec![no_address], &[], &ProbeView::default(), "kill-pod new:4294967295 s:a s:b");
}

#[test]
fn sandboxes() {
    let none = ProbeView::default();
    check_with(TWO, vec![], &[], &none, "new:0 s:a s:b");
    check_with(INIT, vec![], &[], &none, "new:0 i:i1");
    check_with(TWO, vec![sandbox(0, false, false)], &[("a", 0, Running, 0)], &none, "kill-pod new:1 s:a s:b");
    check_with(TWO, vec![sandbox(0, true, false), sandbox(1, true, false)], &[], &none, "kill-pod new:2 s:a s:b");
    // The network changed its kind, or the address is missing.
    check_with(TWO, vec![sandbox(0, true, true)], &[], &none, "kill-pod new:1 s:a s:b");
    let mut bare = sandbox(3, true, false);
    bare.ips.clear();
    check_with(TWO, vec![bare], &[], &none, "kill-pod new:4 s:a s:b");
    let dead = || vec![sandbox(0, false, false)];
    check_with(NEVER, dead(), &[("a", 0, Exited, 0)], &none, "kill-pod");
    check_with(ON_FAILURE, dead(), &[("a", 0, Exited, 0), ("b", 0, Exited, 1)], &none, "kill-pod new:1 s:b");
    check_with(ON_FAILURE, dead(), &[("a", 0, Exited, 0), ("b", 0, Exited, 0)], &none, "kill-pod");
}

#[test]
fn restart_policies() {
    check(TWO, &[], "s:a s:b");
    check(TWO, &[("a", 0, Running, 0), ("b", 0, Running, 0)], "");
    check(TWO, &[("a", 0, Running, 0), ("b", 0, Exited, 0)], "s:b");
    check(TWO, &[("a", 0, Created, 0), ("b", 0, Running, 0)], "s:a");
    check(TWO, &[("a", 0, Unknown, 0), ("b", 0, Running, 0)], "x:a-0 s:a");
    check(NEVER, &[("a", 0, Exited, 1), ("b", 0, Running, 0)], "");
    check(NEVER, &[("a", 0, Exited, 1), ("b", 0, Exited, 0)], "kill-pod");
    check(ON_FAILURE, &[("a", 0, Exited, 1), ("b", 0, Exited, 0)], "s:a");
    check(ON_FAILURE, &[("a", 0, Exited, 0), ("b", 0, Exited, 0)], "kill-pod");
    // The newest instance counts.
    check(NEVER, &[("a", 0, Exited, 1), ("a", 1, Running, 0), ("b", 0, Running, 0)], "");
}

#[test]
fn rules_of_one_container_beat_the_pods_policy() {
    let own = "  restartPolicy: Never\n  containers: [{name: a, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}, {name: b, restartPolicy: OnFailure}]";
    check(own, &[("a", 0, Exited, 42), ("b", 0, Running, 0)], "s:a");
    check(own, &[("a", 0, Exited, 1), ("b", 0, Exited, 1)], "s:b");
    check(own, &[("a", 0, Exited, 1), ("b", 0, Exited, 0)], "kill-pod");
}

#[test]
fn init_containers_run_in_order() {
    check(INIT, &[], "i:i1");
    check(INIT, &[("i1", 0, Running, 0)], "");
    check(INIT, &[("i1", 0, Exited, 0)], "i:i2");
    check(INIT, &[("i1", 0, Exited, 1)], "i:i1");
    check(INIT_NEVER, &[("i1", 0, Exited, 1)], "kill-pod");
    check(INIT, &[("i1", 0, Exited, 0), ("i2", 0, Exited, 0)], "s:a");
    check(INIT, &[("i2", 0, Exited, 0)], "s:a");
    check(INIT, &[("i1", 0, Unknown, 0)], "x:i1-0 i:i1");
    check(INIT_NEVER, &[("i1", 0, Unknown, 0)], "kill-pod");
    // Once main containers are there, init containers do not run again in the same sandbox.
    check(INIT, &[("i1", 0, Exited, 0), ("a", 0, Exited, 1)], "s:a");
    check(INIT, &[("a", 0, Running, 0)], "");
}

#[test]
fn a_new_sandbox_begins_with_the_first_init_container() {
    let none = ProbeView::default();
    let old: &[Instance] = &[("i1", 0, Exited, 0), ("i2", 0, Exited, 0), ("a", 0, Exited, 255)];
    // The agent may have died right after it made the sandbox.
    check_anew(INIT, (old, &[]), &none, "i:i1");
    check_anew(INIT, (old, &[("i1", 1, Created, 0)]), &none, "i:i1");
    check_anew(INIT, (old, &[("i1", 1, Running, 0)]), &none, "");
    check_anew(INIT, (old, &[("i1", 1, Exited, 0)]), &none, "i:i2");
    check_anew(INIT, (old, &[("i1", 1, Exited, 1)]), &none, "i:i1");
    check_anew(INIT, (old, &[("i1", 1, Exited, 0), ("i2", 1, Running, 0)]), &none, "");
    check_anew(INIT, (old, &[("i1", 1, Exited, 0), ("i2", 1, Exited, 0)]), &none, "s:a");
    check_anew(INIT, (old, &[("i2", 1, Exited, 0), ("a", 1, Running, 0)]), &none, "");
    // A main container that the old sandbox ended by force runs again in its turn.
    let failed: &[Instance] = &[("a", 0, Exited, 0)];
    check_anew(INIT, (failed, &[]), &none, "i:i1");
    // The dead sandbox is still the newest: nothing runs in it.
    let dead = vec![sandbox(0, false, false)];
    check_with(INIT, dead, old, &none, "kill-pod new:1 i:i1");
}

#[test]
fn sidecars_of_a_new_sandbox_are_waited_for() {
    let old: &[Instance] = &[("s", 0, Exited, 255), ("i", 0, Exited, 0), ("a", 0, Exited, 255)];
    let none = ProbeView::default();
    check_anew(SIDE_STARTUP, (old, &[]), &none, "i:s");
    check_anew(SIDE_STARTUP, (old, &[("s", 1, Running, 0)]), &none, "");
    // What the probe said of the earlier instance does not count.
    let before = probes("s-0", ContainerProbes { startup: ProbeOutcome::Success, ..Default::default() });
    check_anew(SIDE_STARTUP, (old, &[("s", 1, Running, 0)]), &before, "");
    let started = probes("s-1", ContainerProbes { startup: ProbeOutcome::Success, ..Default::default() });
    check_anew(SIDE_STARTUP, (old, &[("s", 1, Running, 0)]), &started, "i:i");
    check_anew(SIDE_STARTUP, (old, &[("s", 1, Running, 0), ("i", 1, Exited, 0)]), &started, "s:a");
    check_anew(SIDE, (old, &[("s", 1, Running, 0)]), &none, "i:i");
    check_anew(SIDE, (old, &[("s", 1, Running, 0), ("i", 1, Running, 0)]), &none, "");
}

#[test]
fn sidecars() {
    check(SIDE, &[], "i:s");
    check(SIDE, &[("s", 0, Running, 0)], "i:i");
    check(SIDE, &[("s", 0, Running, 0), ("i", 0, Running, 0)], "");
    check(SIDE, &[("s", 0, Running, 0), ("i", 0, Exited, 0)], "s:a");
    check(SIDE, &[("s", 0, Exited, 1), ("i", 0, Running, 0)], "i:s");
    check(SIDE, &[("s", 0, Exited, 0), ("i", 0, Exited, 0), ("a", 0, Running, 0)], "i:s");
    check(SIDE, &[("i", 0, Exited, 0), ("a", 0, Running, 0)], "i:s");
    let never = format!("  restartPolicy: Never\n{SIDE}");
    check(&never, &[("s", 0, Exited, 0), ("i", 0, Exited, 0), ("a", 0, Exited, 0)], "kill-pod");
    // A sidecar with a startup probe holds up its successors.
    check(SIDE_STARTUP, &[("s", 0, Running, 0)], "");
    let boxes = || vec![sandbox(0, true, false)];
    let started = probes("s-0", ContainerProbes { startup: ProbeOutcome::Success, ..Default::default() });
    check_with(SIDE_STARTUP, boxes(), &[("s", 0, Running, 0)], &started, "i:i");
    let failed = probes("s-0", ContainerProbes { startup: FAIL, ..Default::default() });
    check_with(SIDE_STARTUP, boxes(), &[("s", 0, Running, 0)], &failed, "x:s-0 i:s");
}

#[test]
fn probes_kill() {
    let spec = "  containers: [{name: a, livenessProbe: {}, startupProbe: {}}, {name: b}]";
    let boxes = || vec![sandbox(0, true, false)];
    let both = [("a", 0, Running, 0), ("b", 0, Running, 0)];
    let live = probes("a-0", ContainerProbes { liveness: FAIL, ..Default::default() });
    check_with(spec, boxes(), &both, &live, "x:a-0 s:a");
    let startup = probes("a-0", ContainerProbes { startup: FAIL, ..Default::default() });
    check_with(spec, boxes(), &both, &startup, "x:a-0 s:a");
    // Results of an earlier instance do not count.
    let old = probes("a-9", ContainerProbes { liveness: FAIL, ..Default::default() });
    check_with(spec, boxes(), &both, &old, "");
    let never = format!("  restartPolicy: Never\n{spec}");
    check_with(&never, boxes(), &both, &live, "x:a-0");
}

#[test]
fn a_changed_image_restarts_the_container() {
    let old = pod("  restartPolicy: Never\n  containers: [{name: a, image: one}]");
    let new = pod("  restartPolicy: Never\n  containers: [{name: a, image: two}]");
    let have = runtime(vec![sandbox(0, true, false)], vec![instance(&old, "a", 0, Running, 0)]);
    let actions = pod_actions(&new, &have, &ProbeView::default());
    assert_eq!(show(&actions), "x:a-0 s:a");
    assert_eq!(actions.kill[0].message, "Container a definition changed, will be restarted");
}

#[test]
fn ephemeral_containers_run_once() {
    let spec = "  ephemeralContainers: [{name: d}]\n  containers: [{name: a}]";
    check(spec, &[("a", 0, Running, 0)], "e:d");
    check(spec, &[("a", 0, Running, 0), ("d", 0, Exited, 1)], "");
}

#[test]
fn finished_pods() {
    let finished = |spec: &str, instances: &[Instance]| {
        let pod = pod(spec);
        let all = instances.iter().map(|(n, a, s, e)| instance(&pod, n, *a, *s, *e)).collect();
        is_finished(&pod, &runtime(vec![], all))
    };
    assert!(finished(NEVER, &[("a", 0, Exited, 0), ("b", 0, Exited, 3)]));
    assert!(!finished(NEVER, &[("a", 0, Exited, 0)]));
    assert!(!finished(TWO, &[("a", 0, Exited, 0), ("b", 0, Exited, 0)]));
    assert!(!finished(ON_FAILURE, &[("a", 0, Exited, 0), ("b", 0, Exited, 3)]));
    assert!(finished(INIT_NEVER, &[("i1", 0, Exited, 1)]));
    assert!(!finished(INIT, &[("i1", 0, Exited, 1)]));
}

#[test]
fn a_pod_that_never_runs_anything_twice_ends_with_its_sandbox() {
    let ends = |spec: &str, boxes: Vec<SandboxStatus>, instances: &[Instance]| {
        let pod = pod(spec);
        let all = instances.iter().map(|(n, a, s, e)| instance(&pod, n, *a, *s, *e)).collect();
        pod_actions(&pod, &runtime(boxes, all), &ProbeView::default()).ends_pod()
    };
    let dead = || vec![sandbox(0, false, false)];
    // `b` was never created, and never will be.
    assert!(ends(NEVER, dead(), &[("a", 0, Exited, 0)]));
    assert!(ends(NEVER, dead(), &[("a", 0, Running, 0)]));
    assert!(ends(INIT_NEVER, dead(), &[("i1", 0, Exited, 0)]));
    assert!(!ends(NEVER, dead(), &[]), "nothing has run yet");
    assert!(!ends(TWO, dead(), &[("a", 0, Exited, 0)]));
    assert!(!ends(NEVER, vec![sandbox(0, true, false)], &[("a", 0, Exited, 0)]));
}
