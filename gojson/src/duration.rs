//! Durations as Go writes and reads them (`time.ParseDuration`): `1m30s`, `1.5h`, `-2us`. Whoever reads one says what a
//! time below zero means there.

/// The units, in nanoseconds. Longer names first, where one begins another.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Not a duration, or one longer than Go's 292 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// Reads a duration: nanoseconds.
///
/// # Errors
/// Where Go has one.
pub fn parse(text: &str) -> Result<i64, Invalid> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(Invalid);
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let (nanoseconds, after) = term(rest)?;
        total = i64::try_from(nanoseconds).ok().and_then(|term| total.checked_add(term)).ok_or(Invalid)?;
        rest = after;
    }
    Ok(if negative { -total } else { total })
}

/// One number with its unit, and what follows.
fn term(text: &str) -> Result<(u64, &str), Invalid> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(Invalid);
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (name, after) = rest.split_at(unit_end);
    let unit = UNITS.iter().find(|(unit, _)| *unit == name).ok_or(Invalid)?.1;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| Invalid)? };
    let whole = whole.checked_mul(unit).ok_or(Invalid)?;
    // Digits beyond the nineteenth say less than a nanosecond.
    let mut scale = 1_u128;
    let mut value = 0_u128;
    for digit in fraction.bytes().take(19) {
        value = value * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    let fraction = u64::try_from(value * u128::from(unit) / scale).map_err(|_| Invalid)?;
    Ok((whole.checked_add(fraction).ok_or(Invalid)?, after))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, milliseconds) in [
            ("1m0s", 60_000),
            ("1m30s", 90_000),
            ("1h0m0.5s", 3_600_500),
            ("5s", 5_000),
            ("500ms", 500),
            (".5s", 500),
            ("1.s", 1_000),
            ("0", 0),
            ("+0", 0),
            ("-3s", -3_000),
            ("+3s", 3_000),
            ("1500us", 1),
            ("1500µs", 1),
            ("2540400h10m10s", 9_145_440_610_000),
        ] {
            assert_eq!(parse(text).unwrap() / 1_000_000, milliseconds, "{text}");
        }
        for bad in [
            "",
            "5",
            "x",
            "5y",
            "s",
            ".s",
            "-",
            "1m0",
            "1 s",
            "3000000h",
            "5124095.99h",
            "9223372036854775808ns",
            "1m-3s",
            "--1s",
        ] {
            assert_eq!(parse(bad), Err(Invalid), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_go_prints_is_read_back(hours in 0_i64..100, minutes in 0_i64..60, ms in 0_i64..60_000) {
            let text = format!("{hours}h{minutes}m{}.{:03}s", ms / 1000, ms % 1000);
            let expect = ((hours * 60 + minutes) * 60_000 + ms) * 1_000_000;
            proptest::prop_assert_eq!(parse(&text), Ok(expect));
        }

        #[test]
        fn garbage_never_panics(text in "[0-9.smhunµ+-]{0,60}|.{0,30}") {
            let _ = parse(&text);
        }
    }
}
