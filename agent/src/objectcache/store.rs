//! The cache: one single-object watch per object that some pod refers to.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::refs::references;
use super::{ObjectError, ObjectKind, ObjectReader, ObjectRef, ObjectRegistry};
use crate::ids::{ObjectName, PodUid, segment, selector_of};
use crate::tasks::Tasks;
use crate::watch::{Item, Skipped, Unreadable};

/// What is known of one object.
#[derive(Clone, Debug)]
enum Known {
    /// Not heard of yet.
    Unknown,
    /// It does not exist.
    Absent,
    ConfigMap(Arc<ConfigMap>),
    Secret(Arc<Secret>),
}

#[derive(Debug)]
struct Entry {
    users: BTreeSet<PodUid>,
    known: watch::Receiver<Known>,
    token: CancellationToken,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// Caches objects while pods refer to them.
pub struct ObjectCache {
    client: kube::Client,
    entries: Mutex<HashMap<ObjectRef, Entry>>,
    changes: broadcast::Sender<ObjectRef>,
    tasks: Tasks,
}

impl fmt::Debug for ObjectCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectCache").finish_non_exhaustive()
    }
}

/// How long the first answer of a watch is waited for before asking directly.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// How soon a token that was refused is asked for again.
const TOKEN_PAUSES: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

impl ObjectCache {
    /// An empty cache, whose watches are of `tasks`: one that panics is started again, and counted.
    pub fn new(client: kube::Client, tasks: Tasks) -> Self {
        let (changes, _) = broadcast::channel(256);
        Self { client, entries: Mutex::default(), changes, tasks }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, object: &ObjectRef) -> Entry {
        let (tx, known) = watch::channel(Known::Unknown);
        let (tx, object) = (Arc::new(tx), Arc::new(object.clone()));
        let token = self.tasks.token().child_token();
        let (client, changes, ended) = (self.client.clone(), self.changes.clone(), token.clone());
        self.tasks.keep("object watch", move || {
            let (client, changes, ended) = (client.clone(), changes.clone(), ended.clone());
            let (tx, object) = (tx.clone(), object.clone());
            async move {
                ended.run_until_cancelled(follow_object(client, &object, &tx, &changes)).await;
            }
        });
        Entry { users: BTreeSet::new(), known, token }
    }

    /// What the cache says of an object, once it says something.
    async fn cached(&self, object: &ObjectRef) -> Known {
        let Some(mut known) = self.lock().get(object).map(|e| e.known.clone()) else { return Known::Unknown };
        let answer = known.wait_for(|k| !matches!(k, Known::Unknown));
        match tokio::time::timeout(FIRST_ANSWER, answer).await {
            Ok(Ok(known)) => known.clone(),
            _ => Known::Unknown,
        }
    }
}

/// Follows an object of either kind; never ends by itself.
async fn follow_object(
    client: kube::Client,
    object: &ObjectRef,
    tx: &watch::Sender<Known>,
    changes: &broadcast::Sender<ObjectRef>,
) {
    match object.kind {
        ObjectKind::ConfigMap => {
            let api: Api<Item<ConfigMap>> = Api::namespaced(client, &object.name.namespace);
            follow(api, object, tx, changes, |m| Known::ConfigMap(Arc::new(m))).await;
        }
        ObjectKind::Secret => {
            let api: Api<Item<Secret>> = Api::namespaced(client, &object.name.namespace);
            follow(api, object, tx, changes, |s| Known::Secret(Arc::new(s))).await;
        }
    }
}

