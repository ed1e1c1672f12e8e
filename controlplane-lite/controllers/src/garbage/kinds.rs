//! Which resource serves a kind, asked of the server when the table does not know it. One discovery at a time, and its
//! answer stands for a while: objects may name owners of any kind, as many as they like.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::namespace::Resource;

/// How long a discovery stands: until what waits for a kind is looked at again.
const STANDS: Duration = super::plan::UNSERVED;
/// The same for one that groups did not answer: whatever they serve is not followed until they are asked again.
const UNCLEAR_STANDS: Duration = Duration::from_secs(1);

/// When the server was last asked for all that it serves.
#[derive(Debug, Default)]
pub(super) struct Kinds(Mutex<Option<Asked>>);

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    complete: bool,
}

impl Asked {
    fn stands(&self) -> bool {
        self.at.elapsed() < if self.complete { STANDS } else { UNCLEAR_STANDS }
    }
}

/// What is known of a kind.
#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    /// This resource.
    Served(Box<Resource>),
    /// Nothing that the server has serves it.
    Unserved,
    /// Groups did not answer: one of them may serve it.
    Unclear,
}

impl Kinds {
    /// Notes a discovery that `ask` makes; it tells whether every group answered, and what else is to be known.
    pub(super) async fn refresh<T>(
        &self,
        ask: impl Future<Output = Result<(bool, T), kube::Error>>,
    ) -> Result<(bool, T), kube::Error> {
        let mut last = self.0.lock().await;
        let (complete, found) = ask.await?;
        *last = Some(Asked { at: Instant::now(), complete });
        Ok((complete, found))
    }

    /// Looks a kind up with `find`, and once more after `ask` if the last discovery does not stand any more.
    pub(super) async fn resource(
        &self,
        find: impl Fn() -> Option<Resource>,
        ask: impl Future<Output = Result<bool, kube::Error>>,
    ) -> Result<Kind, kube::Error> {
        if let Some(found) = find() {
            return Ok(Kind::Served(Box::new(found)));
        }
        let mut last = self.0.lock().await;
        let complete = match last.filter(Asked::stands) {
            Some(last) => last.complete,
            None => {
                let answer = ask.await;
                // Of a server that does not answer at all nobody asks more often either.
                *last = Some(Asked { at: Instant::now(), complete: answer.as_ref().is_ok_and(|complete| *complete) });
                answer?
            }
        };
        Ok(match find() {
            Some(found) => Kind::Served(Box::new(found)),
            None if complete => Kind::Unserved,
            None => Kind::Unclear,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Server {
        asked: AtomicUsize,
        complete: bool,
    }

    impl Server {
        async fn look_up(&self, kinds: &Kinds) -> Kind {
            let ask = async {
                self.asked.fetch_add(1, Ordering::Relaxed);
                // It takes longer than others take to ask.
                tokio::time::advance(Duration::from_millis(5)).await;
                Ok(self.complete)
            };
            kinds.resource(|| None, ask).await.unwrap()
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_unknown_kinds_is_one_discovery_in_thirty_seconds() {
        let (kinds, server) = (Kinds::default(), Server { asked: AtomicUsize::new(0), complete: true });
        let found = futures::future::join_all((0..500).map(|_| server.look_up(&kinds))).await;
        assert!(found.iter().all(|kind| *kind == Kind::Unserved));
        tokio::time::advance(Duration::from_secs(29)).await;
        server.look_up(&kinds).await;
        assert_eq!(server.asked(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        futures::future::join_all((0..500).map(|_| server.look_up(&kinds))).await;
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_does_not_answer_leaves_it_open() {
        let (kinds, server) = (Kinds::default(), Server { asked: AtomicUsize::new(0), complete: false });
        assert_eq!(server.look_up(&kinds).await, Kind::Unclear);
        assert_eq!(server.look_up(&kinds).await, Kind::Unclear);
        assert_eq!(server.asked(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(server.look_up(&kinds).await, Kind::Unclear);
        assert_eq!(server.asked(), 2, "it may answer now");
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_learnt_is_seen() {
        let (kinds, server) = (Kinds::default(), Server { asked: AtomicUsize::new(0), complete: true });
        kinds.refresh(async { Ok((true, ())) }).await.unwrap();
        assert_eq!(server.look_up(&kinds).await, Kind::Unserved);
        assert_eq!(server.asked(), 0);
    }
}
