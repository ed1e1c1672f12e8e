//! How Go prints what a path finds: texts as they are, lists and maps as JSON.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// A value as client-go prints it.
#[must_use]
pub fn print(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_i64().map_or_else(|| general(float(number)), |n| n.to_string()),
        Value::Array(_) | Value::Object(_) => go_json(value),
        other => other.to_string(),
    }
}

/// A value as Go writes it in JSON.
#[must_use]
pub fn go_json(value: &Value) -> String {
    let mut out = String::new();
    json(value, &mut out);
    out
}

/// A number as Go holds those that are no int64.
pub(super) fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(0.0)
}

/// Go's `%v` of a float: with an exponent below 1e-4 and from 1e6 on.
fn general(number: f64) -> String {
    let exponent = exponent(number);
    if number != 0.0 && !(-4..6).contains(&exponent) { scientific(number) } else { format!("{number}") }
}

fn exponent(number: f64) -> i32 {
    let text = format!("{number:e}");
    text.rsplit_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0)
}

/// With an exponent of at least two digits.
fn scientific(number: f64) -> String {
    let text = format!("{number:e}");
    let (digits, _) = text.split_once('e').unwrap_or((&text, ""));
    let exponent = exponent(number);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// Go's JSON: keys in order, no `.0`, and what HTML could take for its own escaped.
fn json(value: &Value, out: &mut String) {
    match value {
        Value::Array(list) => {
            for (place, item) in list.iter().enumerate() {
                out.push(if place == 0 { '[' } else { ',' });
                json(item, out);
            }
            out.push_str(if list.is_empty() { "[]" } else { "]" });
        }
        Value::Object(map) => {
            for (place, (key, item)) in map.iter().enumerate() {
                out.push(if place == 0 { '{' } else { ',' });
                text(key, out);
                out.push(':');
                json(item, out);
            }
            out.push_str(if map.is_empty() { "{}" } else { "}" });
        }
        Value::String(value) => text(value, out),
        Value::Number(number) if !number.is_i64() => out.push_str(&json_float(float(number))),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// Go's JSON of a float: with an exponent below 1e-6 and from 1e21 on, of as few digits as it takes.
fn json_float(number: f64) -> String {
    let exponent = exponent(number);
    if number == 0.0 || (-6..21).contains(&exponent) {
        format!("{number}")
    } else {
        scientific(number).replace("e-0", "e-")
    }
}

fn text(text: &str, out: &mut String) {
    let quoted = Value::from(text).to_string();
    for c in quoted.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}
