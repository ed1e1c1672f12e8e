//! Paths of fields into a schema, as rules and selectable fields name them: `.spec.a` and, where it may be, `['a.b']`
//! (`ValidFieldPath` of k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go).

use std::borrow::Cow;

use serde_json::Value;

use crate::access::at;

/// The steps of a path, and the schema of what is there. `brackets` says whether names may stand in quotes and
/// brackets.
///
/// # Errors
/// Why it is no path, or leads nowhere, in upstream's words.
pub fn field_path<'a>(
    text: &'a str,
    schema: &'a Value,
    brackets: bool,
) -> Result<(Vec<Cow<'a, str>>, &'a Value), String> {
    let (mut rest, mut schema, mut steps) = (text, schema, Vec::new());
    while !rest.is_empty() {
        let (delimiter, after) = token(rest);
        let (name, after) = match delimiter {
            "." if !after.is_empty() => {
                let (name, after) = token(after);
                (Cow::Borrowed(name), after)
            }
            "[" if !brackets => return Err("array notation is not allowed".to_owned()),
            "[" if !after.is_empty() => quoted(after)?,
            "." | "[" => return Err("unexpected end of JSON path".to_owned()),
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        schema = below(schema, &name).ok_or("does not refer to a valid field")?;
        rest = match (delimiter, token(after)) {
            (".", _) => after,
            (_, ("]", after)) => after,
            (_, ("", _)) => return Err("unexpected end of JSON path".to_owned()),
            (_, (other, _)) => return Err(format!("expected ] but got {other}")),
        };
        steps.push(name);
    }
    Ok((steps, schema))
}

/// The schema of a field: its own, or where none has a name that of all.
fn below<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    match (at(schema, &["properties"]), at(schema, &["additionalProperties"])) {
        (Value::Object(properties), _) if !properties.is_empty() => properties.get(name),
        (_, values @ Value::Object(_)) => Some(values),
        _ => None,
    }
}

/// A name in quotes, and what follows it.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), String> {
    let (quoted, after) = token(text);
    let inner = quoted.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\''));
    let inner = inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
    let name = unescaped(inner).map_err(|escape| format!("invalid string literal: invalid escape char {escape}"))?;
    Ok((name, after))
}

/// The text without its escapes.
///
/// # Errors
/// The first that is none.
fn unescaped(text: &str) -> Result<Cow<'_, str>, String> {
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(text));
    }
    let (mut out, mut chars) = (String::with_capacity(text.len()), text.chars());
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.clone().next().filter(|next| *next != '\n') } else { None };
        let Some(escaped) = escaped else {
            out.push(c);
            continue;
        };
        chars.next();
        out.push(match escaped {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\'' | '\\' => escaped,
            other => return Err(format!("\\{other}")),
        });
    }
    Ok(Cow::Owned(out))
}

/// A delimiter, a text in single quotes, or what comes before the next delimiter.
fn token(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let end = match bytes.first() {
        Some(b'.' | b'[' | b']') => 1,
        Some(b'\'') => {
            let closes = |at: &usize| bytes[*at] == b'\'' && bytes[*at - 1] != b'\\';
            (1..bytes.len()).find(closes).map_or(bytes.len(), |at| at + 1)
        }
        _ => text.find(['.', '[', ']']).unwrap_or(bytes.len()),
    };
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// The rows of `TestValidateFieldPath` in validation_test.go, and of escapes.
    #[test]
    fn paths_lead_into_schemas() {
        let text = json!({"type": "string"});
        let map = |values: &Value| json!({"type": "object", "additionalProperties": values});
        let schema = json!({"type": "object", "properties": {
            "foo": map(&text),
            "a": {"type": "object", "properties": {
                "foo": {"type": "array", "items": {"type": "object", "properties": {"e": text}}},
                "bbb": map(&text),
                "bbb.c": map(&map(&text)),
                "it's": text,
            }},
            "list": {"type": "array", "items": {"type": "object"}},
            "none": {"type": "object", "properties": {}, "additionalProperties": text},
        }});
        for (path, expected) in [
            (".a", Ok(vec!["a"])),
            (".a.bbb", Ok(vec!["a", "bbb"])),
            (".foo.f1", Ok(vec!["foo", "f1"])),
            (".a['bbb']", Ok(vec!["a", "bbb"])),
            (".a['bbb.c']['a-b34']", Ok(vec!["a", "bbb.c", "a-b34"])),
            (".a['bbb.c'].a-b34", Ok(vec!["a", "bbb.c", "a-b34"])),
            (".a.bbb['34']", Ok(vec!["a", "bbb", "34"])),
            (".a['it\\'s']", Ok(vec!["a", "it's"])),
            (".none.x", Ok(vec!["none", "x"])),
            (".list", Ok(vec!["list"])),
            ("", Ok(vec![])),
            (".a.bbb.c.d", Err("does not refer to a valid field")),
            (".list[0]", Err("expected single quoted string but got 0")),
            (".list['a']", Err("does not refer to a valid field")),
            (".a['bbb'", Err("unexpected end of JSON path")),
            (".a['bbb'.c]", Err("expected ] but got .")),
            (".a[", Err("unexpected end of JSON path")),
            (".", Err("unexpected end of JSON path")),
            ("..", Err("does not refer to a valid field")),
            ("a", Err("expected [ or . but got: a")),
            (".foo['c\\z']", Err("invalid string literal: invalid escape char \\z")),
        ] {
            let found = field_path(path, &schema, true).map(|(steps, _)| steps);
            assert_eq!(
                found,
                expected.map(|steps| steps.into_iter().map(Cow::Borrowed).collect()).map_err(str::to_owned),
                "{path}"
            );
        }
        assert_eq!(field_path(".a['bbb']", &schema, false).unwrap_err(), "array notation is not allowed");
    }
}
