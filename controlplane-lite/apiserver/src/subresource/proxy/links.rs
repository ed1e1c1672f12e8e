//! Links of proxied pages: a page knows nothing of the proxy before it, so what it calls `/x` is below the proxy's path
//! for the client. Pure but for the body that rewrites as it passes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response};
use http_body::Frame;

use crate::body::{Body, BodyError, boxed};

/// A tag longer than this is left as it is.
const MAX_TAG: usize = 16 * 1024;

/// The attributes that hold a link, by tag.
const ATTRIBUTES: [(&str, &[&str]); 26] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// Whose links are rewritten, and to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The proxy's path, without a slash at its end.
    pub prefix: String,
    /// Names of the backend's host: where the request went, and what the client called it.
    pub hosts: Vec<String>,
}

impl Links {
    /// A link as the client must follow it. What names another host, is relative, or goes through the proxy already
    /// stays.
    pub fn rewrite(&self, link: &str) -> String {
        let after_scheme = link.strip_prefix("http:").or_else(|| link.strip_prefix("https:")).unwrap_or(link);
        let path = match after_scheme.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (host, path) = rest.split_at(end);
                if !self.hosts.iter().any(|h| h == host) {
                    return link.to_owned();
                }
                path
            }
            None if after_scheme.len() != link.len() => return link.to_owned(),
            None => link,
        };
        if !path.starts_with('/') {
            return link.to_owned();
        }
        let end = path.find(['?', '#']).unwrap_or(path.len());
        let (path, rest) = path.split_at(end);
        if path.starts_with(&self.prefix) {
            return format!("{path}{rest}");
        }
        format!("{}{}{rest}", self.prefix, clean(path))
    }

    /// Makes an answer's Location and, when it is HTML, the links in its body lead through the proxy.
    pub fn apply(self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        if let Some(location) = headers.get(header::LOCATION).and_then(|v| v.to_str().ok()) {
            if let Ok(value) = HeaderValue::from_str(&self.rewrite(location)) {
                headers.insert(header::LOCATION, value);
            }
            return response;
        }
        if !is_plain_html(headers) {
            return response;
        }
        headers.remove(header::CONTENT_LENGTH);
        response.map(|inner| boxed(Rewritten { inner, rewriter: Some(Rewriter::new(self)) }))
    }
}

fn is_plain_html(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("");
    let html = text(header::CONTENT_TYPE).split(';').next().is_some_and(|t| t.trim() == "text/html");
    html && matches!(text(header::CONTENT_ENCODING), "" | "identity")
}

/// A path without empty, `.` and `..` parts; a slash at its end stays.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    let slash = if path.ends_with('/') { "/" } else { "" };
    if parts.is_empty() { slash.to_owned() } else { format!("/{}{slash}", parts.join("/")) }
}

/// Rewrites the tags of a page that comes in pieces.
#[derive(Debug)]
pub(crate) struct Rewriter {
    links: Links,
    /// A tag that has begun and not ended.
    tag: Vec<u8>,
    /// Where in the tag its end is.
    place: Place,
}

/// What the next byte of a tag belongs to. Kept from byte to byte: a page may be one tag full of quoted ends.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Names.
    #[default]
    Names,
    /// The beginning of a value, behind its `=`.
    Value,
    /// A value within these quotes.
    Quoted(u8),
}

impl Place {
    fn after(self, byte: u8) -> Self {
        match self {
            // What follows may be quoted, too.
            Self::Quoted(open) if byte == open => Self::Value,
            Self::Quoted(open) => Self::Quoted(open),
            Self::Value if matches!(byte, b'"' | b'\'') => Self::Quoted(byte),
            Self::Value if byte.is_ascii_whitespace() => Self::Value,
            _ if byte == b'=' => Self::Value,
            _ => Self::Names,
        }
    }
}

