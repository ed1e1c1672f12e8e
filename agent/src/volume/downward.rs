//! Values of downward API files. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::plan::DownwardValue;
use super::quantity;

/// What the node offers to pods: stands in for limits a container lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// Resource name (`cpu`, `memory`, `ephemeral-storage`) → quantity text.
    pub resources: BTreeMap<String, String>,
}

/// The content of one file.
pub fn value(what: &DownwardValue, pod: &Pod, allocatable: &Allocatable) -> Result<String, String> {
    match what {
        DownwardValue::Field(path) => field(path, pod),
        DownwardValue::Resource { container, resource, divisor } => {
            resource_value(pod, container, resource, divisor.as_deref(), allocatable)
        }
    }
}

fn field(path: &str, pod: &Pod) -> Result<String, String> {
    let meta = &pod.metadata;
    let text = |value: &Option<String>| Ok(value.clone().unwrap_or_default());
    match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => Ok(map(meta.labels.as_ref())),
        "metadata.annotations" => Ok(map(meta.annotations.as_ref())),
        _ => {
            let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
            let of = |values: Option<&BTreeMap<String, String>>, key: &str| {
                Ok(values.and_then(|v| v.get(key)).cloned().unwrap_or_default())
            };
            if let Some(key) = keyed("metadata.labels['") {
                of(meta.labels.as_ref(), key)
            } else if let Some(key) = keyed("metadata.annotations['") {
                of(meta.annotations.as_ref(), key)
            } else {
                Err(format!("unsupported fieldPath: {path}"))
            }
        }
    }
}

/// `key="value"` lines in the order of keys.
fn map(values: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = values.into_iter().flatten().map(|(k, v)| format!("{k}={}", quoted(v))).collect();
    lines.join("\n")
}

/// A text in double quotes with escapes as Go's `%q` writes them.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_control() && u32::from(c) < 0x80 => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn container_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

fn resource_value(
    pod: &Pod,
    container: &str,
    resource: &str,
    divisor: Option<&str>,
    allocatable: &Allocatable,
) -> Result<String, String> {
    let found = container_of(pod, container).ok_or_else(|| format!("container {container} not found"))?;
    let (list, name) = resource.split_once('.').ok_or_else(|| format!("unsupported container resource: {resource}"))?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known || !matches!(list, "limits" | "requests") {
        return Err(format!("unsupported container resource: {resource}"));
    }
    let resources = found.resources.as_ref();
    let set = match list {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        _ => resources.and_then(|r| r.requests.as_ref()),
    };
    let set = set.and_then(|values| values.get(name)).map(|q| q.0.as_str());
    // Without a limit the node's allocatable amount counts.
    let fallback = if list == "limits" { allocatable.resources.get(name).map(String::as_str) } else { None };
    let text = set.or(fallback).unwrap_or("0");
    let bad = |text: &str| format!("{text:?} is no quantity");
    let amount = quantity::milli(text).ok_or_else(|| bad(text))?;
    let divisor_text = divisor.unwrap_or("1");
    let mut divisor = quantity::milli(divisor_text).ok_or_else(|| bad(divisor_text))?;
    if divisor == 0 {
        divisor = 1000;
    }
    quantity::divided(amount, divisor).map(|v| v.to_string()).ok_or_else(|| bad(divisor_text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u",
                "labels": {"b": "2", "a": "1"}, "annotations": {"note": "line\n\"q\"\\ \u{1}é"}},
            "spec": {"containers": [{"name": "c", "resources": {
                "limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]}}))
        .unwrap()
    }

    #[test]
    fn fields() {
        for (path, expect) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "ns"),
            ("metadata.uid", "u"),
            ("metadata.labels", "a=\"1\"\nb=\"2\""),
            ("metadata.annotations", "note=\"line\\n\\\"q\\\"\\\\ \\x01é\""),
            ("metadata.labels['b']", "2"),
            ("metadata.labels['none']", ""),
        ] {
            assert_eq!(field(path, &pod()).unwrap(), expect, "{path}");
        }
        assert_eq!(field("spec.x", &pod()).unwrap_err(), "unsupported fieldPath: spec.x");
    }

    #[test]
    fn resources() {
        let allocatable = Allocatable { resources: [("memory".to_owned(), "1Gi".to_owned())].into() };
        for (resource, divisor, expect) in [
            ("limits.cpu", None, Ok("2")),
            ("limits.cpu", Some("1m"), Ok("1500")),
            ("limits.cpu", Some("0"), Ok("2")),
            ("requests.memory", None, Ok("67108864")),
            ("requests.memory", Some("1Mi"), Ok("64")),
            ("limits.memory", Some("1Mi"), Ok("1024")),
            ("requests.cpu", None, Ok("0")),
            ("limits.rope", None, Err("unsupported container resource: limits.rope")),
            ("cpu", None, Err("unsupported container resource: cpu")),
            ("limits.cpu", Some("x"), Err("\"x\" is no quantity")),
        ] {
            let got = resource_value(&pod(), "c", resource, divisor, &allocatable);
            assert_eq!(got.as_deref().map_err(String::as_str), expect, "{resource} {divisor:?}");
        }
        assert!(resource_value(&pod(), "none", "limits.cpu", None, &allocatable).is_err());
    }
}
