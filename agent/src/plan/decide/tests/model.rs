//! Properties: whole lives of pods on a runtime that does what is decided, or
//! fails to, and whose containers and sandboxes end whenever they like; their
//! agent may forget everything at any moment.

use cri::types::{ContainerStatus, SandboxState, SandboxStatus};
use cri::{ContainerId, SandboxId};
use proptest::prelude::*;

use super::*;
use crate::convert::spec::{ContainerKind, RestartPolicy};
use crate::plan::effect::{ContainerStart, Outcome};
use crate::plan::restart::init_succeeded;
use crate::podcache::RuntimeContainer;

/// What happens beside what is decided.
#[derive(Clone, Debug)]
enum Event {
    /// A running container, chosen by number, exits.
    Exit(usize, i32),
    /// The pause container dies, or the machine restarts.
    SandboxDies,
    /// The startup probe of a running container, chosen by number, succeeds.
    Started(usize),
    /// What is decided is done.
    Sync,
    /// Time passes, to the next wake-up or by a minute.
    Wait,
    /// The next effect fails.
    Fail,
    /// The machine's clock is set back by ten minutes.
    SetBack,
    /// The agent dies; its successor remembers nothing.
    Die,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Sync),
        3 => (0..4usize, prop_oneof![Just(0), Just(1)]).prop_map(|(n, code)| Event::Exit(n, code)),
        1 => Just(Event::SandboxDies),
        2 => (0..4usize).prop_map(Event::Started),
        2 => Just(Event::Wait),
        1 => Just(Event::Fail),
        1 => Just(Event::SetBack),
        1 => Just(Event::Die),
    ];
    prop::collection::vec(event, 0..40)
}

struct Life {
    pod: Pod,
    removed: bool,
    boxes: Vec<SandboxStatus>,
    instances: Vec<(SandboxId, ContainerStatus)>,
    probes: ProbeView,
    memory: Memory,
    /// Seconds, and how many of them the machine's clock is behind.
    now: i64,
    behind: i64,
    fail_next: bool,
    /// When containers were started, by name.
    starts: Vec<(String, i64)>,
}

fn memory() -> Memory {
    let mut memory = Memory::new(Duration::from_secs(300));
    memory.stale = true;
    memory
}

impl Life {
    fn new(spec: &str) -> Self {
        Self {
            pod: pod(spec),
            removed: false,
            boxes: Vec::new(),
            instances: Vec::new(),
            probes: ProbeView::default(),
            memory: memory(),
            now: 0,
            behind: 0,
            fail_next: false,
            starts: Vec::new(),
        }
    }

    /// What the machine's clock shows.
    fn wall(&self) -> Timestamp {
        at(self.now - self.behind)
    }

    fn view(&self) -> RuntimePod {
        runtime(self.boxes.clone(), self.instances.clone())
    }

    fn running(&mut self) -> Vec<&mut ContainerStatus> {
        self.instances.iter_mut().map(|(_, s)| s).filter(|s| s.state == Running).collect()
    }

    fn exit(&mut self, code: i32, which: impl Fn(&ContainerStatus) -> bool) {
        let ended = Some(self.wall());
        for status in self.running().into_iter().filter(|s| which(s)) {
            (status.state, status.exit_code, status.finished_at) = (Exited, code, ended);
        }
    }