/// Watches one object and keeps `tx` at its latest version that can be read.
async fn follow<K>(
    api: Api<Item<K>>,
    object: &ObjectRef,
    tx: &watch::Sender<Known>,
    changes: &broadcast::Sender<ObjectRef>,
    wrap: impl Fn(K) -> Known,
) where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + fmt::Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&selector_of(&object.name.name));
    let mut stream = watcher::watcher(api, config).default_backoff().boxed();
    let mut listed = None;
    let mut skipped = Skipped::new(match object.kind {
        ObjectKind::ConfigMap => "configmaps",
        ObjectKind::Secret => "secrets",
    });
    while let Some(event) = stream.next().await {
        let found = match event {
            Ok(Event::Init) => {
                listed = None;
                continue;
            }
            Ok(Event::InitApply(found)) => {
                listed = Some(found);
                continue;
            }
            Ok(Event::InitDone) => listed.take(),
            Ok(Event::Apply(found)) => Some(found),
            Ok(Event::Delete(_)) => None,
            Err(error) => {
                tracing::debug!(object = %object.name, %error, "object not watched");
                continue;
            }
        };
        let known = match found.map(Item::read) {
            None => Known::Absent,
            Some(Ok(mut found)) => {
                found.meta_mut().managed_fields = None;
                wrap(found)
            }
            Some(Err(object)) => {
                skipped.say(&object);
                continue;
            }
        };
        if differs(&tx.borrow(), &known) {
            tx.send_replace(known);
            // Nobody may be listening.
            let _ = changes.send(object.clone());
        }
    }
}

fn differs(a: &Known, b: &Known) -> bool {
    match (a, b) {
        (Known::Unknown, Known::Unknown) | (Known::Absent, Known::Absent) => false,
        (Known::ConfigMap(a), Known::ConfigMap(b)) => a != b,
        (Known::Secret(a), Known::Secret(b)) => a != b,
        _ => true,
    }
}

/// Asks for an object.
async fn get<K>(api: Api<Item<K>>, kind: &'static str, name: &ObjectName) -> Result<Arc<K>, ObjectError>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + fmt::Debug,
{
    let item = api.get(&segment(&name.name)).await.map_err(|e| failed(kind, name, &e))?;
    let unreadable = |e: Unreadable| ObjectError::Unavailable { kind, name: name.clone(), message: e.to_string() };
    item.read().map(Arc::new).map_err(unreadable)
}

fn failed(kind: &'static str, name: &ObjectName, error: &kube::Error) -> ObjectError {
    match error {
        kube::Error::Api(status) if status.code == 404 => ObjectError::NotFound { kind, name: name.name.clone() },
        other => ObjectError::Unavailable { kind, name: name.clone(), message: other.to_string() },
    }
}

#[async_trait]
impl ObjectReader for ObjectCache {
    async fn config_map(&self, name: &ObjectName) -> Result<Arc<ConfigMap>, ObjectError> {
        const KIND: &str = "configmap";
        let object = ObjectRef { kind: ObjectKind::ConfigMap, name: name.clone() };
        match self.cached(&object).await {
            Known::ConfigMap(found) => return Ok(found),
            Known::Absent => return Err(ObjectError::NotFound { kind: KIND, name: name.name.clone() }),
            Known::Unknown | Known::Secret(_) => {}
        }
        get(Api::namespaced(self.client.clone(), &name.namespace), KIND, name).await
    }

    async fn secret(&self, name: &ObjectName) -> Result<Arc<Secret>, ObjectError> {
        const KIND: &str = "secret";
        let object = ObjectRef { kind: ObjectKind::Secret, name: name.clone() };
        match self.cached(&object).await {
            Known::Secret(found) => return Ok(found),
            Known::Absent => return Err(ObjectError::NotFound { kind: KIND, name: name.name.clone() }),
            Known::Unknown | Known::ConfigMap(_) => {}
        }
        get(Api::namespaced(self.client.clone(), &name.namespace), KIND, name).await
    }

    async fn service_account_token(
        &self,
        name: &ObjectName,
        spec: &TokenRequestSpec,
    ) -> Result<TokenRequest, ObjectError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &name.namespace);
        let request = TokenRequest { spec: Some(spec.clone()), ..TokenRequest::default() };
        let params = PostParams::default();
        let account = segment(&name.name);
        let ask = || api.create_token_request(&account, &params, &request);
        let mut answer = ask().await;
        // The server may not have heard yet that the pod is on this node.
        for pause in TOKEN_PAUSES {
            if !matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403) {
                break;
            }
            tokio::time::sleep(pause).await;
            answer = ask().await;
        }
        answer.map_err(|e| failed("serviceaccount", name, &e))
    }

    fn changes(&self) -> broadcast::Receiver<ObjectRef> {
        self.changes.subscribe()
    }
}

