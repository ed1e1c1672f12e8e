//! Properties: whole lives of pods on a runtime that does what is decided and
//! whose containers and sandboxes end whenever they like.

use proptest::prelude::*;

use super::*;
use crate::plan::restart::init_succeeded;

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
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Sync),
        3 => (0..4usize, prop_oneof![Just(0), Just(1)]).prop_map(|(n, code)| Event::Exit(n, code)),
        1 => Just(Event::SandboxDies),
        2 => (0..4usize).prop_map(Event::Started),
    ];
    prop::collection::vec(event, 0..40)
}

struct Life {
    pod: Pod,
    boxes: Vec<SandboxStatus>,
    instances: Vec<(SandboxId, cri::types::ContainerStatus)>,
    probes: ProbeView,
    over: bool,
}

impl Life {
    fn new(spec: &str) -> Self {
        let (boxes, instances) = (Vec::new(), Vec::new());
        Self { pod: pod(spec), boxes, instances, probes: ProbeView::default(), over: false }
    }

    fn view(&self) -> RuntimePod {
        runtime(self.boxes.clone(), self.instances.clone())
    }

    fn running(&mut self) -> Vec<&mut cri::types::ContainerStatus> {
        self.instances.iter_mut().map(|(_, s)| s).filter(|s| s.state == Running).collect()
    }

    fn exit_all(&mut self, code: i32) {
        for status in self.running() {
            (status.state, status.exit_code) = (Exited, code);
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Sync => self.sync(),
            Event::SandboxDies => {
                self.exit_all(255);
                self.boxes.iter_mut().for_each(|b| b.summary.state = SandboxState::NotReady);
            }
            Event::Exit(number, code) => {
                if let Some(status) = self.running().into_iter().nth(*number) {
                    (status.state, status.exit_code) = (Exited, *code);
                }
            }
            Event::Started(number) => {
                let Some(id) = self.running().get(*number).map(|s| s.id.clone()) else { return };
                let results = ContainerProbes { startup: ProbeOutcome::Success, ..Default::default() };
                self.probes.containers.insert(id, results);
            }
        }
    }

    fn sync(&mut self) {
        let view = self.view();
        let actions = pod_actions(&self.pod, &view, &self.probes);
        self.over |= is_finished(&self.pod, &view) || actions.ends_pod();
        if self.over {
            return;
        }
        if actions.kill_pod {
            self.exit_all(137);
            self.boxes.iter_mut().for_each(|b| b.summary.state = SandboxState::NotReady);
        }
        for kill in &actions.kill {
            let target = self.instances.iter_mut().find(|(_, s)| s.id == kill.id).unwrap();
            (target.1.state, target.1.exit_code) = (Exited, 137);
        }
        self.boxes.extend(actions.create_sandbox.map(|attempt| sandbox(attempt, true, false)));
        for start in actions.start_init.iter().chain(&actions.start) {
            self.start(start);
        }
    }

    fn start(&mut self, wanted: &StartContainer) {
        let view = self.view();
        let here = view.ready_sandbox().expect("a container needs a sandbox").summary.id.clone();
        let before = view.container(&wanted.name);
        assert!(before.is_none_or(|b| !b.is_running()), "{} runs already", wanted.name);
        if spec::restart_policy(&self.pod) == RestartPolicy::Never && !self.is_sidecar(&wanted.name) {
            assert!(before.is_none(), "{} runs twice", wanted.name);
        }
        let predecessors = match wanted.kind {
            ContainerKind::Init => &spec::init_containers(&self.pod)[..wanted.index],
            _ => spec::init_containers(&self.pod),
        };
        for earlier in predecessors {
            let done = view.containers_named(&earlier.name).any(|c| c.sandbox == here && self.lets_pass(earlier, c));
            assert!(done, "{} before {} is done in sandbox {here}", wanted.name, earlier.name);
        }
        let attempt = before.map_or(0, |b| b.status.metadata.attempt + 1);
        self.instances.push((here, instance(&self.pod, &wanted.name, attempt, Running, 0).1));
    }

    fn is_sidecar(&self, name: &str) -> bool {
        spec::init_containers(&self.pod).iter().any(|c| c.name == name && spec::is_sidecar(c))
    }

    /// Whether an instance of an init container has let its successors start.
    fn lets_pass(&self, container: &Container, instance: &RuntimeContainer) -> bool {
        if !spec::is_sidecar(container) {
            return init_succeeded(instance);
        }
        container.startup_probe.is_none() || self.probes.get(instance.id()).startup == ProbeOutcome::Success
    }
}

const SPECS: [&str; 4] = [
    "  containers: [{name: a}, {name: b}]",
    "  initContainers: [{name: i1}, {name: i2}, {name: i3}]\n  containers: [{name: a}, {name: b}]",
    "  initContainers: [{name: s, restartPolicy: Always, startupProbe: {}}, {name: i}]\n  containers: [{name: a}]",
    "  initContainers: [{name: i}, {name: s, restartPolicy: Always, startupProbe: {}}]\n  containers: [{name: a}]",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// In every sandbox init containers run in order and before main ones, and a
    /// pod with the policy Never starts nothing twice.
    #[test]
    fn every_sandbox_begins_in_order(
        spec in prop::sample::select(SPECS.to_vec()),
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        events in events(),
    ) {
        let mut life = Life::new(&format!("  restartPolicy: {policy}\n{spec}"));
        events.iter().for_each(|event| life.happen(event));
    }

    /// Once init containers succeed, probes too, and nothing else happens, a pod
    /// comes to rest: it runs with nothing left to do, or it is over.
    #[test]
    fn a_pod_comes_to_rest(
        spec in prop::sample::select(SPECS.to_vec()),
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        events in events(),
    ) {
        let mut life = Life::new(&format!("  restartPolicy: {policy}\n{spec}"));
        events.iter().for_each(|event| life.happen(event));
        for _ in 0..12 {
            life.sync();
            (0..4).for_each(|number| life.happen(&Event::Started(number)));
            let pod = life.pod.clone();
            for status in life.running() {
                let name = &status.metadata.name;
                let init = spec::init_containers(&pod).iter().any(|c| c.name == *name && !spec::is_sidecar(c));
                if init {
                    (status.state, status.exit_code) = (Exited, 0);
                }
            }
        }
        let view = life.view();
        let rests = pod_actions(&life.pod, &view, &life.probes).is_empty() && view.ready_sandbox().is_some();
        prop_assert!(life.over || rests, "{:?}", view);
    }
}
