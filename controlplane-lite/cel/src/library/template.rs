//! `format`: text with clauses such as `%s` and `%.2f` in it (cel-go's `ext/formatting.go`).

use std::fmt::Write;

use super::{Outcome, Scope, Table};
use crate::budget::Budget;
use crate::error::EvalError;
use crate::types::Type;
use crate::value::{Text, Value};

/// Digits after the point, unless a clause says otherwise.
const PRECISION: usize = 6;
/// The most digits that are written after a point: a float has no more that differ from zero.
const MAX_PRECISION: usize = 2000;

pub(super) const TABLE: Table = &[("format", ".string_format(string, list(dyn)) -> string", format)];

/// A clause of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause {
    String,
    Decimal,
    Fixed(usize),
    Scientific(usize),
    Binary,
    Hex(bool),
    Octal,
}

/// A part of a template: text, or a clause.
enum Part<'t> {
    Text(&'t str),
    Clause(Clause),
}

/// The first part of a template, and what follows it.
fn part(text: &str) -> Result<(Part<'_>, &str), String> {
    let Some(rest) = text.strip_prefix('%') else {
        let end = text.find('%').unwrap_or(text.len());
        return Ok((Part::Text(&text[..end]), &text[end..]));
    };
    if let Some(after) = rest.strip_prefix('%') {
        return Ok((Part::Text("%"), after));
    }
    if rest.is_empty() {
        return Err("unexpected end of string".to_owned());
    }
    let wrong = |message: String| format!("could not parse formatting clause: {message}");
    let (precision, rest) = match rest.strip_prefix('.') {
        None => (PRECISION, rest),
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == rest.len() {
                return Err(wrong(
                    "error while parsing precision: could not find end of precision specifier".to_owned(),
                ));
            }
            let parsed = rest[..digits].parse().map_err(|_| {
                wrong(format!(
                    "error while parsing precision: error while converting precision to integer: strconv.Atoi: \
                     parsing {:?}: invalid syntax",
                    &rest[..digits]
                ))
            })?;
            (parsed, &rest[digits..])
        }
    };
    let clause = match rest.chars().next() {
        Some('s') => Clause::String,
        Some('d') => Clause::Decimal,
        Some('f') => Clause::Fixed(precision),
        Some('e') => Clause::Scientific(precision),
        Some('b') => Clause::Binary,
        Some(c @ ('x' | 'X')) => Clause::Hex(c == 'X'),
        Some('o') => Clause::Octal,
        other => return Err(wrong(format!("unrecognized formatting clause \"{}\"", other.unwrap_or_default()))),
    };
    Ok((Part::Clause(clause), &rest[1..]))
}

/// Why a clause does not take a type.
fn misfit(clause: Clause, of: &Type) -> String {
    let what = match clause {
        Clause::String => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, \
             and timestamps"
        }
        Clause::Decimal => "decimal clause can only be used on integers",
        Clause::Fixed(_) => "fixed-point clause can only be used on doubles",
        Clause::Scientific(_) => "scientific clause can only be used on doubles",
        Clause::Binary => "only integers and bools can be formatted as binary",
        Clause::Hex(_) => "only integers, byte buffers, and strings can be formatted as hex",
        Clause::Octal => "octal clause can only be used on integers",
    };
    format!("error during formatting: {what}, was given {}", of.runtime_name())
}

fn takes(clause: Clause, of: &Type) -> bool {
    match clause {
        _ if matches!(of, Type::Dyn) => true,
        Clause::String => !matches!(of, Type::Opaque(..) | Type::Struct(_) | Type::Error),
        Clause::Decimal | Clause::Octal => matches!(of, Type::Int | Type::Uint),
        Clause::Fixed(_) | Clause::Scientific(_) => matches!(of, Type::Double | Type::String),
        Clause::Binary => matches!(of, Type::Int | Type::Uint | Type::Bool),
        Clause::Hex(_) => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
    }
}

/// How many arguments a template takes, if it fits those of these types.
///
/// # Errors
/// Which argument does not fit, if it is one, and why.
pub(crate) fn check(template: &str, types: &[Type]) -> Result<usize, (Option<usize>, String)> {
    let mut rest = template;
    let mut used = 0;
    while !rest.is_empty() {
        let (part, after) = part(rest).map_err(|message| (None, message))?;
        rest = after;
        let Part::Clause(clause) = part else { continue };
        match types.get(used) {
            None => return Err((None, format!("index {used} out of range"))),
            Some(of) if !takes(clause, of) => return Err((Some(used), misfit(clause, of))),
            Some(_) => used += 1,
        }
    }
    Ok(used)
}

fn format<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(template), Value::List(values)] = args else { return scope.refuse(args) };
    let mut rest = &**template;
    let mut out = String::new();
    let mut used = 0;
    while !rest.is_empty() {
        let (part, after) = part(rest).map_err(EvalError::new)?;
        rest = after;
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Clause(clause) => {
                let Some(value) = values.get(used) else {
                    return Err(EvalError::new(format!("index {used} out of range")));
                };
                used += 1;
                let before = out.len();
                write_clause(&mut out, clause, &value?, scope.budget)?;
                scope.budget.steps((out.len() - before) / 16)?;
            }
        }
    }
    Ok(Value::text(out))
}

