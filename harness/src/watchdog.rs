//! A watchdog per scenario: one that takes far longer than all its waits is shown as it stands, and
//! what it started is ended, so that it fails instead of hanging.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::time;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    disarm: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches a scenario: `dump` shows how things stand, `end` ends what it started.
    pub fn start(
        name: &str,
        dump: impl FnOnce() -> String + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self::within(time::scenario(), name, dump, end)
    }

    pub(crate) fn within(
        limit: Duration,
        name: &str,
        dump: impl FnOnce() -> String + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (disarm, disarmed) = mpsc::channel();
        let name = name.to_owned();
        let thread = std::thread::spawn(move || {
            if disarmed.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name} hangs; as it stands:\n{}", dump());
                end();
            }
        });
        Self { disarm: Some(disarm), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.disarm = None;
        // One that has begun shows everything before the test goes on.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_bites_once_and_only_who_hangs() {
        let (told, heard) = mpsc::channel();
        let dog = |limit, what: &'static str| {
            let told = told.clone();
            let end = move || told.send(what).expect("the test listens");
            Watchdog::within(limit, what, || "a picture".to_owned(), end)
        };
        drop(dog(Duration::from_secs(600), "done in time"));
        let hangs = dog(Duration::from_millis(1), "hangs");
        assert_eq!(heard.recv(), Ok("hangs"));
        drop(hangs);
        assert!(heard.try_recv().is_err());
    }
}
