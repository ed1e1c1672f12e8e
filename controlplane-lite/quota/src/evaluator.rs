//! What each kind uses, by which names (`pkg/quota/v1/evaluator/core`).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::amounts::{Amounts, count, quantity};
use crate::measured::{Measured, Scopes};
use crate::pod::{self, Asked, has_own, is_extended, is_native, list};
use quantity::{Format, Quantity};

/// Names of what pods use, beside huge pages and extended resources.
const POD: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// What each container has to set where a quota restricts it.
const REQUIRED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const SERVICE: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];
const CLAIM: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const CLAIMS: &str = "count/persistentvolumeclaims";
const OF_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const RESOURCE_CLAIMS: &str = "count/resourceclaims.resource.k8s.io";
/// Devices of a class as a pod may ask for them like for an extended resource.
const DEVICES: &str = "deviceclass.resource.kubernetes.io/";
const OF_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// Devices that a claim for all of a class may get at most (`AllocationResultsMaxSize`).
const MOST_DEVICES: i64 = 32;
/// Kinds that are counted under their plain name, too.
const ALIASES: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// Resources that nobody stores, and events.
const IGNORED: [(&str, &str); 8] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("events.k8s.io", "events"),
];

/// Whether a resource is never counted.
#[must_use]
pub fn ignored(group: &str, plural: &str) -> bool {
    IGNORED.contains(&(group, plural))
}

/// How objects of a kind are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluator {
    /// Pods.
    Pods,
    /// Services.
    Services,
    /// PersistentVolumeClaims.
    Claims,
    /// ResourceClaims.
    ResourceClaims,
    /// Any other kind: each object counts as one.
    Count {
        /// `count/<resource>.<group>`.
        name: String,
        /// Another name of the same.
        alias: Option<&'static str>,
    },
}

/// A write, as far as it decides whether anything is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// A new object.
    Create,
    /// A changed one.
    Update,
}

impl Evaluator {
    /// That of a resource.
    #[must_use]
    pub fn of(group: &str, plural: &str) -> Self {
        match (group, plural) {
            ("", "pods") => Self::Pods,
            ("", "services") => Self::Services,
            ("", "persistentvolumeclaims") => Self::Claims,
            ("resource.k8s.io", "resourceclaims") => Self::ResourceClaims,
            ("", core) => {
                let alias = ALIASES.into_iter().find(|alias| *alias == core);
                Self::Count { name: format!("count/{core}"), alias }
            }
            (group, plural) => Self::Count { name: format!("count/{plural}.{group}"), alias: None },
        }
    }

    /// Group and plural of the resource of which a name in a quota tells; nothing if nobody counts it.
    #[must_use]
    pub fn resource(name: &str) -> Option<(&str, &str)> {
        if Self::Pods.tracks(name) {
            return Some(("", "pods"));
        }
        if Self::Services.tracks(name) {
            return Some(("", "services"));
        }
        if Self::Claims.tracks(name) {
            return Some(("", "persistentvolumeclaims"));
        }
        if Self::ResourceClaims.tracks(name) {
            return Some(("resource.k8s.io", "resourceclaims"));
        }
        if ALIASES.contains(&name) {
            return Some(("", name));
        }
        let counted = name.strip_prefix("count/")?;
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        (!ignored(group, plural)).then_some((group, plural))
    }

    /// Whether a write can change what is used at all.
    #[must_use]
    pub fn handles(&self, write: Write, subresource: &str) -> bool {
        matches!(
            (self, subresource, write),
            (_, "", Write::Create)
                | (Self::Pods, "resize", Write::Update)
                | (Self::Services | Self::Claims | Self::ResourceClaims, "", Write::Update)
                | (Self::Claims, "status", Write::Update)
        )
    }

