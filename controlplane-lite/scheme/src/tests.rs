//! Tests of `scheme`: tables, properties and garbage.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::json;

use super::*;

mod growth;

#[test]
fn names_are_unique_and_complete() {
    let mut paths = BTreeSet::new();
    for kind in builtin().served() {
        assert!(paths.insert((&*kind.group, &*kind.version, &*kind.plural)), "{kind:?} twice");
        assert_eq!(kind.singular, kind.kind.to_lowercase(), "{kind:?}");
        assert!(kind.verbs.is_sorted() && !kind.verbs.is_empty(), "{kind:?}");
        assert!(kind.subresources.iter().map(|s| s.name).is_sorted(), "{kind:?}");
        assert!(kind.subresources.iter().all(|s| s.verbs.is_sorted()), "{kind:?}");
        assert_eq!(builtin().by_gvr(&kind.group, &kind.version, &kind.plural).unwrap().kind, kind.kind);
    }
    let mut shorts = BTreeSet::new();
    for kind in builtin().served().filter(|k| k.conversion.is_none()) {
        for short in &kind.short_names {
            assert!(shorts.insert(&**short), "{short} twice");
        }
    }
}

/// A request of nobody in particular.
pub(crate) fn context() -> strategy::Context<'static> {
    static NOTHING: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    let user = strategy::Requester { username: "jane", uid: "", groups: &[], extra: &NOTHING };
    strategy::Context { user, now: "2026-01-01T00:00:00Z", uid: "u" }
}

#[test]
fn lookups() {
    assert_eq!(builtin().by_api_version("apps/v1", "Deployment").unwrap().plural, "deployments");
    assert_eq!(builtin().by_api_version("v1", "Pod").unwrap().plural, "pods");
    assert!(builtin().by_gvr("", "v1", "").is_none());
    assert_eq!(builtin().groups()[0], Group { name: "", versions: vec!["v1"] });
    let events = builtin().by_gvk("events.k8s.io", "v1", "Event").unwrap();
    assert_eq!((events.storage_group(), events.storage_plural()), ("", "events"));
}

#[test]
fn a_write_goes_through_all_rules() {
    let kind = builtin().by_gvk("apps", "v1", "Deployment").unwrap();
    let body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"replicas": 9}});
    let decoded = decode::decode(kind, MediaType::Json, body.to_string().as_bytes(), FieldValidation::Strict).unwrap();
    let mut object = decoded.object;
    kind.default(&mut object);
    let context = context();
    kind.prepare_create(&mut object, &context);
    assert_eq!(kind.validate_create(&object).0, []);
    assert_eq!(object["metadata"]["generation"], 1);
    assert_eq!(object["status"], json!({}));

    let mut scaled = object.clone();
    scaled["spec"]["replicas"] = 5.into();
    scaled["status"] = json!({"replicas": 1});
    kind.prepare_update("", &mut scaled, &object, &context);
    assert_eq!(kind.validate_update("", &scaled, &object).0, []);
    assert_eq!((&scaled["metadata"]["generation"], &scaled["status"]), (&json!(2), &json!({})));

    let mut status = object.clone();
    status["spec"]["replicas"] = 7.into();
    status["status"] = json!({"replicas": 1});
    kind.prepare_update("status", &mut status, &object, &context);
    assert_eq!((&status["spec"], &status["status"]), (&object["spec"], &json!({"replicas": 1})));
    assert_eq!(status["metadata"]["generation"], 1);
}

/// The built-in kinds and CustomResourceDefinitions, whose schemas nobody checks.
pub(crate) fn with_definitions() -> &'static std::sync::Arc<crate::Scheme> {
    static UNCHECKED: std::sync::OnceLock<std::sync::Arc<crate::Scheme>> = std::sync::OnceLock::new();
    UNCHECKED.get_or_init(|| {
        let nobody: std::sync::Arc<crate::crd::SchemaCheck> =
            std::sync::Arc::new(|_: crate::crd::Schema<'_>, _: &crate::Path<'_>, _: &mut crate::FieldErrors| {});
        crate::builtin_with(&nobody)
    })
}
