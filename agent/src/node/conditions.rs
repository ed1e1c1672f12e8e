//! Whether the node is well. Pure.

use cri::types::RuntimeStatus;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::facts::{Load, Machine};
use crate::clock::to_seconds;
use crate::config::Pressure;

/// What the runtime says, or why it says nothing.
pub type RuntimeView = Result<RuntimeStatus, String>;

/// A condition without its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict<'a> {
    kind: &'a str,
    bad: bool,
    reasons: (&'a str, &'a str),
    messages: (&'a str, &'a str),
}

/// Why the runtime's network is not ready, if it is not.
pub fn network_problem(runtime: &RuntimeView) -> Option<String> {
    let status = runtime.as_ref().ok()?;
    problem(status, "NetworkReady").map(|text| format!("container runtime network not ready: {text}"))
}

fn problem(status: &RuntimeStatus, kind: &str) -> Option<String> {
    match status.conditions.iter().find(|c| c.kind == kind) {
        Some(c) if c.status => None,
        Some(c) => Some(format!("{kind}=false reason:{} message:{}", c.reason, c.message)),
        None => Some(format!("{kind} is not reported")),
    }
}

/// Everything that keeps the node from being ready.
pub fn problems(runtime: &RuntimeView) -> Vec<String> {
    match runtime {
        Err(error) => vec![format!("container runtime is down: {error}")],
        Ok(status) => {
            let own = problem(status, "RuntimeReady").map(|t| format!("container runtime not ready: {t}"));
            own.into_iter().chain(network_problem(runtime)).collect()
        }
    }
}

/// The node's conditions. A transition time moves only when the status does.
pub fn conditions(
    machine: &Machine,
    load: &Load,
    runtime: &RuntimeView,
    limits: &Pressure,
    previous: &[NodeCondition],
    now: Timestamp,
) -> Vec<NodeCondition> {
    // File systems may have no inodes to count; what cannot be read is no pressure.
    let disk =
        load.disk_available < limits.disk.of(load.disk_capacity) || load.inodes_free < limits.inodes.of(load.inodes);
    let pids_free = machine.pid_max.saturating_sub(load.pids);
    let pids = load.pids > 0 && pids_free < limits.pids.of(machine.pid_max);
    let memory = load.memory_available > 0 && load.memory_available < limits.memory.of(machine.memory);
    let pressures = [
        Verdict {
            kind: "MemoryPressure",
            bad: memory,
            reasons: ("KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"),
            messages: ("kubelet has sufficient memory available", "kubelet has insufficient memory available"),
        },
        Verdict {
            kind: "DiskPressure",
            bad: disk,
            reasons: ("KubeletHasNoDiskPressure", "KubeletHasDiskPressure"),
            messages: ("kubelet has no disk pressure", "kubelet has disk pressure"),
        },
        Verdict {
            kind: "PIDPressure",
            bad: pids,
            reasons: ("KubeletHasSufficientPID", "KubeletHasInsufficientPID"),
            messages: ("kubelet has sufficient PID available", "kubelet has insufficient PID available"),
        },
    ];
    let mut out: Vec<NodeCondition> = pressures
        .iter()
        .map(|v| {
            let pick = |pair: (&str, &str)| if v.bad { pair.1 } else { pair.0 }.to_owned();
            stamp(v.kind, v.bad, pick(v.reasons), pick(v.messages), previous, now)
        })
        .collect();
    let problems = problems(runtime);
    let ready = problems.is_empty();
    let (reason, message) = if ready {
        ("KubeletReady", "kubelet is posting ready status".to_owned())
    } else {
        ("KubeletNotReady", problems.join(", "))
    };
    out.push(stamp("Ready", ready, reason.to_owned(), message, previous, now));
    let own = |c: &&NodeCondition| out.iter().all(|o| o.type_ != c.type_);
    let others: Vec<NodeCondition> = previous.iter().filter(own).cloned().collect();
    out.extend(others);
    out
}

fn stamp(
    kind: &str,
    status: bool,
    reason: String,
    message: String,
    previous: &[NodeCondition],
    now: Timestamp,
) -> NodeCondition {
    let status = if status { "True" } else { "False" };
    let before = previous.iter().find(|c| c.type_ == kind && c.status == status);
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason),
        message: Some(message),
        last_heartbeat_time: Some(Time(to_seconds(now))),
        last_transition_time: Some(
            before.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(to_seconds(now))),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::types::RuntimeCondition;

    fn runtime(network: bool) -> RuntimeView {
        let condition = |kind: &str, status| RuntimeCondition {
            kind: kind.into(),
            status,
            reason: "NetworkPluginNotReady".into(),
            message: "cni config uninitialized".into(),
        };
        Ok(RuntimeStatus {
            conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", network)],
            handlers: vec![],
        })
    }

    fn status(list: &[NodeCondition], kind: &str) -> String {
        list.iter().find(|c| c.type_ == kind).map(|c| c.status.clone()).unwrap_or_default()
    }

    #[test]
    fn ready_follows_the_runtime() {
        let (m, t) = (Machine { pid_max: 100, ..Machine::default() }, Timestamp::UNIX_EPOCH);
        let load = Load {
            memory_available: 1 << 30,
            disk_capacity: 100,
            disk_available: 50,
            inodes: 100,
            inodes_free: 50,
            pids: 10,
        };
        let good = conditions(&m, &load, &runtime(true), &Pressure::default(), &[], t);
        assert_eq!(status(&good, "Ready"), "True");
        assert_eq!(status(&good, "DiskPressure"), "False");
        let bad = conditions(&m, &load, &runtime(false), &Pressure::default(), &good, t);
        assert_eq!(status(&bad, "Ready"), "False");
        assert!(bad[3].message.as_deref().unwrap_or_default().contains("cni config uninitialized"));
        let down = conditions(&m, &load, &Err("refused".into()), &Pressure::default(), &good, t);
        assert!(down[3].message.as_deref().unwrap_or_default().starts_with("container runtime is down"));
        assert!(network_problem(&runtime(true)).is_none());
        assert_eq!(problems(&Ok(RuntimeStatus::default())).len(), 2);
    }

    #[test]
    fn minima() {
        use crate::config::Minimum::{Bytes, Percent, PercentUpTo};
        assert_eq!(
            [Bytes(7).of(100), Percent(10).of(100), PercentUpTo(10, 5).of(100), PercentUpTo(10, 50).of(100)],
            [7, 10, 5, 10]
        );
        assert_eq!(Percent(100).of(u64::MAX), u64::MAX);
    }

    #[test]
    fn pressures() {
        let (m, t) = (Machine { pid_max: 100, ..Machine::default() }, Timestamp::UNIX_EPOCH);
        let load = Load {
            memory_available: 1 << 20,
            disk_capacity: 100,
            disk_available: 9,
            inodes: 0,
            inodes_free: 0,
            pids: 96,
        };
        let list = conditions(&m, &load, &runtime(true), &Pressure::default(), &[], t);
        for kind in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
            assert_eq!(status(&list, kind), "True", "{kind}");
        }
    }
}
