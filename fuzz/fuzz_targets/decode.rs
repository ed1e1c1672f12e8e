//! Request bodies in JSON, YAML and protobuf, as several kinds: an error or an object that decodes to itself.
#![no_main]

use std::collections::BTreeMap;

use apiserver::call::decode_body;
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use scheme::FieldValidation;
use scheme::strategy::{Context, Requester};

const KINDS: [(&str, &str); 6] = [
    ("", "Pod"),
    ("", "Service"),
    ("apps", "Deployment"),
    ("policy", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("networking.k8s.io", "NetworkPolicy"),
];
const MEDIA: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

fuzz_target!(|data: &[u8]| {
    let [which, rest @ ..] = data else { return };
    let (group, kind) = KINDS[usize::from(*which) % KINDS.len()];
    let media = MEDIA[usize::from(*which) / KINDS.len() % MEDIA.len()];
    let kind = scheme::builtin().by_gvk(group, "v1", kind).expect("a kind");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    let Ok(decoded) = decode_body(kind, &headers, &rest.to_vec().into(), FieldValidation::Warn) else { return };
    let mut object = decoded.object;
    let again = object.to_string().into_bytes();
    let json = HeaderMap::new();
    let read = decode_body(kind, &json, &again.into(), FieldValidation::Strict).expect("what was decoded decodes");
    assert_eq!(read.object, object);
    let _ = kind.strategy.warnings(&object);
    kind.default(&mut object);
    let user = Requester { username: "fuzz", uid: "", groups: &[], extra: &BTreeMap::new() };
    kind.prepare_create(&mut object, &Context { user, now: "2026-01-01T00:00:00Z", uid: "uid" });
    let _ = kind.validate_create(&object);
});
