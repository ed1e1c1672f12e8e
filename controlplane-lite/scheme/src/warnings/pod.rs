//! What upstream warns of in a pod and in a pod template (`pkg/api/pod/warnings.go`). Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use quantity::Quantity;
use serde_json::Value;

use super::node::{deprecated_label, deprecated_terms};
use crate::access::{at, entries_at, int_at, list_at, str_at};
use crate::field::Path;

/// Annotations that do nothing any more.
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
const USE_SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
const USE_APPARMOR: &str = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;

/// Volumes that are deprecated, or whose plugins are gone.
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Resources that are counted in whole bytes.
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Warnings about a pod, or about the template at `path`.
pub(crate) fn warnings(object: &Value, path: &Path<'_>, template: bool) -> Vec<String> {
    let mut out = Vec::new();
    let (spec, at_spec) = (at(object, &["spec"]), path.child("spec"));
    placement(spec, &at_spec, &mut out);
    annotations(object, path, template, &mut out);
    volumes(spec, &at_spec, &mut out);
    token_paths(spec, &at_spec, &mut out);
    repeated(spec, &at_spec, &mut out);
    fractions(at(spec, &["overhead"]), &at_spec.child("overhead"), &mut out);
    containers(spec, &at_spec, |container, path| {
        let resources = path.child("resources");
        for list in ["limits", "requests"] {
            fractions(at(container, &["resources", list]), &resources.child(list), &mut out);
        }
        hidden_variables(container, path, &mut out);
    });
    ports(spec, &at_spec, &mut out);
    if int_at(spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        let path = at_spec.child("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    pod_affinity(spec, &at_spec, &mut out);
    out
}

/// Calls for every container, in the order in which upstream visits them.
fn containers(spec: &Value, path: &Path<'_>, mut visit: impl FnMut(&Value, &Path<'_>)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(list);
        for (index, container) in list_at(spec, &[list]).iter().enumerate() {
            visit(container, &path.index(index));
        }
    }
}