    /// Whether what a name in a quota stands for is used by objects of the kind.
    #[must_use]
    pub fn tracks(&self, name: &str) -> bool {
        match self {
            Self::Pods => {
                let extended = name.starts_with("requests.") && !is_native(name);
                let huge = name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-");
                POD.contains(&name) || huge || extended
            }
            Self::Services => SERVICE.contains(&name),
            Self::Claims => {
                let of_class = name.split_once(OF_STORAGE_CLASS).is_some_and(|(_, what)| CLAIM.contains(&what));
                name == CLAIMS || CLAIM.contains(&name) || of_class
            }
            Self::ResourceClaims => name == RESOURCE_CLAIMS || name.ends_with(OF_DEVICE_CLASS),
            Self::Count { name: own, alias } => name == own || *alias == Some(name),
        }
    }

    /// What an object uses.
    #[must_use]
    pub fn measure(&self, object: &Value) -> Measured {
        match self {
            Self::Pods => measure_pod(object),
            Self::Services => Measured::counting(service(object)),
            Self::Claims => measure_claim(object),
            Self::ResourceClaims => Measured::counting(resource_claim(object)),
            Self::Count { name, alias } => {
                let names = [Some(name.as_str()), *alias].into_iter().flatten();
                Measured::counting(names.map(|name| (name.to_owned(), count(1))).collect())
            }
        }
    }
}

/// A pod that has ended, or should have by its grace period, uses its place in the store alone.
fn measure_pod(pod: &Value) -> Measured {
    let (spec, status, metadata) = (&pod["spec"], &pod["status"], &pod["metadata"]);
    let ended = status["phase"] == "Failed" || status["phase"] == "Succeeded";
    let deleted: Option<Timestamp> = metadata["deletionTimestamp"].as_str().and_then(|time| time.parse().ok());
    let grace = metadata["deletionGracePeriodSeconds"].as_i64();
    let until = deleted.zip(grace).and_then(|(at, grace)| at.checked_add(SignedDuration::from_secs(grace)).ok());
    let lives = if ended { Amounts::new() } else { computed(&pod::in_effect(pod)) };
    let scopes = Scopes::Pod {
        terminating: spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0),
        best_effort: is_best_effort(pod),
        across_namespaces: looks_across(&spec["affinity"]),
        priority_class: spec["priorityClassName"].as_str().unwrap_or_default().to_owned(),
    };
    let counts = Amounts::from([("count/pods".to_owned(), count(1))]);
    Measured { counts, lives, until, scopes, unset: unset(pod) }
}

/// Requests and limits by the names that quotas have for them.
fn computed(asked: &Asked) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), count(1))]);
    for (name, quantity) in &asked.requests {
        let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if standard || name.starts_with("hugepages-") {
            used.insert(name.clone(), *quantity);
        }
        if standard || name.starts_with("hugepages-") || is_extended(name) || name.starts_with(DEVICES) {
            used.insert(format!("requests.{name}"), *quantity);
        }
    }
    for (name, quantity) in &asked.limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), *quantity);
        }
    }
    used
}

/// A pod that sets something for itself as a whole needs no container to.
fn unset(pod: &Value) -> BTreeMap<&'static str, BTreeSet<String>> {
    let mut unset: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    if has_own(pod) {
        return unset;
    }
    let containers = list(&pod["spec"]["containers"]).iter().chain(list(&pod["spec"]["initContainers"]));
    for container in containers {
        let set = computed(&Asked::of(&container["resources"]));
        for name in REQUIRED.into_iter().filter(|name| !set.contains_key(*name)) {
            unset.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    unset
}

fn is_best_effort(pod: &Value) -> bool {
    if let Some(class) = pod["status"]["qosClass"].as_str().filter(|class| !class.is_empty()) {
        return class == "BestEffort";
    }
    let containers = list(&pod["spec"]["containers"]).iter().chain(list(&pod["spec"]["initContainers"]));
    let mut parts = containers.map(|container| &container["resources"]).chain([&pod["spec"]["resources"]]);
    !parts.any(|resources| {
        let Asked { requests, limits } = Asked::of(resources);
        requests.iter().chain(&limits).any(|(name, quantity)| {
            matches!(name.as_str(), "cpu" | "memory") && !quantity.is_zero() && !quantity.is_negative()
        })
    })
}

fn looks_across(affinity: &Value) -> bool {
    let crosses = |term: &Value| !list(&term["namespaces"]).is_empty() || !term["namespaceSelector"].is_null();
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let required = list(&affinity[kind]["requiredDuringSchedulingIgnoredDuringExecution"]);
        let preferred = list(&affinity[kind]["preferredDuringSchedulingIgnoredDuringExecution"]);
        required.iter().any(crosses) || preferred.iter().any(|weighted| crosses(&weighted["podAffinityTerm"]))
    })
}

