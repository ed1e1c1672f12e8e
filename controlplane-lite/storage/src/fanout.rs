//! Hands committed events of a local store to its watches, in order. Owns the
//! subscriptions, not the history: a store replays that itself before it joins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::store::{Event, EventStream, Revision, StoreError};

/// Batches a watch may be behind before it is cut off.
const MAX_PENDING_BATCHES: usize = 8192;

/// Subscribers of one store.
#[derive(Debug, Default)]
pub struct Fanout {
    subscribers: Mutex<Vec<Subscriber>>,
    closed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Subscriber {
    prefix: Box<str>,
    sender: mpsc::Sender<Arc<[Event]>>,
}

impl Fanout {
    /// Adds a watch of `prefix`: everything published from now on with a revision
    /// above `after`. The caller replays what came before.
    pub fn subscribe(&self, prefix: &str, after: Revision) -> EventStream {
        let (sender, receiver) = mpsc::channel(MAX_PENDING_BATCHES);
        self.lock().push(Subscriber { prefix: prefix.into(), sender });
        let wanted: Box<str> = prefix.into();
        let closed = self.closed.clone();
        ReceiverStream::new(receiver)
            .flat_map(move |batch: Arc<[Event]>| {
                let news = batch.iter().filter(|event| event.revision() > after && concerns(event, &wanted));
                futures::stream::iter(news.cloned().map(Ok).collect::<Vec<_>>())
            })
            // The channel ends only when the fan-out dropped it: too slow, or closed.
            .chain(futures::stream::once(async move {
                Err(if closed.load(Ordering::Acquire) { StoreError::Closed } else { StoreError::Lagged })
            }))
            .boxed()
    }

    /// Sends a batch to every watch it concerns and drops those that are full.
    pub fn publish(&self, batch: &Arc<[Event]>) {
        self.lock().retain(|subscriber| {
            if !batch.iter().any(|event| concerns(event, &subscriber.prefix)) {
                return !subscriber.sender.is_closed();
            }
            subscriber.sender.try_send(batch.clone()).is_ok()
        });
    }

    /// Ends all watches.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.lock().clear();
    }

    /// True once closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch that first tells what was missed.
pub fn replay_then(replay: Vec<Event>, live: EventStream) -> EventStream {
    futures::stream::iter(replay.into_iter().map(Ok)).chain(live).boxed()
}

fn concerns(event: &Event, prefix: &str) -> bool {
    event.key().is_none_or(|key| key.as_str().starts_with(prefix))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_reader_that_never_reads_is_cut_off() {
        let fanout = Fanout::default();
        let mut stream = fanout.subscribe("", Revision(0));
        for n in 1..=1 + MAX_PENDING_BATCHES as u64 {
            fanout.publish(&Arc::from(vec![Event::Progress(Revision(n))]));
        }
        assert!(fanout.lock().is_empty(), "the full subscriber is gone");
        let mut last = None;
        while let Some(item) = stream.next().await {
            last = Some(item);
        }
        assert!(matches!(last, Some(Err(StoreError::Lagged))));
    }
}
