//! Tables of what `plan::decide` decides; [`model`] plays whole lives.

#![allow(clippy::unwrap_used)]
use cri::ContainerId;
use cri::types::ContainerState::{self, Created, Exited, Running};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::contract::{ContainerProbes, ProbeOutcome};
use crate::plan::admit::Refusal;
use crate::plan::effect::{ContainerStart, Outcome, StartFailure};
use crate::plan::memory::Eviction;
use crate::testutil::{at, instance, pod, runtime, sandbox};

mod backoffs;
mod model;
mod outside;

/// What a worker sees and remembers, to be changed before it decides.
pub(super) struct Scene {
    pod: Pod,
    runtime: RuntimePod,
    messages_missing: bool,
    probes: ProbeView,
    status: Option<PodStatus>,
    network_problem: Option<String>,
    removed: bool,
    node_awaited: bool,
    /// Where it shows something else than decisions are made by.
    wall: Option<Timestamp>,
    memory: Memory,
}

/// A pod that the node has taken, and these instances of its containers.
fn scene(spec: &str, instances: &[(&str, u32, ContainerState, i32)]) -> Scene {
    let pod = pod(spec);
    let all = instances.iter().map(|(n, a, s, e)| instance(&pod, n, *a, *s, *e)).collect();
    let mut memory = Memory::new(Duration::from_secs(300));
    memory.admission = Admission::Admitted;
    Scene {
        runtime: runtime(vec![sandbox(0, true, false)], all),
        pod,
        messages_missing: false,
        probes: ProbeView::default(),
        status: None,
        network_problem: None,
        removed: false,
        node_awaited: false,
        wall: None,
        memory,
    }
}

impl Scene {
    fn bare(spec: &str) -> Self {
        Self { runtime: runtime(vec![], vec![]), ..scene(spec, &[]) }
    }

    fn decide(&self, seconds: i64) -> Decision {
        let facts = Facts {
            pod: &self.pod,
            removed: self.removed,
            runtime: &self.runtime,
            messages_missing: self.messages_missing,
            probes: &self.probes,
            status: self.status.as_ref(),
            network_problem: self.network_problem.as_deref(),
            node_awaited: self.node_awaited,
            wall: self.wall.unwrap_or(at(seconds)),
        };
        decide(&facts, &self.memory, at(seconds))
    }

    /// The decision as one line.
    fn shows(&self, seconds: i64) -> String {
        show(&self.decide(seconds))
    }
}

fn show_start(c: &ContainerStart) -> String {
    let leftover = c.leftover.as_ref().map_or(String::new(), |id| format!("-{id}"));
    format!("{}#{}/{}{leftover}", c.name, c.restart_count, c.attempt)
}

fn show_effect(effect: &Effect) -> String {
    match effect {
        Effect::Read { list } => if *list { "list" } else { "messages" }.to_owned(),
        Effect::Admit { runs_already, .. } => format!("admit{}", if *runs_already { "!" } else { "" }),
        Effect::Keep => "keep".to_owned(),
        Effect::StopForRestart => "restart".to_owned(),
        Effect::Kill(list) => {
            format!("kill:{}", list.iter().map(|k| k.id.to_string()).collect::<Vec<_>>().join(","))
        }
        Effect::Start(start) => {
            let sandbox = match &start.sandbox {
                SandboxChoice::Create(attempt) => format!("new:{attempt}"),
                SandboxChoice::Existing { id, .. } => id.to_string(),
            };
            let order = if start.in_order { ">" } else { "" };
            let all: Vec<String> = start.containers.iter().map(show_start).collect();
            format!("start:{sandbox}{order}[{}]", all.join(" "))
        }
        Effect::Stop { grace } => format!("stop:{}s", grace.as_secs()),
        Effect::TearDownVolumes => "volumes".to_owned(),
        Effect::RemoveCgroup => "cgroup".to_owned(),
        Effect::Rest => "rest".to_owned(),
        Effect::Remove => "remove".to_owned(),
    }
}