    fn stop_sandboxes(&mut self) {
        self.exit(137, |_| true);
        self.boxes.iter_mut().for_each(|b| b.summary.state = SandboxState::NotReady);
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Sync => _ = self.sync(),
            Event::SandboxDies => {
                self.exit(255, |_| true);
                self.boxes.iter_mut().for_each(|b| b.summary.state = SandboxState::NotReady);
            }
            Event::Exit(number, code) => {
                let id = self.running().get(*number).map(|s| s.id.clone());
                self.exit(*code, |s| Some(&s.id) == id.as_ref());
            }
            Event::Started(number) => {
                let Some(id) = self.running().get(*number).map(|s| s.id.clone()) else { return };
                let results = ContainerProbes { startup: ProbeOutcome::Success, ..Default::default() };
                self.probes.containers.insert(id, results);
            }
            Event::Wait => {
                let wake_at =
                    self.decision().wake_at.map_or(60, |at_time| at_time.duration_since(at(self.now)).as_secs() + 1);
                self.now += wake_at.clamp(1, 600);
                self.memory.wake();
            }
            Event::Fail => self.fail_next = true,
            Event::SetBack => self.behind += 600,
            Event::Die => self.memory = memory(),
        }
    }

    fn decision(&self) -> Decision {
        let view = self.view();
        let status = PodStatus { start_time: Some(Time(at(0))), ..PodStatus::default() };
        let facts = Facts {
            pod: &self.pod,
            removed: self.removed,
            runtime: &view,
            messages_missing: false,
            probes: &self.probes,
            status: Some(&status),
            network_problem: None,
            node_awaited: false,
            wall: self.wall(),
        };
        decide(&facts, &self.memory, at(self.now))
    }

    /// Decides and does until there is only to wait; the last decision.
    fn sync(&mut self) -> Decision {
        for _ in 0..40 {
            let decision = self.decision();
            self.memory.enter(&decision);
            assert!(decision.wake_at.is_none_or(|wake| wake > at(self.now)), "the past wakes nobody: {decision:?}");
            if decision.effects.is_empty() {
                return decision;
            }
            for effect in decision.effects {
                if std::mem::take(&mut self.fail_next) {
                    self.memory.note(Outcome::Failed, at(self.now));
                    break;
                }
                self.perform(effect);
            }
        }
        panic!("it never rests: {:?}", self.decision());
    }

    fn perform(&mut self, effect: Effect) {
        let outcome = match effect {
            Effect::Read { .. } => return self.memory.stale = false,
            Effect::Kill(list) => {
                let ids: Vec<ContainerId> = list.into_iter().map(|k| k.id).collect();
                self.exit(137, |s| ids.contains(&s.id));
                return self.memory.stale = true;
            }
            Effect::StopForRestart => {
                self.stop_sandboxes();
                return self.memory.stale = true;
            }
            Effect::Start(start) => {
                if let SandboxChoice::Create(attempt) = start.sandbox {
                    let mut made = sandbox(attempt, true, false);
                    made.summary.created_at = Some(self.wall());
                    self.boxes.push(made);
                }
                return start.containers.into_iter().for_each(|container| self.start(container));
            }
            Effect::Admit { .. } => Outcome::Admitted,
            Effect::Keep | Effect::Rest => Outcome::Rested,
            Effect::Stop { .. } => {
                self.stop_sandboxes();
                Outcome::Stopped
            }
            Effect::TearDownVolumes => {
                assert!(self.running().is_empty(), "something still uses them");
                Outcome::VolumesGone
            }
            Effect::RemoveCgroup => Outcome::CgroupGone,
            Effect::Remove => {
                (self.boxes, self.instances) = (Vec::new(), Vec::new());
                Outcome::Removed
            }
        };
        self.memory.note(outcome, at(self.now));
    }

    fn start(&mut self, wanted: ContainerStart) {
        let view = self.view();
        let here = view.ready_sandbox().expect("a container needs a sandbox").summary.id.clone();
        let before = view.container(&wanted.name);
        assert!(before.is_none_or(|b| !b.is_running()), "{} runs already", wanted.name);
        if spec::restart_policy(&self.pod) == RestartPolicy::Never && !self.is_sidecar(&wanted.name) {
            assert!(before.is_none(), "{} runs twice", wanted.name);
        }
        assert!(before.is_none_or(|b| b.status.metadata.attempt < wanted.attempt), "an attempt twice: {wanted:?}");
        let init = spec::init_containers(&self.pod);
        let index = init.iter().position(|c| c.name == wanted.name).filter(|_| wanted.kind == ContainerKind::Init);
        for earlier in &init[..index.unwrap_or(init.len())] {
            let done = view.containers_named(&earlier.name).any(|c| c.sandbox == here && self.lets_pass(earlier, c));
            assert!(done, "{} before {} is done in sandbox {here}", wanted.name, earlier.name);
        }
        let mut status = instance(&self.pod, &wanted.name, wanted.attempt, Running, 0).1;
        (status.created_at, status.started_at) = (Some(self.wall()), Some(self.wall()));
        self.instances.push((here, status));
        self.starts.push((wanted.name.clone(), self.now));
        let name = wanted.name.clone();
        self.memory.note(Outcome::Starting(wanted), at(self.now));
        self.memory.note(Outcome::Started { name }, at(self.now));
    }

    fn is_sidecar(&self, name: &str) -> bool {
        spec::init_containers(&self.pod).iter().any(|c| c.name == name && spec::is_sidecar(c))
    }

    /// Whether an instance of an init container has let its successors start.
    fn lets_pass(&self, container: &k8s_openapi::api::core::v1::Container, instance: &RuntimeContainer) -> bool {
        if !spec::is_sidecar(container) {
            return init_succeeded(instance);
        }
        container.startup_probe.is_none() || self.probes.get(instance.id()).startup == ProbeOutcome::Success
    }

    fn is_over(&self) -> bool {
        self.memory.stage > WorkerStage::Syncing
    }
}

