//! Patterns that Go takes, what they mean there, and what it refuses.

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
        (r"^[\40-\176]+$", "a ~", true),
        (r"^\101\12$", "A\n", true),
        (r"^a\ b$", "a b", true),
        (r"^a{1,02}$", "a{1,02}", true),
        (r"^a{1,}$", "aaa", true),
        (r"\Ba", "ba", true),
        (r"\Ba", "a", false),
        (r"^[\p{L}\p{N} ]{1,250}$", "é 1", true),
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
        (r"\8", "invalid escape sequence: `\\8`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?é)a", "invalid or unsupported Perl syntax: `(?é`"),
        ("(?ié:a)", "invalid or unsupported Perl syntax: `(?ié`"),
        ("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("a\\", "trailing backslash at end of expression: ``"),
    ];
    for (pattern, expected) in cases {
        assert_eq!(compile(pattern).unwrap_err(), format!("error parsing regexp: {expected}"));
    }
    assert!(compile("(((a{500}){500}){500})").is_err());
}

/// What looks like a count or a named class is not looked for up to the end each time, and what Unicode's classes
/// take is bounded before they are made.
#[test]
fn long_patterns_take_no_longer_than_their_length() {
    for part in ["{", "{1", "[[:a]", "[[:]a[:[:]"] {
        let translated = translate(&part.repeat(1_000_000));
        assert_eq!(translated.is_ok(), part != "[[:]a[:[:]", "{part}");
    }
    for part in ["\\pL", "(?i)[\\x{0}-\\x{10FFFF}]", "[^é]"] {
        assert_eq!(compile(&part.repeat(100_000)).unwrap_err(), TOO_LARGE);
    }
}

#[test]
fn patterns_of_one_text_are_one() {
    let (one, other) = (Pattern::new("^one$"), Pattern::new("^one$"));
    assert!(Arc::ptr_eq(&one.0, &other.0));
    drop((one, other));
    for n in 0..1000 {
        assert_eq!(Pattern::new(&format!("^{n}$")).matches("7"), Ok(n == 7));
    }
    assert!(KNOWN.lock().unwrap().by_text.len() < 500);
}

proptest::proptest! {
    /// Whatever letters stand beside what has a meaning.
    #[test]
    fn any_text_is_a_pattern_or_none(text in r"[()\[\]{}?*+|^$.:<>=!\\a-cpPxQEbB0-9é☺,-]{0,16}") {
        let _ = compile(&text);
    }
}
