//! Which addresses of a node are used.

use std::net::{IpAddr, Ipv4Addr};

/// The IPv4 addresses among `addresses`.
#[must_use]
pub fn ipv4_only(addresses: &[IpAddr]) -> Vec<Ipv4Addr> {
    let v4 = addresses.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    v4.collect()
}
