//! ServiceAccount: every pod runs as one, and gets its token, the root CA and its namespace as a projected volume.
//! Follows `plugin/pkg/admission/serviceaccount`.

use std::time::Duration;

use futures::FutureExt as _;
use serde_json::{Value, json};

use super::{Answer, Mutated, Mutating, Operation, Refusal, Request, Validating, View, mountable_secrets};
use auth::pod::{self, Reference};
use scheme::access::{at, ensure_map, is_empty, list_at, str_at};

const ACCOUNTS: &str = "serviceaccounts";
/// The account that every namespace has.
const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const PREFIX: &str = "kube-api-access-";
/// Seconds; upstream's value that tells clients which cannot refresh tokens apart.
const TOKEN_SECONDS: i64 = 3607;

/// How often, and how many times, a namespace's own account is looked for: a controller makes it there.
const ACCOUNT_RETRY: Duration = Duration::from_millis(100);
const ACCOUNT_TRIES: usize = 10;

pub(super) struct ServiceAccount;

impl Mutating for ServiceAccount {
    fn mutate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a mut Value>,
        view: &'a dyn View,
    ) -> Answer<'a, Mutated> {
        let Some(pod) = object.filter(|_| creates_pod(request)) else { return Answer::Now(Ok(Mutated::No)) };
        if pod::is_mirror(pod) {
            return Answer::Now(check_mirror(request, pod).map(|()| Mutated::No));
        }
        let name = match str_at(pod, &["spec", "serviceAccountName"]) {
            "" => DEFAULT.to_owned(),
            name => name.to_owned(),
        };
        let spec = ensure_map(pod, &["spec"]);
        spec.insert("serviceAccountName".into(), json!(name));
        spec.insert("serviceAccount".into(), json!(name));
        if let Some(account) = view.get("", ACCOUNTS, request.namespace, &name) {
            return Answer::Now(complete(request, pod, &account, view));
        }
        let later = async move { complete(request, pod, &wait_for(request, &name, view).await?, view) };
        Answer::Later(later.boxed())
    }
}

impl Validating for ServiceAccount {
    fn validate<'a>(
        &'a self,
        request: &'a Request<'a>,
        object: Option<&'a Value>,
        view: &'a dyn View,
    ) -> Answer<'a, ()> {
        let adds = request.is("", "pods")
            && request.subresource == "ephemeralcontainers"
            && request.operation == Operation::Update;
        let Some(pod) = object.filter(|_| adds || creates_pod(request)) else { return Answer::Now(Ok(())) };
        if !adds && pod::is_mirror(pod) {
            return Answer::Now(check_mirror(request, pod));
        }
        let name = str_at(pod, &["spec", "serviceAccountName"]);
        if name.is_empty() {
            let what = format!("no service account specified for pod {}/{}", request.namespace, request.name);
            return Answer::Now(Err(request.forbidden(what)));
        }
        let judge = move |account: &Value| {
            let refused = if adds { mountable_secrets::refusal_of_ephemeral } else { mountable_secrets::refusal };
            refused(account, pod).map_or(Ok(()), |why| Err(request.forbidden(why)))
        };
        if view.mentions("", ACCOUNTS, request.namespace, name, mountable_secrets::ENFORCE) == Some(false) {
            return Answer::Now(Ok(()));
        }
        match view.get("", ACCOUNTS, request.namespace, name) {
            Some(account) => Answer::Now(judge(&account)),
            None => Answer::Later(async move { judge(&wait_for(request, name, view).await?) }.boxed()),
        }
    }
}

fn creates_pod(request: &Request<'_>) -> bool {
    request.is("", "pods") && request.operation == Operation::Create && request.subresource.is_empty()
}

/// An account that the caches do not show yet. A pod that comes right after its namespace waits a moment for the one
/// that every namespace gets.
async fn wait_for(request: &Request<'_>, name: &str, view: &dyn View) -> Result<Value, Refusal> {
    let namespace = request.namespace;
    view.fresh().await?;
    let mut tries = if name == DEFAULT { ACCOUNT_TRIES } else { 0 };
    loop {
        if let Some(account) = view.get("", ACCOUNTS, namespace, name) {
            return Ok(account);
        }
        if tries == 0 || !view.has("", "namespaces", "", namespace) {
            let not_found = format!("serviceaccount \"{name}\" not found");
            return Err(request.forbidden(format!("error looking up service account {namespace}/{name}: {not_found}")));
        }
        tries -= 1;
        tokio::time::sleep(ACCOUNT_RETRY).await;
    }
}

/// What the account gives to the pod, and what it keeps from it.
fn complete(request: &Request<'_>, pod: &mut Value, account: &Value, view: &dyn View) -> Result<Mutated, Refusal> {
    if automount(account, pod) {
        mount_token(pod, view);
    }
    if list_at(pod, &["spec", "imagePullSecrets"]).is_empty() && !is_empty(at(account, &["imagePullSecrets"])) {
        let secrets = at(account, &["imagePullSecrets"]).clone();
        ensure_map(pod, &["spec"]).insert("imagePullSecrets".into(), secrets);
    }
    match mountable_secrets::refusal(account, pod) {
        Some(why) => Err(request.forbidden(why)),
        None => Ok(Mutated::Whole),
    }
}

/// A kubelet makes its mirror pods itself: one must give it no right to other objects.
fn check_mirror(request: &Request<'_>, pod: &Value) -> Result<(), Refusal> {
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
