//! Dates and durations (`strfmt/{date,time,duration}.go` upstream).

/// `2006-01-02`, a day that there is.
pub(super) fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        let part = &bytes[range];
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0')))
    };
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return false;
    }
    let (Some(year), Some(month), Some(day)) = (digits(0..4), digits(5..7), digits(8..10)) else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// A date, `T`, a time, perhaps with a fraction, and a zone.
pub(super) fn is_date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    is_date(date) && is_time(time)
}

fn is_time(time: &str) -> bool {
    let two = |text: &str, max: u8| {
        text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u8>().is_ok_and(|n| n <= max)
    };
    let zone = |text: &str| {
        text == "z"
            || text
                .strip_prefix(['+', '-'])
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|(hours, minutes)| two(hours, 99) && two(minutes, 99))
    };
    let (Some(hours), Some(minutes), Some(seconds)) = (time.get(..2), time.get(3..5), time.get(6..8)) else {
        return false;
    };
    let colons = time.get(2..3) == Some(":") && time.get(5..6) == Some(":");
    if !colons || !two(hours, 23) || !two(minutes, 59) || !two(seconds, 59) {
        return false;
    }
    let rest = &time[8..];
    // Any character of a line may begin the fraction, also that of a zone.
    let fraction = rest.chars().next().filter(|c| *c != '\n').map_or("", |c| &rest[c.len_utf8()..]);
    let after = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    zone(rest) || (after.len() < fraction.len() && zone(after))
}

/// What Go's `time.ParseDuration` takes, or numbers with words as `3 weeks`.
pub(super) fn is_duration(text: &str) -> bool {
    is_go_duration(text) || has_worded(text)
}

/// Nanoseconds of Go's units.
fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 6e10,
        "h" => 3.6e12,
        _ => return None,
    })
}

fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let plain = digits.bytes().any(|b| b.is_ascii_digit()) && digits.matches('.').count() <= 1;
        let (Some(size), true) = (unit(&after[..end]), plain) else { return false };
        let trimmed = digits.strip_prefix('.').map_or_else(|| digits.to_owned(), |rest| format!("0.{rest}"));
        total += size * trimmed.trim_end_matches('.').parse::<f64>().unwrap_or(f64::INFINITY);
        rest = &after[end..];
    }
    // What an int64 of nanoseconds holds.
    total <= 9_223_372_036_854_775_807.0
}

/// Words whose beginning is enough, and those that must be whole.
const PREFIXES: &[&str] = &["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
const WORDS: &[&str] = &["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk"];

/// Whether a number with a unit is somewhere in the text. A number past an `int` spoils all.
fn has_worded(text: &str) -> bool {
    let mut found = false;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        let after = after.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
        let end = after.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(after.len());
        let (word, left) = after.split_at(end);
        rest = left;
        if word.is_empty() {
            continue;
        }
        if digits.parse::<i64>().is_err() {
            return false;
        }
        let word = word.to_lowercase();
        found |= WORDS.contains(&&*word) || PREFIXES.iter().any(|prefix| word.starts_with(prefix));
    }
    found
}
