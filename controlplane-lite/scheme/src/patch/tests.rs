//! Tests of `scheme::patch`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::builtin;

fn deployment() -> &'static Kind {
    builtin().by_gvk("apps", "v1", "Deployment").unwrap()
}

fn pod() -> &'static Kind {
    builtin().by_gvk("", "v1", "Pod").unwrap()
}

fn strategic(kind: &Kind, current: Value, patch: Value) -> Result<Value, PatchError> {
    apply(kind, PatchType::Strategic, &current, patch.to_string().as_bytes(), FieldValidation::Warn).map(|d| d.object)
}

#[test]
fn containers_merge_by_name() {
    let got = strategic(
        pod(),
        json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "2"}]}}),
        json!({"spec": {"containers": [{"name": "a", "image": "9", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": "3"}]}}),
    )
    .unwrap();
    assert_eq!(
        got["spec"]["containers"],
        json!([
            {"name": "a", "image": "9", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b", "image": "2"}, {"name": "c", "image": "3"}])
    );
}

#[test]
fn directives() {
    let current = json!({"metadata": {"finalizers": ["a/x", "b/x"], "labels": {"k": "v", "l": "w"}},
        "spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}],
                 "volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}});
    for (patch, pointer, expect) in [
        (
            json!({"spec": {"containers": [{"$patch": "delete", "name": "a"}]}}),
            "/spec/containers",
            json!([{"name": "b", "image": "2"}]),
        ),
        (
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z", "image": "9"}]}}),
            "/spec/containers",
            json!([{"name": "z", "image": "9"}]),
        ),
        (json!({"metadata": {"labels": {"$patch": "replace", "n": "1"}}}), "/metadata/labels", json!({"n": "1"})),
        (json!({"metadata": {"labels": {"k": null}}}), "/metadata/labels", json!({"l": "w"})),
        (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]}}), "/metadata/finalizers", json!(["b/x"])),
        (json!({"metadata": {"finalizers": ["c/x", "a/x"]}}), "/metadata/finalizers", json!(["a/x", "b/x", "c/x"])),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "$retainKeys": ["name", "emptyDir"]}]}}),
            "/spec/volumes",
            json!([{"name": "v", "emptyDir": {}}]),
        ),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            "/spec/containers",
            json!([{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]),
        ),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}], "containers": [{"name": "c", "image": "3"}]}}),
            "/spec/containers",
            json!([{"name": "c", "image": "3"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
        ),
    ] {
        let got = strategic(pod(), current.clone(), patch.clone()).unwrap();
        assert_eq!(got.pointer(pointer), Some(&expect), "{patch}");
    }
}

#[test]
fn strategy_keeps_only_the_named_keys() {
    let got = strategic(
        deployment(),
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
    )
    .unwrap();
    assert_eq!(got["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn atomic_lists_are_replaced() {
    let got = strategic(
        pod(),
        json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}}),
        json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}}),
    )
    .unwrap();
    assert_eq!(got["spec"]["tolerations"], json!([{"key": "b"}]));
    assert_eq!(got["spec"]["containers"][0]["args"], json!(["3"]));
}

#[test]
fn errors_have_upstream_classes() {
    let current = json!({"spec": {"containers": [{"name": "a"}]}});
    let run = |ty, text: &str| apply(pod(), ty, &current, text.as_bytes(), FieldValidation::Strict).unwrap_err();
    assert!(matches!(run(PatchType::Strategic, "{"), PatchError::BadRequest(_)));
    assert!(matches!(run(PatchType::Strategic, r#"{"$patch": "nonsense"}"#), PatchError::BadRequest(_)));
    assert!(matches!(
        run(PatchType::Strategic, r#"{"spec": {"containers": [{"image": "x"}]}}"#),
        PatchError::BadRequest(_)
    ));
    assert!(matches!(run(PatchType::Merge, "[]"), PatchError::BadRequest(_)));
    assert!(matches!(run(PatchType::Json, "{}"), PatchError::BadRequest(_)));
    assert!(matches!(run(PatchType::Json, r#"[{"op": "jump"}]"#), PatchError::BadRequest(_)));
    assert!(matches!(
        run(PatchType::Json, r#"[{"op": "test", "path": "/spec/x", "value": 1}]"#),
        PatchError::Unprocessable(_)
    ));
    assert_eq!(
        run(PatchType::Json, r#"[{"op": "remove", "path": "/spec/x"}]"#),
        PatchError::Unprocessable(
            "remove operation does not apply: doc is missing path: \"/spec/x\": missing value".to_owned()
        )
    );
    let PatchError::Invalid(error) = run(PatchType::Merge, r#"{"spec": {"nope": 1}}"#) else { panic!("not invalid") };
    assert_eq!(error.detail, "strict decoding error: unknown field \"spec.nope\"");
    let PatchError::Invalid(error) = run(PatchType::Merge, r#"{"spec": {"containers": 5}}"#) else {
        panic!("not invalid")
    };
    assert!(error.detail.contains("cannot unmarshal number"), "{}", error.detail);
}

#[test]
fn json_patches() {
    let current = json!({"metadata": {"labels": {"a": "b"}}});
    let got = apply(
        pod(),
        PatchType::Json,
        &current,
        br#"[{"op":"test","path":"/metadata/labels/a","value":"b"},{"op":"replace","path":"/metadata/labels/a","value":"c"}]"#,
        FieldValidation::Warn,
    )
    .unwrap();
    assert_eq!(got.object["metadata"]["labels"]["a"], "c");
}

fn labels() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-e]", prop_oneof![Just(Value::Null), "[x-z]".prop_map(Value::from)], 0..5)
        .prop_map(|m| json!({"metadata": {"labels": m}}))
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-e]", "[x-z]", 0..5).prop_map(|m| {
        let list: Vec<Value> = m.into_iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        json!({"spec": {"containers": list}})
    })
}

proptest! {
    #[test]
    fn merge_patch_is_idempotent(current in labels(), patch in labels()) {
        let once = merge::apply(&current, &patch);
        prop_assert_eq!(merge::apply(&once, &patch), once);
    }

    #[test]
    fn strategic_patch_is_idempotent(current in containers(), patch in containers()) {
        let once = strategic(pod(), current, patch.clone()).unwrap();
        prop_assert_eq!(strategic(pod(), once.clone(), patch).unwrap(), once);
    }

    #[test]
    fn order_decides(current in containers(), patch in containers()) {
        // A client that names all its items in order gets exactly that order among them.
        let list = patch["spec"]["containers"].as_array().unwrap();
        let reversed: Vec<Value> = list.iter().rev().map(|c| json!({"name": c["name"]})).collect();
        let mut patch = patch.clone();
        patch["spec"]["$setElementOrder/containers"] = Value::Array(reversed.clone());
        let got = strategic(pod(), current, patch).unwrap();
        let names: Vec<&Value> = got["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"])
            .filter(|n| reversed.iter().any(|r| &r["name"] == *n)).collect();
        let expect: Vec<&Value> = reversed.iter().map(|r| &r["name"]).collect();
        prop_assert_eq!(names, expect);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let current = json!({"spec": {"containers": [{"name": "a"}]}});
        for ty in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            let _ = apply(pod(), ty, &current, &bytes, FieldValidation::Strict);
        }
    }
}
