//! One etcd watch as a stream of our events.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::{EventType, KeyValue, WatchClient, WatchOptions, WatchResponse, WatchResponseStream};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{ProgressSender, entry, key, revision_of, signed, unsigned};
use crate::store::{Entry, Event, EventStream, Revision, StoreError};

/// Where a watch comes from.
pub(super) struct Source {
    pub(super) prefix: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) after: Revision,
}

struct State {
    source: Source,
    responses: WatchResponseStream,
    pending: VecDeque<Result<Event, StoreError>>,
    /// Kept alive with the stream; dropping it closes the watch.
    _progress: Arc<ProgressSender>,
    closed: CancellationToken,
    ended: bool,
}

/// Opens a watch of a key range.
pub(super) async fn open(
    mut client: WatchClient,
    start: Vec<u8>,
    end: Vec<u8>,
    source: Source,
    closed: CancellationToken,
) -> Result<(Arc<ProgressSender>, EventStream), StoreError> {
    let options = WatchOptions::new()
        .with_range(end)
        .with_start_revision(signed(source.after.next()))
        .with_prev_key()
        .with_progress_notify()
        .with_fragment();
    let opened = client.watch(start, Some(options)).await;
    let stream = opened.map_err(|error| StoreError::io("watch", &*source.name, error))?;
    let (sender, responses) = stream.split();
    let progress = Arc::new(tokio::sync::Mutex::new(sender));
    let state =
        State { source, responses, pending: VecDeque::new(), _progress: progress.clone(), closed, ended: false };
    Ok((progress, futures::stream::unfold(state, next).boxed()))
}

async fn next(mut state: State) -> Option<(Result<Event, StoreError>, State)> {
    loop {
        if let Some(item) = state.pending.pop_front() {
            state.ended |= item.is_err();
            return Some((item, state));
        }
        if state.ended {
            return None;
        }
        let closed = state.closed.clone();
        let message = tokio::select! {
            // Both only lose what is given up anyway: the stream ends here.
            () = closed.cancelled() => Err(StoreError::Closed),
            message = state.responses.message() => match message {
                Ok(Some(response)) => Ok(response),
                Ok(None) => Err(StoreError::Lagged),
                Err(error) => Err(StoreError::io("watch", &*state.source.name, error)),
            },
        };
        match message {
            Ok(response) => state.source.translate(&response, &mut state.pending),
            Err(error) => state.pending.push_back(Err(error)),
        }
    }
}

impl Source {
    fn translate(&self, response: &WatchResponse, out: &mut VecDeque<Result<Event, StoreError>>) {
        if response.compact_revision() > 0 {
            let oldest = Some(unsigned(response.compact_revision()));
            out.push_back(Err(StoreError::Compacted { requested: self.after, oldest }));
            return;
        }
        if response.canceled() {
            out.push_back(Err(StoreError::io("watch", &*self.name, response.cancel_reason().to_owned())));
            return;
        }
        out.extend(response.events().iter().filter_map(|event| self.event(event)).map(Ok));
        let reached = revision_of(response.header());
        if response.events().is_empty() && !response.created() && reached > self.after {
            out.push_back(Ok(Event::Progress(reached)));
        }
    }

    fn event(&self, event: &etcd_client::Event) -> Option<Event> {
        let kv = event.kv()?;
        let key = key(&self.prefix, kv)?;
        Some(match event.event_type() {
            EventType::Put => {
                let created = kv.create_revision() == kv.mod_revision();
                Event::Put { entry: entry(key, kv), created }
            }
            EventType::Delete => {
                // The value before is gone when it was compacted; the key is not.
                let before = |kv: &KeyValue| (Bytes::copy_from_slice(kv.value()), unsigned(kv.mod_revision()));
                let (value, revision) = event.prev_kv().map_or_else(Default::default, before);
                Event::Delete { previous: Entry { key, value, revision }, revision: unsigned(kv.mod_revision()) }
            }
        })
    }
}
