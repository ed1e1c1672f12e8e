//! Resource quantities (`500m`, `2Gi`, `1e3`) as whole numbers. Pure.

use thiserror::Error;

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a resource quantity")]
pub struct QuantityError(String);

/// The quantity in whole units, rounded up; saturating at the ends of i64.
///
/// # Errors
/// When the text is no quantity.
pub fn units(text: &str) -> Result<i64, QuantityError> {
    scaled(text, 0)
}

/// The quantity in thousandths, rounded up; saturating.
///
/// # Errors
/// When the text is no quantity.
pub fn millis(text: &str) -> Result<i64, QuantityError> {
    scaled(text, 3)
}

fn scaled(text: &str, extra: i32) -> Result<i64, QuantityError> {
    parse(text.trim(), extra).ok_or_else(|| QuantityError(text.to_owned()))
}

/// `text × 10^extra`, rounded up (away from zero), as Quantity's ScaledValue.
fn parse(text: &str, extra: i32) -> Option<i64> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (binary, decimal) = multiplier(suffix)?;
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let mantissa: i128 = match digits {
        "" => 0,
        // More digits than any resource has: the value saturates or vanishes.
        d if d.len() > 30 => return None,
        d => d.parse().ok()?,
    };
    let exponent = decimal + extra - i32::try_from(fraction.len()).ok()?;
    let magnitude = power_of_ten(mantissa.saturating_mul(binary), exponent);
    let signed = if negative { -magnitude } else { magnitude };
    Some(i64::try_from(signed).unwrap_or(if negative { i64::MIN } else { i64::MAX }))
}

fn multiplier(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent = suffix.strip_prefix('e').or_else(|| suffix.strip_prefix('E'))?;
            (1, exponent.parse().ok().filter(|e: &i32| (-64..=64).contains(e))?)
        }
    })
}

fn power_of_ten(value: i128, exponent: i32) -> i128 {
    let factor = 10_i128.checked_pow(exponent.unsigned_abs());
    match (exponent >= 0, factor) {
        (true, Some(f)) => value.saturating_mul(f),
        (true, None) => {
            if value == 0 {
                0
            } else {
                i128::MAX
            }
        }
        (false, Some(f)) => value / f + i128::from(value % f != 0),
        (false, None) => i128::from(value != 0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_as_upstream_reads_them() {
        for (text, want) in [
            ("0", 0),
            ("1", 1000),
            ("100m", 100),
            ("1.5", 1500),
            ("0.0001", 1),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("12e-1", 1200),
            (".5", 500),
            ("1u", 1),
            ("-1", -1000),
            ("+3", 3000),
        ] {
            assert_eq!(millis(text), Ok(want), "{text}");
        }
        for (text, want) in [
            ("1Ki", 1024),
            ("128Mi", 134_217_728),
            ("1.5Gi", 1_610_612_736),
            ("1500m", 2),
            ("8Ei", i64::MAX),
            ("1G", 1_000_000_000),
        ] {
            assert_eq!(units(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "-", "m", "1.2.3", "1x", "1 Gi", "Ki", "1e", "1e999999", "--1", "1Kib", "٣"] {
            assert!(units(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}") { let _ = (units(&text), millis(&text)); }

        #[test]
        fn millis_is_a_thousand_units(n in 0i64..1_000_000_000) {
            prop_assert_eq!(millis(&n.to_string()).unwrap(), units(&n.to_string()).unwrap() * 1000);
        }
    }
}