/// `Syncing keep @10 (BackOff)`: stage, effects, when to wake, events.
fn show(d: &Decision) -> String {
    let mut out = vec![match d.stage {
        WorkerStage::Terminating(step) => format!("{step:?}"),
        other => format!("{other:?}"),
    }];
    out.extend(d.effects.iter().map(show_effect));
    out.extend(d.wake_at.map(|w| format!("@{}", w.duration_since(at(0)).as_secs())));
    out.extend(d.events.iter().map(|e| format!("({})", e.reason)));
    out.join(" ")
}

fn deleted(mut scene: Scene) -> Scene {
    scene.pod.metadata.deletion_timestamp = Some(Time(at(0)));
    scene
}

const ONE: &str = "  containers: [{name: a}]";
const TWO: &str = "  containers: [{name: a}, {name: b}]";

#[test]
fn a_pod_is_read_then_admitted_then_started() {
    let mut s = Scene::bare(TWO);
    (s.memory.stale, s.memory.admission) = (true, Admission::NotAsked);
    assert_eq!(s.shows(0), "Syncing list");
    s.memory.stale = false;
    assert_eq!(s.shows(0), "Syncing admit");
    assert_eq!(s.decide(0).report, None, "nothing is said before it is known whether it may run");
    s.memory.note(Outcome::Admitted, at(0));
    assert_eq!(s.shows(0), "Syncing start:new:0[a#0/0 b#0/0]");
    assert_eq!(s.decide(0).report, Some(Stage::Syncing));
}

#[test]
fn what_runs_already_is_admitted_whatever_there_is() {
    let mut s = scene(ONE, &[("a", 0, Running, 0)]);
    s.memory.admission = Admission::NotAsked;
    assert_eq!(s.shows(0), "Syncing admit!");
}

#[test]
fn a_refused_pod_fails() {
    let mut s = Scene::bare(ONE);
    let refusal = Refusal { reason: "OutOfcpu".to_owned(), message: "too little".to_owned() };
    s.memory.note(Outcome::Refused(refusal), at(0));
    assert_eq!(s.shows(0), "Containers stop:30s (OutOfcpu)");
    let d = s.decide(0);
    let failure = d.failure.clone().unwrap();
    assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("OutOfcpu", "Pod was rejected: too little"));
    assert_eq!((d.report, d.events[0].message.as_str()), (None, "too little"));
}

#[test]
fn a_critical_pod_waits_for_room() {
    let mut s = Scene::bare(ONE);
    s.memory.admission = Admission::NotAsked;
    s.memory.note(Outcome::Preempting([crate::ids::PodUid::new("v")].into()), at(10));
    let d = s.decide(10);
    assert_eq!((d.effects.len(), d.wake_at), (0, Some(after(at(10), Duration::from_millis(500)))));
    // Those that were asked are not asked again.
    let asked = [crate::ids::PodUid::new("v")].into();
    assert_eq!(s.decide(11).effects, [Effect::Admit { runs_already: false, asked }]);
}

#[test]
fn a_running_pod_is_kept_once_for_each_wake_up() {
    let mut s = scene(ONE, &[("a", 0, Running, 0)]);
    assert_eq!(s.shows(0), "Syncing keep");
    s.memory.note(Outcome::Rested, at(0));
    assert_eq!(s.shows(0), "Syncing");
    s.memory.wake();
    assert_eq!(s.shows(0), "Syncing keep");
}

#[test]
fn what_an_ended_container_left_is_read_before_anything_is_said() {
    let mut s = scene(ONE, &[("a", 0, Exited, 1)]);
    s.messages_missing = true;
    assert_eq!(s.shows(0), "Syncing messages");
    s = deleted(s);
    assert_eq!(s.shows(0), "Containers messages");
}

