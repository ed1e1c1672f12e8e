//! List and watch of one resource, with recovery. Delivers to a [`Sink`]; keeps
//! nothing itself.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::api::{Api, ListParams, ObjectList, VersionMatch, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::{Resource, core::DynamicObject};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::store::{Store, revision};

/// Objects per page of an initial list.
const PAGE: u32 = 500;
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// A watch that ended before this counts as failed.
const SHORT_WATCH: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Takes what a watch delivers, in its order.
pub trait Sink<K>: Send + Sync {
    /// A complete list at a revision.
    fn replace(&self, objects: Vec<K>, revision: u64);
    /// An added or modified object.
    fn apply(&self, object: K);
    /// A removed object, in its last state.
    fn delete(&self, object: K);
    /// Everything up to this revision has been delivered.
    fn progressed(&self, revision: u64);
}

impl<K: Resource + Send + Sync> Sink<K> for Store<K> {
    fn replace(&self, objects: Vec<K>, revision: u64) {
        Store::replace(self, objects, revision);
    }
    fn apply(&self, object: K) {
        Store::apply(self, object);
    }
    fn delete(&self, object: K) {
        Store::delete(self, &object);
    }
    fn progressed(&self, revision: u64) {
        Store::progressed(self, revision);
    }
}

/// Which objects to follow.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Label selector, empty for all.
    pub labels: String,
    /// Field selector, empty for all.
    pub fields: String,
}

type WatchStream<K> = Pin<Box<dyn Stream<Item = Result<WatchEvent<K>, kube::Error>> + Send>>;

/// One resource of the API, whole objects or metadata only.
#[async_trait::async_trait]
pub trait Source<K: Clone>: Send + Sync {
    /// One page.
    async fn list(&self, params: &ListParams) -> Result<ObjectList<K>, kube::Error>;
    /// A watch from a revision.
    async fn watch(&self, params: &WatchParams, revision: &str) -> Result<WatchStream<K>, kube::Error>;
}

/// Whole objects.
#[derive(Debug, Clone)]
pub struct Objects<K>(pub Api<K>);

#[async_trait::async_trait]
impl<K> Source<K> for Objects<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    async fn list(&self, params: &ListParams) -> Result<ObjectList<K>, kube::Error> {
        self.0.list(params).await
    }
    async fn watch(&self, params: &WatchParams, revision: &str) -> Result<WatchStream<K>, kube::Error> {
        Ok(self.0.watch(params, revision).await?.boxed())
    }
}

/// Metadata only, of any resource.
#[derive(Debug, Clone)]
pub struct Metadata(pub Api<DynamicObject>);

#[async_trait::async_trait]
impl Source<PartialObjectMeta<DynamicObject>> for Metadata {
    async fn list(&self, params: &ListParams) -> Result<ObjectList<PartialObjectMeta<DynamicObject>>, kube::Error> {
        self.0.list_metadata(params).await
    }
    async fn watch(
        &self,
        params: &WatchParams,
        revision: &str,
    ) -> Result<WatchStream<PartialObjectMeta<DynamicObject>>, kube::Error> {
        Ok(self.0.watch_metadata(params, revision).await?.boxed())
    }
}

enum Outcome {
    /// Continue to watch from here.
    Rewatch(String),
    /// The revision is gone: list again.
    Relist,
}

/// Lists, then watches, until the token is cancelled. Errors are retried with
/// back-off; managedFields are dropped before an object reaches the sink.
pub async fn reflect<K>(
    source: &dyn Source<K>,
    filter: &Filter,
    sink: &dyn Sink<K>,
    what: &'static str,
    token: CancellationToken,
) where
    K: Resource + Clone + Send + 'static,
{
    tokio::select! {
        // Cancel-safe: both only hold a request and a stream, dropping them is a disconnect.
        () = token.cancelled() => {}
        () = follow(source, filter, sink, what) => {}
    }
}

async fn follow<K: Resource + Clone + Send + 'static>(
    source: &dyn Source<K>,
    filter: &Filter,
    sink: &dyn Sink<K>,
    what: &'static str,
) {
    let mut delay = FIRST_DELAY;
    loop {
        let mut from = match list(source, filter).await {
            Ok((objects, version)) => {
                sink.replace(objects, version.parse().unwrap_or(0));
                version
            }
            Err(error) => {
                tracing::debug!(resource = what, %error, "list failed");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_DELAY);
                continue;
            }
        };
        loop {
            let started = tokio::time::Instant::now();
            match watch_once(source, filter, sink, from).await {
                Ok(Outcome::Relist) => break,
                Ok(Outcome::Rewatch(version)) => from = version,
                Err(error) => {
                    tracing::debug!(resource = what, %error, "watch failed");
                    break;
                }
            }
            // A server that closes each watch at once must not make us spin.
            if started.elapsed() < SHORT_WATCH {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(MAX_DELAY);
            } else {
                delay = FIRST_DELAY;
            }
        }
        tokio::time::sleep(delay).await;
    }
}

async fn list<K: Resource + Clone>(source: &dyn Source<K>, filter: &Filter) -> Result<(Vec<K>, String), kube::Error> {
    let mut params = ListParams { limit: Some(PAGE), ..Default::default() };
    if !filter.labels.is_empty() {
        params.label_selector = Some(filter.labels.clone());
    }
    if !filter.fields.is_empty() {
        params.field_selector = Some(filter.fields.clone());
    }
    let mut all = Vec::new();
    loop {
        let page = source.list(&params).await?;
        all.extend(page.items.into_iter().map(slim));
        match page.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(token) => {
                params.continue_token = Some(token);
                params.version_match = None::<VersionMatch>;
            }
            None => return Ok((all, page.metadata.resource_version.unwrap_or_else(|| "0".to_owned()))),
        }
    }
}

async fn watch_once<K: Resource + Clone>(
    source: &dyn Source<K>,
    filter: &Filter,
    sink: &dyn Sink<K>,
    mut from: String,
) -> Result<Outcome, kube::Error> {
    let mut params = WatchParams { bookmarks: true, ..Default::default() };
    if !filter.labels.is_empty() {
        params.label_selector = Some(filter.labels.clone());
    }
    if !filter.fields.is_empty() {
        params.field_selector = Some(filter.fields.clone());
    }
    let mut stream = match source.watch(&params, &from).await {
        Err(kube::Error::Api(status)) if status.code == 410 => return Ok(Outcome::Relist),
        other => other?,
    };
    while let Some(event) = stream.next().await {
        match event {
            Ok(WatchEvent::Added(o) | WatchEvent::Modified(o)) => {
                note(&mut from, &o);
                sink.apply(slim(o));
            }
            Ok(WatchEvent::Deleted(o)) => {
                note(&mut from, &o);
                sink.delete(slim(o));
            }
            Ok(WatchEvent::Bookmark(b)) => {
                sink.progressed(b.metadata.resource_version.parse().unwrap_or(0));
                from = b.metadata.resource_version;
            }
            Ok(WatchEvent::Error(status)) if status.code == 410 => return Ok(Outcome::Relist),
            Ok(WatchEvent::Error(status)) => return Err(kube::Error::Api(status)),
            // What was delivered stays delivered: continue from the last event.
            Err(error) => {
                tracing::debug!(%error, "watch interrupted");
                break;
            }
        }
    }
    Ok(Outcome::Rewatch(from))
}

fn note<K: Resource>(from: &mut String, object: &K) {
    if revision(object.meta()) > 0
        && let Some(version) = &object.meta().resource_version
    {
        from.clone_from(version);
    }
}

fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}
