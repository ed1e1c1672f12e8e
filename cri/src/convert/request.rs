//! What we send: our configurations and filters as CRI messages.

use std::collections::HashMap;

use k8s_cri::v1;

use crate::types::{
    AuthConfig, ContainerConfig, ContainerFilter, ContainerMetadata, ContainerSecurity, ContainerState, Device,
    DnsConfig, LinuxContainerResources, Mount, MountPropagation, NamespaceMode, NamespaceOptions, PortMapping,
    Protocol, SandboxConfig, SandboxFilter, SandboxMetadata, SandboxSecurity, SandboxState, SecurityProfile,
    SelinuxOption, StringMap,
};

fn map(m: &StringMap) -> HashMap<String, String> {
    m.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn int64(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}

pub(crate) fn sandbox_metadata(m: &SandboxMetadata) -> v1::PodSandboxMetadata {
    v1::PodSandboxMetadata {
        name: m.name.clone(),
        uid: m.uid.clone(),
        namespace: m.namespace.clone(),
        attempt: m.attempt,
    }
}

fn container_metadata(m: &ContainerMetadata) -> v1::ContainerMetadata {
    v1::ContainerMetadata { name: m.name.clone(), attempt: m.attempt }
}

fn dns(d: &DnsConfig) -> v1::DnsConfig {
    v1::DnsConfig { servers: d.servers.clone(), searches: d.searches.clone(), options: d.options.clone() }
}

fn port_mapping(p: &PortMapping) -> v1::PortMapping {
    let protocol = match p.protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
        Protocol::Sctp => v1::Protocol::Sctp,
    };
    v1::PortMapping {
        protocol: protocol.into(),
        container_port: p.container_port.into(),
        host_port: p.host_port.into(),
        host_ip: p.host_ip.clone(),
    }
}

fn namespace_mode(mode: NamespaceMode) -> i32 {
    match mode {
        NamespaceMode::Pod => v1::NamespaceMode::Pod,
        NamespaceMode::Container => v1::NamespaceMode::Container,
        NamespaceMode::Node => v1::NamespaceMode::Node,
    }
    .into()
}

fn namespaces(n: &NamespaceOptions) -> v1::NamespaceOption {
    v1::NamespaceOption {
        network: namespace_mode(n.network),
        pid: namespace_mode(n.pid),
        ipc: namespace_mode(n.ipc),
        ..Default::default()
    }
}

fn profile(p: &SecurityProfile) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (profile_type, localhost_ref) = match p {
        SecurityProfile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        SecurityProfile::Unconfined => (ProfileType::Unconfined, String::new()),
        SecurityProfile::Localhost(name) => (ProfileType::Localhost, name.clone()),
    };
    v1::SecurityProfile { profile_type: profile_type.into(), localhost_ref }
}

fn selinux(s: &SelinuxOption) -> v1::SeLinuxOption {
    v1::SeLinuxOption { user: s.user.clone(), role: s.role.clone(), r#type: s.kind.clone(), level: s.level.clone() }
}

fn groups_policy(strict: bool) -> i32 {
    let policy = if strict { v1::SupplementalGroupsPolicy::Strict } else { v1::SupplementalGroupsPolicy::Merge };
    policy.into()
}

fn sandbox_security(s: &SandboxSecurity) -> v1::LinuxSandboxSecurityContext {
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(&s.namespaces)),
        selinux_options: s.selinux.as_ref().map(selinux),
        run_as_user: int64(s.run_as_user),
        run_as_group: int64(s.run_as_group),
        readonly_rootfs: s.readonly_rootfs,
        supplemental_groups: s.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(s.strict_supplemental_groups),
        privileged: s.privileged,
        seccomp: s.seccomp.as_ref().map(profile),
        ..Default::default()
    }
}

fn container_security(s: &ContainerSecurity) -> v1::LinuxContainerSecurityContext {
    let mut options = namespaces(&s.namespaces);
    if let Some(target) = &s.pid_target {
        options.pid = v1::NamespaceMode::Target.into();
        options.target_id = target.to_string();
    }
    v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: s.add_capabilities.clone(),
            drop_capabilities: s.drop_capabilities.clone(),
            ..Default::default()
        }),
        privileged: s.privileged,
        namespace_options: Some(options),
        selinux_options: s.selinux.as_ref().map(selinux),
        run_as_user: int64(s.run_as_user),
        run_as_group: int64(s.run_as_group),
        run_as_username: s.run_as_username.clone(),
        readonly_rootfs: s.readonly_rootfs,
        supplemental_groups: s.supplemental_groups.clone(),
        supplemental_groups_policy: groups_policy(s.strict_supplemental_groups),
        no_new_privs: s.no_new_privs,
        masked_paths: s.masked_paths.clone(),
        readonly_paths: s.readonly_paths.clone(),
        seccomp: s.seccomp.as_ref().map(profile),
        apparmor: s.apparmor.as_ref().map(profile),
        ..Default::default()
    }
}

