//! Times and spans of time as Go reads and writes them (`time` of Go; cel-go's `common/types/{timestamp,duration}.go`).

use std::fmt;

use jiff::Span;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

use crate::error::EvalError;

const NANOS: i64 = 1_000_000_000;
/// Seconds of a day.
const DAY: i64 = 86_400;
/// The first second of the year 1, and the last of the year 9999.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A time between the years 1 and 9999, with the offset from UTC that it was written with.
#[derive(Debug, Clone, Copy)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanos: u32,
    /// Seconds east of UTC.
    offset: i32,
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timestamp {}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }
}

impl Timestamp {
    /// A time in UTC, if it is in the range.
    #[must_use]
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        RANGE.contains(&seconds).then_some(Self { seconds, nanos, offset: 0 })
    }

    /// The time a span later.
    pub(crate) fn plus(self, span: i128) -> Result<Self, EvalError> {
        let total = i128::from(self.seconds) * i128::from(NANOS) + i128::from(self.nanos) + span;
        let seconds = i64::try_from(total.div_euclid(i128::from(NANOS))).unwrap_or(i64::MAX);
        let nanos = u32::try_from(total.rem_euclid(i128::from(NANOS))).unwrap_or_default();
        match Self::new(seconds, nanos) {
            Some(time) => Ok(Self { offset: self.offset, ..time }),
            None => Err(EvalError::new("timestamp overflow")),
        }
    }

    /// The span since another time.
    pub(crate) fn since(self, other: Self) -> Result<i64, EvalError> {
        let whole = |time: Self| i128::from(time.seconds) * i128::from(NANOS) + i128::from(time.nanos);
        i64::try_from(whole(self) - whole(other)).map_err(|_| EvalError::new("duration overflow"))
    }

    /// The time as a clock in a zone shows it.
    pub(crate) fn in_zone(self, zone: &str) -> Result<DateTime, EvalError> {
        let offset = match time_zone(zone)? {
            Some(zone) => {
                let within = self.seconds.clamp(jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
                let time = jiff::Timestamp::from_second(within).map_err(|_| EvalError::new("timestamp overflow"))?;
                zone.to_offset(time).seconds()
            }
            None => 0,
        };
        clock(self.seconds + i64::from(offset), self.nanos).ok_or_else(|| EvalError::new("timestamp overflow"))
    }
}

/// What a clock shows at a number of seconds since 1970.
fn clock(seconds: i64, nanos: u32) -> Option<DateTime> {
    let day = i32::try_from(seconds.div_euclid(DAY)).ok()?;
    let date = jiff::civil::date(1970, 1, 1).checked_add(Span::new().try_days(day).ok()?).ok()?;
    let second = seconds.rem_euclid(DAY);
    let part = |value: i64| i8::try_from(value).unwrap_or_default();
    let nanos = i32::try_from(nanos).unwrap_or_default();
    let time = jiff::civil::Time::new(part(second / 3600), part(second / 60 % 60), part(second % 60), nanos).ok()?;
    Some(date.to_datetime(time))
}

/// A zone by name, or by its distance from UTC.
fn time_zone(name: &str) -> Result<Option<TimeZone>, EvalError> {
    if matches!(name, "" | "UTC") {
        return Ok(None);
    }
    let Some((hours, minutes)) = name.split_once(':') else {
        return TimeZone::get(name).map(Some).map_err(|_| EvalError::new(format!("unknown time zone {name}")));
    };
    let parsed = hours.parse::<i32>().ok().zip(minutes.parse::<i32>().ok().filter(|m| (0..60).contains(m)));
    let Some((h, m)) = parsed else {
        return Err(EvalError::new(format!("strconv.Atoi: parsing \"{hours}\": invalid syntax")));
    };
    let seconds = if hours.starts_with('-') { h * 3600 - m * 60 } else { h * 3600 + m * 60 };
    let offset = Offset::from_seconds(seconds).map_err(|_| EvalError::new("range"))?;
    Ok(Some(TimeZone::fixed(offset)))
}

/// What is no time, or none in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeError {
    /// Not the form.
    Form,
    /// Not between the years 1 and 9999.
    Range,
}

