//! Addresses by what they mean: one IPv4 address can be written as several IPv6 ones, and all of them lead to the same
//! machine. Go's `net.IP.Equal`, with which clients compare a certificate's addresses, takes mapped ones for equal.

use std::net::{IpAddr, Ipv4Addr};

/// An IPv4 address in any of its IPv6 disguises is the IPv4 address. Addresses are compared in this form only.
#[must_use]
pub fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.segments() {
        // Mapped, compatible, and NAT64's well-known prefix.
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => v4_of(a, b),
        [0, 0, 0, 0, 0, 0, a, b] if a != 0 => v4_of(a, b),
        _ => ip,
    }
}

fn v4_of(high: u16, low: u16) -> IpAddr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_address_has_one_form() {
        for (text, expect) in [
            ("10.43.0.1", "10.43.0.1"),
            ("::ffff:10.43.0.1", "10.43.0.1"),
            ("::ffff:a2b:1", "10.43.0.1"),
            ("::10.43.0.1", "10.43.0.1"),
            ("64:ff9b::10.43.0.1", "10.43.0.1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("::", "::"),
            ("fd00::a2b:1", "fd00::a2b:1"),
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(canonical(ip), expect.parse::<IpAddr>().unwrap(), "{text}");
        }
    }
}