fn placement(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    for (label, _) in entries_at(spec, &["nodeSelector"]) {
        if let Some(message) = deprecated_label(label) {
            out.push(format!("{}: {message}", path.child("nodeSelector").key(label)));
        }
    }
    let affinity = path.child("affinity.nodeAffinity");
    let node = at(spec, &["affinity", "nodeAffinity"]);
    let required = affinity.child("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    let terms = list_at(node, &["requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"]);
    for (index, term) in terms.iter().enumerate() {
        deprecated_terms(term, &required.index(index), out);
    }
    let preferred = affinity.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in list_at(node, &["preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate() {
        deprecated_terms(at(term, &["preference"]), &preferred.index(index).child("preference"), out);
    }
    let spread = path.child("topologySpreadConstraints");
    for (index, constraint) in list_at(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let (path, key) = (spread.index(index), str_at(constraint, &["topologyKey"]));
        if let Some(message) = deprecated_label(key) {
            out.push(format!("{}: {key} is {message}", path.child("topologyKey")));
        }
        if at(constraint, &["labelSelector"]).is_null() {
            out.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    }
}

fn pod_affinity(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let affinity = path.child("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = affinity.child(kind);
        let required = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        let terms = list_at(spec, &["affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution"]);
        for (index, term) in terms.iter().enumerate() {
            if at(term, &["labelSelector"]).is_null() {
                out.push(format!("{}: {NULL_SELECTOR}", required.index(index).child("labelSelector")));
            }
        }
        let preferred = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        let terms = list_at(spec, &["affinity", kind, "preferredDuringSchedulingIgnoredDuringExecution"]);
        for (index, term) in terms.iter().enumerate() {
            if at(term, &["podAffinityTerm", "labelSelector"]).is_null() {
                let path = preferred.index(index);
                out.push(format!("{}: {NULL_SELECTOR}", path.child("podAffinityTerm.labelSelector")));
            }
        }
    }
}

fn annotations(object: &Value, path: &Path<'_>, template: bool, out: &mut Vec<String>) {
    let path = path.child("metadata.annotations");
    let has = |key: &str| !at(object, &["metadata", "annotations", key]).is_null();
    for (key, message) in ANNOTATIONS {
        if has(key) {
            out.push(format!("{}: {message}", path.key(key)));
        }
    }
    let lacks = |of: &Value, field: &str| at(of, &["securityContext", field]).is_null();
    let spec = at(object, &["spec"]);
    if has(SECCOMP_POD) && lacks(spec, "seccompProfile") {
        out.push(format!("{}: {USE_SECCOMP}", path.key(SECCOMP_POD)));
    }
    containers(spec, &Path::ROOT, |container, _| {
        let name = str_at(container, &["name"]);
        let seccomp = format!("{SECCOMP_CONTAINER}{name}");
        if has(&seccomp) && lacks(container, "seccompProfile") {
            out.push(format!("{}: {USE_SECCOMP}", path.key(&seccomp)));
        }
        // In a pod, the annotation becomes the field.
        let apparmor = format!("{APPARMOR_CONTAINER}{name}");
        let no_field = lacks(spec, "appArmorProfile") && lacks(container, "appArmorProfile");
        if template && no_field && has(&apparmor) {
            out.push(format!("{}: {USE_APPARMOR}", path.key(&apparmor)));
        }
    });
}

fn volumes(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let path = path.child("volumes");
    for (index, volume) in list_at(spec, &["volumes"]).iter().enumerate() {
        for (field, message) in VOLUMES {
            if !at(volume, &[field]).is_null() {
                out.push(format!("{}: {message}", path.index(index).child(field)));
            }
        }
    }
}

/// Files of a projected volume that take the place of a token.
fn token_paths(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let volumes = list_at(spec, &["volumes"]);
    let sources = |volume| list_at(volume, &["projected", "sources"]).iter();
    let tokens: HashSet<&str> = volumes
        .iter()
        .flat_map(sources)
        .filter(|source| !at(source, &["serviceAccountToken"]).is_null())
        .map(|source| str_at(source, &["serviceAccountToken", "path"]))
        .collect();
    let path = path.child("volumes");
    for (index, source) in volumes.iter().enumerate().flat_map(|(n, v)| sources(v).map(move |s| (n, s))) {
        let volume = path.index(index);
        let path = volume.child("projected.sources");
        let mut say = |path: &Path<'_>, file: &str| {
            if tokens.contains(file) {
                out.push(format!("{path}: has duplicated path with ServiceAccountToken {file:?}"));
            }
        };
        // The second name is how upstream's path calls the source.
        for (field, name) in [("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")] {
            for (item, file) in list_at(source, &[field, "items"]).iter().enumerate() {
                say(&path.child(name).index(item), str_at(file, &["path"]));
            }
        }
        if !at(source, &["clusterTrustBundle"]).is_null() {
            say(&path.child("ClusterTrustBundle"), str_at(source, &["clusterTrustBundle", "path"]));
        }
    }
}

/// Entries of lists that hide earlier ones, or name nothing.
fn repeated(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let mut twice = |list: &str, field: &str, what: &str| {
        let mut seen = HashSet::new();
        for (index, item) in list_at(spec, &[list]).iter().enumerate() {
            let value = str_at(item, &[field]);
            if !seen.insert(value) {
                out.push(format!("{}: duplicate {what} {value:?}", path.child(list).index(index).child(field)));
            }
        }
    };
    twice("hostAliases", "ip", "ip");
    twice("imagePullSecrets", "name", "name");
    for (index, item) in list_at(spec, &["imagePullSecrets"]).iter().enumerate() {
        if str_at(item, &["name"]).is_empty() {
            let path = path.child("imagePullSecrets");
            out.push(format!("{}: invalid empty name \"\"", path.index(index).child("name")));
        }
    }
}

/// Amounts of bytes that are none.
fn fractions(amounts: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    for resource in BYTES {
        let Some(amount) = amounts.get(resource).and_then(|v| v.as_str()?.parse::<Quantity>().ok()) else { continue };
        if amount.milli_value() % 1000 != 0 {
            let path = path.key(resource);
            out.push(format!("{path}: fractional byte value \"{amount}\" is invalid, must be an integer"));
        }
    }
}

/// Variables that are defined anew without use of what they were.
fn hidden_variables(container: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let path = path.child("env");
    let mut seen = HashSet::new();
    for (index, variable) in list_at(container, &["env"]).iter().enumerate() {
        let (name, value) = (str_at(variable, &["name"]), str_at(variable, &["value"]));
        if seen.insert(name) {
            continue;
        }
        let before = format!("$({name})");
        if !at(variable, &["valueFrom"]).is_null() || value == before || !value.contains(&before) {
            let path = path.index(index);
            out.push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

/// A port as far as others may collide with it.
struct Port<'a> {
    field: String,
    host_ip: &'a str,
    host_port: i64,
}

/// Ports of one number and protocol.
#[derive(Default)]
struct Ports<'a> {
    /// By address and port of the host; of equal ones the first.
    all: BTreeMap<(&'a str, i64), Port<'a>>,
    /// The first of the addresses without a port of the host.
    portless: Option<&'a str>,
    /// The first of the addresses that are none of "all", by port of the host.
    addressed: HashMap<i64, &'a str>,
}

impl<'a> Ports<'a> {
    /// The first that collides with a port. One that equals an earlier one says nothing new, however many there are.
    fn colliding(&self, port: &Port<'a>) -> Option<&Port<'a>> {
        let (ip, number) = (port.host_ip, port.host_port);
        if let Some(same) = self.all.get(&(ip, number)) {
            return Some(same);
        }
        if number == 0 {
            return self.all.values().next();
        }
        let portless = self.portless.map(|ip| (ip, 0));
        let ambiguous = if ip.is_empty() { self.addressed.get(&number).copied() } else { Some("") };
        let ambiguous = ambiguous.map(|ip| (ip, number)).filter(|key| self.all.contains_key(key));
        portless.into_iter().chain(ambiguous).min().and_then(|key| self.all.get(&key))
    }

    fn add(&mut self, port: Port<'a>) {
        let (ip, number) = (port.host_ip, port.host_port);
        if number == 0 {
            self.portless = Some(self.portless.map_or(ip, |first| first.min(ip)));
        } else if !ip.is_empty() {
            let first = self.addressed.entry(number).or_insert(ip);
            *first = ip.min(first);
        }
        self.all.entry((ip, number)).or_insert(port);
    }
}

fn ports(spec: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    let mut known: HashMap<(i64, &str), Ports<'_>> = HashMap::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(list);
        for (index, container) in list_at(spec, &[list]).iter().enumerate() {
            let container_path = path.index(index);
            let path = container_path.child("ports");
            for (index, port) in list_at(container, &["ports"]).iter().enumerate() {
                let field = path.index(index).to_string();
                let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
                let number = int_at(port, &["containerPort"]).unwrap_or(0);
                let host_port = int_at(port, &["hostPort"]).unwrap_or(0);
                let this = Port { field, host_ip: str_at(port, &["hostIP"]), host_port };
                if !this.host_ip.is_empty() && host_port == 0 {
                    // As Go prints a ContainerPort.
                    let (name, ip) = (str_at(port, &["name"]), this.host_ip);
                    out.push(format!(
                        "{}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} \
                         Protocol:{protocol} HostIP:{ip}}}",
                        this.field
                    ));
                }
                let others = known.entry((number, protocol)).or_default();
                out.extend(others.colliding(&this).and_then(|other| collision(&this, other)));
                others.add(this);
            }
        }
    }
}

fn collision(port: &Port<'_>, other: &Port<'_>) -> Option<String> {
    let how = if port.host_ip == other.host_ip && port.host_port == other.host_port {
        "duplicate"
    } else if port.host_port == 0 || other.host_port == 0 {
        "overlapping"
    } else if port.host_port == other.host_port && port.host_ip.is_empty() != other.host_ip.is_empty() {
        "dangerously ambiguous"
    } else {
        return None;
    };
    Some(format!("{}: {how} port definition with {}", port.field, other.field))
}
