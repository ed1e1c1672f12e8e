//! Pods: the STATUS column tells in a word what the pod is doing.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::{at, bool_at, list_at, str_at};
use crate::table::duration::human_duration;
use crate::table::format::{deleting, int, none_if_empty};
use crate::table::{Column, Printer, age, name};

/// Pods.
pub static PODS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Ready"),
        Column::text("Status"),
        Column::text("Restarts"),
        Column::AGE,
        Column::wide("IP"),
        Column::wide("Node"),
        Column::wide("Nominated Node"),
        Column::wide("Readiness Gates"),
    ],
    cells: pod,
    conditions,
};

fn conditions(object: &Value) -> Vec<Value> {
    match str_at(object, &["status", "phase"]) {
        "Succeeded" => vec![json!({
            "type": "Completed", "status": "True", "reason": "Succeeded",
            "message": "The pod has completed successfully.",
        })],
        "Failed" => vec![json!({
            "type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed.",
        })],
        _ => Vec::new(),
    }
}

/// What is counted while looking at containers.
#[derive(Default)]
struct Tally {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Tally {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += int(status, &["restartCount"]);
        let ended = str_at(status, &["lastState", "terminated", "finishedAt"]).parse().ok();
        self.last_restart = self.last_restart.max(ended);
    }
}

fn pod(object: &Value, now: Timestamp) -> Vec<Value> {
    let tally = tally(object);
    let mut restarts = tally.restarts.to_string();
    if let Some(last) = tally.last_restart
        && tally.restarts != 0
    {
        restarts = format!("{restarts} ({} ago)", human_duration(now.as_second() - last.as_second()));
    }
    vec![
        name(object),
        format!("{}/{}", tally.ready, tally.total).into(),
        tally.reason.into(),
        restarts.into(),
        age(object, now),
        none_if_empty(pod_ip(object)).into(),
        none_if_empty(str_at(object, &["spec", "nodeName"])).into(),
        none_if_empty(str_at(object, &["status", "nominatedNodeName"])).into(),
        readiness_gates(object).into(),
    ]
}

fn pod_ip(object: &Value) -> &str {
    let first = list_at(object, &["status", "podIPs"]).first();
    first.map_or_else(|| str_at(object, &["status", "podIP"]), |ip| str_at(ip, &["ip"]))
}

fn condition<'a>(object: &'a Value, ty: &str) -> Option<&'a Value> {
    list_at(object, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == ty)
}

fn condition_true(object: &Value, ty: &str) -> bool {
    condition(object, ty).is_some_and(|c| str_at(c, &["status"]) == "True")
}

fn readiness_gates(object: &Value) -> String {
    let gates = list_at(object, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let passed = gates.iter().filter(|g| condition_true(object, str_at(g, &["conditionType"]))).count();
    format!("{passed}/{}", gates.len())
}

/// Whether the init container of this name keeps running beside the others.
fn restartable(object: &Value, name: &str) -> bool {
    list_at(object, &["spec", "initContainers"])
        .iter()
        .any(|c| str_at(c, &["name"]) == name && str_at(c, &["restartPolicy"]) == "Always")
}

fn tally(object: &Value) -> Tally {
    let phase = str_at(object, &["status", "phase"]);
    let stated = str_at(object, &["status", "reason"]);
    let sidecars = list_at(object, &["spec", "initContainers"])
        .iter()
        .filter(|c| str_at(c, &["restartPolicy"]) == "Always")
        .count();
    let mut tally = Tally {
        reason: if stated.is_empty() { phase } else { stated }.to_owned(),
        total: list_at(object, &["spec", "containers"]).len() + sidecars,
        ..Tally::default()
    };
    if condition(object, "PodScheduled").is_some_and(|c| str_at(c, &["reason"]) == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut tally.reason);
    }
    let (initializing, sidecar_tally) = init_containers(object, &mut tally);
    if !initializing || condition_true(object, "Initialized") {
        tally.restarts = sidecar_tally.restarts;
        tally.last_restart = sidecar_tally.last_restart;
        main_containers(object, &mut tally);
    }
    if deleting(object) {
        if stated == "NodeLost" {
            "Unknown".clone_into(&mut tally.reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut tally.reason);
        }
    }
    tally
}

/// Looks at init containers; returns whether the pod still initializes, and the restarts of sidecars.
fn init_containers(object: &Value, tally: &mut Tally) -> (bool, Tally) {
    let mut sidecars = Tally::default();
    let count = list_at(object, &["spec", "initContainers"]).len();
    for (i, status) in list_at(object, &["status", "initContainerStatuses"]).iter().enumerate() {
        tally.count_restarts(status);
        let sidecar = restartable(object, str_at(status, &["name"]));
        if sidecar {
            sidecars.count_restarts(status);
        }
        let terminated = at(status, &["state", "terminated"]);
        let waiting = str_at(status, &["state", "waiting", "reason"]);
        if terminated.is_object() && int(terminated, &["exitCode"]) == 0 {
            continue;
        }
        if sidecar && bool_at(status, &["started"]) {
            tally.ready += usize::from(bool_at(status, &["ready"]));
            continue;
        }
        tally.reason = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{count}")
        };
        return (true, sidecars);
    }
    (false, sidecars)
}

/// Why a container ended: its reason, signal or exit code.
fn ended(terminated: &Value) -> String {
    match (str_at(terminated, &["reason"]), int(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", int(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn main_containers(object: &Value, tally: &mut Tally) {
    let mut running = false;
    for status in list_at(object, &["status", "containerStatuses"]).iter().rev() {
        tally.count_restarts(status);
        let waiting = str_at(status, &["state", "waiting", "reason"]);
        let terminated = at(status, &["state", "terminated"]);
        if !waiting.is_empty() {
            waiting.clone_into(&mut tally.reason);
        } else if terminated.is_object() {
            tally.reason = ended(terminated);
        } else if bool_at(status, &["ready"]) && at(status, &["state", "running"]).is_object() {
            running = true;
            tally.ready += 1;
        }
    }
    if tally.reason == "Completed" && running {
        let word = if condition_true(object, "Ready") { "Running" } else { "NotReady" };
        word.clone_into(&mut tally.reason);
    }
}
