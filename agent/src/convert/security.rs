//! Security contexts of pod and container merged into the runtime's terms.

use cri::types::{
    ContainerSecurity, Mount, NamespaceMode, NamespaceOptions, SandboxSecurity, SecurityProfile, SelinuxOption,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext, VolumeMount,
};

use super::spec;

/// Paths hidden inside containers unless `procMount: Unmasked`.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user an image asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub username: String,
}

/// Why a container may not run as its image wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunAsRoot { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageIsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    ImageUserUnknown { user: String, pod: String, container: String },
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    NoLocalhostProfile,
    #[error("localhostProfile {0:?} must be a descending relative path")]
    LocalhostPath(String),
    #[error(
        "failed to resolve recursive read-only mode: volume {0:?} requested recursive read-only mode, but it is not supported by the runtime"
    )]
    RecursiveReadOnly(String),
    #[error("container name {0}")]
    Name(#[from] crate::ids::NoFileName),
}

fn pod_context(pod: &Pod) -> Option<&PodSecurityContext> {
    spec::spec(pod).security_context.as_ref()
}

/// Namespaces all containers of the pod share.
pub fn namespaces(pod: &Pod) -> NamespaceOptions {
    let s = spec::spec(pod);
    let node_or_pod = |host: Option<bool>| if host == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match (s.host_pid, s.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOptions { network: node_or_pod(s.host_network), pid, ipc: node_or_pod(s.host_ipc) }
}

fn selinux(options: &SELinuxOptions) -> SelinuxOption {
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    SelinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        kind: text(&options.type_),
        level: text(&options.level),
    }
}

fn profile(kind: &str, localhost: Option<&String>) -> Result<SecurityProfile, SecurityError> {
    Ok(match kind {
        "RuntimeDefault" => SecurityProfile::RuntimeDefault,
        "Localhost" => SecurityProfile::Localhost(
            localhost.filter(|l| !l.is_empty()).ok_or(SecurityError::NoLocalhostProfile)?.clone(),
        ),
        _ => SecurityProfile::Unconfined,
    })
}

/// What the node's configuration says of seccomp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeccompSettings {
    /// The directory localhost profiles are relative to.
    pub root: String,
    /// `seccompDefault`: containers that name no profile get the runtime's.
    pub runtime_default: bool,
}

fn seccomp(wanted: Option<&SeccompProfile>, settings: &SeccompSettings) -> Result<SecurityProfile, SecurityError> {
    let Some(wanted) = wanted else {
        let by_default = settings.runtime_default;
        return Ok(if by_default { SecurityProfile::RuntimeDefault } else { SecurityProfile::Unconfined });
    };
    Ok(match profile(&wanted.type_, wanted.localhost_profile.as_ref())? {
        SecurityProfile::Localhost(path) if path.starts_with('/') || path.split('/').any(|part| part == "..") => {
            return Err(SecurityError::LocalhostPath(path));
        }
        SecurityProfile::Localhost(path) => SecurityProfile::Localhost(format!("{}/{path}", settings.root)),
        other => other,
    })
}

/// Whether the pod wants no groups but those it names.
pub fn strict_groups(pod: &Pod) -> bool {
    pod_context(pod).and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict")
}

/// Whether the pod wants users of its own.
pub fn user_namespace(pod: &Pod) -> bool {
    spec::spec(pod).host_users == Some(false)
}

/// Whether a mount of the container can be resolved only by what the runtime can do.
pub fn wants_recursive_read_only(container: &Container) -> bool {
    let mode = |m: &VolumeMount| m.recursive_read_only.as_deref().is_some_and(|mode| mode != "Disabled");
    container.volume_mounts.iter().flatten().any(mode)
}

/// Makes mounts read-only with all that is mounted below where the container asks
/// for it and the runtime can.
pub fn recursive_read_only(container: &Container, mounts: &mut [Mount], supported: bool) -> Result<(), SecurityError> {
    for wanted in container.volume_mounts.iter().flatten() {
        match wanted.recursive_read_only.as_deref() {
            Some("Enabled") if !supported => return Err(SecurityError::RecursiveReadOnly(wanted.name.clone())),
            Some("Enabled" | "IfPossible") => {}
            _ => continue,
        }
        let path = wanted.mount_path.trim_start_matches('/');
        for mount in mounts.iter_mut().filter(|m| m.container_path.trim_start_matches('/') == path) {
            mount.recursive_read_only = supported && mount.readonly;
        }
    }
    Ok(())
}

fn supplemental_groups(context: Option<&PodSecurityContext>) -> Vec<i64> {
    let mut groups = Vec::new();
    if let Some(c) = context {
        groups.extend(c.fs_group);
        groups.extend(c.supplemental_groups.iter().flatten());
    }
    groups
}

