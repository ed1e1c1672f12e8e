//! List and watch of one resource, with recovery. Delivers to a [`Sink`]; keeps
//! nothing itself but which objects it could not read.
//!
//! Objects are decoded one at a time, and one that cannot be read is skipped:
//! it is reported once for each of its revisions and the watch goes on behind
//! it. Whoever keeps objects keeps its last readable state until it is deleted,
//! since to act on an old state is mended by the next one, and to act as if the
//! object were gone (delete its dependents, replace it) is not. An object that
//! could not be read from the beginning counts as absent.

use std::collections::HashMap;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, ListParams, ObjectList, VersionMatch, WatchEvent, WatchParams};
use kube::core::{PartialObjectMeta, Request};
use kube::{Resource, core::DynamicObject};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::decode::{Decoded, Unreadable};
use super::events::{EventType, Recorder};
use super::status::{InformerStatus, Status};
use super::store::{ObjectKey, Store, revision};
use super::workqueue::panic_text;

/// Objects per page of an initial list.
const PAGE: u32 = 500;
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// A watch that ended before this counts as failed.
const SHORT_WATCH: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(10);
/// How long a page of a list may take, and a watch to begin: an API server gives up itself by then (its
/// `--request-timeout`).
const LONGEST_ANSWER: Duration = Duration::from_secs(60);
/// How long a watch may say nothing. A server ends it after the 290 s that [`WatchParams`] asks for.
const LONGEST_SILENCE: Duration = Duration::from_secs(320);

/// Takes what a watch delivers, in its order.
pub trait Sink<K>: Send + Sync {
    /// A complete list at a revision. Objects in `unreadable` are there, too.
    fn replace(&self, objects: Vec<K>, unreadable: &[Unreadable], revision: u64);
    /// An added or modified object.
    fn apply(&self, object: K);
    /// A removed object, in its last state.
    fn delete(&self, object: K);
    /// A removed object whose last state cannot be read.
    fn forget(&self, object: &Unreadable);
    /// Everything up to this revision has been delivered.
    fn progressed(&self, revision: u64);
    /// Where to tell of faults while doing so.
    fn report_to(&self, _status: &Arc<InformerStatus>) {}
}

impl<K: Resource + Send + Sync> Sink<K> for Store<K> {
    fn replace(&self, objects: Vec<K>, unreadable: &[Unreadable], revision: u64) {
        Store::replace(self, objects, unreadable, revision);
    }
    fn apply(&self, object: K) {
        Store::apply(self, object);
    }
    fn delete(&self, object: K) {
        Store::delete(self, object.meta());
    }
    fn forget(&self, object: &Unreadable) {
        Store::delete(self, &object.metadata());
    }
    fn progressed(&self, revision: u64) {
        Store::progressed(self, revision);
    }
    fn report_to(&self, status: &Arc<InformerStatus>) {
        Store::report_to(self, status);
    }
}

/// Who an informer reports to.
#[derive(Debug, Clone)]
pub struct Observer {
    what: &'static str,
    status: Arc<InformerStatus>,
    /// Where events about unreadable objects go, and the API version and kind they name.
    events: Option<(Recorder, String, String)>,
}

impl Observer {
    /// Reports the informer of `what` to `status`.
    pub fn new(what: &'static str, status: &Status) -> Self {
        Self { what, status: status.informer(what), events: None }
    }

    /// Under a name of its own, where one resource is followed more than once.
    pub fn named(what: &'static str, name: impl Into<String>, status: &Status) -> Self {
        Self { what, status: status.informer(name), events: None }
    }

    /// Also records events about objects that cannot be read.
    #[must_use]
    pub fn with_events(mut self, events: Recorder, api_version: impl Into<String>, kind: impl Into<String>) -> Self {
        self.events = Some((events, api_version.into(), kind.into()));
        self
    }

    /// To be called when the informer has ended and none takes its place: there is nothing to be said of it any more.
    pub fn retire(&self, status: &Status) {
        status.remove_informer(&self.status);
    }

