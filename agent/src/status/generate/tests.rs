//! Tests of `status::generate`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use std::collections::HashMap;

use cri::ContainerId;
use cri::types::ContainerState::{self, Created, Exited, Running};
use proptest::prelude::*;

use super::*;
use crate::contract::{ContainerProbes, ProbeOutcome};
use crate::status::containers::TerminationMessage;
use crate::testutil::{at, instance, pod, runtime, sandbox};

type Instance = (&'static str, u32, ContainerState, i32);

struct Case {
    pod: Pod,
    runtime: RuntimePod,
    probes: ProbeView,
    waiting: BTreeMap<String, WaitReason>,
    stage: Stage,
    failure: Option<PodFailure>,
}

fn case(spec: &str, instances: &[Instance]) -> Case {
    let pod = pod(spec);
    let all = instances.iter().map(|(n, a, s, e)| instance(&pod, n, *a, *s, *e)).collect();
    Case {
        runtime: runtime(vec![sandbox(0, true, false)], all),
        pod,
        probes: ProbeView::default(),
        waiting: BTreeMap::new(),
        stage: Stage::Syncing,
        failure: None,
    }
}

impl Case {
    fn make(&self, previous: Option<&PodStatus>, now: i64) -> PodStatus {
        generate(&StatusInput {
            pod: &self.pod,
            runtime: &self.runtime,
            probes: &self.probes,
            waiting: &self.waiting,
            messages: &HashMap::from([(
                ContainerId::new("a-0"),
                TerminationMessage { text: "last words".to_owned(), oom_killed: false },
            )]),
            previous,
            stage: self.stage,
            failure: self.failure.as_ref(),
            host_ips: &["192.0.2.1".to_owned()],
            runtime_name: "containerd",
            now: at(now),
        })
    }
}

/// `Running ready=True a:running/1` and so on.
fn show(s: &PodStatus) -> String {
    let state = |s: &ContainerStatus| {
        let st = s.state.clone().unwrap_or_default();
        let what = match (st.waiting, st.running, st.terminated) {
            (Some(w), ..) => format!("waiting({})", w.reason.unwrap_or_default()),
            (_, Some(_), _) => "running".to_owned(),
            (.., Some(t)) => format!("ended({})", t.exit_code),
            _ => "none".to_owned(),
        };
        let last = s
            .last_state
            .as_ref()
            .and_then(|l| l.terminated.as_ref())
            .map_or(String::new(), |t| format!("<{}", t.exit_code));
        format!("{}:{what}{last}/{}{}", s.name, s.restart_count, if s.ready { "+" } else { "" })
    };
    let lists = [&s.init_container_statuses, &s.container_statuses, &s.ephemeral_container_statuses];
    let all: Vec<String> = lists.iter().flat_map(|l| l.iter().flatten()).map(state).collect();
    format!("{} {}", s.phase.as_deref().unwrap_or_default(), all.join(" "))
}

fn condition<'a>(s: &'a PodStatus, kind: &str) -> &'a PodCondition {
    s.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap()
}

const ONE: &str = "  containers: [{name: a}]";
const NEVER: &str = "  restartPolicy: Never\n  containers: [{name: a}, {name: b}]";
const INIT: &str = "  initContainers: [{name: i}]\n  containers: [{name: a}]";

