//! One container of a pod → what the runtime is asked to create.

use std::collections::BTreeMap;

use cri::ContainerId;
use cri::types::{ContainerConfig, ContainerMetadata, Mount};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::expansion::expand;
use super::resources::{ResourceContext, container_resources};
use super::security::{ImageUser, SeccompSettings, SecurityError, container_security};
use super::{labels, spec};
use crate::ids::FileName;

/// What a container needs beside its pod; all of it resolved.
#[derive(Clone, Debug)]
pub struct ContainerContext<'a> {
    /// The local id of the image to run.
    pub image_ref: String,
    pub image_user: ImageUser,
    pub restart_count: u32,
    pub env: &'a BTreeMap<String, String>,
    /// Volumes, /etc/hosts and the termination log.
    pub mounts: Vec<Mount>,
    pub resources: ResourceContext,
    pub seccomp: SeccompSettings,
    /// The container whose processes an ephemeral container looks at.
    pub target: Option<ContainerId>,
}

/// Path of a container's log below the pod's log directory.
pub fn log_path(name: FileName<'_>, restart_count: u32) -> String {
    format!("{}/{restart_count}.log", name.as_str())
}

/// The container to create.
pub fn container_config(
    pod: &Pod,
    container: &Container,
    ctx: ContainerContext<'_>,
) -> Result<ContainerConfig, SecurityError> {
    let env = ctx.env;
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| expand(word, |name| env.get(name).cloned())).collect()
    };
    // The runtime opens the log as root, wherever this leads.
    let log_path = log_path(FileName::new(&container.name)?, ctx.restart_count);
    let mut security = container_security(pod, container, &ctx.image_user, &ctx.seccomp)?;
    security.pid_target = ctx.target;
    Ok(ContainerConfig {
        metadata: ContainerMetadata { name: container.name.clone(), attempt: ctx.restart_count },
        image: ctx.image_ref,
        user_specified_image: container.image.clone().unwrap_or_default(),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        mounts: ctx.mounts,
        devices: Vec::new(),
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, ctx.restart_count),
        log_path,
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: container_resources(pod, container, &ctx.resources),
        security,
    })
}

/// Whether the container brings its own mount at `path`.
pub fn mounts_at(container: &Container, path: &str) -> bool {
    let clean = |p: &str| p.trim_end_matches('/').to_owned();
    container.volume_mounts.iter().flatten().any(|m| clean(&m.mount_path) == clean(path))
}

/// Where the container leaves its last words.
pub fn termination_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log")
}

/// Finds a container of any kind by name, as a container.
pub fn find(pod: &Pod, name: &str) -> Option<(spec::ContainerKind, Container)> {
    use spec::ContainerKind::{Ephemeral, Init, Regular};
    let regular = spec::containers(pod).iter().map(|c| (Regular, c));
    let init = spec::init_containers(pod).iter().map(|c| (Init, c));
    if let Some((kind, c)) = regular.chain(init).find(|(_, c)| c.name == name) {
        return Some((kind, c.clone()));
    }
    spec::ephemeral_containers(pod).iter().find(|e| e.name == name).map(|e| (Ephemeral, spec::as_container(e)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_container() {
        let pod: Pod = serde_norway::from_str(
            "metadata: {name: web, namespace: ns, uid: u1}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: a
    image: copepod.local/demo:latest
    command: [demo, '$(WHO)']
    args: ['--x=$(NONE)', '$$(WHO)']
    workingDir: /srv
    tty: true
    ports: [{containerPort: 80}]
    lifecycle: {preStop: {sleep: {seconds: 1}}}",
        )
        .unwrap();
        let env = BTreeMap::from([("WHO".to_owned(), "me".to_owned())]);
        let ctx = || ContainerContext {
            image_ref: "sha256:1".into(),
            image_user: ImageUser::default(),
            restart_count: 3,
            env: &env,
            mounts: vec![],
            resources: ResourceContext {
                memory_capacity: 1 << 30,
                cfs_quota: true,
                cfs_period: 100_000,
                memory: crate::convert::resources::MemoryControl::default(),
                hugepages: Default::default(),
            },
            seccomp: SeccompSettings { root: "/s".into(), runtime_default: false },
            target: None,
        };
        let c = container_config(&pod, &spec::containers(&pod)[0], ctx()).unwrap();
        assert_eq!(c.metadata, ContainerMetadata { name: "a".into(), attempt: 3 });
        assert_eq!((c.image.as_str(), c.user_specified_image.as_str()), ("sha256:1", "copepod.local/demo:latest"));
        assert_eq!(c.command, ["demo", "me"]);
        assert_eq!(c.args, ["--x=$(NONE)", "$(WHO)"]);
        assert_eq!((c.log_path.as_str(), c.working_dir.as_str(), c.tty), ("a/3.log", "/srv", true));
        assert_eq!(c.envs, [("WHO".to_owned(), "me".to_owned())]);
        assert_eq!(c.labels["io.kubernetes.container.name"], "a");
        let expect = [
            ("io.kubernetes.container.restartCount", "3"),
            ("io.kubernetes.container.terminationMessagePath", "/dev/termination-log"),
            ("io.kubernetes.container.terminationMessagePolicy", "File"),
            ("io.kubernetes.pod.terminationGracePeriod", "5"),
            ("io.kubernetes.container.preStopHandler", r#"{"sleep":{"seconds":1}}"#),
            ("io.kubernetes.container.ports", r#"[{"containerPort":80}]"#),
        ];
        for (key, value) in expect {
            assert_eq!(c.annotations.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert_eq!(labels::container_hash(&c.annotations), spec::container_hash(&spec::containers(&pod)[0]));
        assert_eq!(labels::restart_count(&c.annotations, 0), 3);
        for name in ["../../../tmp/x", "../x", "..", ".", "a/b", ""] {
            let elsewhere = Container { name: name.to_owned(), ..spec::containers(&pod)[0].clone() };
            assert!(container_config(&pod, &elsewhere, ctx()).is_err(), "{name:?}");
        }
    }
}