pub(crate) fn resources(r: &LinuxContainerResources) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: r.cpu_period,
        cpu_quota: r.cpu_quota,
        cpu_shares: r.cpu_shares,
        memory_limit_in_bytes: r.memory_limit,
        oom_score_adj: r.oom_score_adj,
        cpuset_cpus: r.cpuset_cpus.clone(),
        cpuset_mems: r.cpuset_mems.clone(),
        hugepage_limits: r
            .hugepage_limits
            .iter()
            .map(|(size, limit)| v1::HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        unified: map(&r.unified),
        memory_swap_limit_in_bytes: r.memory_swap_limit,
    }
}

/// A sandbox configuration.
pub(crate) fn sandbox_config(c: &SandboxConfig) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(sandbox_metadata(&c.metadata)),
        hostname: c.hostname.clone(),
        log_directory: c.log_directory.clone(),
        dns_config: c.dns.as_ref().map(dns),
        port_mappings: c.port_mappings.iter().map(port_mapping).collect(),
        labels: map(&c.labels),
        annotations: map(&c.annotations),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: c.cgroup_parent.clone(),
            security_context: Some(sandbox_security(&c.security)),
            sysctls: map(&c.sysctls),
            overhead: c.overhead.as_ref().map(resources),
            resources: c.resources.as_ref().map(resources),
        }),
        windows: None,
    }
}

fn mount(m: &Mount) -> v1::Mount {
    let propagation = match m.propagation {
        MountPropagation::Private => v1::MountPropagation::PropagationPrivate,
        MountPropagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        MountPropagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: m.container_path.clone(),
        host_path: m.host_path.clone(),
        readonly: m.readonly,
        recursive_read_only: m.recursive_read_only,
        selinux_relabel: m.selinux_relabel,
        propagation: propagation.into(),
        ..Default::default()
    }
}

fn device(d: &Device) -> v1::Device {
    v1::Device {
        container_path: d.container_path.clone(),
        host_path: d.host_path.clone(),
        permissions: d.permissions.clone(),
    }
}

/// An image by name, as the user wrote it beside.
pub(crate) fn image_spec(image: &str, user_specified: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), user_specified_image: user_specified.to_owned(), ..Default::default() }
}

/// A container configuration.
pub(crate) fn container_config(c: &ContainerConfig) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(container_metadata(&c.metadata)),
        image: Some(image_spec(&c.image, &c.user_specified_image)),
        command: c.command.clone(),
        args: c.args.clone(),
        working_dir: c.working_dir.clone(),
        envs: c.envs.iter().map(|(k, v)| v1::KeyValue { key: k.clone(), value: v.clone() }).collect(),
        mounts: c.mounts.iter().map(mount).collect(),
        devices: c.devices.iter().map(device).collect(),
        labels: map(&c.labels),
        annotations: map(&c.annotations),
        log_path: c.log_path.clone(),
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        tty: c.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources(&c.resources)),
            security_context: Some(container_security(&c.security)),
        }),
        windows: None,
        cdi_devices: Vec::new(),
    }
}

/// A sandbox filter.
pub(crate) fn sandbox_filter(f: &SandboxFilter) -> v1::PodSandboxFilter {
    let state = f.state.map(|state| match state {
        SandboxState::Ready => v1::PodSandboxState::SandboxReady,
        SandboxState::NotReady => v1::PodSandboxState::SandboxNotready,
    });
    v1::PodSandboxFilter {
        id: f.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: state.map(|s| v1::PodSandboxStateValue { state: s.into() }),
        label_selector: map(&f.labels),
    }
}

/// A container filter.
pub(crate) fn container_filter(f: &ContainerFilter) -> v1::ContainerFilter {
    let state = f.state.map(|state| match state {
        ContainerState::Created => v1::ContainerState::ContainerCreated,
        ContainerState::Running => v1::ContainerState::ContainerRunning,
        ContainerState::Exited => v1::ContainerState::ContainerExited,
        ContainerState::Unknown => v1::ContainerState::ContainerUnknown,
    });
    v1::ContainerFilter {
        id: f.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: state.map(|s| v1::ContainerStateValue { state: s.into() }),
        pod_sandbox_id: f.sandbox.as_ref().map(ToString::to_string).unwrap_or_default(),
        label_selector: map(&f.labels),
    }
}

/// A statistics filter; CRI cannot filter those by state.
pub(crate) fn stats_filter(f: &ContainerFilter) -> v1::ContainerStatsFilter {
    v1::ContainerStatsFilter {
        id: f.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        pod_sandbox_id: f.sandbox.as_ref().map(ToString::to_string).unwrap_or_default(),
        label_selector: map(&f.labels),
    }
}

/// Registry credentials.
pub(crate) fn auth(a: &AuthConfig) -> v1::AuthConfig {
    v1::AuthConfig { username: a.username.clone(), password: a.password.clone(), ..v1::AuthConfig::default() }
}
