//! Plans by table.

#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn pod(volumes: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": volumes}})).unwrap()
}

fn one(volume: serde_json::Value) -> Result<Source, String> {
    plan(&pod(json!([volume]))).map(|mut plans| plans.remove(0).source).map_err(|e| e.message)
}

#[test]
fn plans_each_source() {
    assert_eq!(
        one(json!({"name": "v", "emptyDir": {}})),
        Ok(Source::EmptyDir(EmptyDir { medium: Medium::Disk, size_limit: None }))
    );
    assert_eq!(
        one(json!({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})),
        Ok(Source::EmptyDir(EmptyDir { medium: Medium::Memory, size_limit: Some(1 << 20) }))
    );
    assert_eq!(
        one(json!({"name": "v", "emptyDir": {"medium": "HugePages-2Mi"}})),
        Ok(Source::EmptyDir(EmptyDir { medium: Medium::HugePages(Some(2 << 20)), size_limit: None }))
    );
    assert_eq!(
        one(json!({"name": "v", "hostPath": {"path": "/x", "type": "Socket"}})),
        Ok(Source::HostPath { path: "/x".into(), kind: HostPathKind::Socket })
    );
    let Ok(Source::Projected(secret)) = one(json!({"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}))
    else {
        panic!("not projected")
    };
    assert_eq!((secret.default_mode, secret.memory, secret.plugin), (0o400, true, "kubernetes.io~secret"));
}

#[test]
fn plans_the_default_token_volume() {
    let Ok(Source::Projected(projected)) = one(json!({"name": "kube-api-access-x", "projected": {"sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}))
    else {
        panic!("not projected")
    };
    assert_eq!(projected.parts.len(), 3);
    assert_eq!(projected.parts[0], Part::Token(TokenPart { audience: None, expiration: 3607, path: "token".into() }));
}

#[test]
fn refuses_what_it_must() {
    for (volume, expect) in [
        (json!({"name": "../x", "emptyDir": {}}), "DNS label"),
        (json!({"name": "v", "emptyDir": {"medium": "Paper"}}), "unknown storage medium"),
        (json!({"name": "v", "emptyDir": {"sizeLimit": "many"}}), "no quantity"),
        (json!({"name": "v", "hostPath": {"path": "/x", "type": "Odd"}}), "Odd is an invalid volume type"),
        (json!({"name": "v", "configMap": {"name": "c", "items": [{"key": "a", "path": "../a"}]}}), "invalid path"),
        (json!({"name": "v", "configMap": {"name": "c", "items": [{"key": "a", "path": "/a"}]}}), "invalid path"),
        (
            json!({"name": "v", "configMap": {"name": "c", "items": [{"key": "a", "path": "x/../../a"}]}}),
            "invalid path",
        ),
        (json!({"name": "v", "configMap": {"name": "c", "defaultMode": 4096}}), "mode 4096"),
        (json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}), "persistentVolumeClaim volumes are not"),
        (json!({"name": "v"}), "such volumes are not"),
    ] {
        let error = one(volume.clone()).unwrap_err();
        assert!(error.contains(expect), "{volume}: {error}");
    }
}

#[test]
fn tokens_belong_to_the_one_user_of_all_containers() {
    let check = |spec: serde_json::Value, expect| {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        assert_eq!(fs_user(&pod), expect);
    };
    let container = |user: i64| json!({"name": "a", "securityContext": {"runAsUser": user}});
    check(json!({"containers": [container(5), container(5)]}), Some(5));
    check(json!({"containers": [container(5), container(6)]}), None);
    check(json!({"containers": [container(5), {"name": "b"}]}), None);
    check(json!({"containers": [container(5), {"name": "b"}], "securityContext": {"runAsUser": 5}}), Some(5));
    check(json!({"containers": [{"name": "b"}]}), None);
}
