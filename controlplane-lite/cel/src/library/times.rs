//! Parts of times and spans of time (cel-go's `common/types/{timestamp,duration}.go`). Without a zone, times are UTC's.

use super::{Outcome, Scope, Table};
use crate::value::Value;

const HOUR: i64 = 3_600_000_000_000;
const MINUTE: i64 = 60_000_000_000;
const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;

pub(super) const TABLE: Table = &[
    ("getFullYear", ".timestamp_to_year(timestamp) -> int\n.timestamp_to_year_with_tz(timestamp, string) -> int", year),
    ("getMonth", ".timestamp_to_month(timestamp) -> int\n.timestamp_to_month_with_tz(timestamp, string) -> int", month),
    (
        "getDayOfYear",
        ".timestamp_to_day_of_year(timestamp) -> int\n.timestamp_to_day_of_year_with_tz(timestamp, string) -> int",
        day_of_year,
    ),
    (
        "getDayOfMonth",
        ".timestamp_to_day_of_month(timestamp) -> int\n.timestamp_to_day_of_month_with_tz(timestamp, string) -> int",
        day_of_month,
    ),
    (
        "getDate",
        ".timestamp_to_day_of_month_1_based(timestamp) -> int
        .timestamp_to_day_of_month_1_based_with_tz(timestamp, string) -> int",
        date,
    ),
    (
        "getDayOfWeek",
        ".timestamp_to_day_of_week(timestamp) -> int\n.timestamp_to_day_of_week_with_tz(timestamp, string) -> int",
        day_of_week,
    ),
    (
        "getHours",
        ".timestamp_to_hours(timestamp) -> int
        .timestamp_to_hours_with_tz(timestamp, string) -> int
        .duration_to_hours(duration) -> int",
        hours,
    ),
    (
        "getMinutes",
        ".timestamp_to_minutes(timestamp) -> int
        .timestamp_to_minutes_with_tz(timestamp, string) -> int
        .duration_to_minutes(duration) -> int",
        minutes,
    ),
    (
        "getSeconds",
        ".timestamp_to_seconds(timestamp) -> int
        .timestamp_to_seconds_tz(timestamp, string) -> int
        .duration_to_seconds(duration) -> int",
        seconds,
    ),
    (
        "getMilliseconds",
        ".timestamp_to_milliseconds(timestamp) -> int
        .timestamp_to_milliseconds_with_tz(timestamp, string) -> int
        .duration_to_milliseconds(duration) -> int",
        milliseconds,
    ),
];

/// A part of a time, or that of a span.
fn part<'a>(
    scope: &Scope<'_>,
    args: &[Value<'a>],
    of_time: fn(&jiff::civil::DateTime) -> i64,
    of_span: Option<fn(i64) -> i64>,
) -> Outcome<'a> {
    let (time, zone) = match (args, of_span) {
        ([Value::Timestamp(time)], _) => (time, "UTC"),
        ([Value::Timestamp(time), Value::String(zone)], _) => (time, &**zone),
        ([Value::Duration(nanos)], Some(of_span)) => return Ok(Value::Int(of_span(*nanos))),
        _ => return scope.refuse(args),
    };
    // A zone is looked up in a data base.
    scope.budget.steps(if zone == "UTC" { 1 } else { 100 })?;
    Ok(Value::Int(of_time(&time.in_zone(zone)?)))
}

fn year<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.year()), None)
}

fn month<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.month()) - 1, None)
}

fn day_of_year<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.day_of_year()) - 1, None)
}

fn day_of_month<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.day()) - 1, None)
}

fn date<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.day()), None)
}

fn day_of_week<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.weekday().to_sunday_zero_offset()), None)
}

fn hours<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.hour()), Some(|nanos| nanos / HOUR))
}

fn minutes<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.minute()), Some(|nanos| nanos / MINUTE))
}

fn seconds<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.second()), Some(|nanos| nanos / SECOND))
}

fn milliseconds<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    part(scope, args, |time| i64::from(time.millisecond()), Some(|nanos| nanos / MILLISECOND))
}
