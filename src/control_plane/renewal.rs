//! Renews certificates while the process runs that shows them. They are good for a year, and a control plane may run
//! for longer.

use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::errors;

/// How often they are looked at. Timers stand still while a machine sleeps, and the time of day may be set: nothing
/// is computed ahead.
const LOOK: Duration = Duration::from_secs(600);

/// Calls `renew`, which issues what is about to expire, until `token` is cancelled. What fails is told and tried
/// again: there are weeks left then.
///
/// # Errors
/// When `renew` panics.
pub async fn keep<F>(what: &'static str, renew: F, token: CancellationToken) -> Result<()>
where
    F: Fn() -> Result<()> + Clone + Send + 'static,
{
    while token.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        // It reads files, and may write them.
        if let Err(error) = tokio::task::spawn_blocking(renew.clone()).await? {
            tracing::warn!(error = errors::one_line(&error), "{what} cannot be renewed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::bail;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_is_tried_again() {
        let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
        let (count, token) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let renew = move || {
            let earlier = count.fetch_add(1, Ordering::SeqCst);
            called.send(earlier)?;
            if earlier == 0 { bail!("the disk is full") } else { Ok(()) }
        };
        let kept = tokio::spawn(keep("it", renew, token.clone()));
        assert_eq!((calls.recv().await, calls.recv().await), (Some(0), Some(1)));
        token.cancel();
        kept.await.unwrap().unwrap();
    }
}