#[test]
fn phases_and_states() {
    let cases: &[(&str, &[Instance], &str)] = &[
        (ONE, &[], "Pending a:waiting(ContainerCreating)/0"),
        (ONE, &[("a", 0, Created, 0)], "Pending a:waiting()/0"),
        (ONE, &[("a", 0, Running, 0)], "Running a:running/0+"),
        (ONE, &[("a", 0, Exited, 1)], "Running a:ended(1)/0"),
        (ONE, &[("a", 0, Exited, 1), ("a", 1, Running, 0)], "Running a:running<1/1+"),
        (NEVER, &[("a", 0, Exited, 0), ("b", 0, Exited, 0)], "Succeeded a:ended(0)/0 b:ended(0)/0"),
        (NEVER, &[("a", 0, Exited, 0), ("b", 0, Exited, 2)], "Failed a:ended(0)/0 b:ended(2)/0"),
        (NEVER, &[("a", 0, Exited, 1), ("b", 0, Running, 0)], "Running a:ended(1)/0 b:running/0+"),
        (INIT, &[], "Pending i:waiting(PodInitializing)/0 a:waiting(PodInitializing)/0"),
        (INIT, &[("i", 0, Running, 0)], "Pending i:running/0 a:waiting(PodInitializing)/0"),
        (INIT, &[("i", 0, Exited, 0), ("a", 0, Running, 0)], "Running i:ended(0)/0+ a:running/0+"),
        (
            "  restartPolicy: Never\n  initContainers: [{name: i}]\n  containers: [{name: a}]",
            &[("i", 0, Exited, 1)],
            "Failed i:ended(1)/0 a:waiting(PodInitializing)/0",
        ),
        (
            "  ephemeralContainers: [{name: d}]\n  containers: [{name: a}]",
            &[("a", 0, Running, 0), ("d", 0, Running, 0)],
            "Running a:running/0+ d:running/0",
        ),
    ];
    for (spec, instances, expect) in cases {
        assert_eq!(show(&case(spec, instances).make(None, 0)), *expect, "{spec} {instances:?}");
    }
}

#[test]
fn a_full_status() {
    let s = case(ONE, &[("a", 0, Running, 0)]).make(None, 0);
    assert_eq!((s.pod_ip.as_deref(), s.host_ip.as_deref()), (Some("10.42.0.2"), Some("192.0.2.1")));
    assert_eq!((s.qos_class.as_deref(), s.observed_generation), (Some("BestEffort"), Some(1)));
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        let c = condition(&s, kind);
        assert_eq!((c.status.as_str(), c.observed_generation), ("True", Some(1)), "{kind}");
    }
    let c = &s.container_statuses.as_ref().unwrap()[0];
    assert_eq!(c.container_id.as_deref(), Some("containerd://a-0"));
    assert_eq!((c.image_id.as_str(), c.started), ("sha256:1", Some(true)));
    assert_eq!(c.state.as_ref().unwrap().running.as_ref().unwrap().started_at, Some(Time(at(11))));
    let s = case("  hostNetwork: true\n  containers: [{name: a}]", &[]).make(None, 0);
    assert_eq!(s.pod_ip.as_deref(), Some("192.0.2.1"));
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut c = case("  containers: [{name: a, readinessProbe: {}}]", &[("a", 0, Running, 0)]);
    let first = c.make(None, 5);
    assert_eq!(condition(&first, "Ready").reason.as_deref(), Some("ContainersNotReady"));
    assert_eq!(condition(&first, "Ready").message.as_deref(), Some("containers with unready status: [a]"));
    let same = c.make(Some(&first), 50);
    assert_eq!(same, first);
    let ok = ContainerProbes { readiness: ProbeOutcome::Success, ..Default::default() };
    c.probes.containers.insert(ContainerId::new("a-0"), ok);
    let ready = c.make(Some(&first), 60);
    assert_eq!(condition(&ready, "Ready").last_transition_time, Some(Time(at(60))));
    assert_eq!(condition(&ready, "Initialized").last_transition_time, Some(Time(at(5))));
    assert_eq!(ready.start_time, Some(Time(at(5))));
}

#[test]
fn probes_gate_started_and_ready() {
    let mut c = case("  containers: [{name: a, startupProbe: {}}]", &[("a", 0, Running, 0)]);
    let s = c.make(None, 0);
    let status = &s.container_statuses.as_ref().unwrap()[0];
    assert_eq!((status.started, status.ready), (Some(false), false));
    let ok = ContainerProbes { startup: ProbeOutcome::Success, ..Default::default() };
    c.probes.containers.insert(ContainerId::new("a-0"), ok);
    let status = &c.make(None, 0).container_statuses.unwrap()[0];
    assert_eq!((status.started, status.ready), (Some(true), true));
}

