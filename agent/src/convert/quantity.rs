//! Numbers behind `resource.Quantity`, rounded up as upstream rounds.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Resources by name.
pub type ResourceList = BTreeMap<String, Quantity>;

const NANO: i128 = 1_000_000_000;

/// The quantity in billionths, or `None` when it is not one.
pub fn nanos(text: &str) -> Option<i128> {
    let text = text.trim();
    let split = text.char_indices().find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && "+-".contains(*c))));
    let (number, suffix) = text.split_at(split.map_or(text.len(), |(i, _)| i));
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 20 || fraction.len() > 15 {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiply, divide) = scale(suffix)?;
    let divide = divide.checked_mul(10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let numerator = mantissa.checked_mul(multiply)?.checked_mul(NANO)?;
    let value = numerator / divide + i128::from(numerator % divide != 0);
    Some(if negative { -value } else { value })
}

/// Multiplier and divisor of a suffix.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANO, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

fn div_up(value: i128, by: i128) -> i64 {
    let up = value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0);
    i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
}

/// Whole units, rounded up; 0 for text that is no quantity.
pub fn value(quantity: &Quantity) -> i64 {
    nanos(&quantity.0).map_or(0, |n| div_up(n, NANO))
}

/// Thousandths, rounded up; 0 for text that is no quantity.
pub fn milli(quantity: &Quantity) -> i64 {
    nanos(&quantity.0).map_or(0, |n| div_up(n, NANO / 1000))
}

/// `quantity / divisor`, rounded up, as the downward API prints it. A divisor
/// of zero or nonsense counts as 1.
pub fn divided(quantity: &Quantity, divisor: Option<&Quantity>) -> i64 {
    let by = divisor.and_then(|d| nanos(&d.0)).filter(|d| *d > 0).unwrap_or(NANO);
    nanos(&quantity.0).map_or(0, |n| div_up(n, by))
}

/// A quantity of `value` billionths in a canonical form.
pub fn from_nanos(value: i128) -> Quantity {
    if value % NANO == 0 {
        Quantity((value / NANO).to_string())
    } else if value % (NANO / 1000) == 0 {
        Quantity(format!("{}m", value / (NANO / 1000)))
    } else {
        Quantity(format!("{value}n"))
    }
}

/// A quantity of whole units.
pub fn units(value: u64) -> Quantity {
    Quantity(value.to_string())
}

/// A quantity of bytes in `Ki`, as the kubelet reports memory.
pub fn kibibytes(bytes: u64) -> Quantity {
    Quantity(format!("{}Ki", bytes / 1024))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantities_parse_and_round_up() {
        let cases: &[(&str, i64, i64)] = &[
            ("100m", 1, 100),
            ("1", 1, 1000),
            ("1.5", 2, 1500),
            (".5", 1, 500),
            ("2Ki", 2048, 2_048_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("1e3", 1000, 1_000_000),
            ("1E-3", 1, 1),
            ("0.1m", 1, 1),
            ("5n", 1, 1),
            ("-1", -1, -1000),
            ("0", 0, 0),
        ];
        for (text, units, millis) in cases {
            let q = Quantity((*text).to_owned());
            assert_eq!((value(&q), milli(&q)), (*units, *millis), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_quantity() {
        for text in ["", "m", "1.2.3", "1x", "--1", "Ki", "1e99", "999999999999999999999999", "1 Gi", "٣"] {
            assert_eq!(nanos(text), None, "{text}");
        }
        assert_eq!(value(&Quantity("10E".into())), i64::MAX);
    }

    #[test]
    fn divisors() {
        let q = |s: &str| Quantity(s.to_owned());
        assert_eq!(divided(&q("250m"), Some(&q("1m"))), 250);
        assert_eq!(divided(&q("250m"), None), 1);
        assert_eq!(divided(&q("64Mi"), Some(&q("1Mi"))), 64);
        assert_eq!(divided(&q("64Mi"), Some(&q("0"))), 64 << 20);
    }
}
