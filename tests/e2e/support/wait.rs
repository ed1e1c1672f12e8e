//! Waiting for a condition, never for time to pass.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Looks until `condition` yields a value; its last complaint is the error.
pub fn until<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => bail!("{what}: not within {timeout:?}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
