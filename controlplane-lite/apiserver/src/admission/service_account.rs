//! ServiceAccount: every pod runs as one, and gets its token, the root CA and its namespace as a projected volume.

use serde_json::{Value, json};

use super::{Operation, Request, View, mountable_secrets};
use crate::status::ApiError;
use auth::pod::{self, Reference};
use scheme::access::{at, ensure_map, is_empty, list_at, str_at};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const PREFIX: &str = "kube-api-access-";
/// Seconds; upstream's value that tells clients which cannot refresh tokens apart.
const TOKEN_SECONDS: i64 = 3607;

pub(super) fn admit(request: &Request<'_>, object: Option<&mut Value>, view: &dyn View) -> Result<(), ApiError> {
    let Some(pod) = object else { return Ok(()) };
    if request.is("", "pods") && request.subresource == "ephemeralcontainers" && request.operation == Operation::Update
    {
        let account = view.get("", "serviceaccounts", request.namespace, str_at(pod, &["spec", "serviceAccountName"]));
        let refused = account.and_then(|account| mountable_secrets::refusal_of_ephemeral(&account, pod));
        return refused.map_or(Ok(()), |why| Err(request.forbidden(why)));
    }
    if !request.is("", "pods") || request.operation != Operation::Create || !request.subresource.is_empty() {
        return Ok(());
    }
    if pod::is_mirror(pod) {
        return admit_mirror(request, pod);
    }
    let mut name = str_at(pod, &["spec", "serviceAccountName"]).to_owned();
    if name.is_empty() {
        name = "default".to_owned();
    }
    let spec = ensure_map(pod, &["spec"]);
    spec.insert("serviceAccountName".into(), json!(name));
    spec.insert("serviceAccount".into(), json!(name));
    let Some(account) = view.get("", "serviceaccounts", request.namespace, &name) else {
        return Err(request.forbidden(format!(
            "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
            request.namespace
        )));
    };
    if automount(&account, pod) {
        mount_token(pod, view);
    }
    if list_at(pod, &["spec", "imagePullSecrets"]).is_empty() && !is_empty(at(&account, &["imagePullSecrets"])) {
        let secrets = at(&account, &["imagePullSecrets"]).clone();
        ensure_map(pod, &["spec"]).insert("imagePullSecrets".into(), secrets);
    }
    mountable_secrets::refusal(&account, pod).map_or(Ok(()), |why| Err(request.forbidden(why)))
}

/// A kubelet makes its mirror pods itself: one must give it no right to other objects.
fn admit_mirror(request: &Request<'_>, pod: &Value) -> Result<(), ApiError> {
    if pod::has(pod, Reference::ServiceAccount) {
        return Err(request.forbidden("a mirror pod may not reference service accounts"));
    }
    if pod::has(pod, Reference::Secret) {
        return Err(request.forbidden("a mirror pod may not reference secrets"));
    }
    let mut sources = list_at(pod, &["spec", "volumes"]).iter().flat_map(|v| list_at(v, &["projected", "sources"]));
    if sources.any(|source| !source["serviceAccountToken"].is_null()) {
        return Err(request.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

fn automount(account: &Value, pod: &Value) -> bool {
    let of = |value: &Value, path: &[&str]| at(value, path).as_bool();
    of(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| of(account, &["automountServiceAccountToken"]))
        .unwrap_or(true)
}

fn mount_token(pod: &mut Value, view: &dyn View) {
    let existing = list_at(pod, &["spec", "volumes"])
        .iter()
        .find_map(|v| v["name"].as_str().filter(|n| n.starts_with(PREFIX)).map(str::to_owned));
    let volume = existing.clone().unwrap_or_else(|| format!("{PREFIX}{}", view.suffix()));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let has = list_at(container, &["volumeMounts"]).iter().any(|m| m["mountPath"] == MOUNT_PATH);
            if has || !container.is_object() {
                continue;
            }
            let mounts = ensure_map(container, &[]).entry("volumeMounts").or_insert_with(|| json!([]));
            if let Some(mounts) = mounts.as_array_mut() {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
                mounted = true;
            }
        }
    }
    if mounted && existing.is_none() {
        let volumes = ensure_map(pod, &["spec"]).entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&volume));
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}})
}
