//! When the runtime was last listed as a whole, and whether that is too long
//! ago (pkg/kubelet/pleg/generic.go: `Healthy`). A list that fails and one that
//! never ends look the same from here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::go_duration;

/// How long ago the last list may be, as upstream.
const THRESHOLD: Duration = Duration::from_secs(180);
/// Lists that may fail in a row where they are rare.
const MISSED: u32 = 3;

/// Shared by the task that lists and those who ask. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RelistHealth {
    last: Arc<Mutex<Instant>>,
    threshold: Duration,
}

impl RelistHealth {
    /// Counts from now on: a node that starts is given time for its first list.
    pub fn new(period: Duration) -> Self {
        Self { last: Arc::new(Mutex::new(Instant::now())), threshold: THRESHOLD.max(period * MISSED) }
    }

    /// A list that was begun at `began` is complete.
    pub(super) fn relisted(&self, began: Instant) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    /// What is wrong, in upstream's words.
    pub fn problem(&self) -> Option<String> {
        let elapsed = self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        (elapsed > self.threshold).then(|| {
            let (ago, threshold) = (go_duration(elapsed), go_duration(self.threshold));
            format!("PLEG is not healthy: pleg was last seen active {ago} ago; threshold is {threshold}")
        })
    }
}