#[test]
fn failures_are_tried_again_later_and_later() {
    let mut s = scene(ONE, &[("a", 0, Running, 0)]);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        s.memory.note(Outcome::Failed, at(0));
        let d = s.decide(0);
        assert!(d.effects.is_empty());
        pauses.push(d.wake_at.unwrap().duration_since(at(0)).as_millis());
    }
    assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    assert_eq!(s.shows(10), "Syncing keep");
    // News is reason enough to try at once.
    s.memory.wake();
    assert_eq!(s.shows(0), "Syncing keep");
    s.memory.note(Outcome::Rested, at(0));
    s.memory.note(Outcome::Failed, at(0));
    assert_eq!(s.decide(0).wake_at.unwrap().duration_since(at(0)).as_millis(), 500, "counted anew");
}

#[test]
fn crashes_back_off() {
    let mut s = scene(ONE, &[("a", 0, Exited, 1)]);
    let start = |s: &Scene, seconds| match s.decide(seconds).effects.first() {
        Some(Effect::Start(start)) => start.containers[0].clone(),
        other => panic!("{other:?}"),
    };
    // `instance` ends at 12 + 100 for each attempt.
    assert_eq!(s.shows(12), "Syncing start:s0[a#1/1]", "the first restart is immediate");
    s.memory.note(Outcome::Starting(start(&s, 12)), at(12));
    s.runtime = scene(ONE, &[("a", 0, Exited, 1), ("a", 1, Exited, 1)]).runtime;
    assert_eq!(s.shows(112), "Syncing keep @122 (BackOff)");
    let d = s.decide(112);
    let (name, why) = &d.waiting[0];
    assert_eq!((name.as_str(), why.reason.as_str()), ("a", "CrashLoopBackOff"));
    assert_eq!(why.message, "back-off 10s restarting failed container=a pod=p_ns(u)");
    assert_eq!(d.events[0].message, "Back-off restarting failed container a in pod p_ns(u)");
    s.memory.enter(&d);
    assert_eq!(s.shows(115), "Syncing keep @122", "it is announced once");
    s.memory.note(Outcome::Rested, at(115));
    assert_eq!(s.shows(115), "Syncing @122");
    assert_eq!(s.shows(122), "Syncing start:s0[a#2/2]");
    s.memory.note(Outcome::Starting(start(&s, 122)), at(122));
    s.memory.note(Outcome::Started { name: "a".to_owned() }, at(122));
    assert!(s.memory.waiting.is_empty());
    s.runtime = scene(ONE, &[("a", 1, Exited, 1), ("a", 2, Exited, 1)]).runtime;
    assert_eq!(s.shows(212), "Syncing @232 (BackOff)");
    // Another definition of the container has not crashed yet.
    s.pod = pod("  containers: [{name: a, image: other}]");
    assert_eq!(s.shows(212), "Syncing start:s0[a#3/3]");
}

#[test]
fn a_container_that_does_not_start_waits_and_its_neighbour_does_not() {
    let mut s = scene(TWO, &[]);
    start_fails(&mut s, "a", StartFailure::Other, 0);
    assert_eq!(s.shows(0), "Syncing start:s0[b#0/0]");
    assert_eq!(s.shows(1), "Syncing start:s0[a#0/0 b#0/0]");
    assert_eq!(s.memory.waiting["a"].reason, "CreateContainerError");
}

/// What is to start of that container fails to, and the pause before the next try in milliseconds.
fn start_fails(s: &mut Scene, name: &str, cause: StartFailure, seconds: i64) -> i128 {
    let Some(Effect::Start(start)) = s.decide(seconds).effects.pop() else { panic!() };
    let start = start.containers.into_iter().find(|c| c.name == name).unwrap();
    let why = WaitReason { reason: "CreateContainerError".to_owned(), message: "no".to_owned() };
    s.memory.note(Outcome::StartFailed { start, why, cause }, at(seconds));
    s.memory.tries[name].not_before.unwrap().duration_since(at(seconds)).as_millis()
}

