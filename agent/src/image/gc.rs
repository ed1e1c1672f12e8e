//! Removes images nobody uses when their file system fills up.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri::types::Image;
use cri::{CriError, ImageRef, ImageService};
use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::ImageSettings;
use crate::events::{EventType, Recorder};
use crate::plan::image_gc::{ImageRecord, Thresholds, bytes_to_free, images_to_remove};
use crate::podcache::PodCache;

const PERIOD: Duration = Duration::from_secs(300);

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

/// Capacity and free bytes of a file system.
fn space(path: &Path) -> Option<(u64, u64)> {
    let disk = statvfs(path).ok()?;
    Some((disk.blocks() * disk.fragment_size(), disk.blocks_available() * disk.fragment_size()))
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

    /// Runs until cancelled.
    pub async fn run(mut self, token: CancellationToken) {
        loop {
            if let Err(error) = self.collect().await {
                tracing::debug!(%error, "images not collected");
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
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

    /// Learns which images there are and removes what has to go.
    pub async fn collect(&mut self) -> Result<Vec<String>, CriError> {
        let images = self.images.list_images().await?;
        let (now, used) = (self.clock.now(), self.in_use(&images));
        self.seen.retain(|id, _| images.iter().any(|i| i.id == *id));
        for image in &images {
            let record = self.seen.entry(image.id.clone()).or_insert((now, now));
            if used.contains(image.id.as_str()) {
                record.1 = now;
            }
        }
        let usage = self.images.image_fs_info().await?;
        let disk = usage.first().and_then(|fs| space(Path::new(&fs.mountpoint)));
        let Some((capacity, available)) = disk else { return Ok(Vec::new()) };
        let free = bytes_to_free(capacity, available, &self.thresholds);
        let records: Vec<ImageRecord> = images.iter().map(|i| self.record(i, now)).collect();
        let doomed = images_to_remove(&records, &used, free, &self.thresholds, now);
        for id in &doomed {
            self.images.remove_image(&ImageRef::new(id.as_str())).await?;
        }
        let freed: u64 = records.iter().filter(|r| doomed.contains(&r.id)).map(|r| r.size).sum();
        if freed < free {
            let text = format!(
                "Failed to garbage collect required amount of images. Attempted to free {free} bytes, but only found {freed} bytes eligible to free."
            );
            self.events.node(&self.node_name, EventType::Warning, "FreeDiskSpaceFailed", text);
        }
        Ok(doomed)
    }

    fn record(&self, image: &Image, now: Timestamp) -> ImageRecord {
        let (first_seen, last_used) = self.seen.get(&image.id).copied().unwrap_or((now, now));
        ImageRecord { id: image.id.to_string(), size: image.size, pinned: image.pinned, first_seen, last_used }
    }
}
