//! Go's regular expressions (RE2) by the `regex` crate: which is spelled otherwise is translated, and what Go's parser
//! refuses is refused in its words (`regexp/syntax` of Go).

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// Bytes of a compiled pattern. Go refuses at about a thousandfold repetition.
const SIZE_LIMIT: usize = 4 << 20;
/// Bytes of a matcher's cache.
const CACHE_LIMIT: usize = 1 << 20;
/// The largest count of a repetition.
const MAX_REPEAT: u32 = 1000;
/// Groups inside each other.
const NEST_LIMIT: u32 = 250;

/// A pattern, compiled when it is first asked.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Result<Box<Regex>, Box<str>>>,
}

impl Pattern {
    /// A pattern that is not compiled yet.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    /// The pattern as it was written.
    #[must_use]
    pub const fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern is found in a text.
    ///
    /// # Errors
    /// Why the pattern is none.
    pub fn matches(&self, text: &str) -> Result<bool, &str> {
        let compiled = self.compiled.get_or_init(|| match compile(&self.text) {
            Ok(regex) => Ok(Box::new(regex)),
            Err(error) => Err(error.into()),
        });
        compiled.as_ref().map(|regex| regex.is_match(text)).map_err(|error| &**error)
    }
}

/// Compiles a pattern of Go's.
///
/// # Errors
/// Why it is none, as Go says it.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(CACHE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "error parsing regexp: expression too large".to_owned(),
            _ if unbalanced(pattern) => format!("error parsing regexp: missing closing ): `{pattern}`"),
            _ => format!("error parsing regexp: invalid or unsupported syntax: `{pattern}`"),
        })
}

/// Whether more groups open than close. It is asked for the words only: brackets in classes are not told apart.
fn unbalanced(pattern: &str) -> bool {
    pattern.matches('(').count() > pattern.matches(')').count()
}

fn refuse<T>(what: &str, part: &str) -> Result<T, String> {
    Err(format!("error parsing regexp: {what}: `{part}`"))
}

/// The same pattern in the `regex` crate's syntax.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut open = 0_usize;
    // Where the last repetition began, to find one of a repetition.
    let mut repeated: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let at = pattern.len() - rest.len();
        let before = repeated.take();
        rest = match c {
            '\\' => escape(rest, false, &mut out)?,
            '[' => class(rest, &mut out)?,
            '*' | '+' | '?' => {
                repeated = Some(at);
                repeat(pattern, rest, 1, before, &mut out)?
            }
            '{' => match counted(rest)? {
                Some(end) => {
                    repeated = Some(at);
                    repeat(pattern, rest, end, before, &mut out)?
                }
                None => {
                    out.push_str("\\{");
                    &rest[1..]
                }
            },
            '(' => {
                open += 1;
                group(rest, &mut out, &mut open)?
            }
            ')' => {
                if open == 0 {
                    return refuse("unexpected )", pattern);
                }
                open -= 1;
                out.push(')');
                &rest[1..]
            }
            '}' | ']' => {
                out.push('\\');
                out.push(c);
                &rest[1..]
            }
            _ => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    if open > 0 { refuse("missing closing )", pattern) } else { Ok(out) }
}

/// A repetition whose operator ends at `end`; it may be lazy. `before` is where a repetition begins that it follows.
fn repeat<'a>(
    pattern: &str,
    rest: &'a str,
    end: usize,
    before: Option<usize>,
    out: &mut String,
) -> Result<&'a str, String> {
    let at = pattern.len() - rest.len();
    let end = if rest[end..].starts_with('?') { end + 1 } else { end };
    if let Some(start) = before {
        return refuse("invalid nested repetition operator", &pattern[start..at + end]);
    }
    if starts_empty(out) {
        return refuse("missing argument to repetition operator", &rest[..end]);
    }
    out.push_str(&rest[..end]);
    Ok(&rest[end..])
}

/// Whether there is nothing to repeat yet.
fn starts_empty(out: &str) -> bool {
    let escaped = |text: &str| text.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1;
    match out.as_bytes().last() {
        None => true,
        Some(b'|' | b'(') => !escaped(&out[..out.len() - 1]),
        Some(b')') => out.ends_with("(?:)"),
        Some(_) => false,
    }
}

