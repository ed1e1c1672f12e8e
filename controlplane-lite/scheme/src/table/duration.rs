//! Ages as kubectl prints them.

use serde_json::Value;

use crate::access::str_at;

/// Upstream's `HumanDuration`: `5s`, `3m20s`, `15m`, `2h5m`, `20h`, `3d4h`, `20d`, `2y30d`, `9y`.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    let pair = |a: i64, unit_a: &str, b: i64, unit_b: &str| {
        if b == 0 { format!("{a}{unit_a}") } else { format!("{a}{unit_a}{b}{unit_b}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => pair(days, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{days}d"),
        _ if hours < 24 * 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The time from an RFC 3339 timestamp to now; `<unknown>` when missing.
#[must_use]
pub fn since(timestamp: &str, now: jiff::Timestamp) -> String {
    match timestamp.parse::<jiff::Timestamp>() {
        Ok(then) => human_duration(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// The AGE cell of an object.
#[must_use]
pub fn age(object: &Value, now: jiff::Timestamp) -> Value {
    since(str_at(object, &["metadata", "creationTimestamp"]), now).into()
}
