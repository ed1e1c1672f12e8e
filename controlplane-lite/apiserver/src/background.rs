//! What the server does beside its requests, supervised: who panics begins anew, and is counted and named.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use tracing::error;

/// Pause after a panic: what panics at once shall not do nothing else.
const PAUSE: Duration = Duration::from_secs(1);

/// Does `work` until it returns, again from its beginning whenever it panics. What a run held is given back first.
pub(super) async fn keep<F>(name: &'static str, panics: Counter, work: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    loop {
        let run = async { work().await };
        let Err(panic) = AssertUnwindSafe(run).catch_unwind().await else { return };
        panics.inc();
        error!(task = name, panic = storage::panic_text(&*panic), "a task of the server panicked and begins anew");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use http::StatusCode;
    use serde_json::json;
    use storage::memory::MemoryStore;
    use storage::testing::Delegate;
    use storage::{Put, Revision, Store, StoreError};

    use crate::testing::{Ca, admin, config, delete, expect, get, post};
    use crate::{ApiServer, Config};

    /// A store that panics on each first write of an object whose key has one of some texts in it.
    #[derive(Debug)]
    struct Shaky {
        inner: Arc<MemoryStore>,
        shaky: std::sync::Mutex<Vec<&'static str>>,
        panics: AtomicU64,
    }

    #[async_trait]
    impl Delegate for Shaky {
        fn inner(&self) -> Arc<dyn Store> {
            self.inner.clone()
        }
        async fn on_put(&self, put: Put) -> Result<Revision, StoreError> {
            let panics = {
                let mut shaky = self.shaky.lock().unwrap();
                let at = shaky.iter().position(|text| put.key.as_str().contains(text));
                at.map(|at| shaky.remove(at))
            };
            if let Some(text) = panics {
                self.panics.fetch_add(1, Ordering::Relaxed);
                panic!("as a write of {text} may");
            }
            self.inner.put(put).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_in_the_background_is_done_all_the_same() {
        const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
        let store = Arc::new(Shaky { inner: Arc::default(), shaky: Vec::new().into(), panics: 0.into() });
        let server = ApiServer::new(Config { store: store.clone(), ..config(&Ca::default()) }).await.unwrap();
        let client = server.client(admin());
        store.shaky.lock().unwrap().extend(["/ipaddresses/", "/endpoints/default/kubernetes"]);
        let service = json!({
            "metadata": {"name": "s"}, "spec": {"clusterIP": "10.43.0.77", "ports": [{"port": 80}]},
        });
        expect(post(&client, "/api/v1/namespaces/default/services", &service).await, StatusCode::CREATED);
        expect(delete(&client, ENDPOINTS).await, StatusCode::OK);
        for path in ["/apis/networking.k8s.io/v1/ipaddresses/10.43.0.77", ENDPOINTS] {
            let there = async || get(&client, path).await.0 == 200;
            harness::time::eventually_true(path, there).await.unwrap();
        }
        assert_eq!(store.panics.load(Ordering::Relaxed), 2);
        let metrics = get(&client, "/metrics").await.1;
        assert!(metrics.as_str().unwrap().contains("apiserver_task_panics_total 2"), "{metrics}");
    }
}