/// The end of `{2}`, `{2,}` or `{2,3}`; anything else in braces stands for itself.
fn counted(rest: &str) -> Result<Option<usize>, String> {
    let Some(end) = rest.find('}') else { return Ok(None) };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (low, high) = match rest[1..end].split_once(',') {
        None => (&rest[1..end], None),
        Some((low, "")) => (low, None),
        Some((low, high)) => (low, Some(high)),
    };
    if !digits(low) || high.is_some_and(|high| !digits(high)) || (low.len() > 1 && low.starts_with('0')) {
        return Ok(None);
    }
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= MAX_REPEAT);
    match (number(low), high.map(number)) {
        (Some(low), Some(Some(high))) if low <= high => Ok(Some(end + 1)),
        (Some(_), None) => Ok(Some(end + 1)),
        _ => refuse("invalid repeat count", &rest[..=end]),
    }
}

/// An opening parenthesis and what is part of it.
fn group<'a>(rest: &'a str, out: &mut String, open: &mut usize) -> Result<&'a str, String> {
    let Some(inner) = rest.strip_prefix("(?") else {
        out.push('(');
        return Ok(&rest[1..]);
    };
    if inner.starts_with("P<") || inner.starts_with('<') {
        let Some(end) = rest.find('>') else { return refuse("invalid named capture", rest) };
        let name = &rest[rest.find('<').map_or(end, |at| at + 1)..end];
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return refuse("invalid named capture", &rest[..=end]);
        }
        // Go's names may start with a digit; nothing asks for them here.
        out.push('(');
        return Ok(&rest[end + 1..]);
    }
    let end = inner.find([':', ')']).map(|at| at + 2);
    let Some(end) = end else { return refuse("missing closing )", rest) };
    let flags = &rest[2..end];
    let known = flags.chars().all(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-'));
    if !known || flags.matches('-').count() > 1 || flags.ends_with('-') {
        return refuse("invalid or unsupported Perl syntax", &rest[..rest.len().min(3)]);
    }
    out.push_str("(?");
    out.push_str(flags);
    if rest[end..].starts_with(')') {
        *open -= 1;
        // An empty one is no flag to the other parser.
        out.push_str(if flags.is_empty() { ":)" } else { ")" });
    } else {
        out.push(':');
    }
    Ok(&rest[end + 1..])
}

/// Go's classes know ASCII only.
const PERL_CLASSES: &[(char, &str)] = &[
    ('d', "[0-9]"),
    ('D', "[^0-9]"),
    ('s', "[\\t\\n\\f\\r ]"),
    ('S', "[^\\t\\n\\f\\r ]"),
    ('w', "[0-9A-Za-z_]"),
    ('W', "[^0-9A-Za-z_]"),
];

/// A backslash and what follows it.
fn escape<'a>(rest: &'a str, in_class: bool, out: &mut String) -> Result<&'a str, String> {
    let Some(c) = rest[1..].chars().next() else {
        return Err("error parsing regexp: trailing backslash at end of expression: ``".to_owned());
    };
    let end = 1 + c.len_utf8();
    if let Some((_, class)) = PERL_CLASSES.iter().find(|(name, _)| *name == c) {
        out.push_str(class);
        return Ok(&rest[end..]);
    }
    match c {
        'a' | 'f' | 'n' | 'r' | 't' | 'v' => out.push_str(&rest[..end]),
        'A' | 'z' if !in_class => out.push_str(&rest[..end]),
        'b' | 'B' if !in_class => out.push_str(if c == 'b' { "(?-u:\\b)" } else { "(?:(?-u:\\B))" }),
        'Q' if !in_class => {
            let quoted = &rest[2..];
            let (text, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            out.push_str(&regex::escape(text));
            return Ok(after);
        }
        'p' | 'P' => return unicode_class(rest, out),
        'x' => return hex(rest, out),
        '0' => {
            let digits = rest[2..].bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
            let code = u32::from_str_radix(&rest[1..2 + digits], 8).unwrap_or_default();
            out.push_str(&format!("\\x{{{code:X}}}"));
            return Ok(&rest[2 + digits..]);
        }
        c if c.is_ascii_punctuation() => out.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        _ => return refuse("invalid escape sequence", &rest[..end]),
    }
    Ok(&rest[end..])
}