#[test]
fn a_taken_name_is_passed_by() {
    let mut s = scene(ONE, &[]);
    let Some(Effect::Start(mut start)) = s.decide(0).effects.pop() else { panic!() };
    let why = WaitReason { reason: "CreateContainerError".to_owned(), message: "taken".to_owned() };
    let start = start.containers.remove(0);
    s.memory.note(Outcome::StartFailed { start, why, cause: StartFailure::NameTaken }, at(0));
    assert_eq!(s.shows(1), "Syncing start:s0[a#0/1]", "another attempt, and no restart");
    let mut s = Scene::bare(ONE);
    s.memory.note(Outcome::SandboxNameTaken(0), at(0));
    assert_eq!(s.shows(0), "Syncing start:new:1[a#0/0]");
}

#[test]
fn a_container_that_runs_waits_for_nothing_more() {
    let mut s = scene(TWO, &[]);
    let Some(Effect::Start(start)) = s.decide(0).effects.pop() else { panic!() };
    // The answers to both starts were lost; one of them was done.
    for start in start.containers {
        let why = WaitReason { reason: "RunContainerError".to_owned(), message: "no answer".to_owned() };
        s.memory.note(Outcome::StartFailed { start, why, cause: StartFailure::Other }, at(0));
    }
    s.memory.observe(&scene(TWO, &[("a", 0, Running, 0)]).runtime);
    assert_eq!(s.memory.waiting.keys().collect::<Vec<_>>(), ["b"]);
    assert_eq!(s.memory.tries.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_leftover_is_removed_and_made_anew() {
    let s = scene(ONE, &[("a", 0, Exited, 1), ("a", 1, Created, 0)]);
    assert_eq!(s.shows(112), "Syncing start:s0[a#1/1-a-1]");
}

/// Whatever is made last has the greatest attempt: by that it is told from the others.
#[test]
fn no_attempt_is_below_one_that_ended() {
    let mut s = scene(ONE, &[("a", 5, Exited, 1), ("a", 6, Created, 0)]);
    for (container, restarts) in s.runtime.containers.iter_mut().zip([2, 1]) {
        container.restart_count = restarts;
    }
    assert_eq!(s.shows(600), "Syncing start:s0[a#2/6-a-6]");
    let two = scene(ONE, &[("a", 0, Exited, 1), ("a", 1, Created, 0), ("a", 2, Created, 0)]);
    assert_eq!(two.shows(300), "Syncing start:s0[a#2/2-a-2]");
}

#[test]
fn the_api_remembers_restarts_that_the_runtime_forgot() {
    let mut s = scene(ONE, &[]);
    let text = "{containerStatuses: [{name: a, image: i, imageID: '', ready: false, restartCount: 7}]}";
    s.status = Some(serde_norway::from_str(text).unwrap());
    assert_eq!(s.shows(0), "Syncing start:s0[a#7/7]");
}

#[test]
fn hooks_and_init_containers_make_order_matter() {
    let hook = "  containers: [{name: a, lifecycle: {postStart: {sleep: {seconds: 1}}}}, {name: b}]";
    assert_eq!(scene(hook, &[]).shows(0), "Syncing start:s0>[a#0/0 b#0/0]");
    let init = "  initContainers: [{name: i}]\n  containers: [{name: a}]";
    assert_eq!(Scene::bare(init).shows(0), "Syncing start:new:0>[i#0/0]");
}

#[test]
fn a_kill_is_followed_by_its_restart_only_when_it_succeeds() {
    let spec = "  containers: [{name: a, livenessProbe: {}}, {name: b}]";
    let mut s = scene(spec, &[("a", 0, Running, 0), ("b", 0, Running, 0)]);
    let failed = ContainerProbes { liveness: ProbeOutcome::Failure, ..Default::default() };
    s.probes.containers = [(ContainerId::new("a-0"), failed)].into();
    // Effects stop at the first that fails.
    assert_eq!(s.shows(0), "Syncing kill:a-0 start:s0[a#1/1]");
    s.memory.note(Outcome::Failed, at(0));
    assert_eq!(s.decide(0).effects, []);
    s.pod.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());
    s.memory.wake();
    assert_eq!(s.shows(0), "Syncing kill:a-0");
}

#[test]
fn a_kill_is_not_given_up_because_a_neighbour_may_start() {
    let spec = "  restartPolicy: OnFailure
  containers: [{name: a, livenessProbe: {}}, {name: b, restartPolicy: Never, livenessProbe: {}}]";
    let mut s = scene(spec, &[("a", 0, Exited, 1), ("b", 0, Running, 0)]);
    let Some(Effect::Start(mut start)) = s.decide(12).effects.pop() else { panic!() };
    s.memory.note(Outcome::Starting(start.containers.remove(0)), at(12));
    let failed = ContainerProbes { liveness: ProbeOutcome::Failure, ..Default::default() };
    s.probes.containers = [(ContainerId::new("b-0"), failed)].into();
    assert_eq!(s.shows(13), "Syncing kill:b-0 (BackOff)");
    s.runtime = scene(spec, &[("a", 0, Exited, 1), ("b", 0, Exited, 137)]).runtime;
    s.memory.note(Outcome::Rested, at(13));
    assert_eq!(s.shows(13), "Syncing @22 (BackOff)");
}

#[test]
fn a_dead_sandbox_is_stopped_and_made_anew() {
    let mut s = scene(ONE, &[("a", 0, Running, 0)]);
    s.runtime.sandboxes = vec![sandbox(0, false, false)];
    assert_eq!(s.shows(0), "Syncing restart start:new:1[a#1/1] (SandboxChanged)");
}

#[test]
fn nothing_starts_without_a_network_or_a_driver() {
    let mut s = Scene::bare(ONE);
    s.network_problem = Some("no plugin".to_owned());
    let d = s.decide(0);
    assert_eq!(show(&d), "Syncing @0 (NetworkNotReady)");
    assert_eq!(d.blocked_until, Some(after(at(0), Duration::from_millis(500))));
    // What is left of a dead sandbox is stopped, once.
    s.runtime = scene(ONE, &[("a", 0, Running, 0)]).runtime;
    s.runtime.sandboxes = vec![sandbox(0, false, false)];
    assert_eq!(s.shows(0), "Syncing restart (SandboxChanged)");
    s.runtime = scene(ONE, &[("a", 0, Exited, 137)]).runtime;
    s.runtime.sandboxes = vec![sandbox(0, false, false)];
    assert_eq!(s.shows(0), "Syncing @0 (NetworkNotReady)");
    // The node's own network is there.
    let mut s = Scene::bare("  hostNetwork: true\n  containers: [{name: a}]");
    s.network_problem = Some("no plugin".to_owned());
    assert_eq!(s.shows(0), "Syncing start:new:0[a#0/0]");
    let s = Scene::bare("  resourceClaims: [{name: gpu, resourceClaimName: c}]\n  containers: [{name: a}]");
    assert_eq!(s.shows(0), "Syncing @10 (FailedPrepareDynamicResources)");
}

#[test]
fn a_deadline_ends_the_pod_and_wakes_for_that() {
    let spec = "  activeDeadlineSeconds: 30\n  containers: [{name: a}]";
    let mut s = scene(spec, &[("a", 0, Running, 0)]);
    s.status = Some(PodStatus { start_time: Some(Time(at(0))), ..PodStatus::default() });
    assert_eq!(s.shows(5), "Syncing keep @30", "also what is done meanwhile is given up then");
    s.memory.note(Outcome::Failed, at(29));
    assert_eq!(s.decide(29).wake_at.unwrap().duration_since(at(29)).as_millis(), 500);
    assert_eq!(s.shows(30), "Containers stop:30s (DeadlineExceeded)", "no back-off holds it up");
    assert_eq!(s.decide(30).failure.unwrap().reason, "DeadlineExceeded");
    assert_eq!(s.decide(30).report, Some(Stage::Terminating));
    // A pod that was not taken yet has not been active.
    s.memory.admission = Admission::NotAsked;
    s.memory.wake();
    assert_eq!(s.shows(31), "Syncing admit!");
}

#[test]
fn an_end_waits_for_nothing_that_the_pod_waited_for() {
    let mut s = scene(ONE, &[("a", 0, Running, 0)]);
    (0..5).for_each(|_| s.memory.note(Outcome::Failed, at(0)));
    assert_eq!(s.shows(0), "Syncing @8");
    s.memory.evict(Eviction { reason: "Evicted", message: "short".to_owned(), grace: Duration::from_secs(7) });
    assert_eq!(s.shows(0), "Containers stop:7s");
    let failure = s.decide(0).failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.evicted), ("Evicted", true));
}

