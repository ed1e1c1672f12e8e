//! Waiting for a condition, never for time to pass.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest wait for one condition on an idle machine, tenfold what the slowest takes.
const LIMIT: Duration = Duration::from_secs(120);
/// Pause between two looks at what announces nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Names the factor for machines that are slower, or shared.
const FACTOR: &str = "COPEPOD_TEST_TIME_FACTOR";

/// How long anything may take before it counts as hanging.
///
/// # Panics
/// When the factor is no positive number.
#[must_use]
pub fn limit() -> Duration {
    LIMIT.mul_f64(factor(std::env::var(FACTOR).ok().as_deref()).expect("COPEPOD_TEST_TIME_FACTOR is a number above 0"))
}

fn factor(text: Option<&str>) -> Result<f64> {
    let Some(text) = text else { return Ok(1.0) };
    let factor: f64 = text.parse().with_context(|| format!("{FACTOR}={text}"))?;
    if !(factor > 0.0 && factor.is_finite()) {
        bail!("{FACTOR}={text}");
    }
    Ok(factor)
}

/// How long one attempt may take where others follow.
#[must_use]
pub fn attempt() -> Duration {
    limit() / 20
}

/// The limit as kubectl's flag.
#[must_use]
pub fn kubectl_timeout() -> String {
    format!("--timeout={}s", limit().as_secs())
}

/// Looks until `condition` yields a value; its last complaint is the error.
///
/// # Errors
/// When it does not within the limit.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if begin.elapsed() >= limit() => bail!("{what}: not within {:?}: {error:#}", limit()),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_positive_numbers_are_factors() {
        for (text, expected) in [(None, 1.0), (Some("4"), 4.0), (Some("0.5"), 0.5)] {
            assert!((factor(text).unwrap() - expected).abs() < f64::EPSILON, "{text:?}");
        }
        for text in ["", "0", "-1", "x", "inf", "NaN"] {
            assert!(factor(Some(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_condition_is_looked_at_until_it_holds() {
        let mut looks = 0;
        let count = until("three looks", || {
            looks += 1;
            if looks < 3 { bail!("not yet") } else { Ok(looks) }
        });
        assert_eq!(count.unwrap(), 3);
    }
}
