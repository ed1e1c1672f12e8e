//! The Pod Security Standards: what a pod must not have at each level. Pure; upstream's checks, names and words.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::policy::Level;
use scheme::access::{at, int_at, list_at, str_at};

/// Annotations that once chose a container's AppArmor profile.
pub(super) const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a pod violates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: &'static str,
    detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.detail)
    }
}

type Check = fn(&Pod<'_>) -> Option<Violation>;

/// In order of upstream's names for them. The restricted level replaces some by stricter ones.
const BASELINE: [Check; 9] = [
    app_armor,
    host_namespaces,
    host_ports,
    host_probes,
    privileged,
    proc_mount,
    se_linux,
    sysctls,
    windows_host_process,
];
const BASELINE_ONLY: [Check; 3] = [default_capabilities, host_paths, seccomp_unconfined];
const RESTRICTED: [Check; 6] =
    [privilege_escalation, drop_capabilities, volume_types, non_root, root_user, seccomp_required];

/// All that a pod (or a template of one) violates at a level.
pub(super) fn violations(pod: &Value, level: Level) -> Vec<Violation> {
    let pod = Pod::of(pod);
    let checks: Vec<Check> = match level {
        Level::Privileged => Vec::new(),
        Level::Baseline => BASELINE.into_iter().chain(BASELINE_ONLY).collect(),
        Level::Restricted => BASELINE.into_iter().chain(RESTRICTED).collect(),
    };
    checks.iter().filter_map(|check| check(&pod)).collect()
}

struct Pod<'p> {
    object: &'p Value,
    spec: &'p Value,
    /// All containers, in upstream's order of visiting.
    containers: Vec<&'p Value>,
}

impl<'p> Pod<'p> {
    fn of(object: &'p Value) -> Self {
        let spec = &object["spec"];
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let containers = lists.iter().flat_map(|list| list_at(object, &["spec", list])).collect();
        Self { object, spec, containers }
    }

    fn names(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'p str> {
        self.containers.iter().filter(|c| bad(c)).map(|c| str_at(c, &["name"])).collect()
    }

    fn is_windows(&self) -> bool {
        str_at(self.spec, &["os", "name"]) == "windows"
    }
}

fn violation(reason: &'static str, details: &[String]) -> Option<Violation> {
    (!details.is_empty()).then(|| Violation { reason, detail: details.join("; ") })
}

fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| format!("{:?}", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn plural(what: &str, names: &[&str]) -> String {
    format!("{what}{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names))
}

/// One violation about containers, if there are any.
fn containers(reason: &'static str, names: &[&str], must: &str) -> Option<Violation> {
    (!names.is_empty()).then(|| Violation { reason, detail: format!("{} {must}", plural("container", names)) })
}

/// Both the pod and its containers may set something.
fn pod_and(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names) {
        (false, []) => None,
        (true, []) => Some("pod".to_owned()),
        (false, names) => Some(plural("container", names)),
        (true, names) => Some(format!("pod and {}", plural("container", names))),
    }
}

fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let unconfined = |of: &Value| str_at(of, &["securityContext", "appArmorProfile", "type"]) == "Unconfined";
    let setters = pod_and(unconfined(pod.spec), &pod.names(unconfined));
    let mut details: Vec<String> =
        setters.map(|who| format!("{who} must not set AppArmor profile type to \"Unconfined\"")).into_iter().collect();
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations = at(pod.object, &["metadata", "annotations"]).as_object().into_iter().flatten();
    let bad: Vec<String> = annotations
        .filter(|(key, value)| key.starts_with(APPARMOR) && !allowed(value.as_str().unwrap_or_default()))
        .map(|(key, value)| format!("{key:?}={value}"))
        .collect();
    if !bad.is_empty() {
        details.push(format!("annotation{} {}", if bad.len() == 1 { "" } else { "s" }, bad.join(", ")));
    }
    violation(if details.len() > 1 { "forbidden AppArmor profiles" } else { "forbidden AppArmor profile" }, &details)
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| Violation { reason: "host namespaces", detail: set.join(", ") })
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let ports = |c: &Value| -> Vec<i64> {
        list_at(c, &["ports"]).iter().filter_map(|p| int_at(p, &["hostPort"])).filter(|p| *p != 0).collect()
    };
    let names = pod.names(|c| !ports(c).is_empty());
    let all: BTreeSet<i64> = pod.containers.iter().flat_map(|c| ports(c)).collect();
    let numbers = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let ending = if all.len() == 1 { "" } else { "s" };
    containers("hostPort", &names, &format!("{uses} hostPort{ending} {numbers}"))
}

