//! The agent dies at any moment: its successor comes to where it would have come.

use std::time::Duration;

use cri::fake::{Behavior, Op};
use cri::types::ContainerState;
use k8s_openapi::api::core::v1::Pod;

use super::harness::{Node, deleted, pod};

const SPEC: &str = "  terminationGracePeriodSeconds: 30
  initContainers: [{name: i}]
  containers:
  - {name: a, lifecycle: {postStart: {exec: {command: [hi]}}, preStop: {exec: {command: [bye]}}}}
  - {name: b}";

/// Calls that change something. Each takes a moment before it does.
const CHANGES: [Op; 8] = [
    Op::RunPodSandbox,
    Op::CreateContainer,
    Op::StartContainer,
    Op::ExecSync,
    Op::StopContainer,
    Op::RemoveContainer,
    Op::StopPodSandbox,
    Op::RemovePodSandbox,
];

fn changes(node: &Node) -> usize {
    node.runtime.calls().iter().filter(|call| CHANGES.contains(&call.op)).count()
}

fn hooks(node: &Node, command: &str) -> usize {
    let calls = node.runtime.calls();
    calls.iter().filter(|call| call.op == Op::ExecSync && call.object.ends_with(command)).count()
}

/// Name and attempt of every container there is, or was, in the order of creation.
fn attempts(node: &Node) -> Vec<(String, u32)> {
    node.runtime.containers().into_iter().map(|c| (c.metadata.name, c.metadata.attempt)).collect()
}

/// An agent that dies once, when its `die_at`th change is asked for.
struct Mortal {
    node: Node,
    die_at: usize,
    died: bool,
}

impl Mortal {
    async fn born(die_at: usize) -> Self {
        let node = Node::start().await;
        node.runtime.set_behavior("i", Behavior::ExitsWith(0));
        CHANGES.iter().for_each(|op| node.runtime.delay(*op, 1000, Duration::from_millis(10)));
        Self { node, die_at, died: false }
    }

    /// Wants these pods until `done`, whoever dies meanwhile.
    async fn live(mut self, wanted: &[Pod], what: &str, done: impl Fn(&Node) -> bool) -> Self {
        self.node.want(wanted);
        let began = tokio::time::Instant::now();
        while !done(&self.node) {
            if !self.died && changes(&self.node) >= self.die_at {
                self.node = self.node.restart().await;
                self.node.want(wanted);
                self.died = true;
            }
            let waited = began.elapsed();
            assert!(waited.as_secs() < 900, "{what}, died at {}: {:?}", self.die_at, self.node.runtime.calls());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self
    }
}

/// One whole life; how many changes it took.
async fn whole_life(die_at: usize) -> usize {
    let p = pod(SPEC);
    let all = [("i", 0), ("a", 0), ("b", 0)].map(|(name, attempt)| (name.to_owned(), attempt));
    let runs = |n: &Node| n.is_ready(&p) && n.runtime.running() == ["a", "b"];
    let mut life = Mortal::born(die_at).await.live(std::slice::from_ref(&p), "starts", runs).await;
    assert_eq!(life.node.runtime.sandboxes().len(), 1, "died at {die_at}");
    assert_eq!(attempts(&life.node), all, "died at {die_at}");
    let restarts = ["i", "a", "b"].map(|name| life.node.container(&p, name).restart_count);
    assert_eq!(restarts, [0; 3], "died at {die_at}");
    // As upstream: a hook that a dead agent was running, or about to, is not run anew.
    assert!(hooks(&life.node, ": hi") <= 1 && hooks(&life.node, ": bye") == 0, "died at {die_at}");

    life.node.runtime.exit_container(&life.node.runtime.container_named("b").unwrap().id, 1);
    let again = |n: &Node| n.is_ready(&p) && n.container(&p, "b").restart_count == 1;
    life = life.live(std::slice::from_ref(&p), "restarts", again).await;
    assert_eq!(attempts(&life.node), [all.as_slice(), &[("b".to_owned(), 1)]].concat(), "died at {die_at}");

    let gone = deleted(&p, 30);
    let ended = |n: &Node| !n.volumes.torn_down.lock().unwrap().is_empty();
    life = life.live(&[gone], "ends", ended).await;
    let mut states = life.node.runtime.containers().into_iter().map(|c| c.state);
    assert!(states.all(|state| state == ContainerState::Exited), "died at {die_at}");
    // Who died in the hook, or before the container was stopped, leaves it to be run again.
    let hooks = hooks(&life.node, ": bye");
    assert!(hooks == 1 || hooks == 2 && life.died, "died at {die_at}: {hooks} times");

    let nothing = |n: &Node| n.workers.is_empty() && n.runtime.sandboxes().is_empty();
    life = life.live(&[], "is removed", nothing).await;
    assert!(life.node.runtime.containers().is_empty(), "died at {die_at}");
    let paths = &life.node.deps.settings.paths;
    assert!(!paths.root.join("pods/u").exists(), "died at {die_at}");
    assert!(std::fs::read_dir(&paths.pod_logs).is_ok_and(|mut logs| logs.next().is_none()), "died at {die_at}");
    changes(&life.node)
}

#[tokio::test(start_paused = true)]
async fn whenever_an_agent_dies_the_next_one_goes_on() {
    let all = whole_life(usize::MAX).await;
    assert!(all >= 15, "{all} changes");
    for die_at in 1..=all {
        whole_life(die_at).await;
    }
}
