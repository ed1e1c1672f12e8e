//! Controllers and scheduler that die at any moment, and start again.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use controlplane_lite::controllers::Clients;
use controlplane_lite::{controllers, scheduler};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, config, deployment};

/// Aborts all tasks of controllers and scheduler in mid-flight: they run on a
/// runtime of their own, which is shut down without waiting.
fn run_for(manager: &Clients, scheduler: &kube::Client, time: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(controllers::run(manager.clone(), config(), CancellationToken::new()));
    runtime.spawn(scheduler::run(scheduler.clone(), scheduler::SchedulerConfig::default(), CancellationToken::new()));
    std::thread::sleep(time);
    runtime.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_survives_any_number_of_deaths() {
    let c = Cluster::start(config()).await;
    c.kubelets();
    c.node("n1").await;
    c.node("n2").await;
    c.create::<Service>(
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
    )
    .await;
    c.create::<Deployment>(deployment("web", 6, "v1")).await;
    c.stop_controllers().await;
    for round in 0..25 {
        let version = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": format!("v{}", round / 5)}]}}}});
        c.patch::<Deployment>("web", version).await;
        let (manager, scheduler) = (c.manager.clone(), c.scheduler.clone());
        tokio::task::spawn_blocking(move || run_for(&manager, &scheduler, Duration::from_millis(7 * round)))
            .await
            .unwrap();
    }
    c.start_controllers(config());
    c.wait_for("the last version alone", || async {
        let d: Deployment = c.api().get("web").await.unwrap();
        let status = d.status.unwrap_or_default();
        status.updated_replicas == Some(6) && status.replicas == Some(6) && status.available_replicas == Some(6) && {
            let pods = c.list::<Pod>().await;
            pods.len() == 6
                && pods.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("v4"))
        }
    })
    .await;
    let sets = c.list::<ReplicaSet>().await;
    let revisions: BTreeSet<_> =
        sets.iter().map(|s| s.annotations()["deployment.kubernetes.io/revision"].clone()).collect();
    assert_eq!(revisions.len(), sets.len(), "no revision twice");
    let ips = || async {
        let pods: BTreeSet<_> =
            c.list::<Pod>().await.iter().filter_map(|p| p.status.as_ref()?.pod_ip.clone()).collect();
        let slices = c.list::<EndpointSlice>().await;
        let ours =
            slices.iter().filter(|s| s.labels().get("kubernetes.io/service-name").map(String::as_str) == Some("web"));
        let listed: Vec<_> = ours.flat_map(|s| s.endpoints.iter().flatten()).map(|e| e.addresses[0].clone()).collect();
        (pods, listed)
    };
    c.wait_for("endpoints of exactly these pods", || async {
        let (pods, listed) = ips().await;
        listed.len() == 6 && listed.into_iter().collect::<BTreeSet<_>>() == pods
    })
    .await;
}
