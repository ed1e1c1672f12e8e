//! Reads `resource.Quantity` text into whole numbers. Pure.

/// A quantity in thousandths, rounded up, or `None` when the text is none.
/// `100m` is 100, `1Ki` is 1,024,000.
pub fn milli(text: &str) -> Option<i128> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (negative, number) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 27 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let scale = i32::try_from(fraction.len()).ok()?;
    let (numerator, exponent) = factor(suffix)?;
    // value = mantissa × numerator × 10^(exponent - scale), wanted in thousandths.
    let power = exponent - scale + 3;
    let product = mantissa.checked_mul(numerator)?;
    let magnitude = 10i128.checked_pow(power.unsigned_abs())?;
    let value = if power >= 0 {
        product.checked_mul(magnitude)?
    } else {
        product / magnitude + i128::from(product % magnitude != 0)
    };
    Some(if negative { -value } else { value })
}

/// A suffix as multiplier and power of ten.
fn factor(suffix: &str) -> Option<(i128, i32)> {
    let binary = |power: u32| Some((1i128 << (10 * power), 0));
    match suffix {
        "" => Some((1, 0)),
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (-18..=18).contains(&exponent).then_some((1, exponent))
        }
    }
}

/// A quantity in whole units, rounded up; negative or malformed is `None`.
pub fn units(text: &str) -> Option<u64> {
    let milli = milli(text)?;
    u64::try_from(milli / 1000 + i128::from(milli % 1000 > 0)).ok()
}

/// `value / divisor`, both in thousandths, rounded up: how the downward API
/// prints a resource.
pub fn divided(value: i128, divisor: i128) -> Option<i128> {
    if divisor <= 0 {
        return None;
    }
    Some(value / divisor + i128::from(value % divisor > 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_suffix() {
        for (text, expect) in [
            ("0", Some(0)),
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("1.5", Some(1500)),
            (".5", Some(500)),
            ("1Ki", Some(1_024_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("2M", Some(2_000_000_000)),
            ("1e3", Some(1_000_000)),
            ("1E-3", Some(1)),
            ("1n", Some(1)),
            ("-5", Some(-5000)),
            ("", None),
            ("Ki", None),
            ("1.2.3", None),
            ("1Kb", None),
            ("1e99", None),
            ("--1", None),
        ] {
            assert_eq!(milli(text), expect, "{text}");
        }
        assert_eq!(units("1100m"), Some(2));
        assert_eq!(units("-1"), None);
        assert_eq!(divided(1500, 1000), Some(2));
        assert_eq!(divided(1, 0), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in ".{0,60}") {
            let _ = milli(&text);
            let _ = units(&text);
        }
    }
}