#[test]
fn waiting_reasons_show_and_push_the_end_back() {
    let mut c = case(ONE, &[("a", 0, Exited, 3)]);
    let why = WaitReason { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() };
    c.waiting.insert("a".into(), why.clone());
    let s = c.make(None, 0);
    assert_eq!(show(&s), "Running a:waiting(CrashLoopBackOff)<3/0");
    let last = s.container_statuses.unwrap()[0].last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.message.as_deref(), Some("last words"));
    let mut c = case(ONE, &[("a", 0, Running, 0)]);
    c.waiting.insert("a".into(), why);
    assert_eq!(show(&c.make(None, 0)), "Running a:running/0+", "a running container does not wait");
}

#[test]
fn the_api_remembers_what_the_runtime_forgot() {
    let mut c = case(ONE, &[("a", 0, Running, 0)]);
    let before = c.make(None, 0);
    c.runtime = runtime(vec![], vec![]);
    assert_eq!(show(&c.make(Some(&before), 1)), "Running a:waiting(ContainerCreating)<137/1");
    let mut done = case(NEVER, &[("a", 0, Exited, 0), ("b", 0, Exited, 0)]);
    let before = done.make(None, 0);
    done.runtime = runtime(vec![], vec![]);
    assert_eq!(show(&done.make(Some(&before), 1)), "Succeeded a:ended(0)/0 b:ended(0)/0");
}

/// As upstream's `generateAPIPodStatus`, whoever wrote it.
#[test]
fn nothing_leads_out_of_a_terminal_phase() {
    let mut c = case(ONE, &[("a", 0, Running, 0)]);
    let before = c.make(None, 0);
    assert_eq!(before.phase.as_deref(), Some("Running"));
    let written = PodStatus {
        phase: Some("Failed".into()),
        reason: Some("Lost".into()),
        message: Some("by hand".into()),
        ..PodStatus::default()
    };
    c.pod.status = Some(written.clone());
    for stage in [Stage::Syncing, Stage::Terminating, Stage::Terminated] {
        c.stage = stage;
        let s = c.make(Some(&before), 1);
        assert_eq!(
            (s.phase, s.reason, s.message),
            (written.phase.clone(), written.reason.clone(), written.message.clone())
        );
    }
}

