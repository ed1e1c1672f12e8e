//! Paths of HTTP probes and locations of redirects, read as Go's `net/url` reads
//! them and sent as its client sends them. Pure.

use std::fmt::Write as _;

use crate::percent;

/// Where a redirect leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Scheme (`true` is https), host and port when the location names a host.
    pub authority: Option<(bool, String, u16)>,
    /// Path and query in the form they are sent.
    pub path: String,
}

/// What stands in the request line for a path as a pod writes it. A query is kept
/// as it is, but for the few characters that cannot stand in a request line.
pub fn request_target(written: &str) -> String {
    let Some((path, query)) = split(written) else {
        // Not a URL: all of it is taken for a path.
        return rooted(&escape(written.as_bytes()));
    };
    let path = path.strip_prefix("//").filter(|p| !p.starts_with('/')).map_or(path, |rest| {
        // Go reads a host here and puts the pod's in its place.
        rest.find('/').map_or("/", |at| &rest[at..])
    });
    with_query(&rooted(&encoded(path)), query)
}

/// Path and query without the fragment; `None` when it is not a URL to Go.
fn split(written: &str) -> Option<(&str, Option<&str>)> {
    if written.bytes().any(|b| b < b' ' || b == 0x7f) {
        return None;
    }
    let whole = written.split('#').next().unwrap_or_default();
    let (path, query) = match whole.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (whole, None),
    };
    percent::decode(path).map(|_| (path, query))
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn with_query(path: &str, query: Option<&str>) -> String {
    let Some(query) = query else { return path.to_owned() };
    let mut out = format!("{path}?");
    for c in query.chars() {
        // Go sends these as they are; a server reads the same value either way.
        if matches!(c, ' ' | '"' | '<' | '>') {
            let _ = write!(out, "%{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// A path as it is sent: as written if it is well encoded, else encoded anew.
fn encoded(path: &str) -> String {
    let allowed = |b: u8| !must_be_escaped(b) || b"!'()*[]%".contains(&b);
    match percent::decode(path) {
        Some(plain) if !path.bytes().all(allowed) => escape(&plain),
        _ => path.to_owned(),
    }
}

/// Whether Go escapes a byte of a path.
fn must_be_escaped(b: u8) -> bool {
    !(b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b))
}

fn escape(plain: &[u8]) -> String {
    plain.iter().fold(String::new(), |mut out, b| {
        if must_be_escaped(*b) {
            let _ = write!(out, "%{b:02X}");
        } else {
            out.push(char::from(*b));
        }
        out
    })
}

/// Where `location` leads from a request of `from`, by RFC 3986; `None` when it
/// is no URL.
pub fn resolve(from: &str, from_https: bool, location: &str) -> Option<Location> {
    let (https, rest) = if let Some((scheme, rest)) = location.split_once("://").filter(|(s, _)| is_scheme(s)) {
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        (https, Some(rest))
    } else {
        (from_https, location.strip_prefix("//"))
    };
    if let Some(rest) = rest {
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let uri: http::uri::Authority = authority.parse().ok()?;
        let host = uri.host().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let (path, query) = split(path)?;
        let path = with_query(&without_dots(&rooted(&encoded(path))), query);
        return Some(Location { authority: Some((https, host, port)), path });
    }
    let (path, query) = split(location)?;
    let (base, base_query) = from.split_once('?').map_or((from, None), |(p, q)| (p, Some(q)));
    let path = match path {
        "" => return Some(Location { authority: None, path: with_query(base, query.or(base_query)) }),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("{}/{relative}", base.rsplit_once('/').map_or("", |(directory, _)| directory)),
    };
    Some(Location { authority: None, path: with_query(&without_dots(&encoded(&path)), query) })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Without `.` and `..`, none of which leads above the root.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        match *part {
            "." | ".." => {
                if *part == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_sent_as_gos_client_sends_them() {
        for (written, sent) in [
            ("/", "/"),
            ("x?y=1", "/x?y=1"),
            ("/a b/c", "/a%20b/c"),
            ("/a|b^c`d", "/a%7Cb%5Ec%60d"),
            ("/grüße", "/gr%C3%BC%C3%9Fe"),
            ("/a%20b!(c)", "/a%20b!(c)"),
            ("/a!b c", "/a%21b%20c"),
            ("/%zz?q", "/%25zz%3Fq"),
            ("/a\tb", "/a%09b"),
            ("/a#f", "/a"),
            ("/x?q=\"a\"&l=<b>", "/x?q=%22a%22&l=%3Cb%3E"),
            ("//host/path", "/path"),
            ("", "/"),
        ] {
            assert_eq!(request_target(written), sent, "{written:?}");
        }
    }

    #[test]
    fn locations_are_resolved_as_the_rfc_says() {
        let here = |path: &str| Some(Location { authority: None, path: path.to_owned() });
        let there = |https, host: &str, port, path: &str| {
            Some(Location { authority: Some((https, host.to_owned(), port)), path: path.to_owned() })
        };
        for (from, location, expect) in [
            ("/up/a/b", "../c?x=1", here("/up/c?x=1")),
            ("/query", "?x=1", here("/query?x=1")),
            ("/query?old", "", here("/query?old")),
            ("/a/b?c", "/x", here("/x")),
            ("/a/b?c", "y", here("/a/y")),
            ("/a/b", "./.", here("/a/")),
            ("/a/b", "../../../x/..", here("/")),
            ("/a", "/b c#f", here("/b%20c")),
            ("/a", "https://h/", there(true, "h", 443, "/")),
            ("/a", "http://127.0.0.1:81/y/../z?q", there(false, "127.0.0.1", 81, "/z?q")),
            ("/a", "http://[::1]:8?q", there(false, "::1", 8, "/?q")),
            ("/a", "//h2/z", there(false, "h2", 80, "/z")),
            ("/a", "ftp://h/", None),
            ("/a", "/%zz", None),
            ("/a", "http://b ad/", None),
        ] {
            assert_eq!(resolve(from, false, location), expect, "{location:?} from {from:?}");
        }
    }

    proptest::proptest! {
        /// Whatever a pod or a server writes: what is sent is a request target.
        #[test]
        fn anything_can_be_sent(text in ".{0,60}", from in "(/[a-z.]{0,4}){1,5}") {
            let sent = request_target(&text);
            proptest::prop_assert!(sent.starts_with('/') && sent.parse::<http::uri::PathAndQuery>().is_ok(), "{}", sent);
            if let Some(to) = resolve(&from, true, &text) {
                let parsed = to.path.parse::<http::uri::PathAndQuery>();
                proptest::prop_assert!(to.path.starts_with('/') && parsed.is_ok(), "{}", to.path);
            }
        }
    }
}
