//! Writes into the status of each ValidatingAdmissionPolicy what its expressions make of the types of the objects that
//! it is about, once a generation (`pkg/controller/validatingadmissionpolicystatus` of upstream's controller manager,
//! whose schemas come from the API server). What is told is for `expressions` to say.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use storage::EventKind;
use storage::watch_cache::{Filter, WatchItem, WatchRequest, WatchStart};
use tracing::warn;

use crate::expressions;
use crate::registry::{Change, RegistryError, Resource};
use crate::server::Server;
use scheme::access::{int_at, str_at};

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Follows policies until the server ends.
pub async fn keep(server: Arc<Server>) {
    let found = server.registry.get("admissionregistration.k8s.io", "validatingadmissionpolicies");
    let Some(policies) = found else { return };
    while !server.stopping.is_cancelled() {
        if let Err(error) = follow(&server, &policies).await {
            warn!(error = &error as &dyn Error, "cannot write the status of admission policies");
            // Cancel-safe: the pause is given up with the server.
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = server.stopping.cancelled() => return,
            }
        }
    }
}

/// Brings all up to date, then follows changes until a watch ends.
async fn follow(server: &Arc<Server>, policies: &Resource) -> Result<(), RegistryError> {
    let mut watch = policies.cache().watch(WatchRequest::new(Filter::all(), WatchStart::Now))?;
    let mut stored = Vec::new();
    policies.cache().for_each(&Filter::all(), |policy| stored.push(policy.clone()));
    for policy in stored {
        observe(server, policies, policy.value()).await?;
    }
    loop {
        // Each arm is cancel-safe: an event is taken whole or not at all.
        tokio::select! {
            () = server.stopping.cancelled() => return Ok(()),
            item = watch.next() => match item {
                Some(Ok(WatchItem::Event { kind: EventKind::Deleted, .. } | WatchItem::Bookmark { .. })) => {}
                Some(Ok(WatchItem::Event { object, .. })) => observe(server, policies, object.value()).await?,
                Some(Err(_)) | None => return Ok(()),
            },
        }
    }
}

fn generation(policy: &Value) -> i64 {
    int_at(policy, &["metadata", "generation"]).unwrap_or(0)
}

fn is_observed(policy: &Value) -> bool {
    int_at(policy, &["status", "observedGeneration"]).unwrap_or(0) >= generation(policy)
}

/// Writes what is to be told of a policy, if that was not done.
async fn observe(server: &Arc<Server>, policies: &Resource, policy: Value) -> Result<(), RegistryError> {
    if is_observed(&policy) {
        return Ok(());
    }
    let name = str_at(&policy, &["metadata", "name"]).to_owned();
    let scheme = server.registry.served().scheme.clone();
    let seen = generation(&policy);
    // Long ones take their time.
    let told = tokio::task::spawn_blocking(move || expressions::warnings(&policy, &scheme)).await;
    let told = told.unwrap_or_default();
    let next = |old: &Value| {
        if is_observed(old) || generation(old) != seen {
            return Ok(Change::Keep);
        }
        let mut next = old.clone();
        let mut status = old["status"].as_object().cloned().unwrap_or_default();
        status.insert("observedGeneration".to_owned(), seen.into());
        let checking = if told.is_empty() { json!({}) } else { json!({"expressionWarnings": told}) };
        status.insert("typeChecking".to_owned(), checking);
        next["status"] = Value::Object(status);
        Ok(Change::Write(next))
    };
    match policies.change("", &name, false, next).await {
        Err(error) if !RegistryError::is_not_found(&error) => Err(error),
        _ => Ok(()),
    }
}
