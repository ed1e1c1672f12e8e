//! The cases of k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor_test.go and
//! of pkg/apiserver/customresource_handler_test.go.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::patch::merge;
use crate::table::Print;

const NOW: &str = "2026-01-02T00:00:00Z";

fn crd(versions: Value, changes: &Value) -> Value {
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "Widgets",
        "shortNames": ["wd"], "categories": ["all"]});
    let spec =
        json!({"group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget"}, "versions": versions});
    merge::apply(&json!({"spec": spec, "status": {"acceptedNames": names}}), changes)
}

fn version(name: &str, changes: Value) -> Value {
    merge::apply(&json!({"name": name, "served": true}), &changes)
}

#[test]
fn every_served_version_is_a_kind() {
    let v2 = version(
        "v2",
        json!({"storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n",
            "labelSelectorPath": ".status.s"}},
        "selectableFields": [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]}),
    );
    let v1 = version("v1", json!({"subresources": {"scale": {"specReplicasPath": ".a", "statusReplicasPath": ".b"}}}));
    let definition = crd(json!([version("v3", json!({"served": false})), v2, v1]), &json!({}));
    let [second, first]: [Described; 2] = kinds_of(&definition).try_into().unwrap();

    let names = &second.names;
    assert_eq!((&*names.group, &*names.version, &*names.kind), ("example.com", "v2", "Widget"));
    assert_eq!((&*names.plural, &*names.singular, &*second.list_kind), ("widgets", "widget", "Widgets"));
    assert_eq!((names.short_names.as_slice(), names.categories.as_slice()), (&["wd".into()][..], &["all".into()][..]));
    assert_eq!((second.definition.as_str(), &second.schema), ("com.example.v2.Widget", &json!({"type": "object"})));
    assert!(second.namespaced && second.storage && !first.storage && !second.preserves_unknown);
    assert_eq!(second.fields, ["spec.color", "spec.size"]);
    assert_eq!(second.subresources.iter().map(|s| s.name).collect::<Vec<_>>(), ["scale", "status"]);
    assert_eq!(second.subresources[0].body, Some(("autoscaling", "v1", "Scale")));
    let paths = ScalePaths {
        spec_replicas: ".spec.n".into(),
        status_replicas: ".status.n".into(),
        label_selector: Some(".status.s".into()),
    };
    assert_eq!(second.scale, Some(paths));
    assert_eq!(second.verbs, ALL_VERBS);
    assert_eq!((first.subresources.len(), first.scale.unwrap().label_selector), (1, None));
    assert!(first.schema.is_null());

    let terminating = json!({"spec": {"scope": "Cluster"},
        "status": {"conditions": [{"type": "Terminating", "status": "True"}]}});
    let going = &kinds_of(&crd(json!([version("v1", json!({}))]), &terminating))[0];
    assert!(going.verbs == TERMINATING_VERBS && !going.namespaced && going.subresources.is_empty());
    let nameless = json!({"status": {"acceptedNames": {"listKind": null}}});
    assert!(kinds_of(&crd(json!([version("v1", json!({}))]), &nameless)).is_empty());
    assert!(kinds_of(&json!({})).is_empty());
}

#[test]
fn deprecated_versions_warn() {
    let deprecated = |name: &str| version(name, json!({"deprecated": true}));
    let current = |name: &str| version(name, json!({}));
    let said = version("v1", json!({"deprecated": true, "deprecationWarning": "go away"}));
    for (versions, expect) in [
        (json!([current("v1")]), None),
        (json!([said]), Some("go away")),
        (json!([deprecated("v1")]), Some("example.com/v1 Widget is deprecated")),
        (
            json!([deprecated("v1beta1"), current("v1"), current("v2"), current("v3alpha1")]),
            Some("example.com/v1beta1 Widget is deprecated; use example.com/v2 Widget"),
        ),
        (
            json!([deprecated("v1"), current("v1beta1"), current("v1alpha1")]),
            Some("example.com/v1 Widget is deprecated"),
        ),
        (
            json!([deprecated("v1"), version("v2", json!({"served": false})), deprecated("v3"), current("v4beta1")]),
            Some("example.com/v1 Widget is deprecated"),
        ),
    ] {
        let kinds = kinds_of(&crd(versions.clone(), &json!({})));
        assert_eq!(kinds[0].deprecated.as_deref(), expect, "{versions}");
    }
}

fn cells(columns: &Value, object: &Value) -> Vec<Value> {
    Columns::new(columns).cells(object, NOW.parse().unwrap())
}