/// Security of the pod's sandbox.
pub fn sandbox_security(pod: &Pod) -> SandboxSecurity {
    let context = pod_context(pod);
    let privileged = spec::containers(pod)
        .iter()
        .chain(spec::init_containers(pod))
        .any(|c| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    SandboxSecurity {
        namespaces: namespaces(pod),
        run_as_user: context.and_then(|c| c.run_as_user),
        run_as_group: context.and_then(|c| c.run_as_user.and(c.run_as_group)),
        supplemental_groups: supplemental_groups(context),
        strict_supplemental_groups: strict_groups(pod),
        readonly_rootfs: false,
        privileged,
        seccomp: Some(SecurityProfile::RuntimeDefault),
        selinux: context.and_then(|c| c.se_linux_options.as_ref()).map(selinux),
    }
}

/// Security of one container: its own context over the pod's.
pub fn container_security(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    settings: &SeccompSettings,
) -> Result<ContainerSecurity, SecurityError> {
    let own = container.security_context.clone().unwrap_or_default();
    let of_pod = pod_context(pod);
    let run_as_user = own.run_as_user.or(of_pod.and_then(|c| c.run_as_user));
    let run_as_group = own.run_as_group.or(of_pod.and_then(|c| c.run_as_group));
    let non_root = own.run_as_non_root.or(of_pod.and_then(|c| c.run_as_non_root)).unwrap_or(false);
    if non_root {
        verify_non_root(pod, container, run_as_user, image)?;
    }
    let privileged = own.privileged.unwrap_or(false);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|s| (*s).to_owned()).collect() };
    let caps = own.capabilities.clone().unwrap_or_default();
    let seccomp_wanted = own.seccomp_profile.as_ref().or(of_pod.and_then(|c| c.seccomp_profile.as_ref()));
    Ok(ContainerSecurity {
        pid_target: None,
        add_capabilities: caps.add.unwrap_or_default(),
        drop_capabilities: caps.drop.unwrap_or_default(),
        privileged,
        namespaces: namespaces(pod),
        run_as_user: run_as_user.or(image.uid),
        run_as_username: if run_as_user.or(image.uid).is_none() { image.username.clone() } else { String::new() },
        run_as_group,
        supplemental_groups: supplemental_groups(of_pod),
        strict_supplemental_groups: strict_groups(pod),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privs: no_new_privs(&own),
        masked_paths: paths(MASKED),
        readonly_paths: paths(READONLY),
        seccomp: if privileged { None } else { Some(seccomp(seccomp_wanted, settings)?) },
        apparmor: apparmor(own.app_armor_profile.as_ref().or(of_pod.and_then(|c| c.app_armor_profile.as_ref())))?,
        selinux: own.se_linux_options.as_ref().or(of_pod.and_then(|c| c.se_linux_options.as_ref())).map(selinux),
    })
}

fn apparmor(wanted: Option<&AppArmorProfile>) -> Result<Option<SecurityProfile>, SecurityError> {
    wanted.map(|w| profile(&w.type_, w.localhost_profile.as_ref())).transpose()
}

