//! Go's regular expressions (RE2) by the `regex` crate: which is spelled otherwise is translated, and what Go's parser
//! refuses is refused in its words (`regexp/syntax` of Go).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use regex::{Regex, RegexBuilder};

/// Bytes of a compiled pattern. Go refuses at about a thousandfold repetition; a class of Unicode takes some ten
/// thousand bytes each time.
pub const SIZE_LIMIT: usize = 16 << 20;
/// Bytes of a matcher's cache.
const CACHE_LIMIT: usize = 1 << 20;
/// The largest count of a repetition.
const MAX_REPEAT: u32 = 1000;
/// Groups inside each other.
const NEST_LIMIT: u32 = 250;
/// Classes of Unicode in a pattern: each has some hundred ranges, and is made before anything is counted.
const MAX_WIDE: usize = 500;

/// What Go says of a pattern that takes more than there is room for.
pub const TOO_LARGE: &str = "error parsing regexp: expression too large";

/// Bytes that a pattern may take when it is compiled, by steps, and how much work a byte of a text may be for it, in
/// quarters: where a text makes it forget what it learned, each byte is held against many of its states.
const SIZES: [(usize, usize); 4] = [(16 << 10, 1), (128 << 10, 8), (1 << 20, 64), (SIZE_LIMIT, 64)];

/// A pattern, compiled when it is first asked. All of the same text are one, since definitions say the same again and
/// again, and a few letters can take megabytes.
#[derive(Debug)]
pub struct Pattern(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    text: Arc<str>,
    compiled: OnceLock<Result<Box<Compiled>, Box<str>>>,
}

/// A compiled pattern, with the bytes that it takes at most.
#[derive(Debug)]
pub struct Compiled {
    regex: Regex,
    pub size: usize,
    work: usize,
}

/// The patterns that somebody has, and how many there are before those that nobody has any more are looked for.
#[derive(Debug, Default)]
struct Known {
    by_text: HashMap<Arc<str>, Weak<Shared>>,
    until: usize,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

impl Pattern {
    pub fn new(text: &str) -> Self {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.by_text.get(text).and_then(Weak::upgrade) {
            return Self(found);
        }
        if known.by_text.len() >= known.until {
            known.by_text.retain(|_, shared| shared.strong_count() > 0);
            known.until = 2 * known.by_text.len() + 100;
        }
        let shared = Arc::new(Shared { text: text.into(), compiled: OnceLock::new() });
        known.by_text.insert(Arc::clone(&shared.text), Arc::downgrade(&shared));
        Self(shared)
    }

    pub fn text(&self) -> &str {
        &self.0.text
    }

    fn compiled(&self) -> Result<&Compiled, &str> {
        let compile = || compile_sized(&self.0.text).map(Box::new).map_err(Into::into);
        self.0.compiled.get_or_init(compile).as_ref().map(|sized| &**sized).map_err(|error| &**error)
    }

    /// Whether the pattern is found in a text.
    ///
    /// # Errors
    /// Why the pattern is none.
    pub fn matches(&self, text: &str) -> Result<bool, &str> {
        self.compiled().map(|sized| sized.regex.is_match(text))
    }

    /// How much it may be to look for the pattern in a text of so many bytes.
    pub fn work(&self, bytes: usize) -> usize {
        self.compiled().map_or(0, |sized| (bytes / 4).saturating_mul(sized.work))
    }
}

/// Compiles a pattern of Go's, and tells the least of some sizes that it fits.
///
/// # Errors
/// Why it is none, as Go says it.
pub fn compile_sized(pattern: &str) -> Result<Compiled, String> {
    let mut problem = String::new();
    for (size, work) in SIZES {
        match compile_within(pattern, size) {
            Ok(regex) => return Ok(Compiled { regex, size, work }),
            Err(error) => problem = error,
        }
        if problem != TOO_LARGE {
            break;
        }
    }
    Err(problem)
}

/// Compiles a pattern of Go's.
///
/// # Errors
/// Why it is none, as Go says it.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    compile_within(pattern, SIZE_LIMIT)
}

/// The same of a pattern that takes no more than so many bytes when it is compiled.
///
/// # Errors
/// Why it is none, as Go says it.
pub fn compile_within(pattern: &str, limit: usize) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    if wide(pattern) > MAX_WIDE {
        return Err(TOO_LARGE.to_owned());
    }
    RegexBuilder::new(&translated).size_limit(limit).dfa_size_limit(CACHE_LIMIT).nest_limit(NEST_LIMIT).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => TOO_LARGE.to_owned(),
            _ if unbalanced(pattern) => format!("error parsing regexp: missing closing ): `{pattern}`"),
            _ => format!("error parsing regexp: invalid or unsupported syntax: `{pattern}`"),
        },
    )
}

/// Classes of Unicode at most: by name, or ranges that characters beyond ASCII stand in.
pub fn wide(pattern: &str) -> usize {
    let written = |part: &str| pattern.matches(part).count();
    written("\\p") + written("\\P") + written("\\x{") + pattern.chars().filter(|c| !c.is_ascii()).count()
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
    // Asked once, so that the end of what looks like a named class is not looked for again and again.
    let named_until = pattern.rfind(":]").map_or(usize::MAX, |at| pattern.len() - at);
    // Where the last repetition began, to find one of a repetition.
    let mut repeated: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let at = pattern.len() - rest.len();
        let before = repeated.take();
        rest = match c {
            '\\' => escape(rest, false, &mut out)?,
            '[' => class(rest, named_until, &mut out)?,
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
    // Digits from a place on. One with a zero before it is no number.
    let digits = |from: usize| {
        let length = rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        let text = &rest[from..from + length];
        (text, length > 0 && !(length > 1 && text.starts_with('0')))
    };
    let (low, is_number) = digits(1);
    if !is_number {
        return Ok(None);
    }
    let mut end = 1 + low.len();
    let mut high = None;
    if rest[end..].starts_with(',') {
        let (text, is_number) = digits(end + 1);
        if !text.is_empty() && !is_number {
            return Ok(None);
        }
        end += 1 + text.len();
        high = Some(text).filter(|text| !text.is_empty());
    }
    if !rest[end..].starts_with('}') {
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
    let (mut minus, mut said) = (false, false);
    for (at, c) in rest[2..=end].char_indices() {
        let fits = match c {
            'i' | 'm' | 's' | 'U' => true,
            '-' => !minus,
            ':' | ')' => said || !minus,
            _ => false,
        };
        if !fits {
            return refuse("invalid or unsupported Perl syntax", &rest[..2 + at + c.len_utf8()]);
        }
        minus |= c == '-';
        said = c != '-';
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
        '0'..='7' => {
            let digits = rest[2..].bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
            if c != '0' && digits == 0 {
                return refuse("invalid escape sequence", &rest[..end]);
            }
            let code = u32::from_str_radix(&rest[1..2 + digits], 8).unwrap_or_default();
            out.push_str(&format!("\\x{{{code:X}}}"));
            return Ok(&rest[2 + digits..]);
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => out.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
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

/// A class in brackets. Inside, the other syntax has operators that are plain characters to Go. `named_until` is what
/// is left of the pattern where the last end of a named class begins.
fn class<'a>(whole: &'a str, named_until: usize, out: &mut String) -> Result<&'a str, String> {
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
        let may_be_named = rest.starts_with("[:") && rest.len() >= named_until.saturating_add(2);
        if may_be_named && let Some(end) = rest[2..].find(":]") {
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
mod tests;