fn host_probes(pod: &Pod<'_>) -> Option<Violation> {
    const PLACES: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let hosts = |c: &Value| -> Vec<String> {
        let handlers = PLACES.iter().map(|path| at(c, path));
        let hosts = handlers.flat_map(|h| [str_at(h, &["httpGet", "host"]), str_at(h, &["tcpSocket", "host"])]);
        hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let names = pod.names(|c| !hosts(c).is_empty());
    let all: BTreeSet<String> = pod.containers.iter().flat_map(|c| hosts(c)).collect();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let ending = if all.len() == 1 { "" } else { "s" };
    containers("probe or lifecycle host", &names, &format!("{uses} probe or lifecycle host{ending} {}", quoted(&all)))
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.names(|c| *at(c, &["securityContext", "privileged"]) == true);
    containers("privileged", &names, "must not set securityContext.privileged=true")
}

fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let mount = |c: &Value| str_at(c, &["securityContext", "procMount"]).to_owned();
    let names = pod.names(|c| !matches!(mount(c).as_str(), "" | "Default"));
    let values: BTreeSet<String> =
        pod.containers.iter().map(|c| mount(c)).filter(|m| !matches!(m.as_str(), "" | "Default")).collect();
    containers("procMount", &names, &format!("must not set securityContext.procMount to {}", quoted(&values)))
}

fn se_linux(pod: &Pod<'_>) -> Option<Violation> {
    const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let of = |of: &Value, field: &str| str_at(of, &["securityContext", "seLinuxOptions", field]).to_owned();
    let bad =
        |o: &Value| !TYPES.contains(&of(o, "type").as_str()) || !of(o, "user").is_empty() || !of(o, "role").is_empty();
    let setters = pod_and(bad(pod.spec), &pod.names(bad))?;
    let all = || std::iter::once(pod.spec).chain(pod.containers.iter().copied());
    let types: BTreeSet<String> = all().map(|o| of(o, "type")).filter(|t| !TYPES.contains(&t.as_str())).collect();
    let mut details = Vec::new();
    if !types.is_empty() {
        details.push(format!("type{} {}", if types.len() == 1 { "" } else { "s" }, quoted(&types)));
    }
    for field in ["user", "role"] {
        if all().any(|o| !of(o, field).is_empty()) {
            details.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{setters} set forbidden securityContext.seLinuxOptions: {}", details.join("; "));
    Some(Violation { reason: "seLinuxOptions", detail })
}

fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    const SAFE: [&str; 12] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    ];
    let all = list_at(pod.spec, &["securityContext", "sysctls"]).iter().map(|s| str_at(s, &["name"]));
    let bad: Vec<&str> = all.filter(|name| !SAFE.contains(name)).collect();
    (!bad.is_empty()).then(|| Violation { reason: "forbidden sysctls", detail: bad.join(", ") })
}

fn windows_host_process(pod: &Pod<'_>) -> Option<Violation> {
    let set = |of: &Value| *at(of, &["securityContext", "windowsOptions", "hostProcess"]) == true;
    let who = pod_and(set(pod.spec), &pod.names(set))?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation { reason: "hostProcess", detail })
}

fn added<'c>(container: &'c Value, allowed: &[&str]) -> Vec<&'c str> {
    let add = list_at(container, &["securityContext", "capabilities", "add"]).iter().filter_map(Value::as_str);
    add.filter(|capability| !allowed.contains(capability)).collect()
}

fn capabilities(pod: &Pod<'_>, allowed: &[&str]) -> Option<String> {
    let names = pod.names(|c| !added(c, allowed).is_empty());
    let all: BTreeSet<&str> = pod.containers.iter().flat_map(|c| added(c, allowed)).collect();
    (!names.is_empty()).then(|| {
        format!("{} must not include {} in securityContext.capabilities.add", plural("container", &names), quoted(all))
    })
}

fn default_capabilities(pod: &Pod<'_>) -> Option<Violation> {
    const DEFAULT: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    capabilities(pod, &DEFAULT).map(|detail| Violation { reason: "non-default capabilities", detail })
}

