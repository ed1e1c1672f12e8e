//! How a definition goes: its objects first, then the finalizer that the delete put there
//! (k8s.io/apiextensions-apiserver/pkg/controller/finalizer/crd_finalizer.go). Every step is begun again from what is
//! stored, so that dying between two of them leaves nothing half done.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{DefinitionError, PLURAL, place, status};
use crate::deletion::{self, Deletion};
use crate::options::DeleteOptions;
use crate::registry::{Change, RegistryError, Resource};
use crate::server::Server;
use scheme::access::{at_mut, list_at, str_at};
use scheme::crd::names::{Condition, ESTABLISHED, TERMINATING};
use scheme::crd::{self, CLEANUP_FINALIZER, GROUP};
use storage::Object;
use storage::watch_cache::Filter;

/// How often objects that have finalizers of their own are looked for again.
const RECHECK: Duration = Duration::from_secs(1);
/// A definition whose objects are still there after so long is told.
const PATIENCE: Duration = Duration::from_secs(60);
/// Objects being deleted at once.
const AT_ONCE: usize = 16;

/// Removes definitions that are going, until the server ends.
pub async fn keep(server: Arc<Server>) {
    let Some(resource) = server.registry.get(GROUP, PLURAL) else { return };
    let mut since: HashMap<String, Instant> = HashMap::new();
    loop {
        let going = going(&resource);
        since.retain(|name, _| going.contains(name));
        for name in &going {
            let begun = *since.entry(name.clone()).or_insert_with(Instant::now);
            if let Err(error) = clean(&server, &resource, name, begun.elapsed() > PATIENCE).await {
                warn!(error = &error as &dyn Error, "cannot remove what a definition defines");
            }
        }
        // Cancel-safe: whoever is woken looks at what there is.
        tokio::select! {
            () = tokio::time::sleep(RECHECK), if !going.is_empty() => {}
            () = server.cleanup.notified() => {}
            () = server.stopping.cancelled() => return,
        }
    }
}

/// The definitions that are to go.
fn going(resource: &Resource) -> Vec<String> {
    let mut names = Vec::new();
    resource.cache().for_each(&Filter::all(), |object| {
        if object.deletion_timestamp().is_some() {
            names.push(object.name().to_owned());
        }
    });
    names
}

fn condition(status: &str, reason: &str, message: &str) -> Condition {
    Condition::new(TERMINATING, status, reason, message)
}

fn waits(crd: &Value) -> bool {
    !crd["metadata"]["deletionTimestamp"].is_null()
        && list_at(crd, &["metadata", "finalizers"]).iter().any(|known| known == CLEANUP_FINALIZER)
}

/// One pass over the objects of a definition, and its end when none is left.
async fn clean(server: &Server, resource: &Resource, name: &str, long: bool) -> Result<(), DefinitionError> {
    let failed = |source| DefinitionError::Registry { name: name.to_owned(), source };
    let crd = match resource.read_value("", name).await {
        Err(error) if error.is_not_found() => return Ok(()),
        read => read.map_err(failed)?,
    };
    if !waits(&crd) {
        return Ok(());
    }
    if !long {
        tell(
            server,
            resource,
            name,
            &condition("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"),
        )
        .await
        .map_err(failed)?;
    }
    let (group, plural) = place(&crd);
    let own = server.registry.get(&group, &plural);
    let end = match &own {
        Some(objects) if !objects.kind.custom => {
            condition("False", "OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
        }
        // Kinds that are served and not yet told to be established may have objects.
        None if !crd::condition_is_true(&crd, ESTABLISHED) => {
            condition("False", "NeverEstablished", "resource was never established")
        }
        // It comes up with the next event, or its schema cannot be read: nothing may be left behind.
        None => return Ok(()),
        Some(objects) => {
            if let Err(error) = delete_all(server, objects).await {
                let why = format!("could not issue all deletes: {error}");
                let told = tell(server, resource, name, &condition("True", "InstanceDeletionFailed", &why)).await;
                return told.and(Err(error)).map_err(failed);
            }
            server.registry.fresh().await.map_err(failed)?;
            if !objects.cache().is_empty() {
                let why = "could not confirm zero CustomResources remaining: timed out waiting for the condition";
                let told = condition("True", "InstanceDeletionCheck", why);
                return if long { tell(server, resource, name, &told).await.map_err(failed) } else { Ok(()) };
            }
            condition("False", "InstanceDeletionCompleted", "removed all instances")
        }
    };
    finish(server, resource, name, &end).await.map_err(failed)
}

/// Writes a condition of a definition that still waits.
async fn tell(server: &Server, resource: &Resource, name: &str, condition: &Condition) -> Result<(), RegistryError> {
    let now = server.now_text();
    let change = |old: &Value| {
        let mut crd = old.clone();
        let changed = waits(&crd) && status::set(&mut crd, condition, &now);
        Ok(if changed { Change::Write(crd) } else { Change::Keep })
    };
    unless_gone(resource.change::<_, RegistryError>("", name, false, change).await.map(drop))
}

/// Takes our finalizer off a definition, which removes it unless others hold it.
async fn finish(server: &Server, resource: &Resource, name: &str, end: &Condition) -> Result<(), RegistryError> {
    let now = server.now_text();
    let change = |old: &Value| {
        if !waits(old) {
            return Ok(Change::Keep);
        }
        let mut crd = old.clone();
        status::set(&mut crd, end, &now);
        if let Some(finalizers) = at_mut(&mut crd, &["metadata", "finalizers"]).and_then(Value::as_array_mut) {
            finalizers.retain(|known| known != CLEANUP_FINALIZER);
        }
        let last = list_at(&crd, &["metadata", "finalizers"]).is_empty();
        Ok(if last { Change::Remove(crd) } else { Change::Write(crd) })
    };
    let written = resource.change::<_, RegistryError>("", name, false, change).await;
    if written.as_ref().is_ok_and(|written| written.removed) {
        info!(name, "a CustomResourceDefinition is gone");
    }
    unless_gone(written.map(drop))
}

/// Deletes every object that is not going yet.
async fn delete_all(server: &Server, objects: &Resource) -> Result<(), RegistryError> {
    server.registry.fresh().await?;
    let mut found = Vec::new();
    objects.cache().for_each(&Filter::all(), |object| {
        if object.deletion_timestamp().is_none() {
            found.push(object.clone());
        }
    });
    let deletes = futures::stream::iter(found.into_iter().map(Ok));
    deletes.try_for_each_concurrent(AT_ONCE, |object| delete(server, objects, object)).await
}

async fn delete(server: &Server, objects: &Resource, object: Arc<Object>) -> Result<(), RegistryError> {
    let (now, options) = (server.now(), DeleteOptions::default());
    let change = |old: &Value| {
        if str_at(old, &["metadata", "uid"]) != object.uid() {
            return Ok(Change::Keep);
        }
        Ok(match deletion::plan(&objects.kind, old, &options, now) {
            Deletion::Now => Change::Remove(old.clone()),
            Deletion::Mark(marked) | Deletion::MarkThenRemove(marked) => Change::Write(marked),
            Deletion::Pending => Change::Keep,
        })
    };
    let deleted = objects.change::<_, RegistryError>(object.namespace(), object.name(), false, change).await;
    unless_gone(deleted.map(drop))
}

fn unless_gone(result: Result<(), RegistryError>) -> Result<(), RegistryError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
