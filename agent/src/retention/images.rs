//! Removes images nobody uses when their file system fills up; the one place that removes any.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri::types::{ContainerFilter, Image};
use cri::{CriError, ImageRef, ImageService, RuntimeService, images};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::plan::images::{ImageRecord, Seen, Thresholds, bytes_to_free, removable};
use crate::clock::Clock;
use crate::config::ImageSettings;
use crate::events::{EventRecorder, EventType};
use crate::image::records::PullRecords;
use crate::node::facts::Disk;

const PERIOD: Duration = Duration::from_secs(300);

/// Asks the collector for more than its thresholds would. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UnusedImages(mpsc::Sender<oneshot::Sender<()>>);

impl UnusedImages {
    /// The asking end, and the one for [`ImageCollector::run`].
    pub fn channel() -> (Self, mpsc::Receiver<oneshot::Sender<()>>) {
        let (tx, rx) = mpsc::channel(1);
        (Self(tx), rx)
    }

    /// Removes every image nobody uses that is old enough; ends when that is done.
    pub async fn remove(&self) {
        let (done, wait) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            // An error says that the collector ended: so does the agent.
            let _ = wait.await;
        }
    }
}

/// Looks at the images' file system now and then.
#[derive(Debug)]
pub struct ImageCollector {
    images: Arc<dyn ImageService>,
    runtime: Arc<dyn RuntimeService>,
    events: EventRecorder,
    clock: Clock,
    node_name: String,
    thresholds: Thresholds,
    seen: HashMap<ImageRef, Seen>,
    /// Whether nobody has looked yet.
    first_look: bool,
    records: Arc<PullRecords>,
}

impl ImageCollector {
    /// A collector that has seen no image.
    pub fn new(
        images: Arc<dyn ImageService>,
        runtime: Arc<dyn RuntimeService>,
        events: EventRecorder,
        clock: Clock,
        node_name: String,
        settings: &ImageSettings,
    ) -> Self {
        let thresholds = Thresholds {
            high: settings.gc_high_percent,
            low: settings.gc_low_percent,
            min_age: SignedDuration::try_from(settings.min_age).unwrap_or(SignedDuration::MAX),
            enough_free: settings.enough_free,
        };
        let (seen, records) = (HashMap::new(), Arc::default());
        Self { images, runtime, events, clock, node_name, thresholds, seen, first_look: true, records }
    }

    /// Forgets pulls of images that are gone in these records.
    #[must_use]
    pub fn with_records(self, records: Arc<PullRecords>) -> Self {
        Self { records, ..self }
    }

    /// Runs until cancelled, and removes all that is unused when `requests` says so.
    pub async fn run(mut self, mut requests: mpsc::Receiver<oneshot::Sender<()>>, token: CancellationToken) {
        loop {
            if let Err(error) = self.collect().await {
                tracing::debug!(%error, "images not collected");
            }
            let wait = tokio::time::sleep(PERIOD);
            tokio::select! {
                () = token.cancelled() => return,
                () = wait => {}
                // Cancel-safe: a request is lost only when it is received.
                Some(done) = requests.recv() => {
                    if let Err(error) = self.free(u64::MAX).await {
                        tracing::warn!(%error, "unused images not removed");
                    }
                    // Who asked may have given up.
                    let _ = done.send(());
                }
            }
        }
    }

    /// Images of all containers there are, dead ones too. As upstream
    /// (pkg/kubelet/images/image_gc_manager.go) it is the runtime that is asked: nobody else knows of
    /// containers before the first list, or of a pod that could not be read.
    async fn in_use(&self, images: &[Image]) -> Result<HashSet<String>, CriError> {
        let containers = self.runtime.list_containers(&ContainerFilter::default()).await?;
        let named: HashSet<&str> = containers
            .iter()
            .flat_map(|c| [c.image.as_str(), c.image_ref.as_str()])
            .filter(|n| !n.is_empty())
            .collect();
        let used = |i: &&Image| {
            named.contains(i.id.as_str())
                || i.repo_tags.iter().chain(&i.repo_digests).any(|name| named.contains(name.as_str()))
        };
        Ok(images.iter().filter(used).map(|i| i.id.to_string()).collect())
    }

