//! Tables of conversions, and garbage.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use k8s_cri::v1;
use proptest::prelude::*;
use prost::Message;

use super::{request, response};
use crate::id::{ContainerId, SandboxId};
use crate::types::{
    ContainerConfig, ContainerEventKind, ContainerFilter, ContainerSecurity, ContainerState, LinuxContainerResources,
    Mount, MountPropagation, NamespaceMode, PortMapping, Protocol, SandboxConfig, SandboxFilter, SandboxState,
    SecurityProfile,
};

fn sandbox() -> v1::PodSandbox {
    v1::PodSandbox {
        id: "s1".into(),
        metadata: Some(v1::PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 2 }),
        state: 1,
        created_at: 1_500_000_000,
        labels: HashMap::from([("a".into(), "b".into())]),
        annotations: HashMap::new(),
        runtime_handler: "h".into(),
    }
}

fn status() -> v1::ContainerStatus {
    v1::ContainerStatus {
        id: "c1".into(),
        metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 1 }),
        state: 1,
        started_at: 5,
        finished_at: i64::MIN,
        image: Some(request::image_spec("i", "")),
        ..Default::default()
    }
}

fn verbose(info: &str) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), info.to_owned())])
}

#[test]
fn sandbox_configs_say_everything() {
    let mut config = SandboxConfig { hostname: "h".into(), cgroup_parent: "/kubepods".into(), ..Default::default() };
    config.port_mappings =
        vec![PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 65535, host_ip: String::new() }];
    config.security.namespaces.network = NamespaceMode::Node;
    config.security.run_as_user = Some(0);
    config.security.seccomp = Some(SecurityProfile::RuntimeDefault);
    config.overhead = Some(LinuxContainerResources { memory_limit: 7, ..Default::default() });
    let sent = request::sandbox_config(&config);
    assert_eq!((sent.port_mappings[0].protocol, sent.port_mappings[0].host_port), (1, 65535));
    assert_eq!(sent.dns_config, None);
    let linux = sent.linux.unwrap();
    assert_eq!((linux.cgroup_parent.as_str(), linux.overhead.unwrap().memory_limit_in_bytes), ("/kubepods", 7));
    let security = linux.security_context.unwrap();
    let namespaces = security.namespace_options.unwrap();
    assert_eq!((namespaces.network, namespaces.pid, namespaces.ipc), (2, 1, 0));
    assert_eq!((security.run_as_user, security.run_as_group), (Some(v1::Int64Value { value: 0 }), None));
    assert_eq!(security.seccomp.unwrap().profile_type, 0);
}

#[test]
fn container_configs_say_everything() {
    let config = ContainerConfig {
        image: "sha256:1".into(),
        user_specified_image: "demo".into(),
        envs: vec![("B".into(), "2".into()), ("A".into(), "1".into())],
        mounts: vec![Mount {
            propagation: MountPropagation::Bidirectional,
            readonly: true,
            recursive_read_only: true,
            ..Default::default()
        }],
        resources: LinuxContainerResources { cpu_shares: 2, oom_score_adj: -997, ..Default::default() },
        security: ContainerSecurity {
            seccomp: Some(SecurityProfile::Localhost("/p.json".into())),
            apparmor: Some(SecurityProfile::Unconfined),
            drop_capabilities: vec!["ALL".into()],
            strict_supplemental_groups: true,
            ..Default::default()
        },
        ..Default::default()
    };
    let sent = request::container_config(&config);
    // Their order decides which of two equal names counts.
    assert_eq!(sent.envs.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["B", "A"]);
    assert_eq!((sent.mounts[0].propagation, sent.mounts[0].readonly), (2, true));
    assert!(sent.mounts[0].recursive_read_only);
    let image = sent.image.unwrap();
    assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:1", "demo"));
    let linux = sent.linux.unwrap();
    assert_eq!(linux.resources.unwrap().oom_score_adj, -997);
    let security = linux.security_context.unwrap();
    let seccomp = security.seccomp.unwrap();
    assert_eq!((seccomp.profile_type, seccomp.localhost_ref.as_str()), (2, "/p.json"));
    assert_eq!(security.apparmor.unwrap().profile_type, 1);
    assert_eq!(security.supplemental_groups_policy, 1);
    assert_eq!(security.capabilities.unwrap().drop_capabilities, ["ALL"]);
}

#[test]
fn filters() {
    assert_eq!(request::sandbox_filter(&SandboxFilter::default()), v1::PodSandboxFilter::default());
    assert_eq!(request::container_filter(&ContainerFilter::default()), v1::ContainerFilter::default());
    let filter = ContainerFilter {
        id: Some(ContainerId::new("c")),
        sandbox: Some(SandboxId::new("s")),
        state: Some(ContainerState::Exited),
        labels: [("a".to_owned(), "b".to_owned())].into(),
    };
    let sent = request::container_filter(&filter);
    assert_eq!((sent.id.as_str(), sent.pod_sandbox_id.as_str(), sent.state.unwrap().state), ("c", "s", 2));
    let filter = SandboxFilter { state: Some(SandboxState::Ready), ..Default::default() };
    assert_eq!(request::sandbox_filter(&filter).state.unwrap().state, 0);
}

#[test]
fn what_handlers_can_do_arrives() {
    let handler = |name: &str, features| v1::RuntimeHandler { name: name.into(), features };
    let features = v1::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
    let told = v1::StatusResponse {
        status: Some(v1::RuntimeStatus::default()),
        runtime_handlers: vec![handler("", Some(features)), handler("old", None)],
        features: Some(v1::RuntimeFeatures { supplemental_groups_policy: true }),
        ..Default::default()
    };
    let got = response::status(told).unwrap();
    let can: Vec<_> = got.handlers.iter().map(|h| (h.name.as_str(), h.recursive_read_only_mounts)).collect();
    assert_eq!(can, [("", true), ("old", false)]);
    assert!(got.supplemental_groups_policy);
    let silent = v1::StatusResponse { status: Some(v1::RuntimeStatus::default()), ..Default::default() };
    assert!(!response::status(silent).unwrap().supplemental_groups_policy);
}

