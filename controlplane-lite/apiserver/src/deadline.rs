//! When the request at hand ends, whatever it does: who asks others on its behalf has no longer.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

tokio::task_local! {
    static UNTIL: Instant;
}

/// Work that ends in time or not at all.
///
/// # Errors
/// When the time is over first.
pub async fn within<F: Future>(limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    let until = Instant::now() + limit;
    tokio::time::timeout_at(until, UNTIL.scope(until, work)).await
}

/// The end of the request at hand, for [`carried`] to take to another task.
pub fn until() -> Option<Instant> {
    UNTIL.try_with(|until| *until).ok()
}

/// The same work on another task.
pub async fn carried<F: Future>(until: Option<Instant>, work: F) -> F::Output {
    match until {
        Some(until) => UNTIL.scope(until, work).await,
        None => work.await,
    }
}

/// The time that is left; nothing for a request that lasts as long as it likes.
pub fn left() -> Option<Duration> {
    until().map(|until| until.saturating_duration_since(Instant::now()))
}