/// `\pL`, `\p{Greek}`, `\P{^Greek}`.
fn unicode_class<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    let end = match rest[2..].chars().next() {
        Some('{') => match rest.find('}') {
            Some(end) => end + 1,
            None => return refuse("invalid character class range", rest),
        },
        Some(c) => 2 + c.len_utf8(),
        None => return refuse("invalid character class range", rest),
    };
    out.push_str(&rest[..end]);
    Ok(&rest[end..])
}

/// `\x41`, `\x{10FFFF}`.
fn hex<'a>(rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    let (digits, end) = if rest[2..].starts_with('{') {
        match rest.find('}') {
            Some(end) => (&rest[3..end], end + 1),
            None => return refuse("invalid escape sequence", rest),
        }
    } else {
        match rest.get(2..4) {
            Some(digits) => (digits, 4),
            None => return refuse("invalid escape sequence", rest),
        }
    };
    let code = u32::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    match code.and_then(char::from_u32) {
        Some(c) => out.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        None => return refuse("invalid escape sequence", &rest[..end]),
    }
    Ok(&rest[end..])
}

/// A class in brackets. Inside, the other syntax has operators that are plain characters to Go.
fn class<'a>(whole: &'a str, out: &mut String) -> Result<&'a str, String> {
    out.push('[');
    let mut rest = &whole[1..];
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut first = true;
    while first || !rest.starts_with(']') {
        first = false;
        let Some(c) = rest.chars().next() else { return refuse("missing closing ]", whole) };
        if let Some(end) = rest.strip_prefix("[:").and_then(|inner| inner.find(":]")) {
            out.push_str(&rest[..end + 4]);
            rest = &rest[end + 4..];
            continue;
        }
        let start = rest;
        rest = class_item(rest, c, out)?;
        // A range: the dash stands for itself at the end.
        if let Some(after) = rest.strip_prefix('-')
            && let Some(next) = after.chars().next()
            && next != ']'
        {
            out.push('-');
            rest = class_item(after, next, out)?;
            let part = &start[..start.len() - rest.len()];
            if c != '\\' && next != '\\' && c > next {
                return refuse("invalid character class range", part);
            }
        }
    }
    out.push(']');
    Ok(&rest[1..])
}

fn class_item<'a>(rest: &'a str, c: char, out: &mut String) -> Result<&'a str, String> {
    if c == '\\' {
        return escape(rest, true, out);
    }
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(c);
    Ok(&rest[c.len_utf8()..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn gos_syntax_means_what_it_means_there() {
        let cases = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١", false),
            (r"^\w$", "é", false),
            (r"^[\w.-]+$", "a.b-c", true),
            (r"^[[&&~~-]+$", "[&~-", true),
            (r"^a{$", "a{", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^\<a\>$", "<a>", true),
            (r"^\/$", "/", true),
            (r"^[^]a]$", "b", true),
            (r"^[]a]$", "]", true),
            (r"^\pL+$", "aé", true),
            (r"(?i)^k$", "K", true),
            (r"^(?P<n>a)(?<m>b)$", "ab", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", true),
            (r"\x{41}\x42\0", "AB\0", true),
            (r"^[[:alpha:]]$", "a", true),
            (r"^a}]$", "a}]", true),
            (r"^[+-]?\d$", "-1", true),
            (r"()|a*?", "", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(compile(pattern).map(|regex| regex.is_match(text)), Ok(expected), "{pattern} {text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        let cases = [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            (r"\Z", "invalid escape sequence: `\\Z`"),
            (r"\1", "invalid escape sequence: `\\1`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(compile(pattern).unwrap_err(), format!("error parsing regexp: {expected}"));
        }
        assert!(compile("(((a{500}){500}){500})").is_err());
    }
}
