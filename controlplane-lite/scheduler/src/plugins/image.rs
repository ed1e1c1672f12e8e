//! ImageLocality: prefers nodes that already hold the pod's images. Pure.

use crate::framework::{MAX_SCORE, NodeScore, ScorePlugin};
use crate::nodes::{Nodes, Slot, Symbol};
use crate::pod::PodInfo;

const MEBIBYTE: i64 = 1024 * 1024;
/// Less than this is not worth a point.
const MIN_BYTES: i64 = 23 * MEBIBYTE;
/// More than this per container gives no more points.
const MAX_BYTES: i64 = 1000 * MEBIBYTE;

/// The plugin.
#[derive(Debug)]
pub struct ImageLocality;

struct Held<'a> {
    nodes: &'a Nodes,
    images: Vec<Symbol>,
    containers: i64,
}

impl ScorePlugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn pre_score<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a Nodes,
        _feasible: &[Slot],
    ) -> Option<Box<dyn NodeScore + 'a>> {
        let images: Vec<Symbol> = pod.images.iter().filter_map(|i| nodes.symbol(&tagged(i))).collect();
        let containers = i64::try_from(pod.images.len()).unwrap_or(1);
        (!images.is_empty()).then(|| Box::new(Held { nodes, images, containers }) as _)
    }
}

/// The name with `:latest` where it has neither tag nor digest.
fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

impl NodeScore for Held<'_> {
    fn score(&self, node: Slot) -> i64 {
        let total = i64::try_from(self.nodes.len()).unwrap_or(i64::MAX).max(1);
        let spread = |image: &Symbol| {
            let size = self.nodes.image_size(node, *image)?;
            i64::try_from(i128::from(size) * i128::from(self.nodes.image_spread(*image)) / i128::from(total)).ok()
        };
        let sum: i64 = self.images.iter().filter_map(spread).sum();
        let max = MAX_BYTES * self.containers.max(1);
        MAX_SCORE * (sum.clamp(MIN_BYTES, max) - MIN_BYTES) / (max - MIN_BYTES)
    }
}
