//! Names in paths. The library puts a name into a request's path as it is: one that somebody chose (an owner's, an
//! annotation's, a Role's, which may have a question mark) could make another request of it, such as a watch that never
//! ends.

use std::borrow::Cow;
use std::fmt::Write;

/// The path segment of a name that no object has: names have no percent sign.
const NOBODY: &str = "%25";

/// `name` as a segment of a path, for `Api`'s methods that take a name. What no object can be called
/// (`IsValidPathSegmentName`, k8s.io/apimachinery/pkg/api/validation/path/name.go) becomes a name that none has, so
/// that the server answers 404.
#[must_use]
pub fn segment(name: &str) -> Cow<'_, str> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '%']) {
        return NOBODY.into();
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*+,;=".contains(&byte);
    if name.bytes().all(plain) {
        return name.into();
    }
    let mut escaped = String::with_capacity(name.len() * 3);
    for byte in name.bytes() {
        // Writing to a String cannot fail.
        let _ = if plain(byte) { escaped.write_char(char::from(byte)) } else { write!(escaped, "%{byte:02X}") };
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_elsewhere() {
        for (name, expect) in [
            ("web-0", "web-0"),
            ("system:node", "system:node"),
            ("?watch=true&timeoutSeconds=9", "%3Fwatch=true&timeoutSeconds=9"),
            ("a#b", "a%23b"),
            ("a b\n", "a%20b%0A"),
            ("é", "%C3%A9"),
            ("x/token", NOBODY),
            ("..", NOBODY),
            (".", NOBODY),
            ("", NOBODY),
            ("%2e%2e", NOBODY),
        ] {
            assert_eq!(segment(name), expect, "{name:?}");
        }
    }
}
