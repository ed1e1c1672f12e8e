//! As much of Go's `net/url` as it takes to say what is wrong with the address of a webhook.

use crate::field::go_quote;

/// The parts of an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::validation) struct Url {
    /// In lower case; empty for an address that is relative.
    pub scheme: String,
    /// What is before the `@` of the authority.
    pub user: Option<String>,
    /// Host and port.
    pub host: String,
    /// What follows the `?`.
    pub query: String,
    /// What follows the `#`.
    pub fragment: String,
}

impl Url {
    /// # Errors
    /// Go's words.
    pub(in crate::validation) fn parse(text: &str) -> Result<Self, String> {
        Self::parts(text).map_err(|why| format!("parse {}: {why}", go_quote(text)))
    }

    fn parts(text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self { scheme, query: query.to_owned(), fragment: fragment.to_owned(), ..Self::default() };
        let Some(after) = rest.strip_prefix("//") else {
            let first = rest.split('/').next().unwrap_or("");
            if url.scheme.is_empty() && first.contains(':') {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
            escapes(rest)?;
            return Ok(url);
        };
        let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
        let host = match authority.rsplit_once('@') {
            Some((user, host)) => {
                url.user = Some(user.to_owned());
                host
            }
            None => authority,
        };
        port(host)?;
        if let Some(bad) = host.chars().find(|c| matches!(c, ' ' | '^' | '`' | '{' | '}' | '|' | '\\')) {
            return Err(format!("invalid character {} in host name", go_quote(&bad.to_string())));
        }
        escapes(host)?;
        escapes(path)?;
        host.clone_into(&mut url.host);
        Ok(url)
    }
}

fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

/// What follows the last colon of a host has to be a number, or nothing.
fn port(host: &str) -> Result<(), String> {
    let after = if host.starts_with('[') {
        let Some(end) = host.rfind(']') else { return Err("missing ']' in host".to_owned()) };
        &host[end + 1..]
    } else {
        host.rfind(':').map_or("", |at| &host[at..])
    };
    let digits = after.strip_prefix(':').unwrap_or(if after.is_empty() { "" } else { "x" });
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    Err(format!("invalid port {} after host", go_quote(after)))
}

fn escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let escape: String = text[at..].chars().take(3).collect();
        if escape.len() != 3 || !escape.bytes().skip(1).all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("invalid URL escape {}", go_quote(&escape)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_taken_apart_as_go_does() {
        let url = Url::parse("HTTPS://me:pw@host:443/a%20b?c=d#e").unwrap();
        assert_eq!((&*url.scheme, url.user.as_deref(), &*url.host), ("https", Some("me:pw"), "host:443"));
        assert_eq!((&*url.query, &*url.fragment), ("c=d", "e"));
        assert_eq!(Url::parse("https://[::1]:443/").unwrap().host, "[::1]:443");
        assert_eq!(Url::parse("/a/b").unwrap(), Url::default());
        assert_eq!(Url::parse("").unwrap(), Url::default());
        for (text, why) in [
            (":a", "parse \":a\": missing protocol scheme"),
            ("1:a", "parse \"1:a\": first path segment in URL cannot contain colon"),
            ("https://a:b/", "parse \"https://a:b/\": invalid port \":b\" after host"),
            ("https://[::1/", "parse \"https://[::1/\": missing ']' in host"),
            ("https://a/%zz", "parse \"https://a/%zz\": invalid URL escape \"%zz\""),
            ("https://a b/", "parse \"https://a b/\": invalid character \" \" in host name"),
            ("https://a\n/", "parse \"https://a\\n/\": net/url: invalid control character in URL"),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), why);
        }
    }
}
