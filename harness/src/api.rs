//! Just enough of an API server, in memory: objects are listed, read, written, merged and watched, by one
//! number that grows with each change. It knows no kind, checks nothing and lets anybody in.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What happened to an object of a collection, as a watch tells it.
#[derive(Debug)]
struct Event {
    version: u64,
    collection: String,
    line: Bytes,
}

#[derive(Debug, Default)]
struct State {
    /// By collection and name, which is `namespace/name` where there is one.
    objects: BTreeMap<(String, String), Value>,
    documents: BTreeMap<String, Value>,
    /// Everything that ever happened; the last one's version is the server's.
    events: Vec<Event>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    queries: BTreeMap<String, String>,
}

/// The server. Cheap to clone: all clones have the same objects.
#[derive(Clone, Debug, Default)]
pub struct Api(Arc<Mutex<State>>);

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    collection: String,
    name: Option<String>,
    namespace: Option<String>,
}

impl Place {
    /// Below `/api/VERSION` or `/apis/GROUP/VERSION`; a subresource is its object.
    fn of(path: &str) -> Option<Self> {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match words.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let name = rest.get(1).map(|name| (*name).to_owned());
        Some(Self { collection: (*rest.first()?).to_owned(), name, namespace })
    }

    /// The key of an object in this place.
    fn key(&self, name: &str) -> (String, String) {
        let name = self.namespace.as_ref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
        (self.collection.clone(), name)
    }
}

impl Api {
    /// A document at a path of its own, as discovery has them.
    pub fn document(&self, path: &str, document: Value) {
        self.state().documents.insert(path.to_owned(), document);
    }

    /// Writes an object; whoever watches is told.
    pub fn put(&self, collection: &str, object: Value) {
        self.state().put((collection.to_owned(), name_of(&object)), object);
    }

    /// Takes an object away; whoever watches is told.
    pub fn delete(&self, collection: &str, name: &str) {
        self.state().delete(&(collection.to_owned(), name.to_owned()));
    }

    /// An object as it stands, by `name` or `namespace/name`.
    #[must_use]
    pub fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.state().objects.get(&(collection.to_owned(), name.to_owned())).cloned()
    }

    /// Merges into an object; whoever watches is told, whether it makes a difference or not.
    pub fn merge(&self, collection: &str, name: &str, patch: &Value) -> Option<Value> {
        self.state().merge(&(collection.to_owned(), name.to_owned()), patch)
    }

    /// What was asked for last of a collection, beside it: the query.
    #[must_use]
    pub fn query(&self, collection: &str) -> Option<String> {
        self.state().queries.get(collection).cloned()
    }

    /// Sends those who watch a collection something else than an event; how many there are.
    pub fn garble(&self, collection: &str, bytes: &'static [u8]) -> usize {
        let state = self.state();
        let watches = state.watches.iter().filter(|(watched, _)| watched == collection);
        watches.filter(|(_, watch)| watch.send(Bytes::from_static(bytes)).is_ok()).count()
    }

    /// Serves on a listener for as long as it is polled.
    pub async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let api = self.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let api = api.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    // A client that goes meanwhile gets no answer.
                    let sent = body.collect().await?.to_bytes();
                    let query = parts.uri.query().unwrap_or_default();
                    Ok::<_, hyper::Error>(api.answer(&parts.method, parts.uri.path(), query, &sent))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    }

    fn answer(&self, method: &Method, path: &str, query: &str, sent: &[u8]) -> Response<Body> {
        let mut state = self.state();
        if let Some(document) = state.documents.get(path) {
            return whole(StatusCode::OK, document);
        }
        let Some(place) = Place::of(path) else { return missing(path) };
        if place.name.is_none() && *method == Method::GET {
            state.queries.insert(place.collection.clone(), query.to_owned());
            if parameter(query, "watch").is_some_and(|word| word == "true" || word == "1") {
                return state.watch(&place.collection, query);
            }
            return whole(StatusCode::OK, &state.list(&place));
        }
        let sent = serde_json::from_slice(sent).unwrap_or(Value::Null);
        let name =
            place.name.clone().unwrap_or_else(|| sent["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        let key = place.key(&name);
        let found = match *method {
            Method::GET => state.objects.get(&key).cloned(),
            Method::POST | Method::PUT => Some(state.put(key, sent)),
            Method::PATCH => state.merge(&key, &sent),
            Method::DELETE => state.delete(&key),
            _ => None,
        };
        let done = if *method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
        found.map_or_else(|| missing(path), |object| whole(done, &object))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn version(&self) -> u64 {
        self.events.last().map_or(1, |event| event.version)
    }

    fn put(&mut self, key: (String, String), mut object: Value) -> Value {
        object["metadata"]["resourceVersion"] = (self.version() + 1).to_string().into();
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.notify_watches(&key.0, kind, &object);
        self.objects.insert(key, object.clone());
        object
    }

    fn delete(&mut self, key: &(String, String)) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        object["metadata"]["resourceVersion"] = (self.version() + 1).to_string().into();
        self.notify_watches(&key.0, "DELETED", &object);
        Some(object)
    }

    fn merge(&mut self, key: &(String, String), patch: &Value) -> Option<Value> {
        let mut object = self.objects.get(key)?.clone();
        merge(&mut object, patch);
        Some(self.put(key.clone(), object))
    }

    fn notify_watches(&mut self, collection: &str, kind: &str, object: &Value) {
        let line = Bytes::from(json!({"type": kind, "object": object}).to_string() + "\n");
        self.watches.retain(|(watched, watch)| watched != collection || watch.send(line.clone()).is_ok());
        self.events.push(Event { version: self.version() + 1, collection: collection.to_owned(), line });
    }

    fn list(&self, place: &Place) -> Value {
        let within = |key: &(String, String)| {
            let prefix = place.namespace.as_ref().map(|namespace| format!("{namespace}/"));
            key.0 == place.collection && prefix.is_none_or(|prefix| key.1.starts_with(&prefix))
        };
        let items: Vec<_> = self.objects.iter().filter(|(key, _)| within(key)).map(|(_, object)| object).collect();
        let version = self.version().to_string();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
    }

    /// Everything after the version that the client knows, and then what comes.
    fn watch(&mut self, collection: &str, query: &str) -> Response<Body> {
        let known = parameter(query, "resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let (sender, receiver) = mpsc::unbounded_channel();
        for event in self.events.iter().filter(|event| event.version > known && event.collection == collection) {
            // The receiver is here.
            let _ = sender.send(event.line.clone());
        }
        self.watches.push((collection.to_owned(), sender));
        let lines =
            futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let frames = lines.map(|line| Ok(Frame::data(line)));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// What an object is called in its collection.
fn name_of(object: &Value) -> String {
    let word = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", word("name")),
        None => word("name"),
    }
}

/// As RFC 7386 has it.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        match (into.as_object_mut(), value) {
            (Some(object), Value::Null) => drop(object.remove(name)),
            _ => merge(&mut into[name], value),
        }
    }
}

