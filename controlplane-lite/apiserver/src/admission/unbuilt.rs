//! Says of kinds and fields that nothing here acts on, that nothing does: accepted in silence they look like a
//! protection, or like work that is being done.

use serde_json::Value;

use super::{Operation, Refusal, Request, View};
use crate::warnings;

/// Kinds that this control plane stores, and what does not happen.
const KINDS: [(&str, &str, &str); 15] = [
    ("", "replicationcontrollers", "ReplicationController has no controller here: no pods will be made"),
    ("", "persistentvolumeclaims", "PersistentVolumeClaim has no controller here: only a claim bound by hand is used"),
    ("apps", "daemonsets", "DaemonSet has no controller here: no pods will be made"),
    ("apps", "statefulsets", "StatefulSet has no controller here: no pods will be made"),
    (
        "autoscaling",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler has no controller here: nothing will be scaled",
    ),
    ("batch", "cronjobs", "CronJob has no controller here: no jobs will be made"),
    ("batch", "jobs", "Job has no controller here: no pods will be made"),
    (
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        "PriorityLevelConfiguration limits nothing here: requests are told their level, and the server's own pools decide",
    ),
    (
        "networking.k8s.io",
        "ingresses",
        "Ingress has no controller here, unless one is installed: nothing will be routed",
    ),
    ("networking.k8s.io", "networkpolicies", "NetworkPolicy is not enforced by copepod's network: all traffic passes"),
    ("resource.k8s.io", "deviceclasses", "DeviceClass has no use here: no device will be allocated"),
    ("resource.k8s.io", "resourceclaims", "ResourceClaim has no controller here: nothing will be allocated"),
    (
        "resource.k8s.io",
        "resourceclaimtemplates",
        "ResourceClaimTemplate has no controller here: no claims will be made",
    ),
    ("resource.k8s.io", "resourceslices", "ResourceSlice has no use here: no device will be allocated"),
    ("storage.k8s.io", "volumeattachments", "VolumeAttachment has no controller here: nothing will be attached"),
];

pub(super) fn validate(request: &Request<'_>, object: Option<&Value>, _: &dyn View) -> Result<(), Refusal> {
    let Some(object) = object else { return Ok(()) };
    // Who brings a controller knows, and does not want to be told with every status.
    let told = request.operation == Operation::Create || request.old.is_some_and(|old| old["spec"] != object["spec"]);
    if !told || !request.subresource.is_empty() {
        return Ok(());
    }
    let of_kind = |(group, plural, _): &&(&str, &str, &str)| request.is(group, plural);
    if let Some((_, _, text)) = KINDS.iter().find(of_kind) {
        warnings::add(*text);
    }
    if request.is("", "pods") && object["spec"]["hostUsers"] == false {
        warnings::add("spec.hostUsers: false: copepod's nodes have no user namespaces and refuse such a pod");
    }
    if request.is("", "pods") && object["spec"]["resourceClaims"].as_array().is_some_and(|claims| !claims.is_empty()) {
        warnings::add("spec.resourceClaims: copepod's nodes have no dynamic resources and refuse such a pod");
    }
    Ok(())
}
