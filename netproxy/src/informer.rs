//! Watches that no object can stop. What the API accepts, we read: a field that is null counts as
//! absent, and our types have few fields that could be something else than they expect. An object that cannot be read
//! even so is skipped, named in a warning and counted; the others go on.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::api;

/// A kind of object that can be watched.
pub trait Kind: DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static {
    /// Its API group, empty for the core.
    const GROUP: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// Its name.
    const KIND: &'static str;
    /// Its name in paths.
    const PLURAL: &'static str;
}

macro_rules! kinds {
    ($($type:ident $group:literal $version:literal $plural:literal),* $(,)?) => {$(
        impl Kind for api::$type {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = stringify!($type);
            const PLURAL: &'static str = $plural;
        }
    )*};
}

kinds! {
    Service "" "v1" "services",
    Node "" "v1" "nodes",
    Namespace "" "v1" "namespaces",
    EndpointSlice "discovery.k8s.io" "v1" "endpointslices",
    ServiceCIDR "networking.k8s.io" "v1" "servicecidrs",
}

/// Namespace (empty for what has none) and name of an object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An object as it came: its name, and either its content or why that cannot be read.
#[derive(Clone, Debug)]
pub struct Item<T> {
    meta: ObjectMeta,
    content: Result<T, Arc<str>>,
}

impl<T: Kind> Item<T> {
    fn read(value: Value) -> Self {
        let meta = gojson::identity(&value);
        let content = serde_json::from_value(value).map_err(|error| error.to_string().into());
        Self { meta, content }
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn into_content(self) -> Option<T> {
        self.content.ok()
    }

    fn name(&self) -> ObjectName {
        let text = |text: &Option<String>| text.as_deref().unwrap_or("").into();
        ObjectName { namespace: text(&self.meta.namespace), name: text(&self.meta.name) }
    }
}

impl<'de, T: Kind> Deserialize<'de> for Item<T> {
    /// Never fails for what the object holds, so that one object cannot spoil a list.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::read(Trimmed::deserialize(deserializer)?.0))
    }
}

/// JSON without its nulls and without what is large and of no use to us, none of which is ever
/// held in memory.
struct Trimmed(Value);

/// Fields that nobody here reads.
const UNREAD: [&str; 2] = ["managedFields", "kubectl.kubernetes.io/last-applied-configuration"];

impl<'de> Deserialize<'de> for Trimmed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TrimmedVisitor).map(Self)
    }
}

struct TrimmedVisitor;

impl<'de> Visitor<'de> for TrimmedVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(Trimmed(item)) = items.next_element()? {
            if !item.is_null() {
                kept.push(item);
            }
        }
        Ok(Value::Array(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut kept = serde_json::Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if UNREAD.contains(&key.as_str()) {
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            let Trimmed(value) = fields.next_value()?;
            if !value.is_null() {
                kept.insert(key, value);
            }
        }
        Ok(Value::Object(kept))
    }
}

impl<T: Kind> Resource for Item<T> {
    type DynamicType = ();
    type Scope = k8s_openapi::ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        T::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        T::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        T::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        T::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// What a watch saw.
#[derive(Clone, Debug)]
pub enum Change<T> {
    /// An object is like this now.
    Applied(ObjectName, T),
    /// An object is gone.
    Deleted(ObjectName),
    /// A list was complete: these are all the objects there are, among them what cannot be read.
    /// Each one that can be was [`Change::Applied`] before.
    Listed(BTreeSet<ObjectName>),
}

/// `resource`: the kind of object watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    resource: &'static str,
}

/// `scope`: whether a watch is of all objects of a kind or of one. Two watches of one kind are two things.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    resource: &'static str,
    scope: &'static str,
}

/// Handles to the collectors; clones count into the same ones.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    unreadable: Family<ResourceLabel, Counter>,
    synced: Family<WatchLabels, Gauge>,
}

impl Metrics {
    /// Adds the collectors to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("copepod_netproxy");
        registry.register(
            "unreadable_objects",
            "Objects of a list or watch that could not be read and were skipped",
            self.unreadable.clone(),
        );
        registry.register("watch_synced", "Whether a watch is complete and goes on", self.synced.clone());
    }

    fn unreadable(&self, resource: &'static str) {
        self.unreadable.get_or_create(&ResourceLabel { resource }).inc();
    }

    fn set_synced(&self, labels: &WatchLabels, synced: bool) {
        self.synced.get_or_create(labels).set(i64::from(synced));
    }
}

