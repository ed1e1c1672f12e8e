//! Endpoints beside their Services: whose they are, and when they go.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, config};

fn by_hand(name: &str, annotations: &Value) -> Value {
    json!({"metadata": {"name": name, "annotations": annotations},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]})
}

/// As upstream's syncService and checkLeftoverEndpoints (pkg/controller/endpoint/endpoints_controller.go).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_made_by_hand_go_with_their_service() {
    let c = Cluster::start(config()).await;
    c.create::<Endpoints>(by_hand("alone", &json!({}))).await;
    c.create::<Endpoints>(by_hand("election", &json!({"control-plane.alpha.kubernetes.io/leader": "{}"}))).await;
    c.create::<Endpoints>(by_hand("web", &json!({}))).await;
    c.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})).await;
    c.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    c.wait_for("the Endpoints are gone, too", || async { !c.exists::<Endpoints>("web").await }).await;
    assert!(c.exists::<Endpoints>("alone").await, "they never had a Service");

    // What was left while nobody looked goes at the next start, but for records of elections.
    c.stop_controllers().await;
    c.start_controllers(config());
    c.wait_for("what was left over is gone", || async { !c.exists::<Endpoints>("alone").await }).await;
    assert!(c.exists::<Endpoints>("election").await);
}
