//! The downward API: fields of a pod and resources of its containers as text.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};

use super::quantity::{self, ResourceList};
use super::spec;

/// What is known beside the pod object when a field is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldContext {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
    /// Stands in for limits a container lacks.
    pub allocatable: ResourceList,
}

/// Why a field cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Unsupported(String),
    #[error("container {0} not found")]
    NoContainer(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
}

/// The text of a field such as `metadata.labels['app']` or `status.podIP`.
pub fn field(pod: &Pod, path: &str, ctx: &FieldContext) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(FieldError::Unsupported(path.to_owned())),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => format_map(meta.labels.iter().flatten()),
        "metadata.annotations" => format_map(meta.annotations.iter().flatten()),
        "spec.nodeName" => spec::spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec::spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&ctx.host_ips),
        "status.hostIPs" => ctx.host_ips.join(","),
        "status.podIP" => first(&ctx.pod_ips),
        "status.podIPs" => ctx.pod_ips.join(","),
        _ => return Err(FieldError::Unsupported(path.to_owned())),
    })
}

/// Splits `map['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// `key="value"` a line, keys sorted, values quoted as upstream quotes them.
fn format_map<'a>(map: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut out = String::new();
    for (key, value) in map {
        if !out.is_empty() {
            out.push('\n');
        }
        let _ = write!(out, "{key}={}", quote(value));
    }
    out
}

/// A string in double quotes with Go's escapes.
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The number a `resourceFieldRef` of `container` (or the one it names) means.
pub fn resource(
    pod: &Pod,
    container: &str,
    selector: &ResourceFieldSelector,
    ctx: &FieldContext,
) -> Result<String, FieldError> {
    let name = selector.container_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(container);
    let found = spec::containers(pod).iter().chain(spec::init_containers(pod)).find(|c| c.name == name);
    let container = found.ok_or_else(|| FieldError::NoContainer(name.to_owned()))?;
    let (kind, resource) =
        selector.resource.split_once('.').ok_or_else(|| FieldError::Resource(selector.resource.clone()))?;
    let resources = container.resources.as_ref();
    let quantity = match kind {
        "limits" => resources
            .and_then(|r| r.limits.as_ref())
            .and_then(|l| l.get(resource))
            .or_else(|| ctx.allocatable.get(resource)),
        "requests" => resources.and_then(|r| r.requests.as_ref().and_then(|q| q.get(resource))),
        _ => return Err(FieldError::Resource(selector.resource.clone())),
    };
    Ok(quantity.map_or(0, |q| quantity::divided(q, selector.divisor.as_ref())).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Pod {
        serde_norway::from_str(
            "metadata: {name: p, namespace: n, uid: u, labels: {app: web, b: 'q\"x'}, annotations: {k: \"l1\\nl2\"}}
spec:
  nodeName: node1
  serviceAccountName: sa
  containers: [{name: c, resources: {limits: {cpu: 1500m}, requests: {memory: 64Mi}}}]",
        )
        .unwrap()
    }

    #[test]
    fn fields_of_a_pod() {
        let ctx = FieldContext {
            pod_ips: vec!["10.0.0.1".into(), "fd00::1".into()],
            host_ips: vec!["1.2.3.4".into()],
            ..FieldContext::default()
        };
        let cases = [
            ("metadata.name", "p"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['none']", ""),
            ("metadata.labels", "app=\"web\"\nb=\"q\\\"x\""),
            ("metadata.annotations['k']", "l1\nl2"),
            ("metadata.annotations", "k=\"l1\\nl2\""),
            ("spec.nodeName", "node1"),
            ("spec.serviceAccountName", "sa"),
            ("status.podIP", "10.0.0.1"),
            ("status.podIPs", "10.0.0.1,fd00::1"),
            ("status.hostIP", "1.2.3.4"),
        ];
        for (path, expect) in cases {
            assert_eq!(field(&sample(), path, &ctx).as_deref(), Ok(expect), "{path}");
        }
        for path in ["", "spec", "metadata.labels[app]", "spec['x']", "metadata.labels['", "']"] {
            assert!(field(&sample(), path, &ctx).is_err(), "{path}");
        }
    }

    #[test]
    fn resources_of_a_container() {
        let ctx = FieldContext {
            allocatable: [("memory".to_owned(), quantity::units(1 << 30))].into(),
            ..FieldContext::default()
        };
        let ask = |text: &str| {
            let selector: ResourceFieldSelector = serde_norway::from_str(text).unwrap();
            resource(&sample(), "c", &selector, &ctx)
        };
        assert_eq!(ask("resource: limits.cpu").as_deref(), Ok("2"));
        assert_eq!(ask("{resource: limits.cpu, divisor: 1m}").as_deref(), Ok("1500"));
        assert_eq!(ask("{resource: limits.memory, divisor: 1Mi}").as_deref(), Ok("1024"));
        assert_eq!(ask("{resource: requests.memory, divisor: 1Mi}").as_deref(), Ok("64"));
        assert_eq!(ask("resource: requests.cpu").as_deref(), Ok("0"));
        assert!(ask("{resource: limits.cpu, containerName: x}").is_err());
        assert!(ask("resource: cpu").is_err());
    }
}
