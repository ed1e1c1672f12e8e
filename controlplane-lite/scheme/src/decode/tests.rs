//! Tests of `scheme::decode`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::builtin;

fn kind(group: &str, kind: &str) -> &'static Kind {
    builtin().by_gvk(group, "v1", kind).unwrap()
}

fn strict(k: &Kind, body: &str) -> Result<Decoded, DecodeError> {
    decode(k, MediaType::Json, body.as_bytes(), FieldValidation::Strict)
}

#[test]
fn wrong_types_are_told_as_go_does() {
    let deployment = kind("apps", "Deployment");
    for (body, expect) in [
        (
            r#"{"kind":"Deployment","apiVersion":"apps/v1","spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"metadata":"x"}"#,
            "json: cannot unmarshal string into Go struct field Deployment.metadata of type v1.ObjectMeta",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        let error = strict(deployment, body).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("Deployment in version \"v1\" cannot be handled as a Deployment: {expect}"),
            "{body}"
        );
    }
}

#[test]
fn bad_text_is_unrecognized() {
    let pod = kind("", "Pod");
    for (body, expect) in [
        ("", "unexpected end of JSON input (<empty>)"),
        ("{", "unexpected end of JSON input ({)"),
        ("nonsense", "invalid character"),
        (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (r#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"),
        ("{} x", "invalid character 'x' after top-level value"),
        ("[]", "cannot unmarshal array into Go value"),
        (r#"{"kind":5}"#, "cannot unmarshal number"),
    ] {
        let error = strict(pod, body).unwrap_err().to_string();
        assert!(error.starts_with("the object provided is unrecognized (must be of type Pod): "), "{error}");
        assert!(error.contains(expect), "{body}: {error}");
    }
    let deep = format!("{}{}", r#"{"a":"#.repeat(400), "}".repeat(400));
    assert!(strict(pod, &deep).unwrap_err().to_string().contains("exceeded max depth"));
}

#[test]
fn unknown_and_duplicate_fields() {
    let pod = kind("", "Pod");
    let body = br#"{"spec":{"foo":1,"containers":[{"name":"a","bar":{},"name":"b"}]},"nope":null}"#;
    let error = decode(pod, MediaType::Json, body, FieldValidation::Strict).unwrap_err().to_string();
    assert_eq!(
        error,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: \
         unknown field \"spec.foo\", unknown field \"spec.containers[0].bar\", \
         duplicate field \"spec.containers[0].name\", unknown field \"nope\""
    );
    let warned = decode(pod, MediaType::Json, body, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings.len(), 4);
    assert_eq!(warned.object, json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "b"}]}}));
    assert!(decode(pod, MediaType::Json, body, FieldValidation::Ignore).unwrap().warnings.is_empty());
}

/// Bodies that are small on the wire and large, or slow, when decoded.
#[test]
fn bodies_cannot_explode() {
    let pod = kind("", "Pod");
    let refused = |media, body: &str, expect: &str| {
        let error = decode(pod, media, body.as_bytes(), FieldValidation::Warn).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    // Nine levels of nine aliases each.
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let below = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    refused(MediaType::Yaml, &bomb, "document contains excessive aliasing");
    // One long text, named often.
    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 10_000].join(","));
    refused(MediaType::Yaml, &long, "larger than");
    let maps = format!("{{\"x\":[{}]}}", vec!["{\"a\":0}"; 390_000].join(","));
    refused(MediaType::Json, &maps, "larger than");
    let aliased = b"spec: {containers: [&c {name: a, image: x}, {name: b, image: z}], initContainers: [*c]}";
    let got = decode(pod, MediaType::Yaml, aliased, FieldValidation::Strict).unwrap().object;
    assert_eq!(got["spec"]["initContainers"][0]["name"], "a");
}

