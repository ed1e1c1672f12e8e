//! Resource quantities (`500m`, `2Gi`, `1e3`): parsing, canonical form and
//! arithmetic. Exact down to 1e-9 (smaller parts round away from zero), capped
//! at ±(2^63-1), as upstream. Knows no API object and does no IO: node and
//! control plane, which do not know each other, both read quantities by it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Upstream's message for text that is no quantity at all.
pub const FORMAT_ERROR: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANO: i128 = 1_000_000_000;
const CAP: i128 = i64::MAX as i128 * NANO;

/// Why text is not a quantity; the texts are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not the form at all.
    #[error("{FORMAT_ERROR}")]
    Format,
    /// The number does not parse.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// Unknown suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Which kind of suffix a quantity is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `12e6`.
    DecimalExponent,
    /// `12Mi`.
    BinarySi,
    /// `12M`.
    DecimalSi,
}

/// A fixed-point number with a preferred way of writing it. Compares by value.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number.
    #[must_use]
    pub fn new(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// A number of thousandths, e.g. millicores.
    #[must_use]
    pub fn from_milli(value: i64) -> Self {
        Self { nanos: i128::from(value) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A number of billionths, capped.
    #[must_use]
    pub fn from_nanos(value: i128, format: Format) -> Self {
        Self { nanos: value.clamp(-CAP, CAP), format }
    }

    /// The value in billionths: exact.
    #[must_use]
    pub const fn nanos(&self) -> i128 {
        self.nanos
    }

    /// How many times `unit` goes into the value, rounded away from zero; in
    /// whole units when `unit` is not above zero.
    #[must_use]
    pub fn divided(&self, unit: &Self) -> i64 {
        self.scaled(if unit.nanos > 0 { unit.nanos } else { NANO })
    }

    /// The value in whole units, rounded away from zero.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// The value in thousandths, rounded away from zero.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    fn scaled(&self, unit: i128) -> i64 {
        let rounded = div_away(self.nanos, unit);
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether the value is below zero.
    #[must_use]
    pub const fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether the value is zero.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether the value has no fractional part.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whether the value is a multiple of one thousandth.
    #[must_use]
    pub const fn is_whole_milli(&self) -> bool {
        self.nanos % (NANO / 1000) == 0
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    /// The sum, capped; in the format of the first, or of the other when the first is zero.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-CAP, CAP), format }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    /// The difference, capped; formats as for the sum.
    fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos - other.nanos).clamp(-CAP, CAP), format }
    }
}

/// Division that rounds away from zero.
fn div_away(value: i128, unit: i128) -> i128 {
    let (quotient, remainder) = (value / unit, value % unit);
    if remainder == 0 { quotient } else { quotient + remainder.signum() }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let number_len = unsigned.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, suffix) = unsigned.split_at(number_len);
        if number.is_empty() || !suffix_shape(suffix) {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Numeric);
        }
        let (base2, exponent, format) = parse_suffix(suffix)?;
        let magnitude = scale(whole, fraction, base2, exponent);
        let nanos = if text.starts_with('-') { -magnitude } else { magnitude };
        Ok(Self { nanos, format })
    }
}

/// `[eEinumkKMGTP]*[-+]?[0-9]*`
fn suffix_shape(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

/// (power of 1024, power of 10, format)
fn parse_suffix(suffix: &str) -> Result<(u32, i32, Format), QuantityError> {
    let decimal = |exponent| Ok((0, exponent, Format::DecimalSi));
    let binary = |power| Ok((power, 0, Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        other => match other.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
            Some(Ok(exponent)) => Ok((0, exponent, Format::DecimalExponent)),
            _ => Err(QuantityError::Suffix),
        },
    }
}

/// Most significant digits that are looked at: 30 before the point (more is past
/// the cap with any suffix) and some below a nano; the rest only decides rounding.
const KEPT_DIGITS: i64 = 36;

/// The significant digits of a number without its point.
#[derive(Debug, Default)]
struct Digits {
    value: i128,
    /// Digits from the first that is not zero to the last.
    significant: i64,
    /// Whether a digit that was not kept is not zero.
    sticky: bool,
}

impl Digits {
    fn read(whole: &str, fraction: &str) -> Self {
        let mut out = Self::default();
        for digit in whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0')) {
            if out.significant == 0 && digit == 0 {
                continue;
            }
            out.significant += 1;
            if out.significant <= KEPT_DIGITS {
                out.value = out.value * 10 + digit;
            } else {
                out.sticky |= digit != 0;
            }
        }
        out
    }
}

