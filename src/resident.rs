//! What the process keeps in memory: once it has come to rest, gives back what only its start and its last work needed.
//!
//! Three quarters of an idle node's memory are pages of the program's file that ran once. See
//! docs/adr/0014-memory-at-rest.md.

mod rest;

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio_util::sync::CancellationToken;

use crate::sys::memory;
use rest::{PERIOD, Rest, Sample};

/// Looks at the process once a period until `token` is cancelled.
///
/// # Errors
/// None: a kernel that does not tell of its mappings costs memory, not service.
pub async fn run(token: CancellationToken) -> Result<()> {
    let mut rest = Rest::default();
    loop {
        tokio::select! {
            // A cancelled token stays cancelled; a sleep that is dropped has done nothing.
            () = token.cancelled() => return Ok(()),
            () = tokio::time::sleep(PERIOD) => {}
        }
        // Well under a millisecond, while nothing else goes on: not worth another thread and its stack.
        let looked = sample().map(|sample| rest.has_something_to_give(sample));
        if let Err(error) = looked.and_then(|has| if has { give_back() } else { Ok(()) }) {
            tracing::debug!(error = format!("{error:#}"), "no memory is given back");
            token.cancelled().await;
        }
    }
}

fn sample() -> Result<Sample> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("ask for the time used")?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    let statm = std::fs::read_to_string("/proc/self/statm").context("read /proc/self/statm")?;
    let resident = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).context("no resident pages")?;
    Ok(Sample { cpu: Duration::from_micros(u64::try_from(micros).unwrap_or_default()), resident })
}

fn give_back() -> Result<()> {
    memory::give_back_program().context("give back the program's pages")?;
    memory::give_back_freed();
    Ok(())
}
