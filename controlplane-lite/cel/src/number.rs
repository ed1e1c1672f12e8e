//! Numbers as Go writes, compares and converts them.

use std::cmp::Ordering;

use crate::value::Value;

/// The whole number that a float is.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn whole(value: f64) -> Option<i64> {
    to_int(value).filter(|_| value.fract() == 0.0)
}

/// A float without its fraction, if that is a number of 64 bits (cel-go's `doubleToInt64Checked`).
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn to_int(value: f64) -> Option<i64> {
    const EDGE: f64 = 9_223_372_036_854_775_808.0;
    (value > -EDGE && value < EDGE).then_some(value as i64)
}

/// The same without a sign.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn to_uint(value: f64) -> Option<u64> {
    const EDGE: f64 = 18_446_744_073_709_551_616.0;
    (0.0..EDGE).contains(&value).then_some(value as u64)
}

/// Which of two numbers is less, whatever their types. `None`: one is no number; the inner one: one is NaN.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        // As in cel-go, what differs by less than a float can tell is equal.
        (Value::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Double(a), Value::Uint(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Int(_) | Value::Uint(_), Value::Double(_)) => return compare(b, a).map(|o| o.map(Ordering::reverse)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        _ => return None,
    })
}

/// A float as Go's `strconv.FormatFloat(value, 'g', -1, 64)` writes it.
pub(crate) fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    // Go decides as if it wrote six digits, when it writes the shortest text.
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
