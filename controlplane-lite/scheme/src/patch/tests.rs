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
            {"name": "a", "image": "9", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
            {"name": "c", "image": "3"}, {"name": "b", "image": "2"}])
    );
}

/// Without `$setElementOrder` the patch's items stand in the patch's order, before what only the server has, unless
/// that stood before one of them.
#[test]
fn the_patch_orders_its_own_items() {
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
    };
    let containers = |list: &[&str]| {
        let list: Vec<Value> = list.iter().map(|name| json!({"name": name})).collect();
        json!({"spec": {"containers": list}})
    };
    for (server, patch, expect) in [
        (&["one"][..], &["two"][..], &["two", "one"][..]),
        (&["i1", "i2"], &["i2", "i1"], &["i2", "i1"]),
        (&["a", "b"], &["c"], &["c", "a", "b"]),
        (&["a", "b", "c"], &["b"], &["a", "b", "c"]),
        (&["a", "b", "c"], &["n", "c"], &["n", "a", "b", "c"]),
        (&["a", "b", "c"], &["c", "n", "a"], &["b", "c", "n", "a"]),
    ] {
        let got = strategic(pod(), containers(server), containers(patch)).unwrap();
        assert_eq!(names(&got["spec"]["containers"]), expect, "{server:?} {patch:?}");
    }
    let got = strategic(
        pod(),
        json!({"metadata": {"finalizers": ["example.com/a"]}}),
        json!({"metadata": {"finalizers": ["example.com/b"]}}),
    );
    assert_eq!(got.unwrap()["metadata"]["finalizers"], json!(["example.com/b", "example.com/a"]));
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
        (json!({"metadata": {"finalizers": ["c/x", "a/x"]}}), "/metadata/finalizers", json!(["c/x", "a/x", "b/x"])),
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
    assert!(matches!(run(PatchType::Json, r#"[5]"#), PatchError::BadRequest(_)));
    assert_eq!(
        run(PatchType::Json, r#"[{"op": "jump"}]"#),
        PatchError::Unprocessable("Unexpected kind: jump".to_owned())
    );
    assert!(matches!(
        run(PatchType::Json, r#"[{"op": "test", "path": "/spec/x", "value": 1}]"#),
        PatchError::Unprocessable(_)
    ));
    assert_eq!(
        run(PatchType::Json, r#"[{"op": "remove", "path": "/spec/x"}]"#),
        PatchError::Unprocessable(
            "error in remove for path: '/spec/x': Unable to remove nonexistent key: x: missing value".to_owned()
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

/// What upstream's library takes and the RFC does not, and how it words what it refuses.
#[test]
fn json_patches_are_read_as_upstream_reads_them() {
    let current = json!({"a": [1, 2, 3], "o": {"x": "y"}, "n": null});
    let run = |patch: Value| json::apply(&current, &patch);
    let at = |op: &str, path: &str| json!({"op": op, "path": path, "value": 9});
    for (patch, pointer, expect) in [
        (json!([at("replace", "/a/-1")]), "/a", json!([1, 2, 9])),
        (json!([at("remove", "/a/-1")]), "/a", json!([1, 2])),
        (json!([at("add", "/a/-1")]), "/a", json!([1, 2, 3, 9])),
        (json!([at("add", "/a/-2")]), "/a", json!([1, 2, 9, 3])),
        (json!([at("add", "/a/3")]), "/a", json!([1, 2, 3, 9])),
        (json!([at("add", "/a/-")]), "/a", json!([1, 2, 3, 9])),
        (json!([at("add", "/a/1")]), "/a", json!([1, 9, 2, 3])),
        (json!([at("replace", "/o/absent")]), "/o", json!({"x": "y", "absent": 9})),
        (json!([{"op": "test", "path": "/o/never", "value": null}]), "/o", json!({"x": "y"})),
        (json!([{"op": "test", "path": "/o/never"}]), "/o", json!({"x": "y"})),
        (json!([{"op": "test", "path": "/n", "value": null}]), "/o", json!({"x": "y"})),
        (json!([{"op": "move", "from": "/o/x", "path": "/o/z"}]), "/o", json!({"z": "y"})),
        (json!([{"op": "copy", "from": "/o", "path": "/a/0"}]), "/a", json!([{"x": "y"}, 1, 2, 3])),
        (json!([{"op": "add", "path": "/o/a~1b~0c", "value": 1}]), "/o", json!({"x": "y", "a/b~c": 1})),
    ] {
        assert_eq!(run(patch.clone()).unwrap().pointer(pointer), Some(&expect), "{patch}");
    }
    for (patch, expect) in [
        (at("add", "/q/x"), "add operation does not apply: doc is missing path: \"/q/x\": missing value"),
        (at("add", ""), "add operation does not apply: doc is missing path: \"\": missing value"),
        (at("add", "/n/x"), "add operation does not apply: doc is missing path: \"/n/x\": missing value"),
        (
            at("add", "/a/5"),
            "error in add for path: '/a/5': Unable to access invalid index: 5: invalid index referenced",
        ),
        (
            at("add", "/a/-5"),
            "error in add for path: '/a/-5': Unable to access invalid index: -5: invalid index referenced",
        ),
        (
            at("add", "/a/x"),
            "error in add for path: '/a/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        (at("replace", "/q/x"), "replace operation does not apply: doc is missing path: /q/x: missing value"),
        (at("replace", "/a/3"), "replace operation does not apply: doc is missing key: /a/3: missing value"),
        (at("remove", "/q/x"), "remove operation does not apply: doc is missing path: \"/q/x\": missing value"),
        (at("test", "/o/x"), "testing value /o/x failed: test failed"),
        (
            json!({"op": "move", "from": "/o/q", "path": "/o/z"}),
            "error in move for path: 'q': Unable to remove nonexistent key: q: missing value",
        ),
    ] {
        assert_eq!(run(json!([patch.clone()])), Err(PatchError::Unprocessable(expect.to_owned())), "{patch}");
    }
}

#[test]
fn json_patches_cannot_explode() {
    let current = json!({"metadata": {"annotations": {"a": "x".repeat(100)}}});
    let double = |n: usize| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/annotations/x{n}")});
    let bomb: Value = (0..30).map(double).collect();
    let Err(PatchError::Unprocessable(text)) = json::apply(&current, &bomb) else { panic!("not refused") };
    assert!(text.starts_with("Unable to complete the copy"), "{text}");
    let small = json!({"l": vec![json!({"a": 0}); 2_000], "m": {}});
    let copies: Value = (0..150).map(|n| json!({"op": "copy", "from": "/l", "path": format!("/m/{n}")})).collect();
    let Err(PatchError::Unprocessable(text)) = json::apply(&small, &copies) else { panic!("not refused") };
    assert!(text.contains("the decoded object is larger than"), "{text}");
    let many: Value = (0..=MAX_JSON_PATCH_OPERATIONS).map(|_| json!({"op": "test", "path": "/q"})).collect();
    assert_eq!(json::apply(&current, &many), Err(PatchError::TooManyOperations(MAX_JSON_PATCH_OPERATIONS + 1)));
    // Each of these moves every item of a long list.
    let long = json!({"l": vec![0; 500_000]});
    let shift: Value = (0..5_000).map(|_| json!({"op": "add", "path": "/l/0", "value": 1})).collect();
    let Err(PatchError::Unprocessable(text)) = json::apply(&long, &shift) else { panic!("not refused") };
    assert!(text.contains("moves or looks at too many values"), "{text}");
}

/// Lists that merge by key, by value and by order, each as long as a body can make them.
#[test]
fn long_lists_merge_in_linear_time() {
    let names = |from: usize| (from..from + 60_000).map(|n| json!({"name": format!("c{n}")})).collect::<Vec<_>>();
    let (server, mine) = (names(0), names(30_000));
    let patch = json!({"spec": {"containers": mine, "$setElementOrder/containers": mine}});
    let got = strategic::apply(pod().schema(), &json!({"spec": {"containers": server}}), &patch).unwrap();
    assert_eq!(got["spec"]["containers"].as_array().unwrap().len(), 90_000);
    let texts = |from: usize| (from..from + 60_000).map(|n| json!(format!("f/{n}"))).collect::<Vec<_>>();
    let current = json!({"metadata": {"finalizers": texts(0)}});
    let got = strategic::apply(pod().schema(), &current, &json!({"metadata": {"finalizers": texts(30_000)}})).unwrap();
    assert_eq!(got["metadata"]["finalizers"].as_array().unwrap().len(), 90_000);
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": texts(30_000)}});
    let got = strategic::apply(pod().schema(), &current, &patch).unwrap();
    assert_eq!(got["metadata"]["finalizers"].as_array().unwrap().len(), 30_000);
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

/// What one operation nests in another may be deeper than any body: to read, to write, even to drop it would end the
/// process.
#[test]
fn no_patch_nests_deeper_than_a_body() {
    let chain = |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
    let path = |levels: usize| format!("/data{}", "/a".repeat(levels));
    let current = json!({"data": chain(60), "other": chain(30)});
    let grown = |op: Value| json::apply(&current, &json!([op]));
    for (op, expect) in [
        (json!({"op": "copy", "from": "/data", "path": path(61)}), true),
        (json!({"op": "move", "from": "/other", "path": path(61)}), true),
        (json!({"op": "add", "path": path(61), "value": chain(64)}), true),
        (json!({"op": "add", "path": path(61), "value": chain(65)}), false),
        (json!({"op": "replace", "path": path(61), "value": chain(65)}), false),
        (json!({"op": "add", "path": path(61), "value": [chain(64)]}), false),
    ] {
        let result = grown(op.clone());
        assert_eq!(result.is_ok(), expect, "{op}");
        if let Ok(patched) = result {
            assert!(serde_json::from_str::<Value>(&patched.to_string()).is_ok(), "{op}");
        }
    }
    for kind in ["copy", "move"] {
        let mut ops = vec![json!({"op": "copy", "from": "/data", "path": "/b"})];
        for doubled in 0..12 {
            let levels = 61 << doubled;
            ops.push(json!({"op": "copy", "from": "/data", "path": "/b"}));
            ops.push(json!({"op": kind, "from": "/b", "path": path(levels)}));
        }
        assert!(matches!(json::apply(&current, &json!(ops)), Err(PatchError::Unprocessable(_))), "{kind}");
    }
}
