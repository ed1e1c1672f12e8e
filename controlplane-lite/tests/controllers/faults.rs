//! A server that fails requests, and a network that loses answers.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use controlplane_lite::controllers::{self};
use controlplane_lite::scheduler;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::BoxError;

use crate::cluster::{Cluster, config, deployment};

/// What happens to a request.
enum Luck {
    Good,
    /// It never arrives.
    Lost,
    /// It is carried out, and the answer never arrives.
    Unanswered,
    /// The server refuses it.
    Refused(StatusCode),
}

fn luck(counter: &AtomicU64) -> Luck {
    // A fixed sequence, so that a failure can be had again.
    let n = counter.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    match n {
        0..=19 => Luck::Lost,
        20..=39 => Luck::Unanswered,
        40..=49 => Luck::Refused(StatusCode::INTERNAL_SERVER_ERROR),
        50..=59 => Luck::Refused(StatusCode::CONFLICT),
        60..=64 => Luck::Refused(StatusCode::TOO_MANY_REQUESTS),
        _ => Luck::Good,
    }
}

/// A client in front of `inner` for which about a quarter of all requests fail.
fn unlucky(inner: Client) -> Client {
    let counter = Arc::new(AtomicU64::new(1));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, counter) = (inner.clone(), counter.clone());
        async move {
            let luck = luck(&counter);
            if matches!(luck, Luck::Lost) {
                return Err(BoxError::from("request lost"));
            }
            if let Luck::Refused(code) = luck {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": "Test", "message": "bad luck"});
                let body = Body::from(serde_json::to_vec(&status)?);
                return Ok(Response::builder().status(code).header("content-type", "application/json").body(body)?);
            }
            let answer = inner.send(request).await?;
            if matches!(luck, Luck::Unanswered) { Err(BoxError::from("answer lost")) } else { Ok(answer) }
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_server_delays_but_spoils_nothing() {
    let c = Cluster::start(config()).await;
    c.kubelets();
    c.node("n1").await;
    c.node("n2").await;
    c.stop_controllers().await;
    let token = CancellationToken::new();
    let (manager, scheduler) = (c.manager.map(unlucky), unlucky(c.scheduler.clone()));
    let controllers = tokio::spawn(controllers::run(manager, config(), token.clone()));
    let scheduling = tokio::spawn(scheduler::run(scheduler, scheduler::SchedulerConfig::default(), token.clone()));
    c.create::<Service>(
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    )
    .await;
    c.create::<Deployment>(deployment("web", 5, "v1")).await;
    for version in ["v1", "v2", "v3"] {
        let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": version}]}}}});
        c.patch::<Deployment>("web", image).await;
        c.wait_for(version, || async {
            let status = c.api::<Deployment>().get("web").await.unwrap().status.unwrap_or_default();
            let pods = c.list::<Pod>().await;
            status.available_replicas == Some(5)
                && status.replicas == Some(5)
                && pods.len() == 5
                && pods.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(version))
        })
        .await;
    }
    assert_eq!(c.list::<ReplicaSet>().await.len(), 3, "one set per template");
    c.wait_for("five endpoints, each once", || async {
        let slices = c.list::<EndpointSlice>().await;
        let ours =
            slices.iter().filter(|s| s.labels().get("kubernetes.io/service-name").map(String::as_str) == Some("web"));
        ours.flat_map(|s| s.endpoints.iter().flatten()).count() == 5
    })
    .await;
    c.api::<Deployment>().delete("web", &DeleteParams::foreground()).await.unwrap();
    c.wait_for("nothing left", || async {
        !c.exists::<Deployment>("web").await
            && c.list::<ReplicaSet>().await.is_empty()
            && c.list::<Pod>().await.is_empty()
    })
    .await;
    token.cancel();
    controllers.await.unwrap();
    scheduling.await.unwrap();
}
