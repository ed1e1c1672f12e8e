//! URLs (`urls.go` of Kubernetes' library) as Go's `net/url.ParseRequestURI` reads them.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use super::{Outcome, Scope, Table};
use crate::error::EvalError;
use crate::value::{Key, Map, Object, Url, Value};

pub(super) const TABLE: Table = &[
    ("url", "string_to_url(string) -> kubernetes.URL", url),
    ("isURL", "is_url_string(string) -> bool", is_url),
    ("getScheme", ".url_get_scheme(kubernetes.URL) -> string", scheme),
    ("getHost", ".url_get_host(kubernetes.URL) -> string", host),
    ("getHostname", ".url_get_hostname(kubernetes.URL) -> string", hostname),
    ("getPort", ".url_get_port(kubernetes.URL) -> string", port),
    ("getEscapedPath", ".url_get_escaped_path(kubernetes.URL) -> string", path),
    ("getQuery", ".url_get_query(kubernetes.URL) -> map(string, list(string))", query),
];

/// Reads a URL with a scheme, or a path that begins with a slash.
///
/// # Errors
/// Why it is neither, as Go says it.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let wrong = |why: &str| Err(format!("parse {text:?}: {why}"));
    if text.is_empty() {
        return wrong("empty url");
    }
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return wrong("net/url: invalid control character in URL");
    }
    let (scheme, rest) = match split_scheme(text) {
        Ok(split) => split,
        Err(why) => return wrong(why),
    };
    let (rest, raw_query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        // Go's URLs may be opaque, of which nothing but the scheme is known.
        if scheme.is_empty() {
            return wrong("invalid URI for request");
        }
        return Ok(Url {
            text: text.to_owned(),
            scheme,
            host: String::new(),
            escaped_path: String::new(),
            query: parse_query(raw_query),
        });
    }
    let mut host = String::new();
    let mut path = rest;
    if let Some(authority) = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///")) {
        let end = authority.find('/').unwrap_or(authority.len());
        let authority_part = authority[..end].rsplit_once('@').map_or(&authority[..end], |(_, host)| host);
        path = &authority[end..];
        if let Err(why) = check_host(authority_part) {
            return wrong(&why);
        }
        host = unescape(authority_part).unwrap_or_else(|| authority_part.to_owned());
    }
    if let Some(bad) = bad_escape(path) {
        return wrong(&format!("invalid URL escape {bad:?}"));
    }
    let query = parse_query(raw_query);
    Ok(Url { text: text.to_owned(), scheme, host, escaped_path: escape_path(path), query })
}

/// The scheme in lower case, and what follows its colon.
fn split_scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    // A colon in the first part of what has no scheme is no port.
    Ok((String::new(), text))
}

fn check_host(host: &str) -> Result<(), String> {
    let after = match host.strip_prefix('[') {
        Some(inner) => match inner.rfind(']') {
            Some(end) => &inner[end + 1..],
            None => return Err("missing ']' in host".to_owned()),
        },
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let digits = after.strip_prefix(':').unwrap_or("");
    if !after.is_empty() && (!after.starts_with(':') || !digits.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {after:?} after host"));
    }
    match host.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        Some(' ') => Err("invalid character \" \" in host name".to_owned()),
        Some(c) => Err(format!("invalid character {:?} in host name", c.to_string())),
        None => Ok(()),
    }
}

/// The first escape that is none.
fn bad_escape(text: &str) -> Option<&str> {
    text.match_indices('%').map(|(at, _)| &text[at..]).find_map(|rest| {
        let digits = rest.as_bytes().get(1..3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        (!digits).then(|| rest.char_indices().nth(3).map_or(rest, |(end, _)| &rest[..end]))
    })
}

fn unescape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// The path with escapes for what a path may not have.
fn escape_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/$&+,:;=@%!'()*[]".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Pairs of a query. Those that are not well-formed are passed over, as Go's `URL.Query` does.
fn parse_query(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| unescape(&text.replace('+', " "));
        if let (Some(key), Some(value)) = (plain(key), plain(value)) {
            match query.entry(key) {
                btree_map::Entry::Occupied(mut entry) => entry.get_mut().push(value),
                btree_map::Entry::Vacant(entry) => {
                    entry.insert(vec![value]);
                }
            }
        }
    }
    query
}

fn url<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            scope.budget.steps(text.len() / 4)?;
            match parse(text) {
                Ok(url) => Ok(Value::Object(Object::Url(Arc::new(url)))),
                Err(why) => Err(EvalError::new(format!("URL parse error during conversion from string: {why}"))),
            }
        }
        _ => scope.refuse(args),
    }
}

fn is_url<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => {
            scope.budget.steps(text.len() / 4)?;
            Ok(Value::Bool(parse(text).is_ok()))
        }
        _ => scope.refuse(args),
    }
}

fn of_url<'a>(scope: &Scope<'_>, args: &[Value<'a>], what: fn(&Url) -> &str) -> Outcome<'a> {
    match args {
        [Value::Object(Object::Url(url))] => Ok(Value::text(what(url))),
        _ => scope.refuse(args),
    }
}

fn scheme<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_url(scope, args, |url| &url.scheme)
}

fn host<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_url(scope, args, |url| &url.host)
}

/// The name and the port of a host.
fn parts(host: &str) -> (&str, &str) {
    if let Some((inner, after)) = host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        return (inner, after.strip_prefix(':').unwrap_or(""));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

fn hostname<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_url(scope, args, |url| parts(&url.host).0)
}

fn port<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_url(scope, args, |url| parts(&url.host).1)
}

fn path<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    of_url(scope, args, |url| &url.escaped_path)
}

fn query<'a>(scope: &Scope<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Object(Object::Url(url))] = args else { return scope.refuse(args) };
    scope.budget.steps(url.text.len() / 4)?;
    let values = |values: &Vec<String>| Value::list(values.iter().map(Value::text).collect());
    let entries = url.query.iter().map(|(key, found)| (Key::String(key.as_str().into()), values(found)));
    Ok(Value::Map(Map::Owned(Arc::new(entries.collect()))))
}