/// The magnitude in nanos, rounded up and capped.
fn scale(whole: &str, fraction: &str, base2: u32, exponent: i32) -> i128 {
    let Digits { mut value, significant, mut sticky } = Digits::read(whole, fraction);
    if value == 0 {
        return 0;
    }
    // Position of the decimal point after scaling to nanos.
    let fraction_len = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let mut shift = i64::from(exponent).saturating_add(9).saturating_sub(fraction_len);
    if significant.saturating_add(shift) > 30 {
        return CAP;
    }
    shift += (significant - KEPT_DIGITS).max(0);
    for _ in 0..base2 {
        match value.checked_mul(1024) {
            Some(v) => value = v,
            None => {
                // Too many digits: drop some that are far below a nano.
                sticky |= value % 10_000 != 0;
                value = value / 10_000 * 1024;
                shift += 4;
            }
        }
    }
    while shift > 0 {
        match value.checked_mul(10) {
            Some(v) if v <= CAP => value = v,
            _ => return CAP,
        }
        shift -= 1;
    }
    while shift < 0 && value != 0 {
        sticky |= value % 10 != 0;
        value /= 10;
        shift += 1;
    }
    (value + i128::from(sticky)).min(CAP)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANO;
        if self.format == Format::BinarySi && self.is_whole() && whole.abs() >= 1024 {
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let (mut number, mut power) = (whole, 0);
            while power < 6 && number % 1024 == 0 {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", SUFFIXES[power]);
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => write!(f, "{number}"),
            Format::DecimalExponent => write!(f, "{number}e{exponent}"),
            _ => {
                let suffix = match exponent {
                    -9 => "n",
                    -6 => "u",
                    -3 => "m",
                    0 => "",
                    3 => "k",
                    6 => "M",
                    9 => "G",
                    12 => "T",
                    15 => "P",
                    _ => "E",
                };
                write!(f, "{number}{suffix}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn canonical_forms() {
        for (text, expect) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1.5", "1500m"),
            ("100M", "100M"),
            ("1000000", "1M"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("0.1m", "100u"),
            ("0.0000000001", "1n"),
            ("512Ki", "512Ki"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            ("1E", "1E"),
            ("100E", "9223372036854775807"),
            ("10Ei", "9223372036854775807"),
            ("1500000Ki", "1500000Ki"),
            (".5", "500m"),
            ("5.", "5"),
        ] {
            assert_eq!(canonical(text), expect, "{text}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for (text, expect) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1.2.3", QuantityError::Numeric),
            (".", QuantityError::Numeric),
            ("1GiB", QuantityError::Format),
            ("1KK", QuantityError::Suffix),
            ("1i", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1e999999999999", QuantityError::Suffix),
            ("12Ei3", QuantityError::Suffix),
            ("--1", QuantityError::Format),
            (" 1", QuantityError::Format),
            ("٣", QuantityError::Format),
            ("Ki", QuantityError::Format),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap_err(), expect, "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        for (text, units, millis) in [
            ("1.0001", 2, 1001),
            ("100m", 1, 100),
            ("1500m", 2, 1500),
            (".5", 1, 500),
            ("0.1m", 1, 1),
            ("1u", 1, 1),
            ("5n", 1, 1),
            ("12e-1", 2, 1200),
            ("1E-3", 1, 1),
            ("1e3", 1000, 1_000_000),
            ("2k", 2000, 2_000_000),
            ("2Ki", 2048, 2_048_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("-1", -1, -1000),
            ("-1.5", -2, -1500),
            ("-0.0001", -1, -1),
            ("0.00000000000000000000000000000000000000001", 1, 1),
            ("1e-400", 1, 1),
            ("0e99", 0, 0),
            ("1e99", i64::MAX, i64::MAX),
            ("8Ei", i64::MAX, i64::MAX),
            ("-9E", -9_000_000_000_000_000_000, i64::MIN),
            ("999999999999999999999999", i64::MAX, i64::MAX),
        ] {
            let q: Quantity = text.parse().unwrap();
            assert_eq!((q.value(), q.milli_value()), (units, millis), "{text}");
        }
    }

    #[test]
    fn divisors() {
        for (text, unit, expect) in
            [("250m", "1m", 250), ("250m", "1", 1), ("64Mi", "1Mi", 64), ("64Mi", "0", 64 << 20), ("5", "2", 3)]
        {
            let q: Quantity = text.parse().unwrap();
            assert_eq!(q.divided(&unit.parse().unwrap()), expect, "{text} by {unit}");
        }
    }

    fn magnitude(suffix: &str) -> (i128, i128) {
        const POWERS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
        let power = |p: usize| u32::try_from(p + 1).unwrap();
        if let Some(p) = suffix.strip_suffix('i').and_then(|s| POWERS.iter().position(|x| x.eq_ignore_ascii_case(s))) {
            return (1024_i128.pow(power(p)), 1);
        }
        if let Some(p) = POWERS.iter().position(|x| *x == suffix) {
            return (1000_i128.pow(power(p)), 1);
        }
        let thousandths = ["", "m", "u", "n"].iter().position(|x| *x == suffix).unwrap();
        (1, 1000_i128.pow(u32::try_from(thousandths).unwrap()))
    }

    proptest! {
        /// Against plain arithmetic on fractions, for numbers that fit.
        #[test]
        fn every_suffix_multiplies(
            whole in 0_i128..1_000_000_000, thousandths in 0_i128..1000, negative: bool,
            suffix in "(|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)",
        ) {
            let sign = if negative { "-" } else { "" };
            let q: Quantity = format!("{sign}{whole}.{thousandths:03}{suffix}").parse().unwrap();
            let (times, over) = magnitude(&suffix);
            let (numerator, denominator) = ((whole * 1000 + thousandths) * times * (NANO / 1000), over);
            let up = (numerator / denominator + i128::from(numerator % denominator != 0)).min(CAP);
            prop_assert_eq!(q.nanos(), if negative { -up } else { up });
        }

        #[test]
        fn an_exponent_moves_the_point(n in 0_i64..1_000_000, e in 0_usize..12) {
            let text = format!("{n}e{e}").parse::<Quantity>().unwrap();
            prop_assert_eq!(text, format!("{n}{}", "0".repeat(e)).parse::<Quantity>().unwrap());
            let down = format!("{n}e-{e}").parse::<Quantity>().unwrap();
            prop_assert_eq!(down.nanos(), div_away(i128::from(n) * NANO, 10_i128.pow(u32::try_from(e).unwrap())));
        }

        #[test]
        fn sums_and_differences_undo_each_other(a in -(1_i64 << 60)..1 << 60, b in -(1_i64 << 60)..1 << 60) {
            let [a, b] = [a, b].map(|n| Quantity::from_nanos(n.into(), Format::DecimalSi));
            prop_assert_eq!(a + b - b, a);
        }

        #[test]
        fn canonical_is_a_fixed_point(text in "[+-]?[0-9]{1,12}(\\.[0-9]{1,6})?(m|k|M|G|Ki|Mi|Gi|e[0-6])?") {
            let once = canonical(&text);
            prop_assert_eq!(canonical(&once), once.clone());
            prop_assert_eq!(text.parse::<Quantity>().unwrap(), once.parse::<Quantity>().unwrap());
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn no_number_panics(text in "[0-9.]{0,80}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            let _ = text.parse::<Quantity>().map(|q| q.to_string());
        }
    }
}
