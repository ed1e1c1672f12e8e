//! Keeps the objects that every cluster has, what each FlowSchema says of its level, and the schemas in force, as
//! FlowSchemas and levels change (pkg/registry/flowcontrol/rest/storage_flowcontrol.go and `syncOne` of
//! k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::Value;
use tracing::warn;

use super::Schemas;
use crate::bootstrap;
use crate::owners::without_owners;
use crate::registry::{Change, RegistryError, Resource};
use crate::server::Server;
use scheme::access::str_at;
use scheme::flowcontrol::{self, Bootstrap, GROUP, level_of, with_dangling};
use storage::watch_cache::{CacheWatch, Filter, WatchRequest, WatchStart};

/// Between two looks at whether all is as it should be.
const EVERY: Duration = Duration::from_secs(60);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
const KINDS: [&str; 2] = ["flowschemas", "prioritylevelconfigurations"];

/// Makes and completes the objects that every cluster has, and removes those that it had once.
///
/// # Errors
/// When the store fails.
pub(crate) async fn objects(server: &Server) -> Result<(), RegistryError> {
    let own = flowcontrol::bootstrap();
    // All at once, so that the store commits them together.
    try_join_all(own.iter().map(|wanted| complete(server, wanted))).await?;
    for plural in KINDS {
        let Some(resource) = server.registry.get(GROUP, plural) else { continue };
        let of_kind: Vec<Bootstrap> = own.iter().filter(|b| b.plural == plural).cloned().collect();
        for stored in all(&resource) {
            if flowcontrol::is_left_over(&stored, &of_kind) {
                let still = |old: &Value| {
                    let goes = flowcontrol::is_left_over(old, &of_kind);
                    Ok(if goes { Change::Remove(old.clone()) } else { Change::Keep })
                };
                gone_is_fine(change(&resource, &stored, still).await)?;
            }
        }
    }
    Ok(())
}

async fn complete(server: &Server, wanted: &Bootstrap) -> Result<(), RegistryError> {
    let Some(resource) = server.registry.get(GROUP, wanted.plural) else { return Ok(()) };
    let name = str_at(&wanted.object, &["metadata", "name"]);
    let Some(stored) = resource.cache().get("", name).map(|object| object.value()) else {
        let mut object = wanted.object.clone();
        if wanted.plural == KINDS[0] {
            // The level is one of those that are made with it.
            object = with_dangling(&object, true, &server.now_text()).unwrap_or(object);
        } else {
            object["status"] = serde_json::json!({});
        }
        return bootstrap::ensure(server, GROUP, wanted.plural, object).await;
    };
    if flowcontrol::updated(&stored, wanted).is_none() {
        return Ok(());
    }
    let next = |old: &Value| {
        let next = flowcontrol::updated(old, wanted);
        Ok(next.map_or(Change::Keep, |next| Change::Write(counted(next, old))))
    };
    gone_is_fine(change(&resource, &stored, next).await)
}

/// A changed spec is another generation.
fn counted(mut next: Value, old: &Value) -> Value {
    scheme::meta::bump_generation(&mut next, old);
    next
}

async fn change(
    resource: &Resource,
    stored: &Value,
    change: impl FnMut(&Value) -> Result<Change, RegistryError>,
) -> Result<(), RegistryError> {
    resource.change("", str_at(stored, &["metadata", "name"]), false, change).await.map(drop)
}

fn gone_is_fine(result: Result<(), RegistryError>) -> Result<(), RegistryError> {
    result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

/// All objects of a kind, without their owners, which nobody asks for here.
fn all(resource: &Resource) -> Vec<Value> {
    let mut objects = Vec::new();
    resource.cache().for_each(&Filter::all(), |object| objects.push(without_owners(object)));
    objects
}

/// Puts the stored schemas in force, and has each say whether its level exists.
///
/// # Errors
/// When the store fails.
pub(crate) async fn sync(server: &Server) -> Result<(), RegistryError> {
    let [schemas, levels] = KINDS.map(|plural| server.registry.get(GROUP, plural));
    let (Some(schemas), Some(levels)) = (schemas, levels) else { return Ok(()) };
    let (stored, known) = (all(&schemas), all(&levels));
    server.priority.0.store(Arc::new(Schemas::new(&stored, &known)));
    for schema in &stored {
        let exists = |schema: &Value| levels.cache().get("", level_of(schema)).is_some();
        if with_dangling(schema, exists(schema), "").is_some() {
            let now = server.now_text();
            let next = |old: &Value| Ok(with_dangling(old, exists(old), &now).map_or(Change::Keep, Change::Write));
            gone_is_fine(change(&schemas, schema, next).await)?;
        }
    }
    Ok(())
}

/// Follows both kinds until the server ends.
pub(crate) async fn keep(server: Arc<Server>) {
    while !server.stopping.is_cancelled() {
        if let Err(error) = follow(&server).await {
            warn!(error = &error as &dyn Error, "cannot keep the FlowSchemas");
            // Cancel-safe: the pause is given up with the server.
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = server.stopping.cancelled() => return,
            }
        }
    }
}

fn watch(server: &Server, plural: &str) -> Result<Option<CacheWatch>, RegistryError> {
    let Some(resource) = server.registry.get(GROUP, plural) else { return Ok(None) };
    Ok(Some(resource.cache().watch(WatchRequest::new(Filter::all(), WatchStart::Now))?))
}

/// Takes what there is; answers whether nothing more will come.
fn ends(watch: &mut CacheWatch) -> bool {
    loop {
        match watch.next().now_or_never() {
            None => return false,
            Some(Some(Ok(_))) => {}
            Some(_) => return true,
        }
    }
}

/// Brings everything in line, then follows changes until a watch ends.
async fn follow(server: &Server) -> Result<(), RegistryError> {
    let [schemas, levels] = KINDS.map(|plural| watch(server, plural));
    let (Some(mut schemas), Some(mut levels)) = (schemas?, levels?) else {
        server.stopping.cancelled().await;
        return Ok(());
    };
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        // Each arm is cancel-safe: an event or tick is taken whole or not at all.
        let ended = tokio::select! {
            () = server.stopping.cancelled() => return Ok(()),
            _ = ticks.tick() => {
                objects(server).await?;
                server.registry.fresh().await?;
                false
            }
            item = schemas.next() => !matches!(item, Some(Ok(_))),
            item = levels.next() => !matches!(item, Some(Ok(_))),
        };
        if ended {
            return Ok(());
        }
        // Once for all that came meanwhile.
        let ended = ends(&mut schemas) || ends(&mut levels);
        sync(server).await?;
        if ended {
            return Ok(());
        }
    }
}