/// Why a watch ended by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// We may not watch these objects.
    Forbidden,
    /// Whoever was told does not want to know any more.
    Unwanted,
}

/// One watch of all objects of a kind.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Informer<T> {
    client: Client,
    config: watcher::Config,
    metrics: Metrics,
    /// What of all there is is watched, for metrics.
    scope: &'static str,
    /// Whether to give up where we may not watch.
    optional: bool,
    kind: PhantomData<T>,
}

impl<T: Kind> Informer<T> {
    /// Watches all objects.
    #[must_use]
    pub fn all(client: Client, metrics: Metrics) -> Self {
        Self { client, config: watcher::Config::default(), metrics, scope: "all", optional: false, kind: PhantomData }
    }

    /// Watches one object.
    #[must_use]
    pub fn named(client: Client, metrics: Metrics, name: &str) -> Self {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        Self { config, scope: "one", ..Self::all(client, metrics) }
    }

    /// Ends with [`Ended::Forbidden`] where we may not watch or there is nothing of the kind, instead of trying on.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Tells `told` what changes, until that says no. Broken watches come back by themselves; each
    /// run of errors is logged once.
    pub async fn run(self, mut told: impl FnMut(Change<T>) -> bool + Send) -> Ended {
        let (resource, metrics) = (T::PLURAL, self.metrics);
        let watch_of = WatchLabels { resource, scope: self.scope };
        let api = Api::<Item<T>>::all(self.client);
        // Asked beforehand, since the watcher would warn of what is no fault here.
        let refused =
            |error: &kube::Error| matches!(error, kube::Error::Api(status) if REFUSALS.contains(&status.code));
        if self.optional && api.list(&ListParams::default().limit(1)).await.is_err_and(|error| refused(&error)) {
            return Ended::Forbidden;
        }
        let mut stream = watch(api, self.config).default_backoff().boxed();
        let mut listed = BTreeSet::new();
        let mut failing = false;
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    if self.optional && is_forbidden(&error) {
                        return Ended::Forbidden;
                    }
                    if !failing {
                        tracing::warn!(resource, %error, "watch failed, retrying");
                    }
                    failing = true;
                    metrics.set_synced(&watch_of, false);
                    continue;
                }
            };
            failing = false;
            let change = match event {
                Event::Init => {
                    listed.clear();
                    continue;
                }
                Event::InitDone => {
                    metrics.set_synced(&watch_of, true);
                    Some(Change::Listed(std::mem::take(&mut listed)))
                }
                Event::Delete(item) => Some(Change::Deleted(item.name())),
                Event::InitApply(item) => {
                    listed.insert(item.name());
                    applied(item, &metrics)
                }
                Event::Apply(item) => {
                    metrics.set_synced(&watch_of, true);
                    applied(item, &metrics)
                }
            };
            if change.is_some_and(|change| !told(change)) {
                return Ended::Unwanted;
            }
        }
        Ended::Unwanted
    }
}

/// What an object that came says; one that cannot be read stays as it was known before.
fn applied<T: Kind>(item: Item<T>, metrics: &Metrics) -> Option<Change<T>> {
    let name = item.name();
    match item.content {
        Ok(object) => Some(Change::Applied(name, object)),
        Err(reason) => {
            metrics.unreadable(T::PLURAL);
            tracing::warn!(resource = T::PLURAL, %name, %reason, "an object cannot be read and is skipped");
            None
        }
    }
}

/// We may not, and: there are no such objects (an older cluster).
const REFUSALS: [u16; 2] = [403, 404];

fn is_forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(source)
    | watcher::Error::WatchStartFailed(source)
    | watcher::Error::WatchFailed(source)) = error
    else {
        return matches!(error, watcher::Error::WatchError(status) if REFUSALS.contains(&status.code));
    };
    matches!(source, kube::Error::Api(status) if REFUSALS.contains(&status.code))
}

#[cfg(test)]
mod tests;
