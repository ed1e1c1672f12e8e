//! Functions of strings (cel-go's `ext/strings.go`, version 2) and regular expressions (`regex.go` of Kubernetes'
//! library). Places in strings are counted in code points.

use super::{Outcome, Scope, Table, lists, template};
use crate::budget::Budget;
use crate::error::EvalError;
use crate::pattern;
use crate::value::{List, Value};

pub(super) const TABLE: Table = &[
    ("contains", ".contains_string(string, string) -> bool", contains),
    ("startsWith", ".starts_with_string(string, string) -> bool", starts_with),
    ("endsWith", ".ends_with_string(string, string) -> bool", ends_with),
    ("matches", "matches(string, string) -> bool\n.matches_string(string, string) -> bool", matches),
    ("find", ".string_find_string(string, string) -> string", find),
    (
        "findAll",
        ".string_find_all_string(string, string) -> list(string)
        .string_find_all_string_int(string, string, int) -> list(string)",
        find_all,
    ),
    ("charAt", ".string_char_at_int(string, int) -> string", char_at),
    (
        "indexOf",
        ".string_index_of_string(string, string) -> int
        .string_index_of_string_int(string, string, int) -> int
        .list_a_index_of_int(list(A), A) -> int",
        index_of,
    ),
    (
        "lastIndexOf",
        ".string_last_index_of_string(string, string) -> int
        .string_last_index_of_string_int(string, string, int) -> int
        .list_a_last_index_of_int(list(A), A) -> int",
        last_index_of,
    ),
    ("lowerAscii", ".string_lower_ascii(string) -> string", lower_ascii),
    ("upperAscii", ".string_upper_ascii(string) -> string", upper_ascii),
    (
        "replace",
        ".string_replace_string_string(string, string, string) -> string
        .string_replace_string_string_int(string, string, string, int) -> string",
        replace,
    ),
    (
        "split",
        ".string_split_string(string, string) -> list(string)
        .string_split_string_int(string, string, int) -> list(string)",
        split,
    ),
    (
        "substring",
        ".string_substring_int(string, int) -> string\n.string_substring_int_int(string, int, int) -> string",
        substring,
    ),
    ("trim", ".string_trim(string) -> string", trim),
    ("strings.quote", "strings_quote(string) -> string", quote),
    ("join", ".list_join(list(string)) -> string\n.list_join_string(list(string), string) -> string", join),
    ("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string(string) -> string", escape_key),
];

fn predicate<'a>(scope: &Scope<'_>, args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(other)] => {
            scope.budget.steps(text.len() / 64)?;
            Ok(Value::Bool(holds(text, other)))
        }
        _ => scope.refuse(args),
    }
}

fn contains<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    predicate(scope, args, |text, part| text.contains(part))
}

fn starts_with<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    predicate(scope, args, |text, start| text.starts_with(start))
}

fn ends_with<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    predicate(scope, args, |text, end| text.ends_with(end))
}

/// Steps of compiling a regular expression, beside those of its length.
const REGEX_STEPS: usize = 500;

fn compile(budget: &Budget, text: &str) -> Result<regex::Regex, String> {
    let spent = budget.steps(REGEX_STEPS + text.len().saturating_mul(20));
    spent.map_err(|error| error.to_string())?;
    pattern::compile(text)
}

fn matches<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::String(pattern)] = args else { return scope.refuse(args) };
    let regex = compile(scope.budget, pattern).map_err(EvalError::new)?;
    scope.budget.steps(text.len() / 8)?;
    Ok(Value::Bool(regex.is_match(text)))
}

fn find<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::String(pattern)] = args else { return scope.refuse(args) };
    let regex = compile(scope.budget, pattern).map_err(|why| EvalError::new(format!("Illegal regex: {why}")))?;
    scope.budget.steps(text.len() / 8)?;
    Ok(Value::text(regex.find(text).map_or("", |found| found.as_str())))
}

fn find_all<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [Value::String(text), Value::String(pattern), Value::Int(limit)] => (text, pattern, *limit),
        _ => return scope.refuse(args),
    };
    let regex = compile(scope.budget, pattern).map_err(|why| EvalError::new(format!("Illegal regex: {why}")))?;
    scope.budget.steps(text.len())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Value::list(regex.find_iter(text).take(limit).map(|found| Value::text(found.as_str())).collect()))
}

/// A place in a text.
fn place(index: i64) -> Result<usize, EvalError> {
    usize::try_from(index).map_err(|_| EvalError::new(format!("index out of range: {index}")))
}

fn out_of_range<'a>(index: i64) -> Outcome<'a> {
    Err(EvalError::new(format!("index out of range: {index}")))
}

