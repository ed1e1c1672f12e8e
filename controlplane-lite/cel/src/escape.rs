//! Names of fields that no identifier may have, and what expressions call them (`pkg/cel/escaping.go` of
//! `k8s.io/apiserver`): `a-b` is `a__dash__b`, `namespace` is `__namespace__`.

use std::borrow::Cow;

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const PARTS: [(&str, &str); 4] = [("__", "underscores"), (".", "dot"), ("-", "dash"), ("/", "slash")];

/// Whether the grammar has a word for itself.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// What expressions call a field. `None` if no expression can name it.
#[must_use]
pub fn escape(name: &str) -> Option<Cow<'_, str>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__").into());
    }
    if !name.contains("__") && name.chars().all(plain) {
        return Some(name.into());
    }
    let mut out = String::with_capacity(name.len() + 16);
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some((text, word)) = PARTS.iter().find(|(text, _)| rest.starts_with(text)) {
            out.push_str("__");
            out.push_str(word);
            out.push_str("__");
            rest = &rest[text.len()..];
        } else if plain(c) {
            out.push(c);
            rest = &rest[1..];
        } else {
            return None;
        }
    }
    Some(out.into())
}

/// The field that expressions call by a name. `None` if the name has an escape that stands for nothing.
#[must_use]
pub fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains("__") {
        return Some(name.into());
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("__") {
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('_').filter(|end| *end > 0 && inner[*end..].starts_with("__")) else {
            out.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        };
        let word = &inner[..end];
        out.push_str(&rest[..at]);
        match PARTS.iter().find(|(_, known)| *known == word) {
            Some((text, _)) => out.push_str(text),
            // A reserved word is escaped as a whole only.
            None if is_reserved(word) && name.len() == word.len() + 4 => out.push_str(word),
            None => return None,
        }
        rest = &inner[end + 2..];
    }
    out.push_str(rest);
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_is_found_again() {
        let cases = [
            ("a", Some("a")),
            ("a_b", Some("a_b")),
            ("namespace", Some("__namespace__")),
            ("true", Some("__true__")),
            ("a-b.c/d__e", Some("a__dash__b__dot__c__slash__d__underscores__e")),
            ("a_namespace", Some("a_namespace")),
            ("1a", None),
            ("", None),
            ("a b", None),
            ("é", None),
        ];
        for (name, escaped) in cases {
            assert_eq!(escape(name).as_deref(), escaped, "{name}");
            if let Some(escaped) = escaped {
                assert_eq!(unescape(escaped).as_deref(), Some(name), "{escaped}");
            }
        }
        assert_eq!(unescape("a__unknown__b"), None);
        assert_eq!(unescape("a__if__"), None);
        assert_eq!(unescape("__a").as_deref(), Some("__a"));
    }
}
