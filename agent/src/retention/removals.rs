//! Removing what pods leave on disk. A tree may be as large as its pod liked: it
//! goes on threads that may block, and on few of them at a time, so that neither
//! tasks nor other work on files wait for it.

use std::io;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Trees that are removed at a time: more would only fight for the same disk.
const PLACES: usize = 4;

/// Where trees wait to be removed. Cheap to clone; copies share the places.
#[derive(Clone, Debug)]
pub struct Removals(Arc<Semaphore>);

impl Default for Removals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PLACES)))
    }
}

impl Removals {
    /// Waits for a place; it is free again when this is dropped, on whatever thread.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        self.0.clone().acquire_owned().await.ok()
    }

    /// Does the work once there is a place for it. Work that was begun goes on to
    /// its end, whoever waits for it.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let place = self.place().await;
        let job = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        job.await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn few_at_a_time_and_each_in_its_turn() {
        let removals = Removals::default();
        let (begun_tx, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let start = |number: usize| {
            let (removals, begun) = (removals.clone(), begun_tx.clone());
            let (go, wait) = mpsc::channel::<()>();
            let work = move || {
                begun.send(number).unwrap();
                // Until the test lets it go, or is over.
                let _ = wait.recv();
            };
            (go, tokio::spawn(async move { removals.run(work).await.unwrap() }))
        };
        let mut works: Vec<_> = (0..PLACES).map(start).collect();
        for _ in 0..PLACES {
            begun.recv().await.unwrap();
        }
        let (last, waits) = start(PLACES);
        let mut place = Box::pin(removals.place());
        assert!(futures::poll!(&mut place).is_pending(), "all places are taken");
        assert!(begun.try_recv().is_err());
        let (go, first) = works.remove(0);
        drop(go);
        first.await.unwrap();
        drop(last);
        let mut both = 0;
        tokio::select! {
            _ = waits => both += 1,
            _ = &mut place => both += 2,
        }
        assert!(both > 0, "one of those that waited has its turn");
    }
}