/// Node ports are counted as they are meant: they need not be granted yet.
fn service(service: &Value) -> Amounts {
    let spec = &service["spec"];
    let ports = list(&spec["ports"]);
    let named = || ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count();
    let (node_ports, balancers) = match spec["type"].as_str() {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => (named(), 1),
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    let counts = [1, 1, node_ports, balancers];
    SERVICE.into_iter().zip(counts).map(|(name, number)| (name.to_owned(), count(number))).collect()
}

fn measure_claim(claim: &Value) -> Measured {
    let annotated = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = annotated.or(claim["spec"]["storageClassName"].as_str()).unwrap_or_default();
    let mut used = Amounts::from([(CLAIMS.to_owned(), count(1))]);
    let mut charge = |what: &str, quantity: Quantity| {
        used.insert(what.to_owned(), quantity);
        if !class.is_empty() {
            used.insert(format!("{class}{OF_STORAGE_CLASS}{what}"), quantity);
        }
    };
    charge("persistentvolumeclaims", count(1));
    if let Some(asked) = quantity(&claim["spec"]["resources"]["requests"]["storage"]) {
        // What its volume is being made larger to is charged, too, while that is more.
        let allocated = quantity(&claim["status"]["allocatedResources"]["storage"]);
        charge("requests.storage", whole(allocated.filter(|allocated| *allocated > asked).unwrap_or(asked)));
    }
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let classes = [
        &spec["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    let classes = classes.into_iter().filter_map(Value::as_str).filter(|class| !class.is_empty());
    Measured { scopes: Scopes::Claim(classes.map(str::to_owned).collect()), ..Measured::counting(used) }
}

/// The quantity in whole bytes, as quotas have to be.
fn whole(quantity: Quantity) -> Quantity {
    if quantity.is_whole() { quantity } else { Quantity::new(quantity.value(), Format::BinarySi) }
}

/// Devices by their class: of alternatives in one request, the most that each class may give.
fn resource_claim(claim: &Value) -> Amounts {
    let devices = |request: &Value| match request["allocationMode"].as_str() {
        Some("All") => MOST_DEVICES,
        Some("ExactCount") => request["count"].as_i64().unwrap_or(0),
        _ => 0,
    };
    let name =
        |request: &Value| format!("{}{OF_DEVICE_CLASS}", request["deviceClassName"].as_str().unwrap_or_default());
    let mut used = Amounts::from([(RESOURCE_CLAIMS.to_owned(), count(1))]);
    for request in list(&claim["spec"]["devices"]["requests"]) {
        let mut of_request: BTreeMap<String, i64> = BTreeMap::new();
        let exactly = Some(&request["exactly"]).filter(|exactly| exactly.is_object());
        for one in list(&request["firstAvailable"]).iter().chain(exactly) {
            let most = of_request.entry(name(one)).or_default();
            *most = devices(one).max(*most);
        }
        let of_request = of_request.into_iter();
        let more = of_request.map(|(name, number)| (name, Quantity::new(number, Format::DecimalSi))).collect();
        crate::amounts::add(&mut used, &more);
    }
    used
}

#[cfg(test)]
mod tests;
