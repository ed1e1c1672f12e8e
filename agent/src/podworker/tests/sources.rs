//! What is ended only when it is known that nobody wants it.

use std::time::Duration;

use super::harness::{Node, pod};
use crate::ids::PodUid;
use crate::podsource::{DesiredPod, DesiredPods, PodOrigin, SourcesReady};

fn of_url(uid: &str) -> k8s_openapi::api::core::v1::Pod {
    let mut p = pod("  containers: [{name: a}]");
    p.metadata.uid = Some(uid.to_owned());
    p.metadata.name = Some(uid.to_owned());
    p.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "http".to_owned())].into());
    p
}

/// An agent that starts again while the URL of its static pods does not answer.
#[tokio::test(start_paused = true)]
async fn a_source_that_was_not_read_ends_nothing_and_holds_nothing_up() {
    let node = Node::start().await;
    let fixed = of_url("fixed");
    node.want_from(PodOrigin::Url, std::slice::from_ref(&fixed));
    node.until("runs", |n| n.runtime.running() == ["a"]).await;
    let node = node.restart().await;
    let mut fresh = pod("  containers: [{name: b}]");
    fresh.metadata.uid = Some("fresh".to_owned());
    let wanted = DesiredPod { pod: fresh.clone().into(), origin: PodOrigin::Api };
    let pods = [(PodUid::of(&fresh), wanted)];
    let ready = SourcesReady { url: false, ..SourcesReady::ALL };
    node.desire(DesiredPods { ready, pods: pods.clone().into(), ..DesiredPods::default() });
    node.until("the other one runs", |n| n.is_ready(&fresh)).await;
    node.settle(Duration::from_secs(300)).await;
    assert_eq!(node.runtime.running(), ["a", "b"]);
    // Those of a source that was read go all the same.
    node.desire(DesiredPods { ready, ..DesiredPods::default() });
    node.until("it is gone", |n| n.runtime.running() == ["a"]).await;
    node.desire(DesiredPods { ready: SourcesReady::ALL, ..DesiredPods::default() });
    node.until("all are gone", |n| n.runtime.sandboxes().is_empty()).await;
}

/// A worker's pod stays as long as its source is not read again.
#[tokio::test(start_paused = true)]
async fn a_pod_of_which_nothing_is_known_goes_on() {
    let node = Node::start().await;
    let fixed = of_url("fixed");
    node.want_from(PodOrigin::Url, std::slice::from_ref(&fixed));
    node.until("runs", |n| n.runtime.running() == ["a"]).await;
    let ready = SourcesReady { url: false, ..SourcesReady::ALL };
    node.desire(DesiredPods { ready, ..DesiredPods::default() });
    node.settle(Duration::from_secs(60)).await;
    assert_eq!(node.runtime.running(), ["a"]);
}

/// A pod that cannot be read by the agent that starts again is not taken for one that nobody wants.
#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_read_runs_on() {
    let node = Node::start().await;
    let p = pod("  containers: [{name: a}]");
    node.want(std::slice::from_ref(&p));
    node.until("ready", |n| n.is_ready(&p)).await;
    let node = node.restart().await;
    let unreadable = [PodUid::of(&p)].into();
    node.desire(DesiredPods { ready: SourcesReady::ALL, unreadable, ..DesiredPods::default() });
    node.settle(Duration::from_secs(300)).await;
    assert_eq!(node.runtime.running(), ["a"]);
    node.want(std::slice::from_ref(&p));
    node.until("ready again", |n| n.is_ready(&p)).await;
    assert_eq!(node.runtime.containers().len(), 1);
}