fn write_clause(out: &mut String, clause: Clause, value: &Value<'_>, budget: &Budget) -> Result<(), EvalError> {
    let misfit = || EvalError::new(misfit(clause, &value.type_of()));
    let done = match (clause, value) {
        (Clause::String, value) => return write_string(out, value, budget, &misfit),
        (Clause::Decimal, Value::Int(number)) => write!(out, "{number}"),
        (Clause::Decimal, Value::Uint(number)) => write!(out, "{number}"),
        (Clause::Fixed(precision), value) => {
            let number = float(value).ok_or_else(misfit)?;
            write_float(out, number, |out| {
                out.push_str(&grouped(&format!("{number:.*}", precision.min(MAX_PRECISION))));
                Ok(())
            })
        }
        (Clause::Scientific(precision), value) => {
            let number = float(value).ok_or_else(misfit)?;
            write_float(out, number, |out| write_scientific(out, number, precision.min(MAX_PRECISION)))
        }
        (Clause::Binary, Value::Bool(value)) => write!(out, "{}", u8::from(*value)),
        (Clause::Binary, Value::Uint(number)) => write!(out, "{number:b}"),
        (Clause::Binary, Value::Int(number)) => write!(out, "{}{:b}", sign(*number), number.unsigned_abs()),
        (Clause::Octal, Value::Uint(number)) => write!(out, "{number:o}"),
        (Clause::Octal, Value::Int(number)) => write!(out, "{}{:o}", sign(*number), number.unsigned_abs()),
        (Clause::Hex(upper), value) => {
            let text = hex(value).ok_or_else(misfit)?;
            out.push_str(&if upper { text.to_uppercase() } else { text });
            Ok(())
        }
        _ => return Err(misfit()),
    };
    done.map_err(|_| EvalError::new("formatting failed"))
}

const fn sign(number: i64) -> &'static str {
    if number < 0 { "-" } else { "" }
}

fn float(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn write_float(
    out: &mut String,
    number: f64,
    finite: impl FnOnce(&mut String) -> std::fmt::Result,
) -> std::fmt::Result {
    if number.is_finite() {
        return finite(out);
    }
    out.push_str(if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "∞"
    } else {
        "-∞"
    });
    Ok(())
}

/// A number with commas between its thousands, as a printer of the English language writes it.
fn grouped(text: &str) -> String {
    let start = usize::from(text.starts_with('-'));
    let end = text.find('.').unwrap_or(text.len());
    let mut out = text[..start].to_owned();
    for (index, digit) in text[start..end].chars().enumerate() {
        if index > 0 && (end - start - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out.push_str(&text[end..]);
    out
}

/// With the exponent as a printer of the English language writes it.
fn write_scientific(out: &mut String, number: f64, precision: usize) -> std::fmt::Result {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    write!(out, "{digits}\u{202f}×\u{202f}10")?;
    let superscript = |c: char| match c {
        '0' => '⁰',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4'..='9' => char::from_u32(0x2070 + u32::from(c) - u32::from('0')).unwrap_or(c),
        other => other,
    };
    if sign == '-' {
        out.push('⁻');
    }
    out.extend(format!("{exponent:0>2}").chars().map(superscript));
    Ok(())
}

fn hex(value: &Value<'_>) -> Option<String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(match value {
        Value::Int(number) => format!("{}{:x}", sign(*number), number.unsigned_abs()),
        Value::Uint(number) => format!("{number:x}"),
        Value::String(text) => bytes(text.as_bytes()),
        Value::Bytes(content) => bytes(content),
        _ => return None,
    })
}

/// A value as `%s` writes it: inside a list or map, texts are quoted.
fn write_string(
    out: &mut String,
    value: &Value<'_>,
    budget: &Budget,
    misfit: &dyn Fn() -> EvalError,
) -> Result<(), EvalError> {
    budget.steps(1)?;
    match value {
        Value::List(list) => {
            out.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_inner(out, &element?, budget)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for key in map.keys() {
                let Some(value) = map.get(&key) else { continue };
                let mut entry = String::new();
                write_inner(&mut entry, &key, budget)?;
                let name = entry.len();
                entry.push(':');
                write_inner(&mut entry, &value?, budget)?;
                entries.push((name, entry));
            }
            entries.sort_by(|(a, x), (b, y)| x[..*a].cmp(&y[..*b]));
            let entries: Vec<String> = entries.into_iter().map(|(_, entry)| entry).collect();
            out.push('{');
            out.push_str(&entries.join(", "));
            out.push('}');
        }
        Value::Null => out.push_str("null"),
        value => match super::convert::to_string(value) {
            Some(text) => out.push_str(&text?),
            None => return Err(misfit()),
        },
    }
    Ok(())
}

/// A value inside a list or map.
fn write_inner(out: &mut String, value: &Value<'_>, budget: &Budget) -> Result<(), EvalError> {
    let before = out.len();
    match value {
        Value::String(text) => write_quoted(out, text),
        Value::Bytes(bytes) => {
            out.push('b');
            write_quoted(out, &Text::Shared(String::from_utf8_lossy(bytes).into()));
        }
        Value::Timestamp(_) => write!(out, "timestamp(\"{value}\")").unwrap_or_default(),
        Value::Duration(_) => write!(out, "duration(\"{value}\")").unwrap_or_default(),
        Value::Double(number) if number.is_finite() => write!(out, "{number:.PRECISION$}").unwrap_or_default(),
        Value::Double(_) => write!(out, "\"{value}\"").unwrap_or_default(),
        Value::Type(of) => write!(out, "type({})", of.runtime_name()).unwrap_or_default(),
        other => {
            let of = other.type_of();
            let unknown = move || EvalError::new(format!("no formatting function for {}", of.runtime_name()));
            write_string(out, other, budget, &unknown)?;
        }
    }
    budget.steps((out.len() - before) / 16)
}

/// Text in quotes as Go's `%q` writes it.
pub(super) fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