#[test]
fn who_ends_a_pod_that_ends_already_may_only_shorten_that() {
    let evict = |s: &mut Scene, seconds| {
        let grace = Duration::from_secs(seconds);
        s.memory.evict(Eviction { reason: "Evicted", message: format!("within {seconds} s"), grace });
    };
    let never =
        "  restartPolicy: Never\n  containers: [{name: a}]\n  initContainers: [{name: s, restartPolicy: Always}]";
    let mut s = scene(never, &[("s", 0, Running, 0), ("a", 0, Exited, 0)]);
    let enter = |s: &mut Scene| {
        let decision = s.decide(50);
        s.memory.enter(&decision);
        show(&decision)
    };
    assert_eq!(enter(&mut s), "Containers stop:30s");
    s = deleted(s);
    s.pod.metadata.deletion_grace_period_seconds = Some(60);
    assert_eq!(enter(&mut s), "Containers stop:30s");
    evict(&mut s, 40);
    assert_eq!(enter(&mut s), "Containers stop:30s");
    // The node's reason is told all the same (pkg/kubelet/pod_workers.go: `PodStatusFunc`).
    assert_eq!(s.memory.failure.as_ref().map(|f| (f.message.as_str(), f.evicted)), Some(("within 40 s", true)));
    evict(&mut s, 0);
    assert_eq!(enter(&mut s), "Containers stop:1s");
    assert_eq!(s.memory.failure.as_ref().unwrap().message, "within 40 s", "the first reason counts");
    s.memory.note(Outcome::Stopped, at(50));
    assert_eq!(s.decide(50).grace, Some(Duration::ZERO), "nothing can end sooner");
}

