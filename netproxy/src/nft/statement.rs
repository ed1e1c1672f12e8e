//! Rules: the few matches and actions Services need, as data. Encodings are in `expr` (netlink)
//! and `render` (text); the meaning is spelled out once more in the crate's `tracer`.

use std::hash::Hasher;
use std::net::Ipv4Addr;

use super::object::{Name, Protocol, Verdict};
use super::render::statement_text;
use crate::cidr::Cidr4;

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The source.
    Saddr,
    /// The destination.
    Daddr,
}

/// One component of a concatenated key taken from the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `ip saddr`
    Saddr,
    /// `ip daddr`
    Daddr,
    /// `meta l4proto`
    L4Proto,
    /// `th dport`
    Dport,
    /// `numgen inc mod N`: counts connections, 0 to N-1, one counter per rule.
    NumgenInc(u32),
    /// `numgen random mod N`: any number, 0 to N-1.
    NumgenRandom(u32),
}

/// How to refuse a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith {
    /// A TCP reset.
    TcpReset,
    /// ICMP port unreachable.
    PortUnreachable,
}

/// A match or an action; a rule runs them in order until a match fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Statement {
    /// `ct state new`
    CtStateNew,
    /// `ct state established,related`
    CtStateEstablished,
    /// `ct status dnat`: the connection's destination was translated.
    CtStatusDnat,
    /// `meta l4proto tcp`
    L4Proto(Protocol),
    /// `ip saddr 10.0.0.0/8`, or `!=`
    AddrIn {
        /// Which address.
        side: Side,
        /// The prefix.
        net: Cidr4,
        /// Match when it is not inside.
        negate: bool,
    },
    /// `iifname "cni0"`, `iifname "veth*"`, or `!=`: the link it came in through. What the node
    /// sends itself came through none.
    IifName {
        /// The link's name, or how it begins.
        name: Name,
        /// Whether `name` is a beginning.
        prefix: bool,
        /// Match when it is another link.
        negate: bool,
    },
    /// `fib daddr type local`: the address is this node's.
    FibLocal(Side),
    /// `ip saddr . ip daddr @set`
    InSet {
        /// The key.
        key: Vec<Field>,
        /// The set.
        set: Name,
    },
    /// `numgen inc mod N 0`: every Nth time, the first included.
    NumgenInc(u32),
    /// `meta mark & M == M`
    MarkIsSet(u32),
    /// `meta mark set meta mark | M`
    SetMark(u32),
    /// `meta mark set meta mark & ~M`
    ClearMark(u32),
    /// `update @set { ip saddr timeout Ns }`
    UpdateSaddr {
        /// A dynamic set of addresses.
        set: Name,
        /// Seconds the element lives from now.
        timeout: u32,
    },
    /// `dnat ip to <key> map @map`; goes on with the next rule when the map has no such key.
    DnatMap {
        /// The key.
        key: Vec<Field>,
        /// A map to address . port.
        map: Name,
    },
    /// `dnat to addr:port`
    Dnat {
        /// New destination.
        addr: Ipv4Addr,
        /// New destination port.
        port: u16,
    },
    /// `<key> vmap @map`
    Vmap {
        /// The key.
        key: Vec<Field>,
        /// The verdict map.
        map: Name,
    },
    /// `masquerade fully-random`
    Masquerade,
    /// `reject`
    Reject(RejectWith),
    /// A verdict.
    Verdict(Verdict),
}

/// A rule. It reaches the kernel with a comment that holds its [`Rule::tag`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule(pub Vec<Statement>);

impl Rule {
    /// A fingerprint of the rule, never 0. The kernel keeps it as the rule's comment, so that
    /// after a restart a rule is recognised without interpreting its expressions.
    #[must_use]
    pub fn tag(&self) -> u64 {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        let mut text = String::new();
        for statement in &self.0 {
            text.clear();
            statement_text(statement, &mut text);
            hasher.write(text.as_bytes());
            hasher.write(b";");
        }
        hasher.finish().max(1)
    }

    /// The comment that carries the tag.
    #[must_use]
    pub fn comment(&self) -> String {
        format!("v1:{:016x}", self.tag())
    }
}

/// The tag in a rule's comment; 0 when the comment is not one of ours.
#[must_use]
pub fn tag_of_comment(comment: &str) -> u64 {
    comment.strip_prefix("v1:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
}

/// FNV-1a: stable over builds, which the standard hasher does not promise.
#[derive(Debug)]
pub struct Fnv(pub u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