#[test]
fn a_pod_that_is_over() {
    let mut c = case(ONE, &[("a", 0, Exited, 0)]);
    c.stage = Stage::Terminated;
    assert_eq!(show(&c.make(None, 0)), "Succeeded a:ended(0)/0");
    let mut c = case(ONE, &[]);
    c.stage = Stage::Terminated;
    assert_eq!(show(&c.make(None, 0)), "Failed a:ended(137)/0");
    let mut c = case(ONE, &[("a", 0, Exited, 0)]);
    c.failure = Some(PodFailure { reason: "DeadlineExceeded".into(), message: "late".into(), evicted: false });
    let s = c.make(None, 0);
    assert_eq!((s.phase.as_deref(), s.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    c.failure = None;
    assert_eq!(c.make(Some(&s), 1).phase.as_deref(), Some("Failed"), "an end is final");
}

/// Upstream's `mergePodStatus` (pkg/kubelet/status/status_manager.go).
#[test]
fn a_pod_of_which_something_runs_is_not_over_yet() {
    let before = PodStatus {
        reason: Some("R".into()),
        message: Some("m".into()),
        ..case(ONE, &[("a", 0, Running, 0)]).make(None, 0)
    };
    let shown = |s: &PodStatus| {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        [text(&s.phase), text(&s.reason), text(&s.message), condition(s, "Ready").status.clone()].join(" ")
    };
    for state in [Running, ContainerState::Unknown] {
        let mut c = case(ONE, &[("a", 0, state, 0)]);
        c.failure = Some(PodFailure { reason: "DeadlineExceeded".into(), message: "late".into(), evicted: false });
        c.stage = Stage::Terminating;
        assert_eq!(shown(&c.make(Some(&before), 1)), "Running R m False", "{state:?}");
        assert_eq!(c.make(None, 1).phase.as_deref(), Some("Running"), "{state:?}");
        c.stage = Stage::Terminated;
        c.runtime = case(ONE, &[("a", 0, Exited, 137)]).runtime;
        assert_eq!(shown(&c.make(Some(&before), 1)), "Failed DeadlineExceeded late False");
    }
    for runs in ["initContainers: [{name: s, restartPolicy: Always}]", "ephemeralContainers: [{name: s}]"] {
        let spec = format!("  restartPolicy: Never\n  containers: [{{name: a}}]\n  {runs}");
        let before = case(&spec, &[("a", 0, Running, 0), ("s", 0, Running, 0)]).make(None, 0);
        let ending = case(&spec, &[("a", 0, Exited, 0), ("s", 0, Running, 0)]);
        assert_eq!(shown(&ending.make(Some(&before), 1)), "Running   False", "{runs}");
        let ended = case(&spec, &[("a", 0, Exited, 0), ("s", 0, Exited, 0)]);
        assert_eq!(shown(&ended.make(Some(&before), 1)), "Succeeded   False", "{runs}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_over_runs_nothing(
        states in prop::collection::vec(prop::sample::select(vec![Created, Running, Exited, ContainerState::Unknown]), 4),
        code in prop::sample::select(vec![0, 1]),
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        stage in prop::sample::select(vec![Stage::Syncing, Stage::Terminating, Stage::Terminated]),
        fails in any::<bool>(),
        begun in any::<bool>(),
    ) {
        let spec = format!("  restartPolicy: {policy}
  initContainers: [{{name: i}}, {{name: s, restartPolicy: Always}}]
  containers: [{{name: a}}]
  ephemeralContainers: [{{name: e}}]");
        let instances: Vec<Instance> = ["i", "s", "a", "e"].into_iter().zip(&states).map(|(n, s)| (n, 0, *s, code)).collect();
        let mut c = case(&spec, &instances);
        let before = case(&spec, &[("i", 0, Running, 0)]).make(None, 0);
        c.stage = stage;
        c.failure = fails.then(|| PodFailure { reason: "Evicted".into(), message: "m".into(), evicted: true });
        let status = c.make(begun.then_some(&before), 1);
        let over = spec::is_terminal(status.phase.as_deref().unwrap());
        let runs = states.iter().any(|s| matches!(s, Running | ContainerState::Unknown));
        prop_assert!(!(over && runs), "{}", show(&status));
        let told = status.conditions.iter().flatten().any(|c| c.type_ == "DisruptionTarget");
        prop_assert!(over || !told);
    }
}

#[test]
fn gates_and_foreign_conditions() {
    let mut c = case("  readinessGates: [{conditionType: x/gate}]\n  containers: [{name: a}]", &[("a", 0, Running, 0)]);
    let s = c.make(None, 0);
    assert_eq!(condition(&s, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
    assert_eq!(condition(&s, "ContainersReady").status, "True");
    let gate = PodCondition { type_: "x/gate".into(), status: "True".into(), ..Default::default() };
    c.pod.status = Some(PodStatus { conditions: Some(vec![gate]), ..Default::default() });
    let s = c.make(Some(&s), 0);
    assert_eq!(condition(&s, "Ready").status, "True");
    assert_eq!(condition(&s, "x/gate").status, "True");
}

#[test]
fn an_evicted_pod_says_who_ended_it() {
    let mut c = case("  containers: [{name: a}]", &[("a", 0, ContainerState::Running, 0)]);
    let running = c.make(None, 0);
    c.failure = Some(PodFailure {
        reason: "Evicted".into(),
        message: "The node was low on resource: memory. ".into(),
        evicted: true,
    });
    c.stage = Stage::Terminating;
    let ending = c.make(Some(&running), 5);
    assert_eq!((ending.phase.as_deref(), ending.reason.as_deref()), (Some("Running"), None));
    assert!(ending.conditions.iter().flatten().all(|c| c.type_ != "DisruptionTarget"), "nobody is to replace it yet");
    c.stage = Stage::Terminated;
    c.runtime = case("  containers: [{name: a}]", &[("a", 0, Exited, 137)]).runtime;
    let ended = c.make(Some(&ending), 8);
    assert_eq!((ended.phase.as_deref(), ended.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    let target = condition(&ended, "DisruptionTarget");
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("TerminationByKubelet")));
    assert_eq!((&target.message, &target.last_transition_time), (&ended.message, &Some(Time(at(8)))));
    // Also when the server already shows the one it was told.
    c.pod.status = Some(ended.clone());
    let again = c.make(Some(&ended), 9);
    let targets = again.conditions.iter().flatten().filter(|c| c.type_ == "DisruptionTarget");
    assert_eq!(targets.collect::<Vec<_>>(), [target]);
    let patch = crate::status::patch::status_patch("u", Some(&running), &ended).unwrap();
    assert!(patch["status"]["conditions"].to_string().contains("DisruptionTarget"), "{patch}");
}

#[test]
fn resources_are_what_the_running_container_has() {
    let spec = |cpu: &str| format!("  containers: [{{name: a, resources: {{requests: {{cpu: {cpu}}}}}}}]");
    let mut case = case(&spec("100m"), &[("a", 0, Running, 0)]);
    let shown = |case: &Case| {
        let status = case.make(None, 1);
        let c = &status.container_statuses.as_ref().unwrap()[0];
        let requests = c.resources.as_ref().unwrap().requests.as_ref().unwrap();
        assert_eq!(c.allocated_resources.as_ref(), Some(requests));
        let pending = status.conditions.iter().flatten().find(|c| c.type_ == "PodResizePending").cloned();
        (requests["cpu"].0.clone(), pending.and_then(|c| c.reason))
    };
    assert_eq!(shown(&case), ("100m".to_owned(), None));
    case.pod = pod(&spec("0.1"));
    assert_eq!(shown(&case), ("100m".to_owned(), None), "the same amount in other words");
    case.pod = pod(&spec("'100'"));
    assert_eq!(shown(&case), ("100m".to_owned(), Some("Infeasible".to_owned())));
    // The resize is withdrawn: so is what the API shows of it.
    let status = case.make(None, 1);
    case.pod = pod(&spec("100m"));
    case.pod.status = Some(status);
    assert_eq!(shown(&case), ("100m".to_owned(), None));
}

#[test]
fn messages_share_what_a_pod_may_say() {
    let spec = "  restartPolicy: Never\n  containers: [{name: a}, {name: b}, {name: c}, {name: d}, {name: e}]";
    let case = case(spec, &[("a", 0, Exited, 1)]);
    let text = "ü".repeat(2000);
    let messages = HashMap::from([(ContainerId::new("a-0"), TerminationMessage { text, oom_killed: true })]);
    let status = generate(&StatusInput {
        pod: &case.pod,
        runtime: &case.runtime,
        probes: &case.probes,
        waiting: &case.waiting,
        messages: &messages,
        previous: None,
        stage: Stage::Syncing,
        failure: None,
        host_ips: &[],
        runtime_name: "c",
        now: at(1),
    });
    let ended = status.container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!(ended.message.unwrap().len(), 2456, "2457 bytes, but no half character");
    assert_eq!(ended.reason.as_deref(), Some("OOMKilled"));
}

#[test]
fn a_reason_goes_with_its_phase() {
    let previous = |phase: &str| PodStatus {
        phase: Some(phase.to_owned()),
        reason: Some("Unschedulable".to_owned()),
        message: Some("no room".to_owned()),
        ..PodStatus::default()
    };
    let c = case("  containers: [{name: a}]", &[("a", 0, Running, 0)]);
    let new = c.make(Some(&previous("Pending")), 0);
    assert_eq!((new.phase.as_deref(), new.reason, new.message), (Some("Running"), None, None));
    let new = c.make(Some(&previous("Running")), 0);
    assert_eq!((new.reason.as_deref(), new.message.as_deref()), (Some("Unschedulable"), Some("no room")));
    // The reason of an end stays with it.
    let ended = c.make(Some(&previous("Failed")), 0);
    assert_eq!((ended.phase.as_deref(), ended.reason.as_deref()), (Some("Failed"), Some("Unschedulable")));
}
