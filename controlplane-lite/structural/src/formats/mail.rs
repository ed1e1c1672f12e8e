//! Mail addresses as Go's `mail.ParseAddress` reads them (RFC 5322): `name@host`, or `Some Name <name@host>`. Groups
//! are not read.

/// Whether a text is one address.
pub(super) fn is_address(text: &str) -> bool {
    let text = trim_start(text);
    let rest = match bare(text) {
        Some(rest) => {
            let rest = trim_start(rest);
            let end = if rest.starts_with('(') { comment(rest) } else { Some(0) };
            let Some(rest) = end.map(|end| &rest[end..]) else { return false };
            // One before angle brackets is a name.
            if !rest.starts_with('<') {
                return nothing_follows(rest);
            }
            Some(rest)
        }
        None => display_name(text),
    };
    let inner = rest.and_then(|rest| bare(rest.strip_prefix('<')?));
    inner.and_then(|rest| rest.strip_prefix('>')).is_some_and(nothing_follows)
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// Only comments may.
fn nothing_follows(rest: &str) -> bool {
    let mut rest = trim_start(rest);
    while rest.starts_with('(') {
        let Some(end) = comment(rest) else { return false };
        rest = trim_start(&rest[end..]);
    }
    rest.is_empty()
}

/// The end of a comment; comments nest.
fn comment(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn of_atom(c: char) -> bool {
    c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

/// `local@domain` at the beginning, and what follows.
fn bare(text: &str) -> Option<&str> {
    let text = trim_start(text);
    let rest = match text.strip_prefix('"') {
        Some(empty) if empty.starts_with('"') => return None,
        Some(_) => quoted(text)?,
        None => dotted(text)?,
    };
    let rest = trim_start(rest.strip_prefix('@')?);
    if let Some(literal) = rest.strip_prefix('[') {
        let end = literal.find(']')?;
        let address = literal[..end].strip_prefix("IPv6:").unwrap_or(&literal[..end]);
        return address.parse::<std::net::IpAddr>().is_ok().then(|| &literal[end + 1..]);
    }
    dotted(rest)
}

/// Atoms with single dots between.
fn dotted(text: &str) -> Option<&str> {
    let end = text.find(|c| !of_atom(c) && c != '.').unwrap_or(text.len());
    text[..end].split('.').all(|atom| !atom.is_empty()).then(|| &text[end..])
}

/// A quoted text, and what follows it.
fn quoted(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(&text[at + 1..]),
            c if c.is_control() && c != '\t' => return None,
            _ => {}
        }
    }
    None
}

/// What follows the words before an address in angle brackets; there may be none. Words are what has no meaning of its
/// own there.
fn display_name(text: &str) -> Option<&str> {
    let mut rest = text;
    while !rest.starts_with('<') {
        rest = if rest.starts_with('"') {
            quoted(rest)?
        } else {
            let end = rest.find(|c| !of_atom(c) && !"()[];@\\,.".contains(c)).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            &rest[end..]
        };
        rest = trim_start(rest);
    }
    Some(rest)
}