/// Reads a time of RFC 3339 as Go does.
///
/// # Errors
/// If it is none.
pub fn parse_timestamp(text: &str) -> Result<Timestamp, TimeError> {
    let part = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let separators = [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':')];
    if !separators.iter().all(|(at, c)| text.get(*at..=*at).is_some_and(|found| found.starts_with(*c))) {
        return Err(TimeError::Form);
    }
    let fields = [part(0, 4), part(5, 7), part(8, 10), part(11, 13), part(14, 16), part(17, 19)];
    let [Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)] = fields else {
        return Err(TimeError::Form);
    };
    if hour > 23 || minute > 59 || second > 59 {
        return Err(TimeError::Form);
    }
    let small = |value: i64| i8::try_from(value).map_err(|_| TimeError::Form);
    let year = i16::try_from(year).map_err(|_| TimeError::Form)?;
    let date = Date::new(year, small(month)?, small(day)?).map_err(|_| TimeError::Form)?;
    let (nanos, rest) = fraction(&text[19..])?;
    let offset = offset(rest)?;
    let days = jiff::civil::date(1970, 1, 1).until(date).map_err(|_| TimeError::Range)?.get_days();
    let seconds = i64::from(days) * DAY + hour * 3600 + minute * 60 + second - i64::from(offset);
    Timestamp::new(seconds, nanos).map(|time| Timestamp { offset, ..time }).ok_or(TimeError::Range)
}

/// Nanoseconds of a fraction, and what follows it.
fn fraction(text: &str) -> Result<(u32, &str), TimeError> {
    let Some(rest) = text.strip_prefix(['.', ',']) else { return Ok((0, text)) };
    let count = rest.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 {
        return Err(TimeError::Form);
    }
    let digits = format!("{:0<9.9}", &rest[..count]);
    Ok((digits.parse().map_err(|_| TimeError::Form)?, &rest[count..]))
}

fn offset(text: &str) -> Result<i32, TimeError> {
    if text == "Z" {
        return Ok(0);
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).filter(|b| b.is_ascii_digit()).map(|b| i32::from(b - b'0'));
    if bytes.len() != 6 || bytes[3] != b':' || !matches!(bytes[0], b'+' | b'-') {
        return Err(TimeError::Form);
    }
    let [Some(a), Some(b), Some(c), Some(d)] = [digit(1), digit(2), digit(4), digit(5)] else {
        return Err(TimeError::Form);
    };
    let (hours, minutes) = (a * 10 + b, c * 10 + d);
    if hours > 24 || minutes > 59 {
        return Err(TimeError::Form);
    }
    let seconds = hours * 3600 + minutes * 60;
    Ok(if bytes[0] == b'-' { -seconds } else { seconds })
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = clock(self.seconds + i64::from(self.offset), 0).ok_or(fmt::Error)?;
        write!(f, "{:04}-{:02}-{:02}T", shown.year(), shown.month(), shown.day())?;
        write!(f, "{:02}:{:02}:{:02}", shown.hour(), shown.minute(), shown.second())?;
        if self.nanos > 0 {
            write!(f, ".{}", format!("{:09}", self.nanos).trim_end_matches('0'))?;
        }
        if self.offset == 0 {
            return f.write_str("Z");
        }
        let (sign, minutes) = (if self.offset < 0 { '-' } else { '+' }, self.offset.abs() / 60);
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// Reads a span of time as Go does: nanoseconds.
///
/// # Errors
/// If it is none.
pub fn parse_duration(text: &str) -> Result<i64, gojson::duration::Invalid> {
    gojson::duration::parse(text)
}

/// A span of time as expressions write it: in seconds.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        let cases = [
            ("2009-02-13T23:31:30Z", Ok((1_234_567_890, 0))),
            ("2009-02-13T23:31:30.5Z", Ok((1_234_567_890, 500_000_000))),
            ("2009-02-14T01:31:30+02:00", Ok((1_234_567_890, 0))),
            ("0001-01-01T00:00:00Z", Ok((-62_135_596_800, 0))),
            ("0000-01-01T00:00:00Z", Err(TimeError::Range)),
            ("9999-12-31T23:59:59-01:00", Err(TimeError::Range)),
            ("2009-02-30T23:31:30Z", Err(TimeError::Form)),
            ("2009-02-13T24:31:30Z", Err(TimeError::Form)),
            ("2009-02-13 23:31:30Z", Err(TimeError::Form)),
            ("2009-02-13T23:31:30", Err(TimeError::Form)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timestamp(text).map(|time| (time.seconds, time.nanos)), expected, "{text}");
        }
        for text in ["2009-02-13T23:31:30.05Z", "2009-02-13T23:31:30-03:30"] {
            assert_eq!(parse_timestamp(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn spans_are_written_in_seconds() {
        let cases = [("1h", "3600s"), ("1500ms", "1.5s"), ("-1ns", "-0.000000001s"), ("0", "0s")];
        for (text, expected) in cases {
            assert_eq!(format_duration(parse_duration(text).unwrap()), expected);
        }
    }
}