    fn unreadable(&self, object: &Unreadable) {
        tracing::warn!(resource = self.what, object = %object.key, revision = object.revision, error = object.error,
            "object cannot be read and is skipped");
        let Some((events, api_version, kind)) = &self.events else { return };
        let reference = ObjectReference {
            api_version: Some(api_version.clone()),
            kind: Some(kind.clone()),
            name: Some(object.key.name.clone()),
            namespace: Some(object.key.namespace.clone()).filter(|n| !n.is_empty()),
            uid: Some(object.uid.clone()),
            resource_version: Some(object.revision.to_string()),
            ..ObjectReference::default()
        };
        events.event_on(reference, EventType::Warning, "UnreadableObject", object.error.clone());
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

type WatchStream<K> = Pin<Box<dyn Stream<Item = Result<WatchEvent<Decoded<K>>, kube::Error>> + Send>>;

/// One resource of the API, whole objects or metadata only.
#[async_trait::async_trait]
pub trait Source<K: Clone>: Send + Sync {
    /// One page.
    async fn list(&self, params: &ListParams) -> Result<ObjectList<Decoded<K>>, kube::Error>;
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
    async fn list(&self, params: &ListParams) -> Result<ObjectList<Decoded<K>>, kube::Error> {
        let request = Request::new(self.0.resource_url()).list(params).map_err(kube::Error::BuildRequest)?;
        self.0.clone().into_client().request(request).await
    }
    async fn watch(&self, params: &WatchParams, revision: &str) -> Result<WatchStream<K>, kube::Error> {
        let request = Request::new(self.0.resource_url()).watch(params, revision).map_err(kube::Error::BuildRequest)?;
        Ok(self.0.clone().into_client().request_events(request).await?.boxed())
    }
}

type ObjectMetaOnly = PartialObjectMeta<DynamicObject>;

/// Metadata only, of any resource.
#[derive(Debug, Clone)]
pub struct Metadata(pub Api<DynamicObject>);

#[async_trait::async_trait]
impl Source<ObjectMetaOnly> for Metadata {
    async fn list(&self, params: &ListParams) -> Result<ObjectList<Decoded<ObjectMetaOnly>>, kube::Error> {
        let request = Request::new(self.0.resource_url()).list_metadata(params).map_err(kube::Error::BuildRequest)?;
        self.0.clone().into_client().request(request).await
    }
    async fn watch(&self, params: &WatchParams, revision: &str) -> Result<WatchStream<ObjectMetaOnly>, kube::Error> {
        let request = Request::new(self.0.resource_url());
        let request = request.watch_metadata(params, revision).map_err(kube::Error::BuildRequest)?;
        Ok(self.0.clone().into_client().request_events(request).await?.boxed())
    }
}

enum Outcome {
    /// Continue to watch from here.
    Rewatch(String),
    /// The revision is gone: list again.
    Relist,
}

/// Lists, then watches, until the token is cancelled. Errors are retried with
/// back-off, and so are panics, from a new list on; managedFields are dropped before an object reaches the sink.
pub async fn reflect<K>(
    source: &dyn Source<K>,
    filter: &Filter,
    sink: &dyn Sink<K>,
    observer: &Observer,
    token: CancellationToken,
) where
    K: Resource + Clone + Send + 'static,
{
    sink.report_to(&observer.status);
    let mut informer = Informer { source, filter, sink, observer, unreadable: HashMap::new(), delay: FIRST_DELAY };
    tokio::select! {
        // Cancel-safe: both only hold a request and a stream, dropping them is a disconnect.
        () = token.cancelled() => {}
        () = informer.persist() => {}
    }
}

struct Informer<'a, K: Clone> {
    source: &'a dyn Source<K>,
    filter: &'a Filter,
    sink: &'a dyn Sink<K>,
    observer: &'a Observer,
    /// The objects that cannot be read, at the revision that was reported.
    unreadable: HashMap<ObjectKey, u64>,
    /// How long the next pause is.
    delay: Duration,
}

impl<K: Resource + Clone + Send + 'static> Informer<'_, K> {
    /// Follows for ever: what a panic leaves half done, the next list puts right.
    async fn persist(&mut self) {
        loop {
            let Err(panic) = AssertUnwindSafe(self.follow()).catch_unwind().await else { return };
            let (resource, panic) = (self.observer.what, panic_text(&*panic));
            tracing::error!(resource, panic, "an informer panicked and lists again");
            self.observer.status.panicked();
            self.observer.status.failed(&format!("panicked: {panic}"));
            self.pause().await;
        }
    }

    async fn follow(&mut self) {
        loop {
            let mut from = match self.list().await {
                Ok(version) => version,
                Err(error) => {
                    self.failed("list", &error);
                    self.pause().await;
                    continue;
                }
            };
            loop {
                let started = tokio::time::Instant::now();
                let watched = self.watch_once(from).await;
                // A server that closes each watch at once, or refuses it after each list, must not make us spin.
                if started.elapsed() >= SHORT_WATCH {
                    self.delay = FIRST_DELAY;
                }
                match watched {
                    Ok(Outcome::Relist) => break,
                    Ok(Outcome::Rewatch(version)) => from = version,
                    Err(error) => {
                        self.failed("watch", &error);
                        break;
                    }
                }
                if started.elapsed() < SHORT_WATCH {
                    self.pause().await;
                }
            }
            self.pause().await;
        }
    }

    /// Waits, each time twice as long until a watch has lasted.
    async fn pause(&mut self) {
        tokio::time::sleep(self.delay).await;
        self.delay = (self.delay * 2).min(MAX_DELAY);
    }

    /// A failure that lasts is worth a warning, one that passes is not.
    fn failed(&self, verb: &'static str, error: &kube::Error) {
        let resource = self.observer.what;
        self.observer.status.failed(&format!("{verb}: {error}"));
        if self.delay >= MAX_DELAY {
            tracing::warn!(resource, verb, %error, "request still fails");
        } else {
            tracing::debug!(resource, verb, %error, "request failed");
        }
    }

