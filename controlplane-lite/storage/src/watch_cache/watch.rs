//! One open watch: initial state, live events, bookmarks.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::super::object::{EventKind, Line, Object, bookmark_frame};
use super::super::store::Revision;
use super::watchers::{Delivery, Pending, PendingEvent, WatcherId};
use super::{Filter, ResourceCache};

/// How often a watch is told how far it has come when nothing else is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch asks its filter about before it lets others go on.
const ASKED_AT_ONCE: usize = 64;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With changes from now on.
    Now,
    /// With everything there is as ADDED: resourceVersion unset or 0.
    State,
    /// With the first change after this revision.
    After(Revision),
}

/// How to watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    pub filter: Filter,
    pub start: WatchStart,
    /// Send bookmarks (`allowWatchBookmarks`).
    pub bookmarks: bool,
    /// Close the initial state with the bookmark that says so
    /// (`sendInitialEvents`).
    pub initial_events_end: bool,
}

impl WatchRequest {
    /// A watch without bookmarks.
    pub fn new(filter: Filter, start: WatchStart) -> Self {
        Self { filter, start, bookmarks: false, initial_events_end: false }
    }
}

/// What a watch yields.
#[derive(Clone, Debug)]
pub enum WatchItem {
    Event { kind: EventKind, object: Arc<Object> },
    Bookmark { revision: Revision, initial_events_end: bool },
}

impl WatchItem {
    /// The line to send. `api_version` and `kind` are the resource's, for
    /// bookmarks.
    pub fn line(&self, api_version: &str, kind: &str) -> Line {
        match self {
            Self::Event { kind, object } => object.line(*kind),
            Self::Bookmark { revision, initial_events_end } => {
                bookmark_frame(api_version, kind, *revision, *initial_events_end).into()
            }
        }
    }

    /// The revision a client may resume from after this item.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Event { object, .. } => object.revision(),
            Self::Bookmark { revision, .. } => *revision,
        }
    }
}

/// Why a watch ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// It was read too slowly, or its resource went away; the client watches
    /// again from where it is.
    #[error("the watch fell behind or its resource is gone")]
    CutOff,
}

/// An open watch: a stream that ends after an error.
pub struct CacheWatch {
    cache: Arc<ResourceCache>,
    id: WatcherId,
    filter: Filter,
    initial: std::vec::IntoIter<PendingEvent>,
    /// Every initial item carries at least this, as upstream's do.
    initial_end: Option<Revision>,
    pending: Pending,
    /// What it has taken out of the history, and reads behind what waits for it.
    caught: std::vec::IntoIter<PendingEvent>,
    bookmarks: Option<Interval>,
    /// The revision the client knows about.
    told: Revision,
    ended: bool,
}

impl CacheWatch {
    pub(super) fn new(
        cache: Arc<ResourceCache>,
        id: WatcherId,
        request: WatchRequest,
        initial: Vec<PendingEvent>,
        pending: Pending,
        begun: Revision,
    ) -> Self {
        let bookmarks = request.bookmarks.then(|| {
            let mut ticks = interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self {
            cache,
            id,
            filter: request.filter,
            initial: initial.into_iter(),
            initial_end: request.initial_events_end.then_some(begun),
            pending,
            caught: Vec::new().into_iter(),
            bookmarks,
            told: begun,
            ended: false,
        }
    }

    /// The revision to put into a last bookmark when the watch is about to be
    /// closed (upstream does so before a timeout): set only when everything up to
    /// it has been yielded and the client does not know yet.
    pub fn final_bookmark(&mut self) -> Option<WatchItem> {
        let wanted = self.bookmarks.is_some() && self.initial.len() == 0 && self.initial_end.is_none();
        self.bookmark_if_idle().filter(|_| wanted)
    }

    /// Bytes of the objects that it begins with and has not yielded.
    pub fn initial_bytes(&self) -> usize {
        self.initial.as_slice().iter().map(PendingEvent::bytes).sum()
    }

    /// Lets it be behind, until it has begun, by as much as it begins with, however old that is: somebody has room for
    /// what it keeps.
    pub fn spare_while_beginning(&self) {
        self.pending.spare(self.initial_bytes());
    }

    /// Whether it has yielded all that it begins with.
    pub fn has_begun(&self) -> bool {
        self.initial.len() == 0
    }

    fn bookmark_if_idle(&mut self) -> Option<WatchItem> {
        // Read before looking at the queue: what comes later is not covered by it, and neither is what came to a watch
        // that had been cut off or ended by then.
        let reached = self.cache.reached();
        if reached <= self.told || self.caught.len() > 0 || !self.pending.is_complete() {
            return None;
        }
        self.told = reached;
        Some(WatchItem::Bookmark { revision: reached, initial_events_end: false })
    }

    /// What happened next: out of the queue, or out of the history behind it; the end when neither has it.
    fn poll_change(&mut self, context: &mut Context<'_>) -> Poll<Option<PendingEvent>> {
        if let Some(event) = self.caught.next() {
            return Poll::Ready(Some(event));
        }
        let polled = self.pending.poll_next(context);
        let lag = self.pending.lag().filter(|_| !self.pending.is_cut() && !matches!(polled, Poll::Ready(Some(_))));
        let Some(revision) = lag else { return polled };
        let Some(changes) = self.cache.catch_up(&self.pending, &self.filter, revision) else {
            return Poll::Ready(None);
        };
        self.caught = changes.into_iter();
        match self.caught.next() {
            Some(event) => Poll::Ready(Some(event)),
            None => {
                // There may be more, in the queue or in the history.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn event(&mut self, (kind, object): Delivery) -> WatchItem {
        self.told = self.told.max(object.revision());
        WatchItem::Event { kind, object }
    }
}

impl Stream for CacheWatch {
    type Item = Result<WatchItem, WatchEnd>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        this.pending.let_go();
        if this.pending.is_cut() {
            this.caught = Vec::new().into_iter();
        }
        for _ in 0..ASKED_AT_ONCE {
            let Some(event) = this.initial.next() else { break };
            if this.initial.len() == 0 {
                this.pending.spare(0);
            }
            if let Some(delivery) = event.resolve(&this.filter) {
                return Poll::Ready(Some(Ok(this.event(delivery))));
            }
        }
        if this.initial.len() > 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(revision) = this.initial_end.take() {
            this.told = this.told.max(revision);
            let revision = this.told;
            return Poll::Ready(Some(Ok(WatchItem::Bookmark { revision, initial_events_end: true })));
        }
        let mut asked = 0;
        loop {
            match this.poll_change(context) {
                Poll::Ready(Some(event)) => {
                    if let Some(delivery) = event.resolve(&this.filter) {
                        return Poll::Ready(Some(Ok(this.event(delivery))));
                    }
                }
                Poll::Ready(None) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(WatchEnd::CutOff)));
                }
                Poll::Pending => break,
            }
            asked += 1;
            if asked == ASKED_AT_ONCE {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        while this.bookmarks.as_mut().is_some_and(|ticks| ticks.poll_tick(context).is_ready()) {
            if let Some(bookmark) = this.bookmark_if_idle() {
                return Poll::Ready(Some(Ok(bookmark)));
            }
        }
        Poll::Pending
    }
}

impl Drop for CacheWatch {
    fn drop(&mut self) {
        self.cache.write().watchers.remove(&self.id);
    }
}

impl std::fmt::Debug for CacheWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheWatch").field("id", &self.id).field("told", &self.told).finish_non_exhaustive()
    }
}
