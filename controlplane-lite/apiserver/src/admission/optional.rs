//! Plugins that are off unless they are asked for: AlwaysAdmit, AlwaysDeny, AlwaysPullImages, DenyServiceExternalIPs,
//! ExtendedResourceToleration, LimitPodHardAntiAffinityTopology, NamespaceExists and PodNodeSelector. Each follows
//! upstream's folder of `plugin/pkg/admission`.

use std::collections::BTreeSet;

use quota::{is_extended, read};
use serde_json::{Value, json};

use super::namespace_lifecycle::NAMESPACES;
use super::{Mutated, Operation, Refusal, Request, View};
use scheme::access::{at, ensure_map, entries_at, list_at, list_at_mut, str_at};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(super) fn admit(_: &Request<'_>, _: Option<&mut Value>, _: &dyn View) -> Result<Mutated, Refusal> {
    Ok(Mutated::No)
}

pub(super) fn deny(request: &Request<'_>, _: Option<&mut Value>, _: &dyn View) -> Result<Mutated, Refusal> {
    Err(request.forbidden("admission control is denying all modifications"))
}

pub(super) fn deny_validated(request: &Request<'_>, _: Option<&Value>, _: &dyn View) -> Result<(), Refusal> {
    Err(request.forbidden("admission control is denying all modifications"))
}

/// Whether the request makes a pod, or changes one itself.
fn of_pod(request: &Request<'_>) -> bool {
    request.is("", "pods") && request.subresource.is_empty() && request.operation != Operation::Delete
}

fn images(pod: &Value) -> BTreeSet<&str> {
    let containers = CONTAINERS.into_iter().flat_map(|list| list_at(pod, &["spec", list]));
    let volumes = list_at(pod, &["spec", "volumes"]).iter();
    let volumes = volumes.map(|volume| str_at(volume, &["image", "reference"])).filter(|image| !image.is_empty());
    containers.map(|container| str_at(container, &["image"])).chain(volumes).collect()
}

/// An update without a new image pulls nothing.
fn pulls(request: &Request<'_>, pod: &Value) -> bool {
    of_pod(request) && request.old.is_none_or(|old| !images(pod).is_subset(&images(old)))
}

pub(super) fn pull(request: &Request<'_>, object: Option<&mut Value>, _: &dyn View) -> Result<Mutated, Refusal> {
    let Some(pod) = object.filter(|pod| pulls(request, pod)) else { return Ok(Mutated::No) };
    for list in CONTAINERS {
        for container in list_at_mut(pod, &["spec", list]) {
            ensure_map(container, &[]).insert("imagePullPolicy".into(), json!("Always"));
        }
    }
    for volume in list_at_mut(pod, &["spec", "volumes"]).iter_mut().filter(|volume| volume["image"].is_object()) {
        ensure_map(volume, &["image"]).insert("pullPolicy".into(), json!("Always"));
    }
    Ok(Mutated::Whole)
}

pub(super) fn pulled(request: &Request<'_>, object: Option<&Value>, _: &dyn View) -> Result<(), Refusal> {
    let Some(pod) = object.filter(|pod| pulls(request, pod)) else { return Ok(()) };
    for list in CONTAINERS {
        for (index, container) in list_at(pod, &["spec", list]).iter().enumerate() {
            let policy = str_at(container, &["imagePullPolicy"]);
            if policy != "Always" {
                let why = format!(
                    "spec.{list}[{index}].imagePullPolicy: Unsupported value: {policy:?}: supported values: \"Always\""
                );
                return Err(request.forbidden(why));
            }
        }
    }
    Ok(())
}

pub(super) fn external_ips(request: &Request<'_>, object: Option<&Value>, _: &dyn View) -> Result<(), Refusal> {
    let Some(service) = object.filter(|_| request.is("", "services") && request.subresource.is_empty()) else {
        return Ok(());
    };
    let had = request.old.map_or(&[][..], |old| list_at(old, &["spec", "externalIPs"]));
    if list_at(service, &["spec", "externalIPs"]).iter().all(|ip| had.contains(ip)) {
        return Ok(());
    }
    Err(request.forbidden("Use of external IPs is denied by admission control"))
}