impl Rewriter {
    pub(crate) fn new(links: Links) -> Self {
        Self { links, tag: Vec::new(), place: Place::default() }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        for byte in bytes {
            if self.tag.is_empty() && *byte != b'<' {
                out.push(*byte);
                continue;
            }
            self.tag.push(*byte);
            self.place = self.place.after(*byte);
            if *byte == b'>' && !matches!(self.place, Place::Quoted(_)) {
                let tag = std::mem::take(&mut self.tag);
                out.extend_from_slice(&self.rewrite_tag(&tag));
            } else if self.tag.len() > MAX_TAG || (self.tag.len() == 2 && !byte.is_ascii_alphabetic()) {
                // No opening tag.
                out.append(&mut self.tag);
            }
            if self.tag.is_empty() {
                self.place = Place::default();
            }
        }
        out
    }

    /// What has come of a tag that has not ended.
    pub(crate) fn rest(self) -> Vec<u8> {
        self.tag
    }

    fn rewrite_tag(&self, tag: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(tag) else { return tag.to_vec() };
        let inner = &text[1..text.len() - 1];
        let end = inner.find(|c: char| c.is_ascii_whitespace() || c == '/').unwrap_or(inner.len());
        let (name, rest) = inner.split_at(end);
        let name = name.to_ascii_lowercase();
        let Some((_, wanted)) = ATTRIBUTES.iter().find(|(tag, _)| *tag == name) else { return tag.to_vec() };
        let mut out = format!("<{}", &inner[..end]);
        let mut left = rest;
        while let Some(attribute) = next_attribute(left) {
            let (before, value, after) = attribute.split(left);
            out.push_str(before);
            let name = attribute.name(left).to_ascii_lowercase();
            if wanted.contains(&name.as_str()) {
                out.push_str(&self.links.rewrite(value));
            } else {
                out.push_str(value);
            }
            left = after;
        }
        out.push_str(left);
        out.push('>');
        out.into_bytes()
    }
}

/// Where an attribute with a value lies in a text.
struct Attribute {
    name: (usize, usize),
    value: (usize, usize),
}

impl Attribute {
    fn name<'t>(&self, text: &'t str) -> &'t str {
        &text[self.name.0..self.name.1]
    }

    fn split<'t>(&self, text: &'t str) -> (&'t str, &'t str, &'t str) {
        (&text[..self.value.0], &text[self.value.0..self.value.1], &text[self.value.1..])
    }
}

/// The first attribute that has a value.
fn next_attribute(text: &str) -> Option<Attribute> {
    let bytes = text.as_bytes();
    let equals = bytes.iter().position(|b| *b == b'=')?;
    let name_end = text[..equals].trim_end().len();
    let name_start = text[..name_end].rfind(|c: char| c.is_ascii_whitespace() || c == '/').map_or(0, |at| at + 1);
    let mut start = equals + 1;
    while bytes.get(start).is_some_and(u8::is_ascii_whitespace) {
        start += 1;
    }
    let (start, end) = match bytes.get(start) {
        Some(quote @ (b'"' | b'\'')) => {
            let inside = start + 1;
            let length = bytes[inside..].iter().position(|b| b == quote)?;
            (inside, inside + length)
        }
        _ => {
            let rest = &bytes[start..];
            (start, start + rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len()))
        }
    };
    Some(Attribute { name: (name_start, name_end), value: (start, end) })
}

struct Rewritten {
    inner: Body,
    rewriter: Option<Rewriter>,
}

