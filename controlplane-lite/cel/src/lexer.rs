//! Splits an expression into tokens (cel-go's `parser/gen/CEL.g4`).

/// What a token is. Words that the grammar knows are not identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// An operator, a bracket, or one of `in`, `true`, `false` and `null`.
    Symbol(&'static str),
    Identifier,
    /// A name between backquotes.
    EscapedIdentifier,
    Int,
    Uint,
    Float,
    String,
    Bytes,
    End,
}

/// A token and its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'s> {
    pub(crate) kind: TokenKind,
    pub(crate) text: &'s str,
    pub(crate) offset: usize,
}

/// What no token begins with.
#[derive(Debug)]
pub(crate) struct Unrecognized {
    pub(crate) offset: usize,
    pub(crate) text: String,
}

/// Longer ones first, where one begins another.
const SYMBOLS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%", "=",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

/// All tokens, the last of which is the end.
///
/// # Errors
/// The first place where no token begins.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token<'_>>, Unrecognized> {
    let mut tokens = Vec::new();
    let mut offset = 0;
    loop {
        offset = skip_space(text, offset);
        let rest = &text[offset..];
        if rest.is_empty() {
            tokens.push(Token { kind: TokenKind::End, text: "<EOF>", offset });
            return Ok(tokens);
        }
        let (kind, length) = next(rest).ok_or_else(|| unrecognized(rest, offset))?;
        tokens.push(Token { kind, text: &rest[..length], offset });
        offset += length;
    }
}

fn unrecognized(rest: &str, offset: usize) -> Unrecognized {
    let first = rest.chars().next().unwrap_or(' ');
    // The text of a string that does not end is named up to its line's end.
    let shown =
        if matches!(first, '"' | '\'') { rest.lines().next().unwrap_or(rest).to_owned() } else { first.to_string() };
    Unrecognized { offset, text: shown }
}

fn skip_space(text: &str, mut offset: usize) -> usize {
    loop {
        let rest = &text[offset..];
        let spaces = rest.bytes().take_while(|b| matches!(b, b'\t' | b' ' | b'\r' | b'\n' | 0x0c)).count();
        offset += spaces;
        let rest = &text[offset..];
        if !rest.starts_with("//") {
            return offset;
        }
        offset += rest.find('\n').unwrap_or(rest.len());
    }
}

/// The kind and length of the token that a text begins with.
fn next(rest: &str) -> Option<(TokenKind, usize)> {
    if let Some(found) = string(rest).or_else(|| number(rest)) {
        return Some(found);
    }
    let first = *rest.as_bytes().first()?;
    if first.is_ascii_alphabetic() || first == b'_' {
        let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let word = &rest[..length];
        let kind =
            WORDS.iter().find(|known| **known == word).map_or(TokenKind::Identifier, |known| TokenKind::Symbol(known));
        return Some((kind, length));
    }
    if first == b'`' {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b' ');
        let length = rest.bytes().skip(1).take_while(allowed).count();
        return (length > 0 && rest.as_bytes().get(length + 1) == Some(&b'`'))
            .then_some((TokenKind::EscapedIdentifier, length + 2));
    }
    let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol))?;
    (*symbol != "=").then_some((TokenKind::Symbol(symbol), symbol.len()))
}

fn number(rest: &str) -> Option<(TokenKind, usize)> {
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    let unsigned = |length: usize, kind: TokenKind| match rest.as_bytes().get(length) {
        Some(b'u' | b'U') => (TokenKind::Uint, length + 1),
        _ => (kind, length),
    };
    if let Some(hex) = rest.strip_prefix("0x") {
        let length = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        if length > 0 {
            return Some(unsigned(length + 2, TokenKind::Int));
        }
    }
    let whole = digits(0);
    let mut length = whole;
    let mut float = false;
    if rest[length..].starts_with('.') {
        let fraction = digits(length + 1);
        if fraction > 0 {
            length += 1 + fraction;
            float = true;
        }
    }
    if length == 0 {
        return None;
    }
    if let Some(b'e' | b'E') = rest.as_bytes().get(length) {
        let sign = usize::from(matches!(rest.as_bytes().get(length + 1), Some(b'+' | b'-')));
        let exponent = digits((length + 1 + sign).min(rest.len()));
        if exponent > 0 {
            length += 1 + sign + exponent;
            float = true;
        }
    }
    Some(if float { (TokenKind::Float, length) } else { unsigned(length, TokenKind::Int) })
}

/// A string or bytes literal with its prefixes: `b`, `r` or both.
fn string(rest: &str) -> Option<(TokenKind, usize)> {
    let bytes = rest.as_bytes();
    let mut at = 0;
    let is_bytes = matches!(bytes.first(), Some(b'b' | b'B'));
    at += usize::from(is_bytes);
    let raw = matches!(bytes.get(at), Some(b'r' | b'R'));
    at += usize::from(raw);
    let quote = *bytes.get(at).filter(|b| matches!(b, b'"' | b'\''))?;
    let triple = bytes.get(at + 1) == Some(&quote) && bytes.get(at + 2) == Some(&quote);
    let mut end = at + if triple { 3 } else { 1 };
    loop {
        match *bytes.get(end)? {
            b'\\' if !raw => end += 1 + escape_length(&bytes[end + 1..])?,
            b'\n' | b'\r' if !triple => return None,
            b if b == quote && (!triple || bytes.get(end + 1..end + 3) == Some(&[quote, quote])) => break,
            _ => end += 1,
        }
    }
    end += if triple { 3 } else { 1 };
    Some((if is_bytes { TokenKind::Bytes } else { TokenKind::String }, end))
}

/// The length of an escape sequence behind its backslash.
fn escape_length(rest: &[u8]) -> Option<usize> {
    let hex =
        |count: usize| (rest.len() > count && rest[1..=count].iter().all(u8::is_ascii_hexdigit)).then_some(count + 1);
    match rest.first()? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => Some(1),
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => (rest.len() > 2 && rest[1..3].iter().all(|b| matches!(b, b'0'..=b'7'))).then_some(3),
        _ => None,
    }
}
