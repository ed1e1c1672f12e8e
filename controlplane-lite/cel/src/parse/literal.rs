//! Constants: numbers, and strings with their escapes (cel-go's `parser/unescape.go`).

use super::Parser;
use crate::ast::Literal;
use crate::lexer::TokenKind;

impl Parser<'_> {
    /// The literal that is next; one that is wrong is reported, and stands for null.
    pub(super) fn literal(&mut self) -> Option<Literal> {
        let start = self.peek().offset;
        let negative = self.is("-");
        if negative {
            let number = self.tokens.get(self.at + 1).map(|token| token.kind);
            if !matches!(number, Some(TokenKind::Int | TokenKind::Float)) {
                return None;
            }
            self.next();
        }
        let token = self.peek();
        let literal = match token.kind {
            TokenKind::Symbol("true") => Ok(Literal::Bool(true)),
            TokenKind::Symbol("false") => Ok(Literal::Bool(false)),
            TokenKind::Symbol("null") => Ok(Literal::Null),
            TokenKind::Int => int(token.text, negative).map(Literal::Int).ok_or("invalid int literal"),
            TokenKind::Uint => uint(token.text).map(Literal::Uint).ok_or("invalid uint literal"),
            TokenKind::Float => float(token.text, negative).map(Literal::Double).ok_or("invalid double literal"),
            TokenKind::String => {
                unescape(token.text, false).map(|text| Literal::String(String::from_utf8_lossy(&text).into()))
            }
            TokenKind::Bytes => unescape(&token.text[1..], true).map(|text| Literal::Bytes(text.into())),
            _ => return None,
        };
        self.next();
        match literal {
            Ok(literal) => Some(literal),
            Err(message) => {
                self.report(start, message);
                Some(Literal::Null)
            }
        }
    }
}

fn int(text: &str, negative: bool) -> Option<i64> {
    let sign = if negative { "-" } else { "" };
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16).ok(),
        None => format!("{sign}{text}").parse().ok(),
    }
}

fn uint(text: &str) -> Option<u64> {
    let text = &text[..text.len() - 1];
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn float(text: &str, negative: bool) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    value.is_finite().then_some(if negative { -value } else { value })
}

/// The content of a quoted string. Of bytes, `\x` and octal escapes are bytes; of strings, code points.
fn unescape(quoted: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let quoted = quoted.replace("\r\n", "\n").replace('\r', "\n");
    let raw = quoted.starts_with(['r', 'R']);
    let quoted = if raw { &quoted[1..] } else { &quoted };
    let triple = quoted.len() >= 6 && (quoted.starts_with("'''") || quoted.starts_with("\"\"\""));
    let edge = if triple { 3 } else { 1 };
    let content = &quoted[edge..quoted.len() - edge];
    if raw || !content.contains('\\') {
        return Ok(content.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = escape(&rest[at + 1..], bytes, &mut out).ok_or("unable to unescape string")?;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// Reads one escape sequence behind its backslash; what follows it.
fn escape<'t>(rest: &'t str, bytes: bool, out: &mut Vec<u8>) -> Option<&'t str> {
    let first = rest.chars().next()?;
    let simple = match first {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' | '\'' | '"' | '`' | '?' => u8::try_from(first).ok()?,
        _ => 0,
    };
    if simple != 0 {
        out.push(simple);
        return Some(&rest[1..]);
    }
    let (radix, from, to) = match first {
        'x' | 'X' => (16, 1, 3),
        'u' if !bytes => (16, 1, 5),
        'U' if !bytes => (16, 1, 9),
        '0'..='3' => (8, 0, 3),
        _ => return None,
    };
    let code = u32::from_str_radix(rest.get(from..to)?, radix).ok()?;
    if bytes {
        out.push(u8::try_from(code).ok()?);
    } else {
        let c = char::from_u32(code)?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(&rest[to..])
}
