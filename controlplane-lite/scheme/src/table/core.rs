//! core/v1.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::since;
use super::format::{access_modes, containers, deleting, images, int, labels, none_if_empty, quantity};
use super::{Column, Printer, age, name};
use crate::access::{at, entries_at, int_at, list_at, str_at};

mod pod;

pub use pod::PODS;

/// Kinds that upstream prints with their creation time only.
pub static CREATED_AT: Printer = super::DEFAULT_PRINTER;

/// ConfigMaps.
pub static CONFIG_MAPS: Printer = Printer::new(&[Column::NAME, Column::int("Data"), Column::AGE], |object, now| {
    let count = entries_at(object, &["data"]).count() + entries_at(object, &["binaryData"]).count();
    vec![name(object), count.into(), age(object, now)]
});

/// Endpoints.
pub static ENDPOINTS: Printer = Printer::new(&[Column::NAME, Column::text("Endpoints"), Column::AGE], |object, now| {
    vec![name(object), endpoints(object).into(), age(object, now)]
});

/// Addresses with ports that are shown of Endpoints.
const SHOWN: usize = 3;

/// Each address with each port: the first of them, and how many there are. All of them could be millions.
fn endpoints(object: &Value) -> String {
    let (mut shown, mut count) = (Vec::new(), 0);
    for subset in list_at(object, &["subsets"]) {
        let addresses = list_at(subset, &["addresses"]);
        let ports = list_at(subset, &["ports"]);
        count += addresses.len() * ports.len().max(1);
        let bare = ports.is_empty().then_some(None);
        let each = bare.into_iter().chain(ports.iter().map(|port| Some(int(port, &["port"]))));
        let all = each.flat_map(|port| {
            addresses.iter().map(move |a| match (str_at(a, &["ip"]), port) {
                (ip, None) => ip.to_owned(),
                (ip, Some(port)) if ip.contains(':') => format!("[{ip}]:{port}"),
                (ip, Some(port)) => format!("{ip}:{port}"),
            })
        });
        shown.extend(all.take(SHOWN - shown.len()));
    }
    match count - shown.len() {
        0 if shown.is_empty() => "<none>".to_owned(),
        0 => shown.join(","),
        more => format!("{} + {more} more...", shown.join(",")),
    }
}

/// Events.
pub static EVENTS: Printer = Printer::new(
    &[
        Column::text("Last Seen"),
        Column::text("Type"),
        Column::text("Reason"),
        Column::text("Object"),
        Column::wide("Subobject"),
        Column::wide("Source"),
        Column::text("Message"),
        Column::wide("First Seen"),
        Column::wide("Count"),
        Column { format: "name", ..Column::wide("Name") },
    ],
    event,
);

