//! Tables of what is refused, with upstream's texts; the cases are those of
//! pkg/apis/resource/validation/validation_{resourceclaim,resourceclaimtemplate,deviceclass,resourceslice}_test.go.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use crate::builtin;
use crate::kind::Kind;
use crate::patch::merge;
use crate::table::{IncludeObject, row};
use crate::tests::context;

fn kind(plural: &str) -> &'static Kind {
    builtin().by_gvr("resource.k8s.io", "v1", plural).unwrap()
}

fn made(plural: &str, object: &Value) -> Value {
    let mut object = object.clone();
    kind(plural).default(&mut object);
    object
}

fn problems(plural: &str, object: &Value) -> Vec<String> {
    kind(plural).validate_create(&made(plural, object)).0.iter().map(ToString::to_string).collect()
}

fn changed(plural: &str, subresource: &str, old: &Value, changes: &Value) -> Vec<String> {
    let (mut old, mut new) = (made(plural, old), made(plural, &merge::apply(old, changes)));
    for object in [&mut old, &mut new] {
        object["metadata"]["resourceVersion"] = "1".into();
    }
    kind(plural).prepare_update(subresource, &mut new, &old, &context());
    kind(plural).validate_update(subresource, &new, &old).0.iter().map(ToString::to_string).collect()
}

/// A claim for one device; the changes are those of its request.
fn claim(request: &Value) -> Value {
    let base = json!({"name": "gpu", "exactly": {"deviceClassName": "class"}});
    json!({"metadata": {"name": "c", "namespace": "n"},
        "spec": {"devices": {"requests": [merge::apply(&base, request)]}}})
}

fn slice(changes: &Value) -> Value {
    let base = json!({"metadata": {"name": "s"}, "spec": {"driver": "gpu.example.com", "nodeName": "n1",
        "pool": {"name": "n1", "resourceSliceCount": 1}, "devices": [{"name": "d0"}]}});
    merge::apply(&base, changes)
}

#[test]
fn requests_have_their_defaults() {
    let exactly = |object: &Value| made("resourceclaims", object)["spec"]["devices"]["requests"][0]["exactly"].clone();
    let rows = [
        (json!({}), json!({"deviceClassName": "class", "allocationMode": "ExactCount", "count": 1})),
        (
            json!({"exactly": {"allocationMode": "ExactCount", "count": 2}}),
            json!({"deviceClassName": "class", "allocationMode": "ExactCount", "count": 2}),
        ),
        (json!({"exactly": {"allocationMode": "All"}}), json!({"deviceClassName": "class", "allocationMode": "All"})),
        (
            json!({"exactly": {"allocationMode": "other"}}),
            json!({"deviceClassName": "class", "allocationMode": "other"}),
        ),
    ];
    for (changes, expect) in rows {
        assert_eq!(exactly(&claim(&changes)), expect, "{changes}");
    }
    let first = json!({"exactly": null, "firstAvailable": [{"name": "a", "deviceClassName": "class"}]});
    let template = json!({"spec": {"spec": claim(&first)["spec"]}});
    let template = made("resourceclaimtemplates", &template);
    let expect = json!({"name": "a", "deviceClassName": "class", "allocationMode": "ExactCount", "count": 1});
    assert_eq!(template["spec"]["spec"]["devices"]["requests"][0]["firstAvailable"][0], expect);
}

