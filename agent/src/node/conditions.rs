//! Whether the node is well. Pure.

use cri::types::RuntimeStatus;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::clock::to_seconds;
use crate::plan::eviction::{Pressure, Pressures};

/// What the runtime says, or why it says nothing.
pub type RuntimeView = Result<RuntimeStatus, String>;

/// A condition without its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnCondition<'a> {
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

/// Everything that keeps the node from being ready; `pleg` is what is wrong with
/// listing the runtime.
pub fn problems(runtime: &RuntimeView, pleg: Option<&str>) -> Vec<String> {
    let mut all = match runtime {
        Err(error) => vec![format!("container runtime is down: {error}")],
        Ok(status) => {
            let own = problem(status, "RuntimeReady").map(|t| format!("container runtime not ready: {t}"));
            own.into_iter().chain(network_problem(runtime)).collect()
        }
    };
    all.extend(pleg.map(str::to_owned));
    all
}

/// The node's conditions that are the kubelet's; others write others, which are
/// theirs alone. A transition time moves only when the status does.
pub fn conditions(
    runtime: &RuntimeView,
    pleg: Option<&str>,
    pressures: &Pressures,
    previous: &[NodeCondition],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let bad = |kind| pressures.contains(&kind);
    let own = [
        OwnCondition {
            kind: Pressure::Memory.condition(),
            bad: bad(Pressure::Memory),
            reasons: ("KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"),
            messages: ("kubelet has sufficient memory available", "kubelet has insufficient memory available"),
        },
        OwnCondition {
            kind: Pressure::Disk.condition(),
            bad: bad(Pressure::Disk),
            reasons: ("KubeletHasNoDiskPressure", "KubeletHasDiskPressure"),
            messages: ("kubelet has no disk pressure", "kubelet has disk pressure"),
        },
        OwnCondition {
            kind: Pressure::Pid.condition(),
            bad: bad(Pressure::Pid),
            reasons: ("KubeletHasSufficientPID", "KubeletHasInsufficientPID"),
            messages: ("kubelet has sufficient PID available", "kubelet has insufficient PID available"),
        },
    ];
    let mut out: Vec<NodeCondition> = own
        .iter()
        .map(|v| {
            let pick = |pair: (&str, &str)| if v.bad { pair.1 } else { pair.0 }.to_owned();
            stamp(v.kind, v.bad, pick(v.reasons), pick(v.messages), previous, now)
        })
        .collect();
    let problems = problems(runtime, pleg);
    let ready = problems.is_empty();
    let (reason, message) = if ready {
        ("KubeletReady", "kubelet is posting ready status".to_owned())
    } else {
        ("KubeletNotReady", problems.join(", "))
    };
    out.push(stamp("Ready", ready, reason.to_owned(), message, previous, now));
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
            ..RuntimeStatus::default()
        })
    }

    fn status(list: &[NodeCondition], kind: &str) -> String {
        list.iter().find(|c| c.type_ == kind).map(|c| c.status.clone()).unwrap_or_default()
    }

    #[test]
    fn ready_follows_the_runtime() {
        let (none, t) = (Pressures::new(), Timestamp::UNIX_EPOCH);
        let good = conditions(&runtime(true), None, &none, &[], t);
        assert_eq!(status(&good, "Ready"), "True");
        assert_eq!(status(&good, "DiskPressure"), "False");
        let bad = conditions(&runtime(false), None, &none, &good, t);
        assert_eq!(status(&bad, "Ready"), "False");
        assert!(bad[3].message.as_deref().unwrap_or_default().contains("cni config uninitialized"));
        let down = conditions(&Err("refused".into()), None, &none, &good, t);
        assert!(down[3].message.as_deref().unwrap_or_default().starts_with("container runtime is down"));
        assert!(network_problem(&runtime(true)).is_none());
        assert_eq!(problems(&Ok(RuntimeStatus::default()), None).len(), 2);
        let unlisted = conditions(&runtime(true), Some("PLEG is not healthy"), &none, &good, t);
        assert_eq!(status(&unlisted, "Ready"), "False");
        assert_eq!(unlisted[3].message.as_deref(), Some("PLEG is not healthy"));
    }

    #[test]
    fn conditions_of_others_are_not_ours_to_write() {
        let foreign = NodeCondition { type_: "NetworkUnavailable".into(), status: "True".into(), ..Default::default() };
        let list = conditions(&runtime(true), None, &Pressures::new(), &[foreign], Timestamp::UNIX_EPOCH);
        let kinds: Vec<&str> = list.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(kinds, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
    }

    #[test]
    fn pressures_are_conditions() {
        let all = [Pressure::Memory, Pressure::Disk, Pressure::Pid];
        for kind in all {
            let list = conditions(&runtime(true), None, &[kind].into(), &[], Timestamp::UNIX_EPOCH);
            for other in all {
                let expect = if other == kind { "True" } else { "False" };
                assert_eq!(status(&list, other.condition()), expect, "{other:?} of {kind:?}");
            }
        }
    }
}