fn char_at<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::Int(index)] = args else { return scope.refuse(args) };
    scope.budget.steps(text.len() / 16)?;
    let mut chars = text.chars();
    let place = place(*index)?;
    match place.checked_sub(1).map_or(Some('\0'), |before| chars.nth(before)) {
        None => out_of_range(*index),
        Some(_) => Ok(Value::text(chars.next().map(String::from).unwrap_or_default())),
    }
}

/// The code point at a byte.
fn code_point(text: &str, byte: usize) -> i64 {
    i64::try_from(text[..byte].chars().count()).unwrap_or(i64::MAX)
}

/// The byte of a code point; the end for those behind it.
fn byte_of(text: &str, index: usize) -> usize {
    text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte)
}

fn index_of<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part, from) = match args {
        [Value::List(list), item] => return lists::position(scope, list, item, false),
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return scope.refuse(args),
    };
    scope.budget.steps(text.len() / 16)?;
    let from = place(from)?;
    if part.is_empty() {
        let length = text.chars().count();
        return Ok(Value::Int(i64::try_from(from.min(length)).unwrap_or(i64::MAX)));
    }
    let start = byte_of(text, from);
    let found = text[start..].find(&**part);
    Ok(Value::Int(found.map_or(-1, |found| code_point(text, start + found))))
}

fn last_index_of<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part, to) = match args {
        [Value::List(list), item] => return lists::position(scope, list, item, true),
        [Value::String(text), Value::String(part)] => (text, part, None),
        [Value::String(text), Value::String(part), Value::Int(to)] => (text, part, Some(*to)),
        _ => return scope.refuse(args),
    };
    scope.budget.steps(text.len() / 16)?;
    let length = text.chars().count();
    let to = to.map(place).transpose()?;
    if part.is_empty() {
        return Ok(Value::Int(i64::try_from(to.unwrap_or(length).min(length)).unwrap_or(i64::MAX)));
    }
    if to.is_some_and(|to| to >= length) {
        return Ok(Value::Int(-1));
    }
    // What is found may begin at the place, and end behind it.
    let end = to.map_or(text.len(), |to| byte_of(text, to.saturating_add(part.chars().count())));
    Ok(Value::Int(text[..end].rfind(&**part).map_or(-1, |found| code_point(text, found))))
}

fn mapped<'a>(scope: &Scope<'_>, args: &[Value<'a>], made: fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            scope.budget.steps(text.len() / 16)?;
            Ok(Value::text(made(text)))
        }
        _ => scope.refuse(args),
    }
}

fn lower_ascii<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    mapped(scope, args, str::to_ascii_lowercase)
}

fn upper_ascii<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    mapped(scope, args, str::to_ascii_uppercase)
}

fn trim<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    mapped(scope, args, |text| text.trim().to_owned())
}

fn quote<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    mapped(scope, args, |text| {
        let mut out = String::with_capacity(text.len() + 2);
        template::write_quoted(&mut out, text);
        out
    })
}

fn escape_key<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    mapped(scope, args, |text| text.replace('~', "~0").replace('/', "~1"))
}

fn replace<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, old, new, limit) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, -1),
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(limit)] => (text, old, new, *limit),
        _ => return scope.refuse(args),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = if old.is_empty() { text.len() + 1 } else { text.len() / old.len() }.min(limit);
    scope.budget.steps((text.len() + count.saturating_mul(new.len())) / 16)?;
    Ok(Value::text(text.replacen(&**old, new, limit)))
}

fn split<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => (text, separator, *limit),
        _ => return scope.refuse(args),
    };
    scope.budget.steps(text.len())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 || (text.is_empty() && separator.is_empty()) {
        return Ok(Value::list(Vec::new()));
    }
    let parts: Vec<Value<'a>> = if separator.is_empty() {
        let mut parts: Vec<Value<'a>> = text.chars().take(limit - 1).map(Value::text).collect();
        let rest = &text[byte_of(text, parts.len())..];
        if !rest.is_empty() {
            parts.push(Value::text(rest));
        }
        parts
    } else {
        text.splitn(limit, &**separator).map(Value::text).collect()
    };
    Ok(Value::list(parts))
}

fn substring<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return scope.refuse(args),
    };
    scope.budget.steps(text.len() / 16)?;
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let length = text.chars().count();
    let within = |index: i64| match place(index) {
        Ok(place) if place <= length => Ok(byte_of(text, place)),
        _ => Err(EvalError::new(format!("index out of range: {index}"))),
    };
    let from = within(start)?;
    let to = end.map_or(Ok(text.len()), within)?;
    Ok(Value::text(&text[from..to]))
}

fn join<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator): (&List<'a>, &str) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, separator),
        _ => return scope.refuse(args),
    };
    let mut out = String::new();
    for (index, element) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        match element? {
            Value::String(text) => {
                scope.budget.steps(1 + (separator.len() + text.len()) / 16)?;
                out.push_str(&text);
            }
            other => return Err(EvalError::new(format!("join: invalid input: {other}"))),
        }
    }
    Ok(Value::text(out))
}
