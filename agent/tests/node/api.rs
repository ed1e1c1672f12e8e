//! Just enough of an API server, in memory, for one agent: pods it is to run,
//! its node, and the statuses it writes.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Map, Value, json};

/// Lists that are served; all others are empty.
const COLLECTIONS: [&str; 4] = ["pods", "nodes", "services", "runtimeclasses"];

#[derive(Debug, Default)]
struct Objects {
    pods: Vec<Value>,
    node: Option<Value>,
}

/// The server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Api(Arc<Mutex<Objects>>);

impl Api {
    /// A server of these pods.
    pub fn of_pods(pods: Vec<Value>) -> Self {
        Self(Arc::new(Mutex::new(Objects { pods, node: None })))
    }

    /// A client whose transport is the server itself.
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let sent = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                let sent = serde_json::from_slice(&sent).unwrap_or(Value::Null);
                if parts.uri.query().is_some_and(|q| q.contains("watch=true")) {
                    // Nothing ever changes here but by the agent itself.
                    let silence = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
                    return Ok::<_, Infallible>(Response::new(StreamBody::new(silence).boxed_unsync()));
                }
                let (status, answer) = api.answer(&parts.method, parts.uri.path(), sent);
                let mut response = Response::new(Full::from(answer.to_string()).boxed_unsync());
                *response.status_mut() = status;
                Ok(response)
            }
        });
        kube::Client::new(service, "default")
    }

    fn with<T>(&self, f: impl FnOnce(&mut Objects) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The status of a pod as the agent wrote it.
    pub fn pod_status(&self, name: &str) -> Value {
        self.with(|o| o.pods.iter().find(|p| p["metadata"]["name"] == name).map(|p| p["status"].clone()))
            .unwrap_or_default()
    }

    /// Whether the node says so of a condition.
    pub fn node_condition(&self, kind: &str) -> Option<String> {
        let node = self.with(|o| o.node.clone())?;
        let found = node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?;
        Some(found["status"].as_str()?.to_owned())
    }

    fn answer(&self, method: &Method, path: &str, sent: Value) -> (http::StatusCode, Value) {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let last = words.last().copied().unwrap_or_default();
        let found = match *method {
            Method::GET if COLLECTIONS.contains(&last) => Some(self.with(|o| match last {
                "pods" => list(&o.pods),
                "nodes" => list(o.node.as_slice()),
                _ => list(&[]),
            })),
            Method::GET if words.contains(&"nodes") => self.with(|o| o.node.clone()),
            Method::GET => None,
            Method::POST if last == "nodes" => Some(self.with(|o| o.node.insert(sent).clone())),
            Method::PATCH => self.with(|o| {
                let object = match words.iter().position(|w| *w == "pods") {
                    Some(at) => o.pods.iter_mut().find(|p| p["metadata"]["name"] == words[at + 1])?,
                    None if words.contains(&"nodes") => o.node.as_mut()?,
                    None => return Some(sent),
                };
                // Shallow is enough for what the tests read.
                let fresh: Map<String, Value> = sent["status"].as_object().cloned().unwrap_or_default();
                if let Some(status) = object["status"].as_object_mut() {
                    status.extend(fresh);
                } else {
                    object["status"] = fresh.into();
                }
                Some(object.clone())
            }),
            _ => Some(sent),
        };
        match found {
            Some(object) => (http::StatusCode::OK, object),
            None => {
                let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                    "message": format!("{path} is not served"), "code": 404});
                (http::StatusCode::NOT_FOUND, gone)
            }
        }
    }
}

fn list(items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
}
