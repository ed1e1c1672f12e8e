//! The Scale of a custom resource, whose definition says where its numbers are
//! (k8s.io/apiextensions-apiserver/pkg/registry/customresource/{etcd,validator}.go).

use serde_json::{Map, Value, json};

use crate::access::{at, int_at};
use crate::crd::ScalePaths;
use crate::decode::go_json_type;
use crate::field::{FieldErrors, Path};

/// The replicas of an object that has none, for whoever changes its Scale.
pub const UNSET_REPLICAS: i64 = i32::MIN as i64;

/// The Scale, and whether the object says how many replicas are wanted.
///
/// # Errors
/// What is at one of the paths is not of the type it has to be of, in the words of
/// `k8s.io/apimachinery/pkg/apis/meta/v1/unstructured`.
pub fn custom_scale(object: &Value, paths: &ScalePaths) -> Result<(Value, bool), String> {
    let wanted = number(object, &paths.spec_replicas)?;
    let mut status = json!({"replicas": number(object, &paths.status_replicas)?.unwrap_or(0)});
    if let Some(path) = &paths.label_selector {
        let selector = text(object, path)?.unwrap_or("");
        if !selector.is_empty() {
            status["selector"] = selector.into();
        }
    }
    let metadata = at(object, &["metadata"]);
    let kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let kept = kept.iter().filter_map(|key| Some(((*key).to_owned(), metadata.get(*key)?.clone())));
    let scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": Value::Object(kept.collect::<Map<_, _>>()),
        "spec": { "replicas": wanted.unwrap_or(0) },
        "status": status,
    });
    Ok((scale, wanted.is_some()))
}

/// Puts a Scale's wish into the object.
///
/// # Errors
/// Something else than an object is in the way.
pub fn apply_custom_scale(object: &mut Value, paths: &ScalePaths, scale: &Value) -> Result<(), String> {
    let replicas = int_at(scale, &["spec", "replicas"]).unwrap_or(0);
    let names: Vec<&str> = steps(&paths.spec_replicas).collect();
    let Some((last, above)) = names.split_last() else { return Ok(()) };
    let mut place = object;
    for (depth, name) in above.iter().enumerate() {
        if !place.is_object() {
            return Err(in_the_way(place, &names[..depth]));
        }
        place = &mut place[*name];
        if place.is_null() {
            *place = json!({});
        }
    }
    if !place.is_object() {
        return Err(in_the_way(place, above));
    }
    place[*last] = replicas.into();
    Ok(())
}

fn in_the_way(value: &Value, names: &[&str]) -> String {
    format!("value cannot be set because .{} is not a map[string]interface {{}}, but {value}", names.join("."))
}

/// Checks what an object says at the paths: that of the specification unless only its status is written.
pub fn check_scale(object: &Value, paths: &ScalePaths, status_alone: bool, errors: &mut FieldErrors) {
    if !status_alone {
        replicas(object, &paths.spec_replicas, errors);
    }
    replicas(object, &paths.status_replicas, errors);
    if let Some(path) = &paths.label_selector
        && let Err(problem) = text(object, path)
    {
        errors.invalid(&Path::new(path), "", problem);
    }
}

fn replicas(object: &Value, path: &str, errors: &mut FieldErrors) {
    let at = Path::new(path);
    match number(object, path) {
        Err(problem) => errors.invalid(&at, 0_i64, problem),
        Ok(Some(found)) if found < 0 => errors.invalid(&at, found, "should be a non-negative integer"),
        Ok(Some(found)) if found > i64::from(i32::MAX) => {
            errors.invalid(&at, found, format!("should be less than or equal to {}", i32::MAX));
        }
        Ok(_) => {}
    }
}

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('.').unwrap_or(path).split('.')
}

fn number(object: &Value, path: &str) -> Result<Option<i64>, String> {
    let Some(found) = find(object, path)? else { return Ok(None) };
    found.as_i64().map(Some).ok_or_else(|| wrong(path, found, "int64"))
}

fn text<'v>(object: &'v Value, path: &str) -> Result<Option<&'v str>, String> {
    let Some(found) = find(object, path)? else { return Ok(None) };
    found.as_str().map(Some).ok_or_else(|| wrong(path, found, "string"))
}

fn find<'v>(object: &'v Value, path: &str) -> Result<Option<&'v Value>, String> {
    let mut found = object;
    for name in steps(path) {
        let Some(map) = found.as_object() else {
            return if found.is_null() { Ok(None) } else { Err(wrong(path, found, "map[string]interface {}")) };
        };
        let Some(inner) = map.get(name) else { return Ok(None) };
        found = inner;
    }
    Ok(Some(found))
}

fn wrong(path: &str, found: &Value, expected: &str) -> String {
    let ty = match found {
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null => "<nil>",
        other => go_json_type(other),
    };
    let shown = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    format!(".{} accessor error: {shown} is of the type {ty}, expected {expected}", path.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn paths() -> ScalePaths {
        ScalePaths {
            spec_replicas: ".spec.n".into(),
            status_replicas: ".status.n".into(),
            label_selector: Some(".status.s".into()),
        }
    }

    #[test]
    fn a_scale_is_read_and_written() {
        let mut object = json!({"metadata": {"name": "a", "uid": "u", "labels": {}}, "spec": {"n": 3},
            "status": {"n": 2, "s": "a=b"}});
        let (scale, found) = custom_scale(&object, &paths()).unwrap();
        assert!(found);
        assert_eq!(
            (&scale["spec"], &scale["status"]),
            (&json!({"replicas": 3}), &json!({"replicas": 2, "selector": "a=b"}))
        );
        assert_eq!(scale["metadata"], json!({"name": "a", "uid": "u"}));
        apply_custom_scale(&mut object, &paths(), &json!({"spec": {"replicas": 5}})).unwrap();
        assert_eq!(object["spec"]["n"], 5);
        let (empty, found) = custom_scale(&json!({"metadata": {}}), &paths()).unwrap();
        assert!(!found);
        assert_eq!((&empty["spec"]["replicas"], &empty["status"]), (&json!(0), &json!({"replicas": 0})));
        let mut new = json!({});
        apply_custom_scale(&mut new, &paths(), &json!({"spec": {"replicas": 1}})).unwrap();
        assert_eq!(new, json!({"spec": {"n": 1}}));
        assert!(apply_custom_scale(&mut json!({"spec": 1}), &paths(), &json!({})).is_err());
    }

    #[test]
    fn what_is_no_scale_is_told() {
        for (object, status, expect) in [
            (json!({"spec": {"n": 1}, "status": {"n": 1, "s": ""}}), false, vec![]),
            (json!({"spec": {"n": -1}}), false, vec![".spec.n: Invalid value: -1: should be a non-negative integer"]),
            (json!({"spec": {"n": -1}}), true, vec![]),
            (
                json!({"status": {"n": 2_147_483_648_i64}}),
                true,
                vec![".status.n: Invalid value: 2147483648: should be less than or equal to 2147483647"],
            ),
            (
                json!({"status": {"n": "x", "s": 1}}),
                true,
                vec![
                    ".status.n: Invalid value: 0: .status.n accessor error: x is of the type string, expected int64",
                    ".status.s: Invalid value: \"\": .status.s accessor error: 1 is of the type int64, expected string",
                ],
            ),
        ] {
            let mut errors = FieldErrors::new();
            check_scale(&object, &paths(), status, &mut errors);
            assert_eq!(errors.0.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{object}");
        }
    }
}