/// What a body in YAML says is by YAML 1.1's words, as upstream's conversion to JSON has it.
#[test]
fn yaml_has_the_words_of_yaml_1_1() {
    let pod = kind("", "Pod");
    let body = b"metadata: {name: a, annotations: {y: 'yes', n: \"on\"}}\n\
        base: &base {restartPolicy: Never, shareProcessNamespace: off}\n\
        spec:\n  hostNetwork: yes\n  enableServiceLinks: OFF\n  terminationGracePeriodSeconds: 1_0\n  <<: *base\n\
        \x20 volumes: [{name: v, secret: {secretName: s, defaultMode: 0644}}]\n  restartPolicy: Always\n";
    let got = decode(pod, MediaType::Yaml, body, FieldValidation::Ignore).unwrap().object;
    assert_eq!(got["metadata"]["annotations"], json!({"true": "yes", "false": "on"}));
    let expect = json!({"hostNetwork": true, "enableServiceLinks": false, "shareProcessNamespace": false, "terminationGracePeriodSeconds": 10,
        "restartPolicy": "Always", "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}]});
    assert_eq!(got["spec"], expect);
    // So a text has to be quoted.
    assert!(decode(pod, MediaType::Yaml, b"spec: {nodeName: no}", FieldValidation::Ignore).is_err());
    let json = br#"{"metadata": {"name": "yes", "annotations": {"y": "0644"}}}"#;
    for media in [MediaType::Json, MediaType::Yaml] {
        let kept = decode(pod, media, json, FieldValidation::Ignore).unwrap().object;
        assert_eq!(kept["metadata"], json!({"name": "yes", "annotations": {"y": "0644"}}));
    }
    // Many of them on one line, each looked at in its place.
    let many = format!("spec: {{containers: [{{args: [{}]}}]}}", vec!["y"; 100_000].join(","));
    assert!(decode(pod, MediaType::Yaml, many.as_bytes(), FieldValidation::Ignore).is_err());
}

/// Three megabytes of duplicate or unknown keys take a moment and are told of a hundred times.
#[test]
fn repeated_keys_are_read_in_linear_time() {
    let pod = kind("", "Pod");
    let read = |body: &str| decode(pod, MediaType::Json, body.as_bytes(), FieldValidation::Warn).unwrap().warnings;
    let twice: Vec<String> = (0..300_000).map(|n| format!("\"k{}\":0", n / 2)).collect();
    let warnings = read(&format!("{{{}}}", twice.join(",")));
    assert_eq!(warnings.len(), 100);
    let same = vec!["\"kind\":\"Pod\""; 200_000].join(",");
    assert_eq!(read(&format!("{{{same}}}")), ["duplicate field \"kind\""]);
    // Long paths, again and again.
    let long = "k".repeat(1 << 18);
    let inner = vec!["\"x\":{\"a\":0,\"a\":0}"; 20_000].join(",");
    assert!(read(&format!("{{\"{long}\":{{{inner}}}}}")).len() <= 100);
    let deep = vec!["{\"a\":0,\"a\":0}"; 20_000].join(",");
    assert!(read(&format!("{{\"{long}\":[{deep}]}}")).len() <= 100);
}

#[test]
fn identity_is_checked() {
    let pod = kind("", "Pod");
    for (body, expect) in [
        (
            r#"{"kind":"Deployment","apiVersion":"apps/v1"}"#,
            "Deployment in version \"v1\" cannot be handled as a Pod: converting (v1.Deployment) to (core.Pod): unknown conversion",
        ),
        (
            r#"{"kind":"Pod","apiVersion":"v2"}"#,
            "Pod in version \"v2\" cannot be handled as a Pod: no kind \"Pod\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
    ] {
        assert_eq!(strict(pod, body).unwrap_err().to_string(), expect);
    }
    let event = kind("", "Event");
    assert_eq!(
        strict(event, r#"{"kind":"Event","apiVersion":"events.k8s.io/v1"}"#).unwrap_err().to_string(),
        "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)"
    );
}

#[test]
fn canonical_values() {
    let got = strict(
        kind("", "Pod"),
        r#"{"metadata":{"creationTimestamp":"2026-01-01T01:00:00+01:00","annotations":{"a":null},"name":null},
            "spec":{"containers":[{"resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}},"command":[null]},null]}}"#,
    )
    .unwrap()
    .object;
    assert_eq!(got["metadata"], json!({"creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"a": ""}}));
    assert_eq!(got["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(got["spec"]["containers"][0]["command"], json!([""]));
    assert_eq!(got["spec"]["containers"][1], json!({}));
    let error = strict(kind("", "Secret"), r#"{"data":{"a":"*"}}"#).unwrap_err().to_string();
    assert!(error.contains("illegal base64 data at input byte 0"), "{error}");
    let error = strict(kind("", "Pod"), r#"{"metadata":{"creationTimestamp":"soon"}}"#).unwrap_err().to_string();
    assert!(error.contains("parsing time \"soon\" as"), "{error}");
}

#[test]
fn what_go_leaves_out_is_left_out() {
    let got = strict(
        kind("", "Pod"),
        r#"{"metadata":{"annotations":{},"labels":{"a":""}},
            "spec":{"hostNetwork":false,"tolerations":[],"containers":[],"automountServiceAccountToken":false,
                    "volumes":[{"name":"v","emptyDir":{}}]}}"#,
    )
    .unwrap()
    .object;
    assert_eq!(got["metadata"], json!({"labels": {"a": ""}}));
    assert_eq!(
        got["spec"],
        json!({"containers": [], "automountServiceAccountToken": false, "volumes": [{"name": "v", "emptyDir": {}}]})
    );
}

#[test]
fn yaml_bodies() {
    let text = "apiVersion: v1\nkind: ConfigMap\ndata:\n  1: one\n  yes: two\nmetadata: {name: x}\n";
    let got = decode(kind("", "ConfigMap"), MediaType::Yaml, text.as_bytes(), FieldValidation::Strict).unwrap().object;
    assert_eq!(got["data"]["1"], "one");
    let service = "spec: {ports: [{port: 80.0}]}";
    let got = decode(kind("", "Service"), MediaType::Yaml, service.as_bytes(), FieldValidation::Strict).unwrap();
    assert_eq!(got.object["spec"]["ports"][0]["port"], 80);
    for bad in ["a: [", "a: b: c", "\t- x", "a: 1\na: 2", "&a [*a]", "- 1"] {
        assert!(
            decode(kind("", "Pod"), MediaType::Yaml, bad.as_bytes(), FieldValidation::Strict).is_err(),
            "{bad:?} decodes"
        );
    }
    // Aliases that grow without bound end in an error, not in memory.
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(decode(kind("", "Pod"), MediaType::Yaml, bomb.as_bytes(), FieldValidation::Warn).is_err());
}

#[test]
fn a_megabyte_of_garbage_is_an_error() {
    let pod = kind("", "Pod");
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let bytes: Vec<u8> = (0..1024 * 1024)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()[0]
        })
        .collect();
    for media in [MediaType::Json, MediaType::Yaml] {
        assert!(decode(pod, media, &bytes, FieldValidation::Warn).is_err());
    }
    for unit in ["[", "{\"a\":", "\"", "1", "- "] {
        let text = unit.repeat(1024 * 1024 / unit.len());
        for media in [MediaType::Json, MediaType::Yaml] {
            assert!(decode(pod, media, text.as_bytes(), FieldValidation::Warn).is_err(), "{unit}");
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        let keys = prop_oneof![
            Just("spec"),
            Just("metadata"),
            Just("containers"),
            Just("template"),
            Just("labels"),
            Just("name"),
            Just("resources"),
            Just("limits"),
            Just("env"),
            Just("ports"),
            Just("status"),
            Just("x"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for media in [MediaType::Json, MediaType::Yaml] {
            let _ = decode(kind("", "Pod"), media, &bytes, FieldValidation::Strict);
        }
    }

    /// Whatever decodes also survives defaulting, preparing, validating and printing,
    /// decodes to itself, and defaulting it twice changes nothing.
    #[test]
    fn every_shape_goes_through_all_rules(value in any_json(), index in 0usize..200) {
        let kinds: Vec<&Kind> = builtin().served().map(|k| &**k).collect();
        let kind = kinds[index % kinds.len()];
        let Ok(decoded) = decode_value(kind, value, Vec::new(), true, FieldValidation::Warn) else { return Ok(()) };
        let again = decode_value(kind, decoded.object.clone(), Vec::new(), false, FieldValidation::Strict).unwrap();
        prop_assert_eq!(&again.object, &decoded.object);
        let mut object = decoded.object;
        kind.default(&mut object);
        let once = object.clone();
        kind.default(&mut object);
        prop_assert_eq!(&once, &object);
        let context = crate::tests::context();
        kind.prepare_create(&mut object, &context);
        let _ = kind.validate_create(&object);
        let mut next = object.clone();
        kind.prepare_update("", &mut next, &object, &context);
        prop_assert_eq!(kind.facts.generation, next["metadata"]["generation"] == 1);
        let _ = kind.validate_update("", &next, &object);
        let subresources = kind.subresources.iter().filter(|sub| sub.body.is_none()).map(|sub| sub.name);
        for subresource in subresources {
            kind.prepare_update(subresource, &mut next, &object, &context);
            let _ = kind.validate_update(subresource, &next, &object);
            let _ = kind.strategy.is_heartbeat(subresource, &next, &object);
        }
        let _ = kind.printer.cells(&object, jiff::Timestamp::UNIX_EPOCH);
    }
}

/// Custom resources keep what their strategy's schema knows, as it was written: their values are judged by validation.
#[test]
fn custom_resources_are_pruned_by_their_strategy() {
    struct Widgets;
    impl crate::Strategy for Widgets {
        fn prune(&self, object: &mut Value) -> Vec<String> {
            let spec = object["spec"].as_object_mut().unwrap();
            spec.remove("unknown").map(|_| "spec.unknown".to_owned()).into_iter().collect()
        }
    }
    let names = crate::Names {
        version: "v1".into(),
        kind: "Widget".into(),
        plural: "widgets".into(),
        ..crate::Names::default()
    };
    let schema = crate::Schema::own("Widget", &json!({"properties": {"spec": {"type": "string"}}}));
    let mut widgets = Kind::new(names, std::sync::Arc::new(Widgets), schema);
    widgets.custom = true;
    let body =
        r#"{"metadata":{"name":"a","nonsense":1},"spec":{"unknown":1,"null":null,"empty":{},"zero":0},"more":[1.0]}"#;
    let decoded = decode(&widgets, MediaType::Json, body.as_bytes(), FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, [r#"unknown field "metadata.nonsense""#, r#"unknown field "spec.unknown""#]);
    assert_eq!(
        decoded.object,
        json!({"apiVersion": "v1", "kind": "Widget", "metadata": {"name": "a"},
            "spec": {"null": null, "empty": {}, "zero": 0}, "more": [1.0]})
    );
    let wrong =
        decode(&widgets, MediaType::Json, br#"{"metadata":{"labels":{"a":1}},"spec":{}}"#, FieldValidation::Ignore);
    assert!(wrong.unwrap_err().to_string().contains("cannot unmarshal number into Go struct field"));
}