#[test]
fn sandboxes_arrive() {
    let got = response::sandbox_summary(sandbox()).unwrap();
    assert_eq!((got.id.as_str(), got.state, got.metadata.attempt), ("s1", SandboxState::NotReady, 2));
    assert_eq!(got.created_at.unwrap().as_nanosecond(), 1_500_000_000);
    let s = sandbox();
    let network = v1::PodSandboxNetworkStatus {
        ip: "10.0.0.1".into(),
        additional_ips: vec![v1::PodIp { ip: String::new() }, v1::PodIp { ip: "fd::1".into() }],
    };
    let answer = v1::PodSandboxStatusResponse {
        status: Some(v1::PodSandboxStatus {
            id: s.id,
            metadata: s.metadata,
            state: 0,
            network: Some(network),
            ..Default::default()
        }),
        info: verbose(r#"{"pid": 12, "runtimeSpec": {"deep": [1]}}"#),
        ..Default::default()
    };
    let got = response::sandbox_status(answer).unwrap();
    assert_eq!((got.ips, got.pid, got.summary.created_at), (vec!["10.0.0.1".into(), "fd::1".into()], Some(12), None));
}

#[test]
fn containers_arrive() {
    let answer = v1::ContainerStatusResponse { status: Some(status()), info: verbose(r#"{"pid":7}"#) };
    let got = response::container_status(answer).unwrap();
    assert_eq!((got.pid, got.state), (Some(7), ContainerState::Running));
    assert_eq!(got.started_at.unwrap().as_nanosecond(), 5);
    // Go's zero time, as nanoseconds, is far before the epoch.
    assert_eq!((got.finished_at, got.created_at), (None, None));
    let exited = v1::ContainerStatus { state: 2, ..status() };
    let answer = v1::ContainerStatusResponse { status: Some(exited), info: verbose(r#"{"pid":7}"#) };
    assert_eq!(response::container_status(answer).unwrap().pid, None);
}

#[test]
fn odd_verbose_information_is_no_error() {
    for info in ["", "{", "[]", "null", r#"{"pid":-1}"#, r#"{"pid":"x"}"#, r#"{"pid":0}"#, "{}"] {
        let answer = v1::ContainerStatusResponse { status: Some(status()), info: verbose(info) };
        assert_eq!(response::container_status(answer).ok().and_then(|s| s.pid), None, "{info}");
    }
}

#[test]
fn events_arrive() {
    let kinds = [
        ContainerEventKind::Created,
        ContainerEventKind::Started,
        ContainerEventKind::Stopped,
        ContainerEventKind::Deleted,
    ];
    for (number, kind) in (0..).zip(kinds) {
        let event =
            v1::ContainerEventResponse { container_id: "c".into(), container_event_type: number, ..Default::default() };
        let got = response::event(event).unwrap();
        assert_eq!((got.kind, got.sandbox), (kind, None));
    }
}

#[test]
fn garbage_is_named() {
    fn said<T: std::fmt::Debug>(result: Result<T, super::Malformed>) -> String {
        result.unwrap_err().to_string()
    }
    let no_status = v1::ContainerStatusResponse::default();
    let table = [
        (said(response::sandbox_id(String::new())), "pod_sandbox_id"),
        (said(response::container_id(String::new())), "container_id"),
        (said(response::image_ref(String::new())), "image_ref"),
        (said(response::url("ftp://x".into())), "ftp://x"),
        (said(response::version(v1::VersionResponse::default())), "runtime_name"),
        (said(response::status(v1::StatusResponse::default())), "status"),
        (
            said(response::cgroup_driver(v1::RuntimeConfigResponse {
                linux: Some(v1::LinuxRuntimeConfiguration { cgroup_driver: 7 }),
            })),
            "cgroup driver 7",
        ),
        (said(response::container_status(no_status)), "status"),
        (said(response::sandbox_summary(v1::PodSandbox { state: 9, ..sandbox() })), "9"),
        (said(response::sandbox_summary(v1::PodSandbox { metadata: None, ..sandbox() })), "metadata"),
        (said(response::container_summary(v1::Container { id: "c".into(), ..Default::default() })), "pod_sandbox_id"),
        (said(response::image(v1::Image::default())), "image.id"),
        (said(response::filesystem(v1::FilesystemUsage::default())), "fs_id"),
        (said(response::container_stats(v1::ContainerStats::default())), "attributes"),
        (said(response::event(v1::ContainerEventResponse { container_event_type: 77, ..Default::default() })), "77"),
        (said(response::event(v1::ContainerEventResponse::default())), "container_id"),
    ];
    for (said, part) in table {
        assert!(said.contains(part), "{said:?} does not name {part}");
    }
}

proptest! {
    /// Whatever bytes arrive, they decode to something or to an error.
    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = v1::ContainerStatusResponse::decode(&*bytes).map(response::container_status);
        let _ = v1::PodSandboxStatusResponse::decode(&*bytes).map(response::sandbox_status);
        let _ = v1::ContainerEventResponse::decode(&*bytes).map(response::event);
        let _ = v1::Container::decode(&*bytes).map(response::container_summary);
        let _ = v1::ContainerStats::decode(&*bytes).map(response::container_stats);
    }
}