/// The cell of a column of this type for a value.
fn cell(ty: &str, value: Value) -> Value {
    let columns = json!([{"name": "C", "type": ty, "jsonPath": ".v"}]);
    cells(&columns, &json!({"metadata": {"name": "w"}, "v": value})).swap_remove(1)
}

#[test]
fn a_cell_is_what_its_type_makes_of_a_value() {
    for (ty, value, expect) in [
        ("integer", json!(42), json!(42)),
        ("integer", json!(3.25), json!(3)),
        ("integer", json!(-3.9), json!(-3)),
        ("integer", json!(true), json!(null)),
        ("integer", json!("foo"), json!(null)),
        ("number", json!(42), json!(42)),
        ("number", json!(3.25), json!(3.25)),
        ("number", json!(5.0), json!(5)),
        ("number", json!("foo"), json!(null)),
        ("boolean", json!(42), json!(null)),
        ("boolean", json!(true), json!(true)),
        ("boolean", json!("foo"), json!(null)),
        ("string", json!("foo"), json!("foo")),
        ("string", json!(42), json!("42")),
        ("string", json!(true), json!("true")),
        ("string", json!(["bar", "baz"]), json!("[\"bar\",\"baz\"]")),
        ("string", json!({"a": 1.0}), json!("{\"a\":1}")),
        ("string", json!(null), json!("<no value>")),
        ("date", json!(42), json!(null)),
        ("date", json!("2026-01-01T11:30:00Z"), json!("12h")),
        ("date", json!("2026-01-02T12:30:00Z"), json!("<invalid>")),
        ("date", json!("yesterday"), json!("<invalid>")),
        ("date", json!(""), json!("<unknown>")),
        ("unknown", json!("foo"), json!(null)),
    ] {
        assert_eq!(cell(ty, value.clone()), expect, "{ty} {value}");
    }
}

#[test]
fn columns_are_what_the_definition_says() {
    let object = json!({"metadata": {"name": "blah", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"servers": [
        {"hosts": ["foo"]}, {"hosts": ["bar", "baz"]}]},
        "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]}});
    let column = |path: &str, ty: &str| json!({"name": "N", "type": ty, "jsonPath": path});
    let columns = json!([
        column(".spec.servers[0].hosts[0]", "string"),
        column(".spec.servers[0].hosts", "string"),
        column(".spec.servers[1].hosts", "string"),
        column(".spec.servers[*].hosts", "string"),
        column(".spec.servers[*].hosts", "integer"),
        column(r#".status.conditions[?(@.type=="Ready")].status"#, "string"),
        column(".spec.missing.more", "string"),
        column(".spec.servers[7]", "string"),
        column(".metadata.creationTimestamp", "date"),
    ]);
    let expect = json!(["blah", "foo", "[\"foo\"]", "[\"bar\",\"baz\"]", "[\"foo\"]", null, "True", null, null, "24h"]);
    assert_eq!(Value::from(cells(&columns, &object)), expect);

    assert_eq!(Value::from(cells(&json!(null), &object)), json!(["blah", "24h"]));
    let age = Columns::new(&json!([]));
    let shown: Vec<(&str, &str)> = age.columns().iter().map(|c| (c.name, c.ty)).collect();
    assert_eq!(shown, [("Name", "string"), ("Age", "date")]);

    let full = json!([{"name": "Size", "type": "integer", "format": "int32", "priority": 1, "jsonPath": ".spec.size"},
        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "description": "d"},
        {"name": "Broken", "type": "string", "jsonPath": ".a["}, {"name": "Lost", "type": "string", "jsonPath": ".a"}]);
    let columns = Columns::new(&full);
    let columns = columns.columns();
    assert_eq!(columns.len(), 3, "a path that is none ends the columns");
    assert_eq!((columns[1].format, columns[1].priority), ("int32", 1));
    assert_eq!(columns[1].description, "Custom resource definition column (in JSONPath format): .spec.size");
    assert_eq!(columns[2].description, "d");
}

/// Many columns of the same large value, and of what takes long to find, give some of them.
#[test]
fn what_the_columns_of_a_row_take_is_bounded() {
    let object = json!({"metadata": {"name": "n"}, "spec": {"a": "x".repeat(1 << 20)}});
    for path in [".spec", ".spec.a"] {
        let row = cells(&json!(vec![json!({"name": "N", "type": "string", "jsonPath": path}); 200]), &object);
        assert_eq!(row.len(), 201);
        assert!(row[1].is_string() && row[200].is_null());
        let bytes: usize = row.iter().filter_map(Value::as_str).map(str::len).sum();
        assert!(bytes < 20 << 20, "{bytes}");
    }
}
