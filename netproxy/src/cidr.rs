//! An IPv4 prefix. Owns parsing and containment, nothing else.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// An IPv4 network in CIDR notation; host bits are always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr4 {
    addr: Ipv4Addr,
    len: u8,
}

/// Why a text is not an IPv4 prefix.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not an IPv4 prefix such as 10.42.0.0/16")]
pub struct CidrError {
    text: String,
}

impl Cidr4 {
    /// The network of `len` bits that contains `addr`; `None` when `len` is over 32.
    #[must_use]
    pub fn new(addr: Ipv4Addr, len: u8) -> Option<Self> {
        (len <= 32).then(|| Self { addr: Ipv4Addr::from_bits(addr.to_bits() & mask_bits(len)), len })
    }

    /// The network that holds `addr` alone.
    #[must_use]
    pub fn host(addr: Ipv4Addr) -> Self {
        Self { addr, len: 32 }
    }

    /// The first address, whose host bits are zero.
    #[must_use]
    pub fn addr(self) -> Ipv4Addr {
        self.addr
    }

    /// Prefix length, 0 to 32.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.len
    }

    /// The netmask.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_bits(self.len))
    }

    /// Whether all of `other` lies in this network.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }

    /// Whether the networks have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether `addr` lies in this network.
    #[must_use]
    pub fn contains(self, addr: Ipv4Addr) -> bool {
        addr.to_bits() & mask_bits(self.len) == self.addr.to_bits()
    }
}

fn mask_bits(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}

impl fmt::Display for Cidr4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Cidr4 {
    type Err = CidrError;

    /// Reads `a.b.c.d/len`. Surrounding spaces are accepted, as upstream accepts them in
    /// `loadBalancerSourceRanges`; host bits are cleared.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let (addr, len) = text.trim().split_once('/')?;
            // Digits alone: a number may have a sign, and a length has none.
            let len = len.parse().ok().filter(|_| !len.starts_with('+'))?;
            Self::new(addr.parse().ok()?, len)
        };
        parse().ok_or_else(|| CidrError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lengths_are_digits() {
        for text in ["10.0.0.0/+8", "10.0.0.0/-8", "10.0.0.0/ 8", "10.0.0.0/"] {
            assert!(text.parse::<Cidr4>().is_err(), "{text}");
        }
    }

    #[test]
    fn contains_and_prints() {
        let net: Cidr4 = " 10.43.7.1/16".parse().unwrap();
        assert_eq!(net.to_string(), "10.43.0.0/16");
        assert!(net.contains(Ipv4Addr::new(10, 43, 255, 255)));
        assert!(!net.contains(Ipv4Addr::new(10, 44, 0, 0)));
        let all: Cidr4 = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::BROADCAST));
        assert_eq!(all.mask(), Ipv4Addr::UNSPECIFIED);
        assert_eq!(Cidr4::host(Ipv4Addr::LOCALHOST).mask(), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn networks_lie_in_each_other_or_apart() {
        let net = |text: &str| text.parse::<Cidr4>().unwrap();
        for (one, other, covers, overlaps) in [
            ("10.42.0.0/16", "10.42.1.0/24", true, true),
            ("10.42.1.0/24", "10.42.0.0/16", false, true),
            ("10.42.1.0/24", "10.42.1.0/24", true, true),
            ("10.42.1.0/24", "10.42.2.0/24", false, false),
            ("0.0.0.0/0", "192.0.2.1/32", true, true),
        ] {
            assert_eq!(
                (net(one).covers(net(other)), net(one).overlaps(net(other))),
                (covers, overlaps),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn rejects_garbage() {
        for text in ["", "/", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "fd00::/8", "a/8", "10.0.0.0/8/8"] {
            assert!(text.parse::<Cidr4>().is_err(), "{text}");
        }
    }
}