impl ObjectRegistry for ObjectCache {
    fn register_pod(&self, pod: &Pod) {
        let uid = PodUid::of(pod);
        let mut entries = self.lock();
        for object in references(pod) {
            if !entries.contains_key(&object) {
                let entry = self.watch(&object);
                entries.insert(object.clone(), entry);
            }
            if let Some(entry) = entries.get_mut(&object) {
                entry.users.insert(uid.clone());
            }
        }
    }

    fn unregister_pod(&self, uid: &PodUid) {
        self.lock().retain(|_, entry| {
            entry.users.remove(uid);
            !entry.users.is_empty()
        });
    }
}

/// A reader for a node without an API server: nothing exists.
#[derive(Debug)]
pub struct NoObjects {
    changes: broadcast::Sender<ObjectRef>,
}

impl Default for NoObjects {
    fn default() -> Self {
        Self { changes: broadcast::channel(1).0 }
    }
}

#[async_trait]
impl ObjectReader for NoObjects {
    async fn config_map(&self, name: &ObjectName) -> Result<Arc<ConfigMap>, ObjectError> {
        Err(ObjectError::NotFound { kind: "configmap", name: name.name.clone() })
    }

    async fn secret(&self, name: &ObjectName) -> Result<Arc<Secret>, ObjectError> {
        Err(ObjectError::NotFound { kind: "secret", name: name.name.clone() })
    }

    async fn service_account_token(
        &self,
        name: &ObjectName,
        _spec: &TokenRequestSpec,
    ) -> Result<TokenRequest, ObjectError> {
        Err(ObjectError::NotFound { kind: "serviceaccount", name: name.name.clone() })
    }

    fn changes(&self) -> broadcast::Receiver<ObjectRef> {
        self.changes.subscribe()
    }
}

impl ObjectRegistry for NoObjects {
    fn register_pod(&self, _pod: &Pod) {}

