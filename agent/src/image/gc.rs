//! Removes images nobody uses when their file system fills up.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri::types::Image;
use cri::{CriError, ImageRef, ImageService, images};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::ImageSettings;
use crate::events::{EventType, Recorder};
use crate::node::facts::Disk;
use crate::plan::image_gc::{ImageRecord, Thresholds, bytes_to_free, removable};
use crate::podcache::PodCache;

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
    cache: Arc<PodCache>,
    events: Recorder,
    clock: Clock,
    node_name: String,
    thresholds: Thresholds,
    /// When each image was first seen and last used.
    seen: HashMap<ImageRef, (Timestamp, Timestamp)>,
}

impl ImageCollector {
    /// A collector that has seen no image.
    pub fn new(
        images: Arc<dyn ImageService>,
        cache: Arc<PodCache>,
        events: Recorder,
        clock: Clock,
        node_name: String,
        settings: &ImageSettings,
    ) -> Self {
        let thresholds = Thresholds {
            high: settings.gc_high_percent,
            low: settings.gc_low_percent,
            min_age: SignedDuration::try_from(settings.min_age).unwrap_or(SignedDuration::ZERO),
            enough_free: settings.enough_free,
        };
        Self { images, cache, events, clock, node_name, thresholds, seen: HashMap::new() }
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

    fn in_use(&self, images: &[Image]) -> HashSet<String> {
        let pods = self.cache.all();
        let named: HashSet<&str> = pods
            .iter()
            .flat_map(|p| p.containers.iter())
            .flat_map(|c| [c.status.image.as_str(), c.status.image_ref.as_str()])
            .collect();
        let used = |i: &&Image| {
            named.contains(i.id.as_str())
                || i.repo_tags.iter().chain(&i.repo_digests).any(|name| named.contains(name.as_str()))
        };
        images.iter().filter(used).map(|i| i.id.to_string()).collect()
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
        let images = self.images.list_images().await?;
        let (now, used) = (self.clock.now(), self.in_use(&images));
        self.seen.retain(|id, _| images.iter().any(|i| i.id == *id));
        for image in &images {
            let record = self.seen.entry(image.id.clone()).or_insert((now, now));
            if used.contains(image.id.as_str()) {
                record.1 = now;
            }
        }
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
        let (first_seen, last_used) = self.seen.get(&image.id).copied().unwrap_or((now, now));
        let pinned = image.pinned || image.repo_tags.iter().any(|name| images::is_builtin(name));
        ImageRecord { id: image.id.to_string(), size: image.size, pinned, first_seen, last_used }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use cri::fake::{FakeRuntime, Op, runtime_error};
    use cri::types::ContainerState;

    use super::*;
    use crate::testutil::{instance, pod, runtime};

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

    #[tokio::test]
    async fn only_what_nobody_needs_is_removed() {
        let fake = FakeRuntime::new();
        for name in [images::PAUSE, images::DEMO, "by-name:1", "by-id:1", "idle:1"] {
            fake.add_image(name);
        }
        let by_id = fake.list_images().await.unwrap().into_iter().find(|i| i.repo_tags == ["by-id:1"]).unwrap().id;
        let pod = pod("  containers: [{name: a}, {name: b}]");
        let (_, mut a) = instance(&pod, "a", 0, ContainerState::Running, 0);
        let (sandbox, mut b) = instance(&pod, "b", 0, ContainerState::Exited, 0);
        (a.image, a.image_ref) = ("by-name:1".into(), String::new());
        (b.image, b.image_ref) = (String::new(), by_id.to_string());
        let cache = Arc::new(PodCache::new());
        cache.put(runtime(vec![], vec![(sandbox.clone(), a), (sandbox, b)]));
        let (events, mut told) = Recorder::channel(8);
        let settings = everything_must_go();
        let mut collector = ImageCollector::new(fake.clone(), cache, events, Clock::System, "n1".into(), &settings);
        collector.collect().await.unwrap();
        let left: HashSet<String> = fake.list_images().await.unwrap().into_iter().flat_map(|i| i.repo_tags).collect();
        let kept = [images::PAUSE, images::DEMO, "by-name:1", "by-id:1"].map(str::to_owned);
        assert_eq!(left, HashSet::from(kept));
        assert_eq!(told.try_recv().unwrap().reason, "FreeDiskSpaceFailed");
    }

    #[tokio::test]
    async fn one_image_that_is_stuck_does_not_keep_the_others() {
        let fake = FakeRuntime::new();
        ["a:1", "b:1", "c:1"].iter().for_each(|name| fake.add_image(name));
        fake.fail_next(Op::RemoveImage, 1, runtime_error(Op::RemoveImage, "in use by a snapshot"));
        let (settings, cache) = (everything_must_go(), Arc::new(PodCache::new()));
        let events = Recorder::channel(8).0;
        let mut collector = ImageCollector::new(fake.clone(), cache, events, Clock::System, "n1".into(), &settings);
        collector.collect().await.unwrap();
        assert_eq!(fake.images().len(), 1, "the stuck one");
        collector.collect().await.unwrap();
        assert!(fake.images().is_empty());
    }
}