fn drop_capabilities(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let drops_all = |c: &Value| list_at(c, &["securityContext", "capabilities", "drop"]).iter().any(|d| d == "ALL");
    let keeping = pod.names(|c| !drops_all(c));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let who = plural("container", &keeping);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    details.extend(capabilities(pod, &["NET_BIND_SERVICE"]));
    violation("unrestricted capabilities", &details)
}

fn host_paths(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = list_at(pod.spec, &["volumes"]).iter().filter(|v| !v["hostPath"].is_null());
    let names: Vec<&str> = volumes.map(|v| str_at(v, &["name"])).collect();
    (!names.is_empty()).then(|| Violation { reason: "hostPath volumes", detail: plural("volume", &names) })
}

fn volume_types(pod: &Pod<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "downwardAPI",
        "emptyDir",
        "projected",
        "secret",
        "csi",
        "persistentVolumeClaim",
        "ephemeral",
        "image",
    ];
    let source = |volume: &Value| {
        let fields = volume.as_object().into_iter().flatten();
        let set = fields.filter(|(key, value)| *key != "name" && !value.is_null()).map(|(key, _)| key.clone()).next();
        // A volume without a source is an empty directory.
        set.unwrap_or_else(|| "emptyDir".to_owned())
    };
    let bad: Vec<(&str, String)> = list_at(pod.spec, &["volumes"])
        .iter()
        .map(|v| (str_at(v, &["name"]), source(v)))
        .filter(|(_, source)| !ALLOWED.contains(&source.as_str()))
        .collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let types: BTreeSet<&str> = bad.iter().map(|(_, source)| source.as_str()).collect();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let ending = if types.len() == 1 { "" } else { "s" };
    (!bad.is_empty()).then(|| Violation {
        reason: "restricted volume types",
        detail: format!("{} {uses} restricted volume type{ending} {}", plural("volume", &names), quoted(types)),
    })
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let names = pod.names(|c| *at(c, &["securityContext", "allowPrivilegeEscalation"]) != false);
    let must = "must set securityContext.allowPrivilegeEscalation=false";
    containers("allowPrivilegeEscalation != false", &names, must)
}

fn non_root(pod: &Pod<'_>) -> Option<Violation> {
    let of = |of: &Value| at(of, &["securityContext", "runAsNonRoot"]).as_bool();
    let pod_says = of(pod.spec);
    let explicit = pod.names(|c| of(c) == Some(false));
    let implicit = pod.names(|c| of(c).is_none() && pod_says != Some(true));
    let mut details = Vec::new();
    if pod_says == Some(false) {
        details.push("pod must not set securityContext.runAsNonRoot=false".to_owned());
    }
    if !explicit.is_empty() {
        details.push(format!("{} must not set securityContext.runAsNonRoot=false", plural("container", &explicit)));
    }
    if details.is_empty() && !implicit.is_empty() {
        details.push(format!("pod or {} must set securityContext.runAsNonRoot=true", plural("container", &implicit)));
    }
    violation("runAsNonRoot != true", &details)
}

fn root_user(pod: &Pod<'_>) -> Option<Violation> {
    let root = |of: &Value| int_at(of, &["securityContext", "runAsUser"]) == Some(0);
    let who = pod_and(root(pod.spec), &pod.names(root))?;
    Some(Violation { reason: "runAsUser=0", detail: format!("{who} must not set runAsUser=0") })
}

fn seccomp(of: &Value) -> &str {
    str_at(of, &["securityContext", "seccompProfile", "type"])
}

fn seccomp_unconfined(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |of: &Value| !matches!(seccomp(of), "" | "RuntimeDefault" | "Localhost");
    let who = pod_and(bad(pod.spec), &pod.names(bad))?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to \"Unconfined\"");
    Some(Violation { reason: "seccompProfile", detail })
}

fn seccomp_required(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let good = |of: &Value| matches!(seccomp(of), "RuntimeDefault" | "Localhost");
    let bad = |of: &Value| !seccomp(of).is_empty() && !good(of);
    let mut details = Vec::new();
    if let Some(who) = pod_and(bad(pod.spec), &pod.names(bad)) {
        details.push(format!("{who} must not set securityContext.seccompProfile.type to \"Unconfined\""));
    }
    let unset = pod.names(|c| seccomp(c).is_empty() && seccomp(pod.spec).is_empty());
    if !unset.is_empty() {
        let who = plural("container", &unset);
        details.push(format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ));
    }
    violation("seccompProfile", &details)
}