pub(super) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let text = |path: &[&str]| str_at(object, path).to_owned();
    let first = match str_at(object, &["firstTimestamp"]) {
        "" => since(str_at(object, &["eventTime"]), now),
        first => since(first, now),
    };
    let mut last = match str_at(object, &["lastTimestamp"]) {
        "" => first.clone(),
        last => since(last, now),
    };
    let mut count = int_at(object, &["count"]).unwrap_or(0).max(1);
    if at(object, &["series"]).is_object() {
        last = since(str_at(object, &["series", "lastObservedTime"]), now);
        count = int(object, &["series", "count"]);
    }
    let kind = text(&["involvedObject", "kind"]).to_lowercase();
    let target = match str_at(object, &["involvedObject", "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let mut source = text(&["source", "component"]);
    if source.is_empty() {
        source = text(&["reportingComponent"]);
    }
    let host = match str_at(object, &["source", "host"]) {
        "" => str_at(object, &["reportingInstance"]),
        host => host,
    };
    if !host.is_empty() {
        source = format!("{source}, {host}");
    }
    vec![
        last.into(),
        text(&["type"]).into(),
        text(&["reason"]).into(),
        target.into(),
        text(&["involvedObject", "fieldPath"]).into(),
        source.into(),
        text(&["message"]).trim().to_owned().into(),
        first.into(),
        count.to_string().into(),
        name(object),
    ]
}

/// Namespaces.
pub static NAMESPACES: Printer = Printer::new(&[Column::NAME, Column::text("Status"), Column::AGE], |object, now| {
    vec![name(object), str_at(object, &["status", "phase"]).into(), age(object, now)]
});

/// Nodes.
pub static NODES: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Status"),
        Column::text("Roles"),
        Column::AGE,
        Column::text("Version"),
        Column::wide("Internal-IP"),
        Column::wide("External-IP"),
        Column::wide("OS-Image"),
        Column::wide("Kernel-Version"),
        Column::wide("Container-Runtime"),
    ],
    node,
);

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list_at(object, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == "Ready");
    let mut status = match ready.map(|c| str_at(c, &["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if at(object, &["spec", "unschedulable"]) == &Value::Bool(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = entries_at(object, &["metadata", "labels"])
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" => value.as_str().filter(|v| !v.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |ty: &str| {
        let found = list_at(object, &["status", "addresses"]).iter().find(|a| str_at(a, &["type"]) == ty);
        none_if_empty(found.map_or("", |a| str_at(a, &["address"])))
    };
    let about = |key: &str| match str_at(object, &["status", "nodeInfo", key]) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    vec![
        name(object),
        status.into(),
        none_if_empty(&roles.join(",")).into(),
        age(object, now),
        str_at(object, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        about("osImage").into(),
        about("kernelVersion").into(),
        about("containerRuntimeVersion").into(),
    ]
}

/// PersistentVolumeClaims.
pub static CLAIMS: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Status"),
        Column::text("Volume"),
        Column::text("Capacity"),
        Column::text("Access Modes"),
        Column::text("StorageClass"),
        Column::text("VolumeAttributesClass"),
        Column::AGE,
        Column::wide("VolumeMode"),
    ],
    |object, now| {
        let bound = !str_at(object, &["spec", "volumeName"]).is_empty();
        let (capacity, modes) = if bound {
            (
                quantity(at(object, &["status", "capacity", "storage"])),
                access_modes(at(object, &["status", "accessModes"])),
            )
        } else {
            (String::new(), String::new())
        };
        vec![
            name(object),
            phase(object).into(),
            str_at(object, &["spec", "volumeName"]).into(),
            capacity.into(),
            modes.into(),
            str_at(object, &["spec", "storageClassName"]).into(),
            unset_if_empty(str_at(object, &["spec", "volumeAttributesClassName"])).into(),
            age(object, now),
            unset_if_empty(str_at(object, &["spec", "volumeMode"])).into(),
        ]
    },
);

fn phase(object: &Value) -> String {
    if deleting(object) { "Terminating".to_owned() } else { str_at(object, &["status", "phase"]).to_owned() }
}

fn unset_if_empty(text: &str) -> String {
    if text.is_empty() { "<unset>".to_owned() } else { text.to_owned() }
}

/// PersistentVolumes.
pub static VOLUMES: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Capacity"),
        Column::text("Access Modes"),
        Column::text("Reclaim Policy"),
        Column::text("Status"),
        Column::text("Claim"),
        Column::text("StorageClass"),
        Column::text("VolumeAttributesClass"),
        Column::text("Reason"),
        Column::AGE,
        Column::wide("VolumeMode"),
    ],
    |object, now| {
        let claim = match str_at(object, &["spec", "claimRef", "name"]) {
            "" => String::new(),
            claim => format!("{}/{claim}", str_at(object, &["spec", "claimRef", "namespace"])),
        };
        vec![
            name(object),
            quantity(at(object, &["spec", "capacity", "storage"])).into(),
            access_modes(at(object, &["spec", "accessModes"])).into(),
            str_at(object, &["spec", "persistentVolumeReclaimPolicy"]).into(),
            phase(object).into(),
            claim.into(),
            str_at(object, &["spec", "storageClassName"]).into(),
            unset_if_empty(str_at(object, &["spec", "volumeAttributesClassName"])).into(),
            str_at(object, &["status", "reason"]).into(),
            age(object, now),
            unset_if_empty(str_at(object, &["spec", "volumeMode"])).into(),
        ]
    },
);