pub(super) fn tolerate_extended(
    request: &Request<'_>,
    object: Option<&mut Value>,
    _: &dyn View,
) -> Result<Mutated, Refusal> {
    let Some(pod) = object.filter(|_| of_pod(request)) else { return Ok(Mutated::No) };
    let mut names = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for container in list_at(pod, &["spec", list]) {
            names.extend(read(&container["resources"]["requests"]).into_keys().filter(|name| is_extended(name)));
        }
    }
    let mut mutated = Mutated::No;
    for name in names {
        let wanted = json!({"key": name, "operator": "Exists"});
        let tolerations = ensure_map(pod, &["spec"]).entry("tolerations").or_insert_with(|| json!([]));
        let Some(list) = tolerations.as_array_mut() else { continue };
        let same = |one: &Value| {
            let fields = ["key", "operator", "value", "effect"];
            fields.iter().all(|field| str_at(one, &[field]) == str_at(&wanted, &[field]))
        };
        if !list.iter().any(same) {
            list.push(wanted);
            mutated = Mutated::Whole;
        }
    }
    Ok(mutated)
}

pub(super) fn anti_affinity(request: &Request<'_>, object: Option<&Value>, _: &dyn View) -> Result<(), Refusal> {
    let Some(pod) = object.filter(|_| of_pod(request)) else { return Ok(()) };
    let place = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    for term in list_at(pod, &place) {
        let key = str_at(term, &["topologyKey"]);
        if key != "kubernetes.io/hostname" {
            return Err(request.forbidden(format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key \
                 kubernetes.io/hostname is allowed"
            )));
        }
    }
    Ok(())
}

pub(super) fn namespace_exists(request: &Request<'_>, _: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let name = request.namespace;
    if name.is_empty() || request.is("", "namespaces") || view.has("", "namespaces", "", name) {
        return Ok(());
    }
    Err(Refusal::NotFound { resource: NAMESPACES, name: name.to_owned() })
}

const NODE_SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";

/// What the namespace's pods have to select, by its annotation.
fn node_selector(namespace: &Value) -> Option<Vec<(String, String)>> {
    let text = str_at(namespace, &["metadata", "annotations", NODE_SELECTOR]);
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())))
        .collect()
}

pub(super) fn select_node(
    request: &Request<'_>,
    object: Option<&mut Value>,
    view: &dyn View,
) -> Result<Mutated, Refusal> {
    let new = of_pod(request) && request.operation == Operation::Create;
    let Some(pod) = object.filter(|_| new) else { return Ok(Mutated::No) };
    let namespace = view.get("", "namespaces", "", request.namespace).unwrap_or_default();
    let Some(selector) = node_selector(&namespace) else {
        return Err(request.forbidden(format!("invalid {NODE_SELECTOR} of namespace {}", request.namespace)));
    };
    let own = |key: &str, pod: &Value| at(pod, &["spec", "nodeSelector", key]).as_str().map(str::to_owned);
    if selector.iter().any(|(key, value)| own(key, pod).is_some_and(|own| own != *value)) {
        return Err(request.forbidden("pod node label selector conflicts with its namespace node label selector"));
    }
    let mut mutated = Mutated::No;
    for (key, value) in selector {
        ensure_map(pod, &["spec", "nodeSelector"]).insert(key, value.into());
        mutated = Mutated::Whole;
    }
    Ok(mutated)
}

pub(super) fn selected_node(request: &Request<'_>, object: Option<&Value>, view: &dyn View) -> Result<(), Refusal> {
    let new = of_pod(request) && request.operation == Operation::Create;
    let Some(pod) = object.filter(|_| new) else { return Ok(()) };
    let namespace = view.get("", "namespaces", "", request.namespace).unwrap_or_default();
    let selector = node_selector(&namespace).unwrap_or_default();
    let of =
        |key: &str| entries_at(pod, &["spec", "nodeSelector"]).find(|(own, _)| *own == key).map(|(_, value)| value);
    if selector.iter().any(|(key, value)| of(key).is_some_and(|own| own != value.as_str())) {
        return Err(request.forbidden("pod node label selector conflicts with its namespace node label selector"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
