//! What upstream warns of in Services and Ingresses (`pkg/api/service/warnings.go`,
//! `pkg/registry/networking/ingress/strategy.go`). Pure.

use serde_json::Value;

use crate::access::{at, list_at, str_at};

const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

/// Warnings about an Ingress.
pub(crate) fn ingress(object: &Value) -> Vec<String> {
    let deprecated = !at(object, &["metadata", "annotations", INGRESS_CLASS]).is_null();
    let text = || format!("annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
    deprecated.then(text).into_iter().collect()
}

/// Warnings about a Service.
pub(crate) fn service(object: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let spec = |field: &str| str_at(object, &["spec", field]);
    let external_ips = !list_at(object, &["spec", "externalIPs"]).is_empty();
    let external_name = spec("type") == "ExternalName";
    let headless = matches!(spec("type"), "" | "ClusterIP") && spec("clusterIP") == "None";
    if !at(object, &["metadata", "annotations", TOPOLOGY_HINTS]).is_null() {
        out.push(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    if headless {
        let affinity = !matches!(spec("sessionAffinity"), "" | "None");
        for (ignored, field) in [
            (!spec("loadBalancerIP").is_empty(), "loadBalancerIP"),
            (external_ips, "externalIPs"),
            (affinity, "SessionAffinity"),
        ] {
            if ignored {
                out.push(format!("spec.{field} is ignored for headless services"));
            }
        }
    } else if external_ips && !external_name {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    if external_name && external_ips {
        out.push(r#"spec.externalIPs is ignored when spec.type is "ExternalName""#.into());
    }
    if !external_name && !spec("externalName").is_empty() {
        out.push(r#"spec.externalName is ignored when spec.type is not "ExternalName""#.into());
    }
    if spec("trafficDistribution") == "PreferClose" {
        out.push(r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#.into());
    }
    out
}
