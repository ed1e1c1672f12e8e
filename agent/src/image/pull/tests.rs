//! Tests of `agent::image`: who may use an image that was pulled for somebody else.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use cri::fake::{FakeRuntime, Op, runtime_error};
use tokio::sync::mpsc;

use super::super::access::Verification;
use super::*;
use crate::testutil;
use crate::volume::tests::FakeReader;

const IMAGE: &str = "reg.example/team/app:1";

/// A node whose images are private, and the agent on it.
struct World {
    runtime: Arc<FakeRuntime>,
    objects: Arc<FakeReader>,
    puller: ImagePuller,
    directory: tempfile::TempDir,
    _events: mpsc::Receiver<crate::events::Event>,
}

impl World {
    fn new() -> Self {
        let (runtime, objects, directory) = (FakeRuntime::new(), FakeReader::new(3600), tempfile::tempdir().unwrap());
        runtime.add_private_image(IMAGE, "p");
        for (name, uid, password) in [("one", "1", "p"), ("same", "2", "p"), ("other", "3", "q")] {
            objects.set_pull_secret(name, uid, "reg.example", password);
        }
        let (puller, events) = agent(&runtime, &objects, directory.path(), Verification::default());
        Self { runtime, objects, puller, directory, _events: events }
    }

    /// Another agent on the same node.
    fn restarted(self, policy: Verification) -> Self {
        let (puller, events) = agent(&self.runtime, &self.objects, self.directory.path(), policy);
        Self { puller, _events: events, ..self }
    }

    /// Whether a pod with this pull secret gets the image, and whether it was pulled for it.
    async fn gets(&self, secret: &str, policy: &str) -> (bool, bool) {
        let secrets =
            if secret.is_empty() { String::new() } else { format!("  imagePullSecrets: [{{name: {secret}}}]\n") };
        let text = format!("{secrets}  containers: [{{name: a, image: '{IMAGE}', imagePullPolicy: {policy}}}]");
        let pod = testutil::pod(&text);
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let before = self.runtime.count(Op::PullImage);
        let got = self.puller.ensure(&pod, container, &SandboxConfig::default(), None).await;
        (got.is_ok(), self.runtime.count(Op::PullImage) > before)
    }
}

fn agent(
    runtime: &Arc<FakeRuntime>,
    objects: &Arc<FakeReader>,
    directory: &Path,
    policy: Verification,
) -> (ImagePuller, mpsc::Receiver<crate::events::Event>) {
    let (events, receiver) = EventRecorder::channel(1024);
    let records = PullRecords::load(policy, directory.join("image_manager")).unwrap();
    (ImagePuller::new(runtime.clone(), objects.clone(), events, None).with_records(records), receiver)
}

const PULLED: (bool, bool) = (true, true);
const HERE: (bool, bool) = (true, false);
const REFUSED: (bool, bool) = (false, true);

/// It was there for every pod of the node whose policy was not `Always`.
#[tokio::test]
async fn an_image_of_a_secret_is_for_who_has_it() {
    let mut world = World::new();
    assert_eq!(world.gets("one", "IfNotPresent").await, PULLED);
    for _ in 0..2 {
        assert_eq!(world.gets("", "IfNotPresent").await, REFUSED);
        assert_eq!(world.gets("", "Never").await, (false, false));
        assert_eq!(world.gets("other", "IfNotPresent").await, REFUSED);
        assert_eq!(world.gets("one", "IfNotPresent").await, HERE);
        assert_eq!(world.gets("same", "Never").await, HERE, "the same credentials in another object");
        world = world.restarted(Verification::default());
    }
    // The object's password was changed, so it is believed; another one of the new password is, too.
    world.objects.set_pull_secret("one", "1", "reg.example", "q");
    assert_eq!(world.gets("one", "IfNotPresent").await, HERE);
    assert_eq!(world.gets("other", "IfNotPresent").await, HERE);
    let world = world.restarted(Verification::Never);
    assert_eq!(world.gets("", "IfNotPresent").await, HERE);
}

#[tokio::test]
async fn what_anybody_could_pull_or_somebody_brought_is_for_everybody() {
    let world = World::new();
    world.runtime.add_image(IMAGE);
    assert_eq!(world.gets("", "IfNotPresent").await, HERE, "nobody pulled it here");
    let world = world.restarted(Verification::Always);
    assert_eq!(world.gets("", "IfNotPresent").await, REFUSED);
    assert_eq!(world.gets("one", "IfNotPresent").await, PULLED);
    assert_eq!(world.gets("same", "IfNotPresent").await, HERE);
    let world = world.restarted(Verification::ExceptListed(vec!["reg.example/team/*".to_owned()]));
    assert_eq!(world.gets("", "IfNotPresent").await, HERE);

    let world = World::new();
    world.runtime.add_private_image(IMAGE, "other");
    assert_eq!(world.gets("one", "IfNotPresent").await, REFUSED);
    world.runtime.add_image(IMAGE);
    assert_eq!(world.gets("", "IfNotPresent").await, HERE, "a pull that failed brought nothing");
}

/// Nobody knows what became of a pull that was cut off: the image may be there because of it.
#[tokio::test]
async fn a_pull_that_was_cut_off_counts_as_one() {
    for cut in [true, false] {
        let world = World::new();
        if cut {
            world.runtime.delay(Op::PullImage, 1, std::time::Duration::from_secs(3600));
            let mut pull = Box::pin(world.gets("one", "IfNotPresent"));
            let begun = async || {
                assert!(futures::poll!(&mut pull).is_pending());
                world.runtime.count(Op::PullImage) > 0
            };
            harness::time::eventually_true("a pull", begun).await.unwrap();
        } else {
            world.runtime.fail_next(Op::ImageStatus, 1, runtime_error(Op::ImageStatus, "not now"));
            assert!(!world.gets("one", "Always").await.0);
        }
        world.runtime.add_image(IMAGE);
        assert_eq!(world.gets("", "IfNotPresent").await, REFUSED, "{cut}");
        let world = world.restarted(Verification::default());
        assert_eq!(world.gets("", "IfNotPresent").await, REFUSED, "{cut}");
        assert_eq!(world.gets("one", "IfNotPresent").await, PULLED, "{cut}");
        assert_eq!(world.gets("one", "IfNotPresent").await, HERE, "{cut}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_any_more_asks_and_what_is_gone_is_forgotten() {
    let world = World::new();
    assert_eq!(world.gets("one", "IfNotPresent").await, PULLED);
    let files = || std::fs::read_dir(world.directory.path().join("image_manager/pulled")).unwrap();
    let file = files().next().unwrap().unwrap().path();
    std::fs::write(&file, "{").unwrap();
    let world = world.restarted(Verification::default());
    assert_eq!(world.gets("", "IfNotPresent").await, REFUSED);
    assert_eq!(world.gets("one", "IfNotPresent").await, PULLED);
    assert_eq!(world.gets("same", "IfNotPresent").await, HERE);
    let records = world.puller.records.clone();
    let image = world.runtime.image_status(&ImageRef::new(IMAGE)).await.unwrap().unwrap();
    records.forget_others(&[image.id.as_str()].into(), records.moment()).await;
    assert!(file.exists());
    let before = records.moment();
    assert_eq!(world.gets("one", "Always").await, PULLED);
    records.forget_others(&[].into(), before).await;
    assert!(file.exists(), "it was pulled since");
    records.forget_others(&[].into(), records.moment()).await;
    assert!(!file.exists());
}