/// PodTemplates.
pub static POD_TEMPLATES: Printer = Printer::new(
    &[Column::NAME, Column::text("Containers"), Column::text("Images"), Column::text("Pod Labels")],
    |object, _| {
        let spec = at(object, &["template", "spec"]);
        vec![
            name(object),
            containers(spec).into(),
            images(spec).into(),
            labels(at(object, &["template", "metadata", "labels"])).into(),
        ]
    },
);

/// ResourceQuotas.
pub static QUOTAS: Printer =
    Printer::new(&[Column::NAME, Column::text("Request"), Column::text("Limit"), Column::AGE], |object, now| {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in entries_at(object, &["status", "hard"]) {
            let used = quantity(at(object, &["status", "used", resource]));
            let used = if used.is_empty() { "0".to_owned() } else { used };
            let text = format!("{resource}: {used}/{}", quantity(hard));
            if resource.contains("limits") { limits.push(text) } else { requests.push(text) }
        }
        vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
    });

/// Secrets.
pub static SECRETS: Printer =
    Printer::new(&[Column::NAME, Column::text("Type"), Column::int("Data"), Column::AGE], |object, now| {
        vec![
            name(object),
            str_at(object, &["type"]).into(),
            entries_at(object, &["data"]).count().into(),
            age(object, now),
        ]
    });

/// ServiceAccounts.
pub static SERVICE_ACCOUNTS: Printer =
    Printer::new(&[Column::NAME, Column::int("Secrets"), Column::AGE], |object, now| {
        vec![name(object), list_at(object, &["secrets"]).len().into(), age(object, now)]
    });

/// Services.
pub static SERVICES: Printer = Printer::new(
    &[
        Column::NAME,
        Column::text("Type"),
        Column::text("Cluster-IP"),
        Column::text("External-IP"),
        Column::text("Port(s)"),
        Column::AGE,
        Column::wide("Selector"),
    ],
    |object, now| {
        let cluster = list_at(object, &["spec", "clusterIPs"]).first().and_then(Value::as_str);
        vec![
            name(object),
            str_at(object, &["spec", "type"]).into(),
            cluster.unwrap_or("<none>").into(),
            external_ip(object).into(),
            service_ports(object).into(),
            age(object, now),
            labels(at(object, &["spec", "selector"])).into(),
        ]
    },
);

fn external_ip(service: &Value) -> String {
    let external: Vec<&str> = list_at(service, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match str_at(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" => none_if_empty(&external.join(",")),
        "LoadBalancer" => {
            let mut all: Vec<&str> = list_at(service, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|i| match str_at(i, &["ip"]) {
                    "" => str_at(i, &["hostname"]),
                    ip => ip,
                })
                .filter(|a| !a.is_empty())
                .collect();
            all.sort_unstable();
            all.dedup();
            all.extend(external);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => str_at(service, &["spec", "externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = list_at(service, &["spec", "ports"])
        .iter()
        .map(|port| {
            let (number, protocol) = (int(port, &["port"]), str_at(port, &["protocol"]));
            match int(port, &["nodePort"]) {
                0 => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    none_if_empty(&ports.join(","))
}

/// ComponentStatuses.
pub static COMPONENT_STATUSES: Printer = Printer::new(
    &[Column::NAME, Column::text("Status"), Column::text("Message"), Column::text("Error")],
    |object, _| {
        let healthy = list_at(object, &["conditions"]).iter().find(|c| str_at(c, &["type"]) == "Healthy");
        let (status, message, error) = match healthy {
            Some(c) if str_at(c, &["status"]) == "True" => ("Healthy", str_at(c, &["message"]), str_at(c, &["error"])),
            Some(c) => ("Unhealthy", str_at(c, &["message"]), str_at(c, &["error"])),
            None => ("Unknown", "", ""),
        };
        vec![name(object), json!(status), json!(message), json!(error)]
    },
);
