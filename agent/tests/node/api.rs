//! The API server of one agent: pods it is to run, its node, and the statuses it writes.

use anyhow::Result;
use harness::api;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::world::NODE;

/// Serves until it is dropped.
pub struct Api {
    objects: api::Api,
    url: String,
    _server: AbortOnDropHandle<()>,
}

impl Api {
    /// A server of these pods.
    pub async fn of_pods(pods: Vec<Value>) -> Result<Self> {
        let objects = api::Api::default();
        for pod in pods {
            objects.put("pods", pod);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = AbortOnDropHandle::new(tokio::spawn(objects.clone().serve(listener)));
        Ok(Self { objects, url, _server: server })
    }

    pub fn client(&self) -> Result<kube::Client> {
        Ok(kube::Client::try_from(kube::Config::new(self.url.parse()?))?)
    }

    /// The status of a pod as the agent wrote it.
    pub fn pod_status(&self, name: &str) -> Value {
        self.objects.get("pods", &format!("ns/{name}")).map(|pod| pod["status"].clone()).unwrap_or_default()
    }

    /// Whether the node says so of a condition.
    pub fn node_condition(&self, kind: &str) -> Option<String> {
        let node = self.objects.get("nodes", NODE)?;
        let found = node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?;
        Some(found["status"].as_str()?.to_owned())
    }
}