impl http_body::Body for Rewritten {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.rewriter.is_none() {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let out = self.rewriter.as_mut().map(|rewriter| rewriter.feed(&data)).unwrap_or_default();
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let rest = self.rewriter.take().map(Rewriter::rest).unwrap_or_default();
                    if !rest.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(rest.into()))));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::stream;
    use http_body_util::BodyExt as _;

    fn links() -> Links {
        Links { prefix: "/api/v1/p/proxy".into(), hosts: vec!["10.0.0.1:80".into(), "localhost:8001".into()] }
    }

    #[test]
    fn links_lead_through_the_proxy() {
        for (link, expect) in [
            ("/rewriteme", "/api/v1/p/proxy/rewriteme"),
            ("/a/../b/?q=/x#/y", "/api/v1/p/proxy/b/?q=/x#/y"),
            ("/", "/api/v1/p/proxy/"),
            ("http://10.0.0.1:80/a", "/api/v1/p/proxy/a"),
            ("//localhost:8001/a", "/api/v1/p/proxy/a"),
            ("/api/v1/p/proxy/a", "/api/v1/p/proxy/a"),
            ("http://example.com/a", "http://example.com/a"),
            ("//example.com/a", "//example.com/a"),
            ("a/b", "a/b"),
            ("#x", "#x"),
            ("mailto:a@b", "mailto:a@b"),
            ("http:a", "http:a"),
        ] {
            assert_eq!(links().rewrite(link), expect, "{link}");
        }
    }

    /// Whatever pieces a page comes in, it comes out the same.
    #[tokio::test]
    async fn pages_are_rewritten_in_any_pieces() {
        let page = "<!doctype html><HTML><a href=\"/rewriteme\">a<b</a><img alt='>' src = '/i.png'/><p title=\"/x\">\
                    <form action=/go method=post><br/><a data-href=\"/n\" href='x'> 1 < 2 </a><a href=\"/é\">";
        let expect = "<!doctype html><HTML><a href=\"/api/v1/p/proxy/rewriteme\">a<b</a>\
                      <img alt='>' src = '/api/v1/p/proxy/i.png'/><p title=\"/x\">\
                      <form action=/api/v1/p/proxy/go method=post><br/><a data-href=\"/n\" href='x'> 1 < 2 </a>\
                      <a href=\"/api/v1/p/proxy/é\">";
        for size in [1, 2, 7, 1000] {
            let pieces: Vec<Bytes> = page.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let mut response = Response::new(stream(futures::stream::iter(pieces)));
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, html);
            let bytes = links().apply(response).into_body().collect().await.unwrap().to_bytes();
            assert_eq!(std::str::from_utf8(&bytes).unwrap(), expect, "{size}");
        }
    }

    #[tokio::test]
    async fn only_pages_are_rewritten() {
        let text = "<a href=\"/x\">";
        let mut response = Response::new(crate::body::full(text));
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/there/"));
        let response = links().apply(response);
        assert_eq!(response.headers()[header::LOCATION], "/api/v1/p/proxy/there/");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
    }

    /// Whether a tag ends inside a quoted value, by its definition: quotes count behind a `=`.
    fn in_quotes(tag: &[u8]) -> bool {
        let mut quote = None;
        let mut value = false;
        for byte in tag {
            match quote {
                Some(open) if *byte == open => quote = None,
                Some(_) => {}
                None if value && matches!(byte, b'"' | b'\'') => quote = Some(*byte),
                None => value = *byte == b'=' || (value && byte.is_ascii_whitespace()),
            }
        }
        quote.is_some()
    }

    /// A megabyte of tags that do not end.
    #[test]
    fn long_tags_are_left_as_they_are() {
        for tag in ["<a href=\">", "<a href='>", "<a "] {
            let page = [tag, &">".repeat(1 << 20)].concat();
            let mut rewriter = Rewriter::new(links());
            let mut out = rewriter.feed(page.as_bytes());
            assert!(rewriter.tag.len() <= MAX_TAG);
            out.append(&mut rewriter.tag);
            assert_eq!(out, page.as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn places_are_known_byte_by_byte(tag in "<[a-z=\"' >]{0,40}") {
            let place = tag.bytes().fold(Place::default(), Place::after);
            proptest::prop_assert_eq!(matches!(place, Place::Quoted(_)), in_quotes(tag.as_bytes()));
        }

        #[test]
        fn garbage_never_panics(page in "[<>a-z=\"'/ é!-]{0,200}") {
            let mut whole = Rewriter::new(links());
            let mut pieces = Rewriter::new(links());
            let at_once = whole.feed(page.as_bytes());
            let bit_by_bit: Vec<u8> = page.as_bytes().iter().flat_map(|byte| pieces.feed(&[*byte])).collect();
            proptest::prop_assert_eq!(at_once, bit_by_bit);
            proptest::prop_assert_eq!(whole.tag, pieces.tag);
        }
    }
}