    /// Removes what has to go for the file system to have room.
    pub async fn collect(&mut self) -> Result<(), CriError> {
        let usage = self.images.image_fs_info().await?;
        let disk = usage.first().and_then(|fs| Disk::of(Path::new(&fs.mountpoint)));
        let wanted = disk.map_or(0, |disk| bytes_to_free(disk.capacity, disk.available, &self.thresholds));
        let freed = self.free(wanted).await?;
        if freed < wanted {
            let text = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
            );
            self.events.node(&self.node_name, EventType::Warning, "FreeDiskSpaceFailed", text);
        }
        Ok(())
    }

    /// Learns which images there are and removes unused ones of `wanted` bytes
    /// in all; returns how many bytes those had that went.
    async fn free(&mut self, wanted: u64) -> Result<u64, CriError> {
        let before = self.records.moment();
        let images = self.images.list_images().await?;
        self.records.forget_others(&images.iter().map(|image| image.id.as_str()).collect(), before).await;
        let used = self.in_use(&images).await?;
        let now = self.clock.steady();
        self.seen.retain(|id, _| images.iter().any(|i| i.id == *id));
        for image in &images {
            let seen = self.seen.entry(image.id.clone()).or_insert(Seen::at(now, self.first_look));
            if used.contains(image.id.as_str()) {
                seen.used = Some(now);
            }
        }
        self.first_look = false;
        let records: Vec<ImageRecord> = images.iter().map(|i| self.record(i, now)).collect();
        let mut freed = 0_u64;
        for image in removable(&records, &used, &self.thresholds, now) {
            if freed >= wanted {
                break;
            }
            match self.images.remove_image(&ImageRef::new(image.id.as_str())).await {
                Ok(()) => freed = freed.saturating_add(image.size),
                // One that is stuck must not keep the others.
                Err(error) => tracing::warn!(image = image.id, %error, "image not removed"),
            }
        }
        Ok(freed)
    }

    fn record(&self, image: &Image, now: Timestamp) -> ImageRecord {
        let seen = self.seen.get(&image.id).copied().unwrap_or(Seen::at(now, false));
        let pinned = image.pinned || image.repo_tags.iter().any(|name| images::is_builtin(name));
        ImageRecord { id: image.id.to_string(), size: image.size, pinned, seen }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use cri::fake::{FakeRuntime, Op, runtime_error};
    use cri::types::{ContainerConfig, ContainerMetadata, SandboxConfig, SandboxMetadata};

    use super::*;

    /// Thresholds that nothing meets, for images of any age.
    fn everything_must_go() -> ImageSettings {
        let min_age = Duration::ZERO;
        ImageSettings {
            max_parallel_pulls: None,
            gc_high_percent: 0,
            gc_low_percent: 0,
            min_age,
            enough_free: u64::MAX,
        }
    }

    /// A container of the image, which nobody but the runtime knows of.
    async fn container(fake: &FakeRuntime, image: &str) -> cri::ContainerId {
        let metadata = SandboxMetadata { name: image.into(), uid: image.into(), namespace: "ns".into(), attempt: 0 };
        let sandbox = SandboxConfig { metadata, ..SandboxConfig::default() };
        let id = fake.run_pod_sandbox(&sandbox, "").await.unwrap();
        let metadata = ContainerMetadata { name: "c".into(), attempt: 0 };
        let config = ContainerConfig { metadata, image: image.into(), ..ContainerConfig::default() };
        let container = fake.create_container(&id, &config, &sandbox).await.unwrap();
        fake.start_container(&container).await.unwrap();
        container
    }

    #[tokio::test]
    async fn only_what_nobody_needs_is_removed() {
        let fake = FakeRuntime::new();
        for name in [images::PAUSE, images::DEMO, "running:1", "dead:1", "idle:1"] {
            fake.add_image(name);
        }
        container(&fake, "running:1").await;
        fake.exit_container(&container(&fake, "dead:1").await, 1);
        let (events, mut told) = EventRecorder::channel(8);
        let settings = everything_must_go();
        let mut collector =
            ImageCollector::new(fake.clone(), fake.clone(), events, Clock::System, "n1".into(), &settings);
        // While it is not known what is in use, all of it may be.
        fake.fail_next(Op::ListContainers, 1, runtime_error(Op::ListContainers, "restarting"));
        collector.collect().await.unwrap_err();
        assert_eq!(fake.images().len(), 5);
        collector.collect().await.unwrap();
        let left: HashSet<String> = fake.list_images().await.unwrap().into_iter().flat_map(|i| i.repo_tags).collect();
        let kept = [images::PAUSE, images::DEMO, "running:1", "dead:1"].map(str::to_owned);
        assert_eq!(left, HashSet::from(kept));
        assert_eq!(told.try_recv().unwrap().reason, "FreeDiskSpaceFailed");
    }

    #[tokio::test]
    async fn one_image_that_is_stuck_does_not_keep_the_others() {
        let fake = FakeRuntime::new();
        ["a:1", "b:1", "c:1"].iter().for_each(|name| fake.add_image(name));
        fake.fail_next(Op::RemoveImage, 1, runtime_error(Op::RemoveImage, "in use by a snapshot"));
        let (settings, events) = (everything_must_go(), EventRecorder::channel(8).0);
        let mut collector =
            ImageCollector::new(fake.clone(), fake.clone(), events, Clock::System, "n1".into(), &settings);
        collector.collect().await.unwrap();
        assert_eq!(fake.images().len(), 1, "the stuck one");
        collector.collect().await.unwrap();
        assert!(fake.images().is_empty());
    }

    /// An agent that starts on a full disk makes room by images, not by ending pods.
    #[tokio::test]
    async fn what_was_there_before_the_first_look_is_no_new_image() {
        let fake = FakeRuntime::new();
        fake.add_image("before:1");
        let settings = ImageSettings { min_age: Duration::from_secs(120), ..everything_must_go() };
        let events = EventRecorder::channel(8).0;
        let mut collector =
            ImageCollector::new(fake.clone(), fake.clone(), events, Clock::System, "n1".into(), &settings);
        fake.fail_next(Op::ListContainers, 1, runtime_error(Op::ListContainers, "starting"));
        collector.collect().await.unwrap_err();
        collector.collect().await.unwrap();
        assert!(fake.images().is_empty());
        fake.add_image("pulled:1");
        collector.collect().await.unwrap();
        assert_eq!(fake.images().len(), 1, "it is for a container that is about to start");
    }

    /// A clock that somebody sets makes no image older or younger.
    #[tokio::test(start_paused = true)]
    async fn ages_are_no_matter_of_the_wall_clock() {
        let fake = FakeRuntime::new();
        let settings = ImageSettings { min_age: Duration::from_secs(120), ..everything_must_go() };
        let (events, noon) = (EventRecorder::channel(8).0, "2026-01-01T12:00:00Z".parse().unwrap());
        let clock = Clock::tokio(noon);
        let mut collector = ImageCollector::new(fake.clone(), fake.clone(), events, clock, "n1".into(), &settings);
        collector.collect().await.unwrap();
        fake.add_image("pulled:1");
        collector.collect().await.unwrap();
        let set_to = |at: &str| {
            let Clock::Tokio { started, .. } = clock else { unreachable!("it was made so") };
            Clock::Tokio { origin: at.parse().unwrap(), started }
        };
        collector.clock = set_to("2036-01-01T00:00:00Z");
        collector.collect().await.unwrap();
        assert_eq!(fake.images().len(), 1, "it is as young as before");
        collector.clock = set_to("1970-01-01T00:00:00Z");
        tokio::time::advance(Duration::from_secs(121)).await;
        collector.collect().await.unwrap();
        assert!(fake.images().is_empty(), "it is old enough");
    }

    /// Whoever keeps images for ever keeps them.
    #[tokio::test]
    async fn no_age_is_too_long_to_be_kept() {
        let fake = FakeRuntime::new();
        let settings = ImageSettings { min_age: Duration::MAX, ..everything_must_go() };
        let events = EventRecorder::channel(8).0;
        let mut collector =
            ImageCollector::new(fake.clone(), fake.clone(), events, Clock::System, "n1".into(), &settings);
        collector.collect().await.unwrap();
        fake.add_image("pulled:1");
        collector.collect().await.unwrap();
        assert_eq!(fake.images().len(), 1);
    }
}