#[test]
fn claims_are_refused_as_upstream_refuses_them() {
    const PATH: &str = "spec.devices.requests[0]";
    let long = "x".repeat(10_241);
    let rows: Vec<(Value, &[&str])> = vec![
        (json!({}), &[]),
        (json!({"exactly": {"allocationMode": "All"}}), &[]),
        (json!({"exactly": null}), &[": Required value: exactly one of `exactly` or `firstAvailable` is required"]),
        (
            json!({"firstAvailable": [{"name": "a", "deviceClassName": "class"}]}),
            &[
                ": Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            ],
        ),
        (json!({"exactly": {"deviceClassName": ""}}), &[".exactly.deviceClassName: Required value"]),
        (
            json!({"exactly": {"allocationMode": "other"}}),
            &[".exactly.allocationMode: Unsupported value: \"other\": supported values: \"All\", \"ExactCount\""],
        ),
        (
            json!({"exactly": {"allocationMode": "All", "count": 2}}),
            &[".exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"],
        ),
        (json!({"exactly": {"count": -1}}), &[".exactly.count: Invalid value: -1: must be greater than zero"]),
        (json!({"exactly": {"selectors": [{}]}}), &[".exactly.selectors[0].cel: Required value"]),
        (json!({"exactly": {"selectors": [{"cel": {"expression": "true"}}]}}), &[]),
        (
            json!({"exactly": {"selectors": [{"cel": {"expression": long}}]}}),
            &[".exactly.selectors[0].cel.expression: Too long: may not be more than 10240 bytes"],
        ),
        (
            json!({"exactly": {"tolerations": [{"key": "a", "operator": "Exists", "value": "v"}]}}),
            &[".exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`"],
        ),
        (
            json!({"exactly": {"tolerations": [{"key": "a", "operator": "In", "effect": "No"}]}}),
            &[
                ".exactly.tolerations[0].operator: Unsupported value: \"In\": supported values: \"Equal\", \"Exists\"",
                ".exactly.tolerations[0].effect: Unsupported value: \"No\": supported values: \"NoExecute\", \
                 \"NoSchedule\", \"None\"",
            ],
        ),
    ];
    for (request, expect) in rows {
        let expect: Vec<_> = expect.iter().map(|text| format!("{PATH}{text}")).collect();
        assert_eq!(problems("resourceclaims", &claim(&request)), expect, "{request}");
        let template = json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {"spec": claim(&request)["spec"]}});
        let expect: Vec<_> = expect.iter().map(|text| text.replacen("spec.", "spec.spec.", 1)).collect();
        assert_eq!(problems("resourceclaimtemplates", &template), expect, "{request}");
    }
}

#[test]
fn what_refers_to_requests_names_them() {
    const WANTED: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let first = json!({"exactly": null, "firstAvailable": [{"name": "a", "deviceClassName": "class"}]});
    let with = |requests: &[&str]| {
        let mut object = claim(&first);
        object["spec"]["devices"]["constraints"] =
            json!([{"requests": requests, "matchAttribute": "example.com/numa"}]);
        problems("resourceclaims", &object)
    };
    assert_eq!(with(&["gpu"]), [""; 0]);
    assert_eq!(with(&["gpu/a"]), [""; 0]);
    let at = |place: usize| format!("spec.devices.constraints[0].requests[{place}]");
    assert_eq!(with(&["gpu", "gpu"]), [format!("{}: Duplicate value: \"gpu\"", at(1))]);
    for unknown in ["other", "gpu/b", "gpu/a/c"] {
        assert_eq!(with(&[unknown]), [format!("{}: Invalid value: \"{unknown}\": {WANTED}", at(0))]);
    }
    let mut object = claim(&json!({}));
    object["spec"]["devices"]["constraints"] = json!([{"matchAttribute": "numa"}]);
    object["spec"]["devices"]["config"] = json!([
        {"opaque": {"driver": "gpu.example.com", "parameters": {}}}, {},
        {"opaque": {"driver": "gpu.example.com", "parameters": 7}},
    ]);
    let expect = [
        "spec.devices.constraints[0].matchAttribute: Invalid value: \"numa\": a fully qualified name must be a domain \
         and a name separated by a slash",
        "spec.devices.config[1].opaque: Required value",
        "spec.devices.config[2].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
    ];
    assert_eq!(problems("resourceclaims", &object), expect);
}

