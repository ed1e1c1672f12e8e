//! What the fake promises beyond the contract: faults, calls, scripted ends.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::service::{ImageService, RuntimeService};
use crate::types::{ContainerMetadata, SandboxMetadata};
use futures::StreamExt;

fn sandbox() -> SandboxConfig {
    let metadata = SandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 };
    SandboxConfig { metadata, ..Default::default() }
}

fn container(name: &str) -> ContainerConfig {
    let metadata = ContainerMetadata { name: name.into(), attempt: 0 };
    ContainerConfig { metadata, image: "demo".into(), ..Default::default() }
}

async fn started(fake: &FakeRuntime, name: &str) -> ContainerId {
    fake.add_image("demo");
    let id = fake.run_pod_sandbox(&sandbox(), "").await.unwrap();
    let id = fake.create_container(&id, &container(name), &sandbox()).await.unwrap();
    fake.start_container(&id).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn faults_strike_in_order_and_then_end() {
    let fake = FakeRuntime::new();
    fake.fail_next(Op::Version, 1, unavailable(Op::Version));
    fake.fail_next(Op::Version, 1, runtime_error(Op::Version, "second"));
    fake.delay(Op::Version, 2, Duration::from_secs(3));
    let begin = tokio::time::Instant::now();
    assert!(matches!(fake.version().await, Err(CriError::Unavailable { .. })));
    assert!(matches!(fake.version().await, Err(CriError::Runtime { .. })));
    assert_eq!(begin.elapsed(), Duration::from_secs(6));
    fake.version().await.unwrap();
    assert_eq!(fake.count(Op::Version), 3);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_deed_done() {
    let fake = FakeRuntime::new();
    fake.lose_answer(Op::RunPodSandbox, 1, unavailable(Op::RunPodSandbox));
    fake.run_pod_sandbox(&sandbox(), "").await.unwrap_err();
    assert_eq!(fake.sandboxes().len(), 1);
    assert!(fake.run_pod_sandbox(&sandbox(), "").await.unwrap_err().is_already_exists());
}

#[tokio::test(start_paused = true)]
async fn containers_behave_as_told() {
    let fake = FakeRuntime::new();
    fake.set_behavior("stubborn", Behavior::IgnoresStopSignal);
    let id = started(&fake, "stubborn").await;
    assert_eq!(fake.running(), ["stubborn"]);
    let begin = tokio::time::Instant::now();
    fake.stop_container(&id, Duration::from_secs(9)).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(9));
    assert_eq!(fake.container_status(&id).await.unwrap().exit_code, 137);

    fake.set_behavior("short", Behavior::ExitsWith(4));
    let pod = fake.sandboxes().remove(0).summary.id;
    let id = fake.create_container(&pod, &container("short"), &sandbox()).await.unwrap();
    fake.start_container(&id).await.unwrap();
    assert_eq!(fake.container_named("short").unwrap().exit_code, 4);
}

#[tokio::test]
async fn oom_and_disconnect_reach_the_listener() {
    let fake = FakeRuntime::new();
    let id = started(&fake, "main").await;
    let mut events = fake.container_events().await.unwrap();
    fake.oom_kill(&id);
    fake.disconnect_events();
    let kinds: Vec<_> = events.by_ref().map(|e| e.unwrap().kind).collect().await;
    assert_eq!(kinds, [ContainerEventKind::Oom, ContainerEventKind::Stopped]);
    assert_eq!(fake.container_named("main").unwrap().reason, "OOMKilled");
}

#[tokio::test]
async fn images_come_from_the_remote_side_only_when_there() {
    let fake = FakeRuntime::new();
    let image = ImageRef::new("r/x:1");
    assert!(fake.pull_image(&image, None, &sandbox()).await.unwrap_err().is_not_found());
    fake.add_remote_image("r/x:1");
    let id = fake.pull_image(&image, None, &sandbox()).await.unwrap();
    assert_eq!(fake.image_status(&id).await.unwrap().unwrap().repo_tags, ["r/x:1"]);
    fake.remove_image(&id).await.unwrap();
    assert_eq!(fake.image_status(&image).await.unwrap(), None);
}