    fn unregister_pod(&self, _uid: &PodUid) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    /// A server that refuses tokens so many times.
    fn cache(refusals: usize, asked: Arc<AtomicUsize>) -> ObjectCache {
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let refused = asked.fetch_add(1, Ordering::SeqCst) < refusals;
            let answer = match refused {
                true => json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403}),
                false => json!({"metadata": {}, "spec": {"audiences": []}, "status":
                    {"token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z"}}),
            };
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            async move {
                let status = if refused { 403 } else { 201 };
                Ok::<_, std::convert::Infallible>(http::Response::builder().status(status).body(body).unwrap())
            }
        });
        cache_of(kube::Client::new(service, "default")).0
    }

    fn cache_of(client: kube::Client) -> (ObjectCache, crate::tasks::TaskRestarts) {
        let restarts = crate::tasks::TaskRestarts::default();
        let tasks = Tasks::new(tokio::sync::mpsc::unbounded_channel().0, restarts.clone());
        (ObjectCache::new(client, tasks), restarts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_refused_too_early_is_asked_for_again_at_once() {
        let name = ObjectName::new("ns", "sa");
        for (refusals, answered, asked_for) in [(0, true, 1), (1, true, 2), (9, false, 4)] {
            let (asked, began) = (Arc::new(AtomicUsize::new(0)), tokio::time::Instant::now());
            let cache = cache(refusals, asked.clone());
            let answer = cache.service_account_token(&name, &TokenRequestSpec::default()).await;
            assert_eq!((answer.is_ok(), asked.load(Ordering::SeqCst)), (answered, asked_for));
            if refusals == 1 {
                assert!(began.elapsed() < Duration::from_millis(60), "{:?}", began.elapsed());
            }
        }
    }

    #[tokio::test]
    async fn names_of_pods_lead_to_no_other_object() {
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = paths.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            seen.lock().unwrap().push(request.uri().to_string());
            let answer = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
            let body = kube::client::Body::from(answer.to_string().into_bytes());
            let answer = http::Response::builder().status(404).body(body);
            async move { answer }
        });
        let (cache, _) = cache_of(kube::Client::new(service, "default"));
        for (name, place) in [("fine.v1", "fine.v1"), ("a?b#c", "a%3Fb%23c"), ("../secrets/token", "%25"), ("", "%25")]
        {
            let name = ObjectName::new("ns", name);
            assert!(cache.config_map(&name).await.unwrap_err().is_not_found());
            assert!(cache.secret(&name).await.unwrap_err().is_not_found());
            assert!(cache.service_account_token(&name, &TokenRequestSpec::default()).await.unwrap_err().is_not_found());
            let ways = ["configmaps/NAME", "secrets/NAME", "serviceaccounts/NAME/token"];
            let expected = ways.map(|way| format!("/api/v1/namespaces/ns/{}", way.replace("NAME", place)));
            let asked: Vec<String> = std::mem::take(&mut *paths.lock().unwrap());
            let asked: Vec<&str> = asked.iter().map(|uri| uri.trim_end_matches('?')).collect();
            assert_eq!(asked, expected, "{name}");
        }
    }

    /// A server whose first answer makes whoever reads it panic.
    fn shaky(asked: Arc<AtomicUsize>) -> kube::Client {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            async move {
                assert!(!first, "the first answer");
                if watches {
                    std::future::pending::<()>().await;
                }
                let map =
                    json!({"metadata": {"name": "cm", "namespace": "ns", "resourceVersion": "1"}, "data": {"k": "1"}});
                let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [map]});
                let body = kube::client::Body::from(list.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        kube::Client::new(service, "default")
    }

    /// A server of one ConfigMap, first as it should be and then with data that is none.
    fn odd_map() -> kube::Client {
        let map = |version: &str, data: serde_json::Value| json!({"metadata": {"name": "cm", "namespace": "ns", "uid": "u", "resourceVersion": version}, "data": data});
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let text = match (query.contains("watch=true"), request.uri().path().ends_with("/cm")) {
                (_, true) => map("2", json!(1)).to_string(),
                (true, _) if query.contains("resourceVersion=1&") || query.ends_with("resourceVersion=1") => {
                    let odd = json!({"type": "MODIFIED", "object": map("2", json!(1))});
                    let fine = json!({"type": "MODIFIED", "object": map("3", json!({"k": "3"}))});
                    format!("{odd}\n{fine}\n")
                }
                (true, _) => String::new(),
                (false, _) => json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
                    "items": [map("1", json!({"k": "1"}))]})
                .to_string(),
            };
            async move {
                if text.is_empty() {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(text.into_bytes())))
            }
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_cannot_be_read_stays_as_it_was_and_is_followed() {
        let (cache, _) = cache_of(odd_map());
        let name = ObjectName::new("ns", "cm");
        let error = cache.config_map(&name).await.unwrap_err();
        assert!(error.to_string().contains("invalid type"), "{error}");
        let mut changes = cache.changes();
        cache.register_pod(&crate::testutil::pod("  containers: []\n  volumes: [{name: v, configMap: {name: cm}}]"));
        for value in ["1", "3"] {
            let changed = tokio::time::timeout(Duration::from_secs(60), changes.recv()).await;
            changed.expect("the watch goes on").unwrap();
            if value == "3" {
                assert_eq!(cache.config_map(&name).await.unwrap().data.as_ref().unwrap()["k"], value);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_panics_is_started_again_and_counted() {
        let (cache, restarts) = cache_of(shaky(Arc::default()));
        let mut changes = cache.changes();
        cache.register_pod(&crate::testutil::pod("  containers: []\n  volumes: [{name: v, configMap: {name: cm}}]"));
        let object = tokio::time::timeout(Duration::from_secs(60), changes.recv()).await.expect("the watch goes on");
        assert_eq!(object.unwrap().kind, ObjectKind::ConfigMap);
        let found = cache.config_map(&ObjectName::new("ns", "cm")).await.unwrap();
        assert_eq!(found.data.as_ref().unwrap()["k"], "1");
        assert_eq!(restarts.counts()["object watch"], 1);
    }
}