fn whole(status: StatusCode, document: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(document.to_string()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn missing(path: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
        "message": format!("{path} is not here"), "code": 404});
    whole(StatusCode::NOT_FOUND, &status)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn object(name: &str, value: &str) -> Value {
        json!({"metadata": {"namespace": "ns", "name": name}, "value": value})
    }

    async fn text(response: Response<Body>) -> (u16, Value) {
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
    }

    #[test]
    fn paths_name_collections_and_objects() {
        let place = |collection: &str, namespace: Option<&str>, name: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Some(Place { collection: collection.to_owned(), namespace: owned(namespace), name: owned(name) })
        };
        for (path, expected) in [
            ("/api/v1/nodes", place("nodes", None, None)),
            ("/api/v1/nodes/a/status", place("nodes", None, Some("a"))),
            ("/api/v1/namespaces", place("namespaces", None, None)),
            ("/api/v1/namespaces/ns", place("namespaces", None, Some("ns"))),
            ("/api/v1/namespaces/ns/pods/p", place("pods", Some("ns"), Some("p"))),
            ("/apis/g/v1/namespaces/ns/things", place("things", Some("ns"), None)),
            ("/healthz", None),
            ("/api/v1", None),
        ] {
            assert_eq!(Place::of(path), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn objects_are_written_read_merged_and_removed() {
        let api = Api::default();
        let ask = async |method: Method, path: &str, sent: Value| {
            text(api.answer(&method, &format!("/api/v1/namespaces/ns/{path}"), "", sent.to_string().as_bytes())).await
        };
        assert_eq!(ask(Method::POST, "things", json!({"metadata": {"name": "a"}, "value": "1"})).await.0, 201);
        let (status, merged) = ask(Method::PATCH, "things/a", json!({"value": null, "more": {"x": 1}})).await;
        assert_eq!((status, &merged["more"], merged.get("value")), (200, &json!({"x": 1}), None));
        assert_eq!(ask(Method::GET, "things/a", Value::Null).await.1, merged);
        assert_eq!(api.get("things", "ns/a"), Some(merged.clone()));
        assert_eq!(ask(Method::GET, "things", Value::Null).await.1["items"], json!([merged]));
        assert_eq!(
            text(api.answer(&Method::GET, "/api/v1/namespaces/other/things", "", b"")).await.1["items"],
            json!([])
        );
        assert_eq!(ask(Method::DELETE, "things/a", Value::Null).await.0, 200);
        for method in [Method::GET, Method::PATCH, Method::DELETE] {
            assert_eq!(ask(method.clone(), "things/a", Value::Null).await.0, 404, "{method}");
        }
    }

    #[tokio::test]
    async fn a_watch_tells_what_its_client_does_not_know_yet() {
        let api = Api::default();
        api.put("things", object("a", "1"));
        let listed = text(api.answer(&Method::GET, "/api/v1/things", "", b"")).await.1;
        let version = listed["metadata"]["resourceVersion"].as_str().unwrap();
        assert_eq!(listed["items"][0]["metadata"]["resourceVersion"], version);
        api.put("others", object("b", "1"));
        api.delete("things", "ns/a");
        let query = format!("watch=true&resourceVersion={version}");
        let mut watch = api.answer(&Method::GET, "/api/v1/things", &query, b"").into_body();
        api.put("things", object("c", "1"));
        api.merge("things", "ns/c", &json!({}));
        assert_eq!(api.garble("things", b"x\n"), 1);
        let mut told = Vec::new();
        for _ in 0..4 {
            told.push(watch.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        let kinds = told[..3].iter().map(|line| {
            let event: Value = serde_json::from_slice(line).unwrap();
            (
                event["type"].as_str().unwrap().to_owned(),
                event["object"]["metadata"]["name"].as_str().unwrap().to_owned(),
            )
        });
        let expected = [("DELETED", "a"), ("ADDED", "c"), ("MODIFIED", "c")];
        assert!(kinds.eq(expected.map(|(kind, name)| (kind.to_owned(), name.to_owned()))), "{told:?}");
        assert_eq!(told[3], "x\n");
        assert_eq!(api.query("things"), Some(query));
    }
}