#[test]
fn classes_are_refused_as_upstream_refuses_them() {
    let rows: Vec<(Value, &[&str])> = vec![
        (json!({}), &[]),
        (json!({"extendedResourceName": "example.com/gpu"}), &[]),
        (
            json!({"extendedResourceName": "gpu"}),
            &["spec.extendedResourceName: Invalid value: \"gpu\": must be a valid extended resource name"],
        ),
        (json!({"selectors": [{}]}), &["spec.selectors[0].cel: Required value"]),
        (
            json!({"config": [{"opaque": {"driver": "", "parameters": {}}}]}),
            &["spec.config[0].opaque.driver: Required value"],
        ),
    ];
    for (spec, expect) in rows {
        let object = json!({"metadata": {"name": "class"}, "spec": spec});
        let found = problems("deviceclasses", &object);
        assert!(found.len() >= expect.len() && found[..expect.len()] == *expect, "{spec}: {found:?}");
        assert_eq!(found.is_empty(), expect.is_empty(), "{spec}: {found:?}");
    }
}

#[test]
fn slices_are_refused_as_upstream_refuses_them() {
    const WAYS: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let device = |device: Value| slice(&json!({"spec": {"devices": [device]}}));
    let rows: Vec<(Value, Vec<String>)> = vec![
        (slice(&json!({})), vec![]),
        (slice(&json!({"spec": {"nodeName": null}})), vec![format!("spec: Required value: {WAYS}")]),
        (
            slice(&json!({"spec": {"allNodes": true}})),
            vec![format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {WAYS}, but multiple fields are set")],
        ),
        (
            slice(&json!({"spec": {"pool": {"resourceSliceCount": 0, "generation": -1}}})),
            vec![
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero".into(),
                "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero".into(),
            ],
        ),
        (
            slice(&json!({"spec": {"devices": [{"name": "d"}, {"name": "d"}]}})),
            vec!["spec.devices[1]: Duplicate value: \"d\"".into()],
        ),
        (
            slice(&json!({"spec": {"devices": vec![json!({"name": "d"}); 129]}})),
            vec!["spec.devices: Too many: 129: must have at most 128 items".into()],
        ),
        (device(json!({"name": "d", "attributes": {"a": {"version": "1.2.3-x.1+b"}, "e.com/b": {"int": 1}}})), vec![]),
        (
            device(json!({"name": "d", "attributes": {"a": {}}})),
            vec!["spec.devices[0].attributes[a]: Invalid value: \"\": exactly one value must be specified".into()],
        ),
        (
            device(json!({"name": "d", "attributes": {"a": {"version": "1.2"}}})),
            vec![
                "spec.devices[0].attributes[a].version: Invalid value: \"1.2\": must be a string compatible with \
                 semver.org spec 2.0.0"
                    .into(),
            ],
        ),
        (
            device(json!({"name": "d", "taints": [{"key": "k"}, {"key": "k", "effect": "other"}]})),
            vec![
                "spec.devices[0].taints[0].effect: Required value".into(),
                "spec.devices[0].taints[1].effect: Unsupported value: \"other\": supported values: \"NoExecute\", \
                 \"NoSchedule\", \"None\""
                    .into(),
            ],
        ),
        (
            device(json!({"name": "d", "bindingConditions": ["a"]})),
            vec![
                "spec.devices[0].bindingFailureConditions: Invalid value: []: bindingFailureConditions are required \
                 to use bindingConditions"
                    .into(),
            ],
        ),
    ];
    for (object, expect) in rows {
        assert_eq!(problems("resourceslices", &object), expect, "{object}");
    }
}

#[test]
fn counters_and_amounts_are_checked() {
    let counters = slice(&json!({"spec": {"devices": null, "sharedCounters": [{"name": "s", "counters": {}}]}}));
    assert_eq!(problems("resourceslices", &counters), ["spec.sharedCounters[0].counters: Required value"]);
    let capacity = |policy: Value, shared: bool| {
        problems(
            "resourceslices",
            &slice(&json!({"spec": {"devices": [{"name": "d", "allowMultipleAllocations": shared,
            "capacity": {"m": {"value": "10", "requestPolicy": policy}}}]}})),
        )
    };
    let path = "spec.devices[0].capacity[m].requestPolicy";
    assert_eq!(capacity(json!({"default": "1", "validValues": ["1", "2"]}), true), [""; 0]);
    let forbidden = format!("{path}: Forbidden: allowMultipleAllocations must be true");
    assert_eq!(capacity(json!({"default": "1", "validValues": ["1"]}), false), [forbidden]);
    let rows = [
        (json!({"validValues": ["1"]}), "default: Required value: required when validValues is defined"),
        (
            json!({"default": "1", "validValues": ["1", "11"]}),
            "validValues[1]: Invalid value: \"11\": option is larger than capacity value: 10",
        ),
        (
            json!({"default": "3", "validValues": ["1"]}),
            "validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
        ),
        (
            json!({"default": "1", "validRange": {"min": "11"}}),
            "validRange.min: Invalid value: \"11\": min is larger than capacity value: 10",
        ),
        (
            json!({"default": "5", "validRange": {"min": "1", "max": "4"}}),
            "validRange.default: Invalid value: \"5\": default is more than max: 4",
        ),
    ];
    for (policy, expect) in rows {
        let found = capacity(policy.clone(), true);
        assert_eq!(found.first(), Some(&format!("{path}.{expect}")), "{policy}: {found:?}");
    }
}

#[test]
fn what_stays() {
    let spec = json!({"spec": {"devices": {"requests": []}}});
    let found = changed("resourceclaims", "", &claim(&json!({})), &spec);
    assert!(found.len() == 1 && found[0].ends_with("field is immutable"), "{found:?}");
    for field in ["driver", "nodeName"] {
        let found = changed("resourceslices", "", &slice(&json!({})), &json!({"spec": {field: "other"}}));
        assert_eq!(found, [format!("spec.{field}: Invalid value: \"other\": field is immutable")]);
    }
    let more = json!({"spec": {"pool": {"generation": 2}, "devices": [{"name": "d1"}]}});
    assert_eq!(changed("resourceslices", "", &slice(&json!({})), &more), [""; 0]);
}

#[test]
fn allocations_are_of_what_was_asked() {
    let result = |request: &str| json!({"request": request, "driver": "gpu.example.com", "pool": "p", "device": "d"});
    let allocation = |request: &str| json!({"allocation": {"devices": {"results": [result(request)]}}});
    let consumer = json!({"resource": "pods", "name": "p", "uid": "1"});
    let status = |changes: Value| changed("resourceclaims", "status", &claim(&json!({})), &json!({"status": changes}));
    assert_eq!(status(allocation("gpu")), [""; 0]);
    let found = status(allocation("other"));
    assert!(found.len() == 1 && found[0].starts_with("status.allocation.devices.results[0].request: "), "{found:?}");
    assert_eq!(
        status(json!({"reservedFor": [consumer]})),
        ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
    );
    let allocated = merge::apply(&claim(&json!({})), &json!({"status": allocation("gpu")}));
    let reserved = json!({"status": {"reservedFor": [consumer, consumer]}});
    assert_eq!(
        changed("resourceclaims", "status", &allocated, &reserved),
        ["status.reservedFor[1]: Duplicate value: \"1\""]
    );
    let device = |driver: &str| {
        json!({"status": {"devices": [{"driver": driver, "pool": "p", "device": "d",
        "networkData": {"ips": ["10.9.8.0/24", "10.9.8.0"]}}]}})
    };
    let found = changed("resourceclaims", "status", &allocated, &device("gpu.example.com"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("status.devices[0].networkData.ips[1]: Invalid value: \"10.9.8.0\""), "{found:?}");
    let found = changed("resourceclaims", "status", &allocated, &device("other.example.com"));
    let text = "status.devices[0]: Invalid value: \"other.example.com/p/d\": must be an allocated device in the claim";
    assert!(found.iter().any(|f| f == text), "{found:?}");
}

#[test]
fn claims_show_their_state() {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let state = |changes: Value| {
        let object = merge::apply(&claim(&json!({})), &changes);
        row(kind("resourceclaims"), &object, IncludeObject::None, now)["cells"][1].clone()
    };
    let allocated = json!({"status": {"allocation": {}}});
    assert_eq!(state(json!({})), "pending");
    assert_eq!(state(allocated.clone()), "allocated");
    let reserved = json!({"status": {"reservedFor": [{"uid": "1"}]}});
    assert_eq!(state(merge::apply(&allocated, &reserved)), "allocated,reserved");
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    assert_eq!(state(deleted), "deleted");
}
