//! Addresses, host names and URIs (`strfmt/default.go` upstream, and Go's `net` and `net/url`).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use cel::pattern::compile;

/// Upstream's pattern without its counts, which the limit of 63 bytes includes.
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    let symbol = r"a-zA-Z0-9\p{S}\p{L}";
    let pattern = format!(r"^([{symbol}](-?[{symbol}]*)?|([{symbol}]([{symbol}-]*[{symbol}])?\.)+\p{{L}}\p{{L}}+)$");
    compile(&pattern).expect("the pattern is constant, and tested")
});

pub(super) fn is_hostname(text: &str) -> bool {
    text.len() <= 255 && text.split('.').all(|part| part.len() <= 63) && HOSTNAME.is_match(text)
}

/// Four numbers of which leading zeros are forgiven.
fn sloppy_ipv4(text: &str) -> bool {
    let part = |part: &str| {
        let part = part.as_bytes();
        !part.is_empty()
            && part.iter().all(u8::is_ascii_digit)
            && part.iter().try_fold(0_u32, |n, b| Some(n * 10 + u32::from(b - b'0')).filter(|n| *n < 256)).is_some()
    };
    text.split('.').count() == 4 && text.split('.').all(part)
}

/// A version 6 address, whose tail may be a version 4 one with leading zeros.
fn sloppy_ipv6(text: &str) -> bool {
    if text.parse::<Ipv6Addr>().is_ok() {
        return true;
    }
    text.rsplit_once(':')
        .is_some_and(|(head, tail)| sloppy_ipv4(tail) && format!("{head}:0.0.0.0").parse::<Ipv6Addr>().is_ok())
}

pub(super) fn is_ipv4(text: &str) -> bool {
    text.contains('.') && (sloppy_ipv4(text) || sloppy_ipv6(text))
}

pub(super) fn is_ipv6(text: &str) -> bool {
    text.contains(':') && text.parse::<Ipv6Addr>().is_ok()
}

pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let v4 = sloppy_ipv4(address) || address.parse::<Ipv4Addr>().is_ok();
    if !v4 && !sloppy_ipv6(address) {
        return false;
    }
    let max = if v4 { 32 } else { 128 };
    !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u32>().is_ok_and(|bits| bits <= max)
}

/// 6, 8 or 20 bytes as `01:23`, `01-23` or `0123.4567`.
pub(super) fn is_mac(text: &str) -> bool {
    let hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
    let (separator, length) = match text.as_bytes().get(2) {
        Some(b':') => (':', 2),
        Some(b'-') => ('-', 2),
        _ => ('.', 4),
    };
    let bytes = text.split(separator).count() * length / 2;
    matches!(bytes, 6 | 8 | 20) && text.split(separator).all(|part| hex(part, length))
}

/// What Go's `url.ParseRequestURI` takes: an absolute URI, or an absolute path.
pub(super) fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return false;
    }
    if text == "*" {
        return true;
    }
    let Some((scheme, rest)) = split_scheme(text) else { return false };
    let rest = rest.split('?').next().unwrap_or("");
    if !rest.starts_with('/') {
        // Opaque: nothing of it is looked at.
        return scheme;
    }
    let path = match rest.strip_prefix("//").filter(|_| scheme) {
        Some(rest) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            if !is_authority(authority) {
                return false;
            }
            path
        }
        None => rest,
    };
    escapes_are_whole(path)
}

/// Whether there is a scheme, and what follows it; none if it is missing before its colon.
fn split_scheme(text: &str) -> Option<(bool, &str)> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return None,
            ':' => return Some((true, &text[at + 1..])),
            _ => return Some((false, text)),
        }
    }
    Some((false, text))
}

fn escapes_are_whole(text: &str) -> bool {
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    (0..bytes.len()).filter(|at| bytes[*at] == b'%').all(|at| hex(bytes.get(at + 1)) && hex(bytes.get(at + 2)))
}

fn is_authority(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
    let of_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if user.is_some_and(|user| !user.chars().all(of_user) || !escapes_are_whole(user)) {
        return false;
    }
    let (name, port) = if host.starts_with('[') {
        let Some(end) = host.rfind(']') else { return false };
        host.split_at(end + 1)
    } else {
        host.rfind(':').map_or((host, ""), |at| host.split_at(at))
    };
    let port_fits =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let of_host = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    port_fits && name.chars().all(of_host) && escapes_of_host(name)
}

/// Only what is not ASCII is escaped in a host name, and the sign of a zone.
fn escapes_of_host(name: &str) -> bool {
    let rest = if name.starts_with('[') { name.replace("%25", "") } else { name.to_owned() };
    escapes_are_whole(&rest)
        && rest.match_indices('%').all(|(at, _)| {
            rest.get(at + 1..at + 3).is_some_and(|digits| digits == "25" || digits.starts_with(|c: char| c >= '8'))
        })
}