#[test]
fn a_tear_down_goes_on_where_it_failed() {
    let mut s = deleted(scene(ONE, &[("a", 0, Running, 0)]));
    s.memory.stale = true;
    assert_eq!(s.shows(0), "Containers list");
    s.memory.stale = false;
    let d = s.decide(0);
    assert_eq!((show(&d).as_str(), d.report), ("Containers stop:30s", Some(Stage::Terminating)));
    s.memory.enter(&d);
    s.memory.note(Outcome::Failed, at(0));
    assert_eq!((s.shows(0).as_str(), s.shows(1).as_str()), ("Containers @0", "Containers stop:30s"));
    s.memory.note(Outcome::Stopped, at(1));
    let d = s.decide(1);
    assert_eq!((show(&d).as_str(), d.report), ("Volumes volumes", Some(Stage::Terminated)));
    s.memory.note(Outcome::Failed, at(1));
    assert_eq!(s.shows(2), "Volumes volumes");
    s.memory.note(Outcome::VolumesGone, at(2));
    assert_eq!((s.shows(2).as_str(), s.decide(2).report), ("Cgroups cgroup", None));
    s.memory.note(Outcome::CgroupGone, at(2));
    assert_eq!(s.shows(2), "Terminated rest");
    s.memory.note(Outcome::Rested, at(2));
    assert_eq!(s.shows(2), "Terminated", "it stays until nobody wants it");
    s.removed = true;
    assert_eq!(s.shows(2), "Terminated remove");
    s.memory.note(Outcome::Removed, at(2));
    assert_eq!(s.shows(2), "Removed");
}

#[test]
fn a_pod_that_is_done_ends() {
    let never = "  restartPolicy: Never\n  containers: [{name: a}]";
    assert_eq!(scene(never, &[("a", 0, Exited, 0)]).shows(50), "Containers stop:30s");
    assert_eq!(scene(never, &[("a", 0, Exited, 0)]).decide(50).failure, None);
}