    /// Lists everything into the sink and returns the revision of the list.
    async fn list(&mut self) -> Result<String, kube::Error> {
        let mut params = ListParams { limit: Some(PAGE), ..Default::default() };
        if !self.filter.labels.is_empty() {
            params.label_selector = Some(self.filter.labels.clone());
        }
        if !self.filter.fields.is_empty() {
            params.field_selector = Some(self.filter.fields.clone());
        }
        let (mut objects, mut unreadable) = (Vec::new(), Vec::new());
        let version = loop {
            let page = in_time(self.source.list(&params)).await?;
            for item in page.items {
                match item {
                    Decoded::Object(object) => objects.push(slim(object)),
                    Decoded::Unreadable(object) => unreadable.push(*object),
                }
            }
            match page.metadata.continue_.filter(|c| !c.is_empty()) {
                Some(token) => {
                    params.continue_token = Some(token);
                    params.version_match = None::<VersionMatch>;
                }
                None => break page.metadata.resource_version.unwrap_or_else(|| "0".to_owned()),
            }
        };
        let reported = std::mem::take(&mut self.unreadable);
        for object in &unreadable {
            if reported.get(&object.key) != Some(&object.revision) {
                self.observer.unreadable(object);
            }
            self.unreadable.insert(object.key.clone(), object.revision);
        }
        self.observer.status.set_unreadable(self.unreadable.len());
        self.sink.replace(objects, &unreadable, version.parse().unwrap_or(0));
        self.observer.status.listed();
        Ok(version)
    }

    async fn watch_once(&mut self, mut from: String) -> Result<Outcome, kube::Error> {
        let mut params = WatchParams { bookmarks: true, ..Default::default() };
        if !self.filter.labels.is_empty() {
            params.label_selector = Some(self.filter.labels.clone());
        }
        if !self.filter.fields.is_empty() {
            params.field_selector = Some(self.filter.fields.clone());
        }
        let mut stream = match in_time(self.source.watch(&params, &from)).await {
            Err(kube::Error::Api(status)) if status.code == 410 => return Ok(Outcome::Relist),
            other => other?,
        };
        self.observer.status.watching();
        // Where nothing more comes, it is continued from the last event, too.
        while let Ok(Some(event)) = tokio::time::timeout(LONGEST_SILENCE, stream.next()).await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => self.apply(object, &mut from),
                Ok(WatchEvent::Deleted(object)) => self.delete(object, &mut from),
                Ok(WatchEvent::Bookmark(b)) => {
                    self.sink.progressed(b.metadata.resource_version.parse().unwrap_or(0));
                    from = b.metadata.resource_version;
                }
                Ok(WatchEvent::Error(status)) if status.code == 410 => return Ok(Outcome::Relist),
                Ok(WatchEvent::Error(status)) => return Err(kube::Error::Api(status)),
                // No event at all, and it would come again from the same revision: a list goes past it.
                Err(error @ (kube::Error::SerdeError(_) | kube::Error::Api(_))) => return Err(error),
                // What was delivered stays delivered: continue from the last event.
                Err(error) => {
                    tracing::debug!(%error, "watch interrupted");
                    break;
                }
            }
        }
        Ok(Outcome::Rewatch(from))
    }

    fn apply(&mut self, object: Decoded<K>, from: &mut String) {
        match object {
            Decoded::Object(object) => {
                advance(from, revision(object.meta()));
                self.readable(&object);
                self.sink.apply(slim(object));
            }
            Decoded::Unreadable(object) => {
                advance(from, object.revision);
                self.observer.unreadable(&object);
                self.unreadable.insert(object.key.clone(), object.revision);
                self.observer.status.set_unreadable(self.unreadable.len());
                self.sink.progressed(object.revision);
            }
        }
    }

    fn delete(&mut self, object: Decoded<K>, from: &mut String) {
        match object {
            Decoded::Object(object) => {
                advance(from, revision(object.meta()));
                self.readable(&object);
                self.sink.delete(slim(object));
            }
            Decoded::Unreadable(object) => {
                advance(from, object.revision);
                self.unreadable.remove(&object.key);
                self.observer.status.set_unreadable(self.unreadable.len());
                self.sink.forget(&object);
            }
        }
    }

    fn readable(&mut self, object: &K) {
        if !self.unreadable.is_empty() && self.unreadable.remove(&ObjectKey::of(object.meta())).is_some() {
            self.observer.status.set_unreadable(self.unreadable.len());
        }
    }
}

/// The answer, or that it takes too long: a server that hangs may never give one.
async fn in_time<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let late = |_| Err(kube::Error::Service(format!("no answer within {LONGEST_ANSWER:?}").into()));
    tokio::time::timeout(LONGEST_ANSWER, answer).await.unwrap_or_else(late)
}

fn advance(from: &mut String, revision: u64) {
    if revision > 0 {
        *from = revision.to_string();
    }
}

fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

#[cfg(test)]
mod tests;
