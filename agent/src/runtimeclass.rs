//! RuntimeClasses: which handler of the runtime a pod is started by.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;

use crate::convert::spec;
use crate::ids::segment;

/// How long the API server may take to tell of a class. The pod is tried again.
const LOOKUP: Duration = Duration::from_secs(10);

/// Why a class has no handler to give.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeClassError {
    /// In the words of the API.
    #[error("runtimeclass.node.k8s.io {0:?} not found")]
    NotFound(String),
    #[error("failed to lookup RuntimeClass {name:?}: {source}")]
    Lookup { name: String, source: Box<kube::Error> },
}

/// Asks the API server for classes when a pod that names one starts: few do,
/// and a watch would cost every node. A class's handler never changes, so one
/// seen before counts while the server does not answer.
pub struct RuntimeClasses {
    client: Option<kube::Client>,
    handlers: Mutex<HashMap<String, String>>,
}

impl fmt::Debug for RuntimeClasses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeClasses").finish_non_exhaustive()
    }
}

impl RuntimeClasses {
    /// `None`: a node of its own, where every pod gets the default handler, as upstream.
    pub fn new(client: Option<kube::Client>) -> Self {
        Self { client, handlers: Mutex::default() }
    }

    fn known<T>(&self, f: impl FnOnce(&mut HashMap<String, String>) -> T) -> T {
        f(&mut self.handlers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The handler of the pod's class; "" is the runtime's default.
    pub async fn handler(&self, pod: &Pod) -> Result<String, RuntimeClassError> {
        let name = spec::spec(pod).runtime_class_name.as_deref().filter(|name| !name.is_empty());
        let Some((name, client)) = name.zip(self.client.as_ref()) else { return Ok(String::new()) };
        let api: Api<RuntimeClass> = Api::all(client.clone());
        let asked = tokio::time::timeout(LOOKUP, api.get_opt(&segment(name))).await;
        match asked.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into()))) {
            Ok(Some(class)) => {
                self.known(|all| all.insert(name.to_owned(), class.handler.clone()));
                Ok(class.handler)
            }
            Ok(None) => {
                self.known(|all| all.remove(name));
                Err(RuntimeClassError::NotFound(name.to_owned()))
            }
            Err(error) => {
                let known = self.known(|all| all.get(name).cloned());
                known.ok_or_else(|| RuntimeClassError::Lookup { name: name.to_owned(), source: Box::new(error) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    use http::{Request, Response};
    use serde_json::json;

    use super::*;
    use crate::testutil::pod;

    /// A server of one class, `fast`, that answers with the status in `code`.
    fn classes(code: &Arc<AtomicU16>) -> RuntimeClasses {
        let code = code.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let found = request.uri().path() == "/apis/node.k8s.io/v1/runtimeclasses/fast";
            let status = if found { code.load(Ordering::Relaxed) } else { 404 };
            let reason = if status == 404 { "NotFound" } else { "ServiceUnavailable" };
            let body = match status {
                200 => json!({"metadata": {"name": "fast"}, "handler": "crun"}),
                _ => json!({"kind": "Status", "status": "Failure", "reason": reason, "code": status}),
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            async move { Response::builder().status(status).body(body) }
        });
        RuntimeClasses::new(Some(kube::Client::new(service, "default")))
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_holds_no_pod_for_ever() {
        let silent = tower::service_fn(|_: Request<kube::client::Body>| {
            std::future::pending::<Result<Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let all = RuntimeClasses::new(Some(kube::Client::new(silent, "default")));
        let fast = pod("  runtimeClassName: fast\n  containers: [{name: a}]");
        let asked = tokio::time::timeout(LOOKUP * 2, all.handler(&fast)).await.unwrap();
        assert!(matches!(asked, Err(RuntimeClassError::Lookup { .. })), "{asked:?}");
    }

    #[tokio::test]
    async fn classes_are_looked_up_by_name() {
        let code = Arc::new(AtomicU16::new(200));
        let all = classes(&code);
        let (plain, fast, slow) = (
            pod("  containers: [{name: a}]"),
            pod("  runtimeClassName: fast\n  containers: [{name: a}]"),
            pod("  runtimeClassName: slow\n  containers: [{name: a}]"),
        );
        assert_eq!(all.handler(&plain).await.unwrap(), "");
        assert_eq!(RuntimeClasses::new(None).handler(&fast).await.unwrap(), "");
        assert_eq!(all.handler(&fast).await.unwrap(), "crun");
        let missing = all.handler(&slow).await.unwrap_err();
        assert_eq!(missing.to_string(), "runtimeclass.node.k8s.io \"slow\" not found");
        // A server that fails changes nothing about what is known, a removed class does.
        code.store(503, Ordering::Relaxed);
        assert_eq!(all.handler(&fast).await.unwrap(), "crun");
        let unknown = classes(&code).handler(&fast).await.unwrap_err();
        assert!(unknown.to_string().starts_with("failed to lookup RuntimeClass \"fast\": "), "{unknown}");
        code.store(404, Ordering::Relaxed);
        assert!(all.handler(&fast).await.is_err());
        code.store(503, Ordering::Relaxed);
        assert!(all.handler(&fast).await.is_err());
    }
}