fn no_new_privs(context: &SecurityContext) -> bool {
    context.allow_privilege_escalation == Some(false)
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    run_as_user: Option<i64>,
    image: &ImageUser,
) -> Result<(), SecurityError> {
    let meta = &pod.metadata;
    let pod = || {
        let text = |v: &Option<String>| v.clone().unwrap_or_default();
        format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
    };
    let container = || container.name.clone();
    match (run_as_user, image.uid) {
        (Some(0), _) => Err(SecurityError::RunAsRoot { pod: pod(), container: container() }),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(SecurityError::ImageIsRoot { pod: pod(), container: container() }),
        (None, Some(_)) => Ok(()),
        (None, None) if image.username.is_empty() => {
            Err(SecurityError::ImageIsRoot { pod: pod(), container: container() })
        }
        (None, None) => {
            let user = image.username.clone();
            Err(SecurityError::ImageUserUnknown { user, pod: pod(), container: container() })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(text: &str) -> Pod {
        serde_norway::from_str(&format!("metadata: {{name: p, namespace: n, uid: u}}\nspec:\n{text}")).unwrap()
    }

    fn security(text: &str, image: &ImageUser) -> Result<ContainerSecurity, SecurityError> {
        let p = pod(text);
        let settings = SeccompSettings { root: "/seccomp".into(), runtime_default: false };
        container_security(&p, &spec::containers(&p)[0], image, &settings)
    }

    #[test]
    fn the_container_beats_the_pod() {
        let s = security(
            "  securityContext: {runAsUser: 1, runAsGroup: 2, fsGroup: 5, supplementalGroups: [6], seccompProfile: {type: RuntimeDefault}}
  containers: [{name: a, securityContext: {runAsUser: 3, allowPrivilegeEscalation: false, capabilities: {add: [NET_ADMIN], drop: [ALL]}, readOnlyRootFilesystem: true, seccompProfile: {type: Localhost, localhostProfile: x.json}}}]",
            &ImageUser::default(),
        )
        .unwrap();
        assert_eq!((s.run_as_user, s.run_as_group), (Some(3), Some(2)));
        assert_eq!(s.supplemental_groups, [5, 6]);
        assert!(s.no_new_privs && s.readonly_rootfs && !s.masked_paths.is_empty());
        assert_eq!(s.seccomp, Some(SecurityProfile::Localhost("/seccomp/x.json".into())));
        assert_eq!(s.add_capabilities, ["NET_ADMIN"]);
    }

    #[test]
    fn non_root_is_verified() {
        let root = ImageUser { uid: Some(0), username: String::new() };
        let named = ImageUser { uid: None, username: "web".into() };
        let uid = ImageUser { uid: Some(7), username: String::new() };
        let text = "  securityContext: {runAsNonRoot: true}\n  containers: [{name: a}]";
        assert!(matches!(security(text, &root), Err(SecurityError::ImageIsRoot { .. })));
        assert!(matches!(security(text, &ImageUser::default()), Err(SecurityError::ImageIsRoot { .. })));
        assert!(matches!(security(text, &named), Err(SecurityError::ImageUserUnknown { .. })));
        assert_eq!(security(text, &uid).unwrap().run_as_user, Some(7));
        let explicit = "  containers: [{name: a, securityContext: {runAsNonRoot: true, runAsUser: 0}}]";
        assert!(matches!(security(explicit, &uid), Err(SecurityError::RunAsRoot { .. })));
        assert_eq!(security("  containers: [{name: a}]", &named).unwrap().run_as_username, "web");
    }

    #[test]
    fn namespaces_follow_the_spec() {
        let n = namespaces(&pod("  containers: []\n  hostNetwork: true\n  shareProcessNamespace: true"));
        assert_eq!((n.network, n.pid, n.ipc), (NamespaceMode::Node, NamespaceMode::Pod, NamespaceMode::Pod));
        let n = namespaces(&pod("  containers: []\n  hostPID: true\n  hostIPC: true"));
        assert_eq!((n.network, n.pid, n.ipc), (NamespaceMode::Pod, NamespaceMode::Node, NamespaceMode::Node));
    }

    #[test]
    fn the_default_profile_is_the_nodes_choice() {
        let p = pod("  containers: [{name: a}, {name: b, securityContext: {seccompProfile: {type: Unconfined}}}]");
        let of = |index: usize, runtime_default| {
            let settings = SeccompSettings { root: String::new(), runtime_default };
            let c = &spec::containers(&p)[index];
            container_security(&p, c, &ImageUser::default(), &settings).unwrap().seccomp.unwrap()
        };
        use SecurityProfile::{RuntimeDefault, Unconfined};
        assert_eq!([of(0, false), of(0, true), of(1, true)], [Unconfined, RuntimeDefault, Unconfined]);
    }

    #[test]
    fn groups_may_be_strict() {
        let strict = "  securityContext: {supplementalGroupsPolicy: Strict}\n  containers: [{name: a}]";
        assert!(security(strict, &ImageUser::default()).unwrap().strict_supplemental_groups);
        assert!(sandbox_security(&pod(strict)).strict_supplemental_groups);
        let merge = "  securityContext: {supplementalGroupsPolicy: Merge}\n  containers: [{name: a}]";
        assert!(!security(merge, &ImageUser::default()).unwrap().strict_supplemental_groups);
    }

    #[test]
    fn mounts_are_read_only_all_the_way_down_or_the_container_is_refused() {
        let p = pod(
            "  containers: [{name: a, volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}, \
             {name: w, mountPath: w, readOnly: true, recursiveReadOnly: IfPossible}, {name: x, mountPath: /x, readOnly: true}]}]",
        );
        let container = &spec::containers(&p)[0];
        let mount = |path: &str| Mount { container_path: path.into(), readonly: true, ..Mount::default() };
        let mut mounts = [mount("/v"), mount("/w"), mount("/x")];
        assert!(wants_recursive_read_only(container));
        recursive_read_only(container, &mut mounts, true).unwrap();
        assert_eq!(mounts.each_ref().map(|m| m.recursive_read_only), [true, true, false]);
        let error = recursive_read_only(container, &mut mounts, false).unwrap_err().to_string();
        let end = "volume \"v\" requested recursive read-only mode, but it is not supported by the runtime";
        assert!(error.ends_with(end), "{error}");
    }

    #[test]
    fn garbage_profiles_are_refused() {
        let text = "  containers: [{name: a, securityContext: {seccompProfile: {type: Localhost}}}]";
        assert_eq!(security(text, &ImageUser::default()), Err(SecurityError::NoLocalhostProfile));
        for path in ["../x", "/etc/x", "a/../../x", ".."] {
            let text = format!(
                "  containers: [{{name: a, securityContext: {{seccompProfile: {{type: Localhost, localhostProfile: {path}}}}}}}]"
            );
            let refused = security(&text, &ImageUser::default());
            assert_eq!(refused, Err(SecurityError::LocalhostPath(path.into())));
        }
    }
}
