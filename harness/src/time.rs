//! Waiting for a condition, never for time to pass.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// Longest wait for one condition on an idle machine, tenfold what the slowest takes.
const LIMIT: Duration = Duration::from_secs(120);
/// Pauses between two looks at what announces nothing: the first, and the longest.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
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

/// How long a whole scenario may take, which has several waits.
#[must_use]
pub fn scenario() -> Duration {
    limit() * 6
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
    let (begin, mut pauses) = (Instant::now(), pauses());
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if begin.elapsed() >= limit() => bail!("{what}: not within {:?}: {error:#}", limit()),
            Err(_) => std::thread::sleep(pauses()),
        }
    }
}

/// Looks until `condition` holds.
///
/// # Errors
/// When it does not within the limit.
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    until(what, || if condition() { Ok(()) } else { bail!("it does not hold") })
}

/// [`until`] for a task: others go on meanwhile. Where time is paused, it is that time that passes.
///
/// # Errors
/// When it does not within the limit; its last complaint is told.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let (mut complaint, mut pauses) = (None, pauses());
    let looking = async {
        loop {
            match condition().await {
                Ok(value) => return value,
                Err(error) => complaint = Some(error),
            }
            tokio::time::sleep(pauses()).await;
        }
    };
    if let Ok(value) = tokio::time::timeout(limit(), looking).await {
        return Ok(value);
    }
    match complaint {
        Some(error) => bail!("{what}: not within {:?}: {error:#}", limit()),
        None => bail!("{what}: a look at it hangs, after {:?}", limit()),
    }
}

/// [`until_true`] for a task.
///
/// # Errors
/// When it does not within the limit.
pub async fn eventually_true(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Result<()> {
    eventually(what, async || if condition().await { Ok(()) } else { bail!("it does not hold") }).await
}

/// Does something over and over, as who sends heartbeats: for beside something that ends.
pub async fn over_and_over(mut work: impl AsyncFnMut()) -> Infallible {
    loop {
        work().await;
        tokio::time::sleep(LOOK_AGAIN[1]).await;
    }
}

/// Waits for the end of `work`; what it yields.
///
/// # Errors
/// When it hangs.
pub async fn within<F: IntoFuture>(what: &str, work: F) -> Result<F::Output> {
    let ended = tokio::time::timeout(limit(), work).await;
    ended.map_err(|_| anyhow!("{what}: not within {:?}", limit()))
}

/// Ever longer pauses: most conditions hold soon.
fn pauses() -> impl FnMut() -> Duration {
    let [mut next, longest] = LOOK_AGAIN;
    move || {
        let pause = next;
        next = (next * 2).min(longest);
        pause
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
        let mut looks = 0;
        until_true("three more", || {
            looks += 1;
            looks == 3
        })
        .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_looks_until_the_limit_and_no_longer() {
        let begin = tokio::time::Instant::now();
        let held = || begin.elapsed() > Duration::from_secs(60);
        eventually_true("a minute", async || held()).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(61));
        let never = eventually::<()>("never", async || bail!("odd")).await.unwrap_err().to_string();
        assert_eq!(never, format!("never: not within {:?}: odd", limit()));
        let hangs = eventually::<()>("a look", std::future::pending).await.unwrap_err().to_string();
        assert!(hangs.contains("a look at it hangs"), "{hangs}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_is_waited_for_and_what_hangs_is_told() {
        assert_eq!(within("a value", async { 3 }).await.unwrap(), 3);
        let hangs = within("the end", std::future::pending::<()>()).await.unwrap_err().to_string();
        assert_eq!(hangs, format!("the end: not within {:?}", limit()));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut pauses = pauses();
        let all: Vec<_> = (0..8).map(|_| pauses().as_millis()).collect();
        assert_eq!(all, [1, 2, 4, 8, 16, 32, 50, 50]);
    }
}
