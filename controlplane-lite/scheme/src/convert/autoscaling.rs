//! autoscaling/v1 ↔ v2 HorizontalPodAutoscaler. Stored as v2. What v1 cannot say
//! travels in annotations, so that a v1 client's write loses nothing.

use serde_json::{Value, json};

use crate::access::{at, ensure_map, int_at, list_at, set_default, str_at};
use crate::builtin;
use crate::decode::{self, FieldValidation, MediaType};
use crate::kind::ConversionInfo;

/// How autoscaling/v1 autoscalers are stored.
pub const AUTOSCALERS: ConversionInfo = ConversionInfo {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    to_storage: to_v2,
    from_storage: to_v1,
    stored_field: str::to_owned,
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const TARGET: &str = "targetCPUUtilizationPercentage";
const CURRENT: &str = "currentCPUUtilizationPercentage";

fn is_cpu_utilization(metric: &Value) -> bool {
    str_at(metric, &["type"]) == "Resource"
        && str_at(metric, &["resource", "name"]) == "cpu"
        && int_at(metric, &["resource", "target", "averageUtilization"]).is_some()
}

/// Takes an annotation off the object, as a field of the stored spec. What is no such field is dropped, as upstream
/// does (`pkg/apis/autoscaling/v1/conversion.go`); like all JSON of a request it is decoded within a budget.
fn take_annotation(object: &mut Value, key: &str, field: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    let parsed = decode::parse(MediaType::Json, text.as_str()?.as_bytes()).ok()?;
    let kind = builtin().by_gvk(AUTOSCALERS.group, AUTOSCALERS.version, AUTOSCALERS.kind)?;
    let spec = json!({"spec": {field: parsed.value}});
    let mut shaped = decode::decode_value(kind, spec, Vec::new(), false, FieldValidation::Ignore).ok()?.object;
    Some(shaped["spec"][field].take()).filter(|value| !value.is_null())
}

fn to_v2(mut object: Value) -> Value {
    let mut metrics = match take_annotation(&mut object, METRICS, "metrics") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let behavior = take_annotation(&mut object, BEHAVIOR, "behavior");
    let spec = ensure_map(&mut object, &["spec"]);
    if let Some(percent) = spec.remove(TARGET) {
        let cpu = json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}});
        metrics.insert(0, cpu);
    }
    if !metrics.is_empty() {
        spec.insert("metrics".to_owned(), Value::Array(metrics));
    }
    if let Some(behavior) = behavior {
        spec.insert("behavior".to_owned(), behavior);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
        && let Some(percent) = status.remove(CURRENT)
    {
        let current = json!([{"type": "Resource", "resource": {
            "name": "cpu", "current": {"averageUtilization": percent}}}]);
        status.insert("currentMetrics".to_owned(), current);
    }
    named(object, "autoscaling/v2")
}

fn to_v1(mut object: Value) -> Value {
    let mut metrics = list_at(&object, &["spec", "metrics"]).to_vec();
    let cpu = metrics.iter().position(is_cpu_utilization).map(|i| metrics.remove(i));
    let current = list_at(&object, &["status", "currentMetrics"])
        .iter()
        .find(|m| str_at(m, &["resource", "name"]) == "cpu")
        .and_then(|m| int_at(m, &["resource", "current", "averageUtilization"]));
    let behavior = at(&object, &["spec", "behavior"]).clone();
    let spec = ensure_map(&mut object, &["spec"]);
    spec.remove("metrics");
    spec.remove("behavior");
    if let Some(percent) = cpu.and_then(|m| int_at(&m, &["resource", "target", "averageUtilization"])) {
        spec.insert(TARGET.to_owned(), percent.into());
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
        if let Some(percent) = current {
            status.insert(CURRENT.to_owned(), percent.into());
        }
        // Neither is left out by Go where it is zero, nor by v2 the second.
        for count in ["currentReplicas", "desiredReplicas"] {
            set_default(status, count, 0);
        }
    }
    if !metrics.is_empty() {
        let text = Value::Array(metrics).to_string();
        ensure_map(&mut object, &["metadata", "annotations"]).insert(METRICS.to_owned(), text.into());
    }
    if !behavior.is_null() {
        ensure_map(&mut object, &["metadata", "annotations"]).insert(BEHAVIOR.to_owned(), behavior.to_string().into());
    }
    named(object, "autoscaling/v1")
}

fn named(mut object: Value, api_version: &str) -> Value {
    let map = ensure_map(&mut object, &[]);
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), "HorizontalPodAutoscaler".into());
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_says_what_it_can_and_loses_nothing() {
        let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "annotations": {"a": "b"}},
            "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {"selectPolicy": "Max"}}, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Pods", "pods": {"metric": {"name": "m"}}}]}});
        let v1 = to_v1(v2.clone());
        assert_eq!(v1["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(to_v2(v1), v2);
        // Both are required in v1, and zero is no reason to leave one out.
        let fresh = to_v1(json!({"status": {"desiredReplicas": 0, "currentMetrics": null}}));
        assert_eq!(fresh["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
    }

    fn stored(metrics: &str, behavior: &str) -> Value {
        let v1 =
            json!({"metadata": {"annotations": {METRICS: metrics, BEHAVIOR: behavior}}, "spec": {"maxReplicas": 1}});
        to_v2(v1)
    }

    #[test]
    fn garbage_in_annotations_is_dropped() {
        let maps = format!("[{}]", vec![r#"{"type":{"a":0}}"#; 200_000].join(","));
        for metrics in ["{", "[3]", "{}", r#"["x"]"#, r#"[{"type": 3}]"#, r#"[{"pods": []}]"#, "null", &maps] {
            let v2 = stored(metrics, r#"{"scaleUp": "x"}"#);
            assert_eq!(v2["spec"], json!({"maxReplicas": 1}), "{}", &metrics[..metrics.len().min(40)]);
            assert_eq!(v2["metadata"]["annotations"], json!({}));
        }
    }

    #[test]
    fn only_fields_of_the_stored_form_are_taken() {
        let v2 = stored(r#"[{"type": "Pods", "evil": {"a": 1}}]"#, r#"{"scaleUp": {"selectPolicy": "Max", "b": []}}"#);
        let expect =
            json!({"metrics": [{"type": "Pods"}], "behavior": {"scaleUp": {"selectPolicy": "Max"}}, "maxReplicas": 1});
        assert_eq!(v2["spec"], expect);
    }
}
