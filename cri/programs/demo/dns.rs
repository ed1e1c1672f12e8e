//! DNS messages: questions out, answers in.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Record types by name; the numbers are RFC 1035's and its followers'.
pub const TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
];

pub struct Record {
    pub name: String,
    pub kind: u16,
    pub ttl: u32,
    /// In the form of a zone file.
    pub data: String,
}

pub struct Answer {
    pub truncated: bool,
    /// 0 is no error, 3 is NXDOMAIN.
    pub code: u8,
    pub records: Vec<Record>,
}

/// A question for one record type.
pub fn question(id: u16, name: &str, kind: u16) -> Result<Vec<u8>, String> {
    // Recursion desired, one question.
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message[..2].copy_from_slice(&id.to_be_bytes());
    for label in name.trim_end_matches('.').split('.').filter(|_| name != ".") {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..64).contains(n));
        message.push(length.ok_or_else(|| format!("{name:?} is not a DNS name"))?);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&1_u16.to_be_bytes());
    Ok(message)
}

/// The name under which an address' PTR record stands.
pub fn reverse(ip: IpAddr) -> String {
    let mut name = String::new();
    match ip {
        IpAddr::V4(ip) => {
            for octet in ip.octets().iter().rev() {
                let _ = write!(name, "{octet}.");
            }
            name + "in-addr.arpa."
        }
        IpAddr::V6(ip) => {
            for octet in ip.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", octet & 15, octet >> 4);
            }
            name + "ip6.arpa."
        }
    }
}

/// Reads an answer; `None` when it is garbage or answers something else.
pub fn parse(message: &[u8], id: u16) -> Option<Answer> {
    if u16_at(message, 0)? != id || message.get(2)? & 0x80 == 0 {
        return None;
    }
    let (flags, code) = (*message.get(2)?, *message.get(3)? & 15);
    let mut at = 12;
    for _ in 0..u16_at(message, 4)? {
        at = name_at(message, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..u16_at(message, 6)? {
        let (name, next) = name_at(message, at)?;
        let (kind, length) = (u16_at(message, next)?, usize::from(u16_at(message, next + 8)?));
        let ttl = u32::from(u16_at(message, next + 4)?) << 16 | u32::from(u16_at(message, next + 6)?);
        let data = data_at(message, next + 10, length, kind)?;
        records.push(Record { name, kind, ttl, data });
        at = next + 10 + length;
    }
    Some(Answer { truncated: flags & 2 != 0, code, records })
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

/// A name that starts at `at`, and where it ends there.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut end) = (String::new(), None);
    // Bounds the jumps, which may form a circle.
    for _ in 0..128 {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => {
                name = if name.is_empty() { ".".to_owned() } else { name };
                return Some((name, end.unwrap_or(at + 1)));
            }
            0xc0.. => {
                end = end.or(Some(at + 2));
                at = usize::from(u16_at(message, at)? & 0x3fff);
            }
            _ => {
                name.push_str(&String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?));
                name.push('.');
                at += 1 + length;
            }
        }
    }
    None
}

fn data_at(message: &[u8], at: usize, length: usize, kind: u16) -> Option<String> {
    let raw = message.get(at..at + length)?;
    Some(match kind {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(raw).ok()?).to_string(),
        28 => Ipv6Addr::from(<[u8; 16]>::try_from(raw).ok()?).to_string(),
        2 | 5 | 12 => name_at(message, at)?.0,
        33 => {
            let (priority, weight, port) = (u16_at(message, at)?, u16_at(message, at + 2)?, u16_at(message, at + 4)?);
            format!("{priority} {weight} {port} {}", name_at(message, at + 6)?.0)
        }
        16 => {
            let mut texts = Vec::new();
            let mut rest = raw;
            while let Some((length, tail)) = rest.split_first() {
                let (text, tail) = tail.split_at_checked(usize::from(*length))?;
                texts.push(format!("{:?}", String::from_utf8_lossy(text)));
                rest = tail;
            }
            texts.join(" ")
        }
        6 => {
            let (primary, next) = name_at(message, at)?;
            format!("{primary} {}", name_at(message, next)?.0)
        }
        _ => format!("{raw:02x?}"),
    })
}