const SPECS: [&str; 5] = [
    "  containers: [{name: a}, {name: b}]",
    "  initContainers: [{name: i1}, {name: i2}, {name: i3}]\n  containers: [{name: a}, {name: b}]",
    "  initContainers: [{name: s, restartPolicy: Always, startupProbe: {}}, {name: i}]\n  containers: [{name: a}]",
    "  initContainers: [{name: i}, {name: s, restartPolicy: Always, startupProbe: {}}]\n  containers: [{name: a}]",
    "  activeDeadlineSeconds: 200\n  containers: [{name: a}, {name: b}]",
];
const POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];

fn life(policy: &str, spec: &str, events: &[Event]) -> Life {
    let mut life = Life::new(&format!("  restartPolicy: {policy}\n{spec}"));
    events.iter().for_each(|event| life.happen(event));
    life
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// In every sandbox init containers run in order and before main ones, no
    /// attempt is made twice, and a pod with the policy Never starts nothing twice.
    #[test]
    fn every_sandbox_begins_in_order(
        spec in prop::sample::select(SPECS.to_vec()),
        policy in prop::sample::select(POLICIES.to_vec()),
        events in events(),
    ) {
        life(policy, spec, &events);
    }

    /// Once init containers succeed, probes too, and nothing else happens, a pod
    /// comes to rest: it runs with nothing left to do, or it is over.
    #[test]
    fn a_pod_comes_to_rest(
        spec in prop::sample::select(SPECS.to_vec()),
        policy in prop::sample::select(POLICIES.to_vec()),
        events in events(),
    ) {
        let mut life = life(policy, spec, &events);
        life.fail_next = false;
        for _ in 0..16 {
            life.happen(&Event::Sync);
            (0..4).for_each(|number| life.happen(&Event::Started(number)));
            let pod = life.pod.clone();
            let init = |s: &ContainerStatus| {
                spec::init_containers(&pod).iter().any(|c| c.name == s.metadata.name && !spec::is_sidecar(c))
            };
            life.exit(0, init);
            life.happen(&Event::Wait);
        }
        let last = life.sync();
        let rests = last.wake_at.is_none() && life.view().ready_sandbox().is_some();
        prop_assert!(life.is_over() || rests, "{:?}\n{:?}", last, life.view());
    }

    /// Whatever happened before, a pod that nobody wants any more goes, and
    /// nothing of it stays.
    #[test]
    fn a_pod_can_always_be_removed(
        spec in prop::sample::select(SPECS.to_vec()),
        policy in prop::sample::select(POLICIES.to_vec()),
        events in events(),
        failures in 0..6usize,
    ) {
        let mut life = life(policy, spec, &events);
        life.pod.metadata.deletion_timestamp = Some(Time(at(life.now)));
        life.memory.wake();
        for _ in 0..failures {
            life.fail_next = true;
            life.sync();
            life.happen(&Event::Wait);
        }
        life.fail_next = false;
        life.sync();
        prop_assert_eq!(life.memory.stage, WorkerStage::Terminated);
        prop_assert!(life.running().is_empty());
        life.removed = true;
        life.sync();
        prop_assert_eq!(life.memory.stage, WorkerStage::Removed);
        prop_assert!(life.boxes.is_empty() && life.instances.is_empty());
    }
}

#[test]
fn a_container_that_always_crashes_is_started_ever_more_rarely() {
    let mut life = Life::new("  containers: [{name: a}]");
    while life.now < 1200 {
        let wake_at = life.sync().wake_at;
        life.exit(1, |_| true);
        life.now = wake_at.map_or(life.now, |wake| wake.duration_since(at(0)).as_secs());
        life.memory.wake();
    }
    let times: Vec<i64> = life.starts.iter().map(|(_, when)| *when).collect();
    assert_eq!(times, [0, 0, 10, 30, 70, 150, 310, 610, 910]);
}
