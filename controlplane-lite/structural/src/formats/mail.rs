//! Mail addresses as Go's `mail.ParseAddress` reads them (RFC 5322): `name@host`, or `Some Name <name@host>`. Groups
//! are not read.

/// Whether a text is one address.
pub(super) fn is_address(text: &str) -> bool {
    let text = trim(text);
    if let Some(rest) = bare(text) {
        return nothing_follows(rest);
    }
    let Some(rest) = display_name(text) else { return false };
    let Some(rest) = rest.strip_prefix('<') else { return false };
    bare(trim_start(rest)).and_then(|rest| trim_start(rest).strip_prefix('>')).is_some_and(nothing_follows)
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn trim(text: &str) -> &str {
    trim_start(text).trim_end_matches([' ', '\t'])
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
    let rest = if text.starts_with('"') { quoted(text)? } else { dotted(text)? };
    let rest = trim_start(rest).strip_prefix('@')?;
    let rest = trim_start(rest);
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

/// Words before an address in angle brackets; there may be none.
fn display_name(text: &str) -> Option<&str> {
    let mut rest = text;
    while !rest.starts_with('<') {
        rest = if rest.starts_with('"') {
            quoted(rest)?
        } else {
            let end = rest.find(|c| !of_atom(c) && c != '.').unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            &rest[end..]
        };
        rest = trim_start(rest);
    }
    Some(rest)
}
