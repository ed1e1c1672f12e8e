//! What a watch reads next that is further behind than its queue is long: a part of the history, from where it is.
//! Nothing is kept for it meanwhile, so that it may be as slow as the history is long; behind that it ends, and its
//! client, which asks for what came next, is told that it is gone. Upstream's watchCacheInterval
//! (staging/src/k8s.io/apiserver/pkg/storage/cacher/watch_cache_interval.go), which does so for what a watch begins
//! with.

use super::super::store::Revision;
use super::history::Change;
use super::watchers::{Pending, PendingEvent};
use super::{Filter, ResourceCache};
use std::sync::Arc;

/// Changes that are looked at in one go, with the cache locked.
const LOOKED_AT: usize = 1024;
/// Of these at most so many are kept for the watch, and no more bytes than this with the last of them.
const TAKEN: usize = 64;
const TAKEN_BYTES: usize = 256 * 1024;

impl ResourceCache {
    /// The next changes behind `revision` that may concern a watch, which gets them from its queue again as soon as
    /// there are no more; none when some of them are forgotten.
    pub(super) fn catch_up(&self, pending: &Pending, filter: &Filter, revision: Revision) -> Option<Vec<PendingEvent>> {
        // Nothing is dispatched as long as somebody reads.
        let state = self.read();
        if revision < state.history.since() {
            return None;
        }
        let part = take_part(state.history.after(revision), filter);
        pending.lag_behind(part.more_after);
        Some(part.taken)
    }
}

/// A part of the history.
struct Part {
    taken: Vec<PendingEvent>,
    /// Where the next part begins, if there is one.
    more_after: Option<Revision>,
}

/// The first of `changes`. What happened at one revision stays together.
fn take_part<'c>(changes: impl Iterator<Item = &'c Arc<Change>>, filter: &Filter) -> Part {
    let mut part = Part { taken: Vec::new(), more_after: None };
    let (mut looked, mut bytes, mut last) = (0, 0, Revision(0));
    for change in changes {
        if (looked >= LOOKED_AT || part.taken.len() >= TAKEN || bytes >= TAKEN_BYTES) && change.revision > last {
            part.more_after = Some(last);
            break;
        }
        looked += 1;
        last = change.revision;
        if change.concerns(filter) {
            let event = PendingEvent::Changed(change.clone());
            bytes += event.bytes();
            part.taken.push(event);
        }
    }
    part
}
