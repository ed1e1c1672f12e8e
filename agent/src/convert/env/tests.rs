//! Tests of `convert::env`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]
use super::*;

fn container(text: &str) -> Container {
    serde_norway::from_str(text).unwrap()
}

fn objects() -> EnvObjects {
    let map: ConfigMap = serde_norway::from_str("data: {K: v, bad=key: x, dotted.key: y}").unwrap();
    let secret: Secret = serde_norway::from_str("data: {S: c2VjcmV0, BIN: /w==}").unwrap();
    EnvObjects {
        config_maps: [("m".to_owned(), Some(Arc::new(map))), ("gone".to_owned(), None)].into(),
        secrets: [("s".to_owned(), Some(Arc::new(secret))), ("gone".to_owned(), None)].into(),
    }
}

fn make(text: &str) -> Result<BTreeMap<String, String>, EnvError> {
    let pod: Pod = serde_norway::from_str("metadata: {name: p, namespace: ns}").unwrap();
    let services = [("WEB_SERVICE_HOST".to_owned(), "10.0.0.9".to_owned()), ("A".to_owned(), "service".to_owned())];
    environment(&pod, &container(text), &objects(), &services.into(), &FieldContext::default())
}

#[test]
fn later_beats_earlier_and_references_see_what_stands_before() {
    let env = make(
        "name: c
env:
- {name: A, value: one}
- {name: B, value: 'x$(A)-$(C)-$(WEB_SERVICE_HOST)-$(P_K)'}
- {name: C, value: later}
- {name: N, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: V, valueFrom: {secretKeyRef: {name: s, key: S}}}
- {name: O, valueFrom: {configMapKeyRef: {name: gone, key: S, optional: true}}}
envFrom: [{prefix: P_, configMapRef: {name: m}}]",
    )
    .unwrap();
    let get = |k: &str| env.get(k).map(String::as_str);
    assert_eq!(get("A"), Some("one"));
    assert_eq!(get("B"), Some("xone-$(C)-10.0.0.9-v"));
    assert_eq!((get("N"), get("V"), get("O")), (Some("p"), Some("secret"), None));
    assert_eq!((get("P_dotted.key"), get("P_bad=key")), (Some("y"), None));
    assert_eq!(get("WEB_SERVICE_HOST"), Some("10.0.0.9"));
}

#[test]
fn errors_name_what_is_missing() {
    let cases = [
        ("name: c\nenvFrom: [{configMapRef: {name: gone}}]", "configmap \"gone\" not found"),
        ("name: c\nenvFrom: [{secretRef: {name: gone}}]", "secret \"gone\" not found"),
        (
            "name: c\nenv: [{name: X, valueFrom: {configMapKeyRef: {name: m, key: no}}}]",
            "couldn't find key no in ConfigMap ns/m",
        ),
        (
            "name: c\nenv: [{name: X, valueFrom: {secretKeyRef: {name: s, key: BIN}}}]",
            "secret \"s\" key \"BIN\" is not valid UTF-8 text",
        ),
        ("name: c\nenv: [{name: X, valueFrom: {}}]", "environment variable X has an unknown source"),
        ("name: c\nenv: [{name: X, valueFrom: {fieldRef: {fieldPath: spec.x}}}]", "unsupported fieldPath: spec.x"),
    ];
    for (text, expect) in cases {
        assert_eq!(make(text).unwrap_err().to_string(), expect, "{text}");
    }
}

#[test]
fn references_are_collected_once() {
    let refs = references(&container(
        "name: c
env:
- {name: A, valueFrom: {configMapKeyRef: {name: m, key: K}}}
- {name: B, valueFrom: {secretKeyRef: {name: s, key: K}}}
envFrom: [{configMapRef: {name: m}}, {secretRef: {name: t}}]",
    ));
    assert_eq!(refs.config_maps, ["m"]);
    assert_eq!(refs.secrets, ["s", "t"]);
}
