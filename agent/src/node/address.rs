//! Which address the node is reached at.

use std::net::{IpAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The address packets to the outside leave from. Connecting a UDP socket asks
/// the routing table and sends nothing.
fn of_default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

fn of_first_link() -> Option<IpAddr> {
    let wanted = InterfaceFlags::IFF_UP;
    getifaddrs().ok()?.filter(|a| a.flags.contains(wanted) && !a.flags.contains(InterfaceFlags::IFF_LOOPBACK)).find_map(
        |a| {
            let ip = a.address?.as_sockaddr_in()?.ip();
            (!ip.is_link_local()).then_some(IpAddr::V4(ip))
        },
    )
}

/// The configured addresses, else what the machine suggests; loopback as the
/// last resort, so that a machine without a network still is a node.
pub fn node_ips(configured: &[IpAddr]) -> Vec<IpAddr> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    vec![of_default_route().or_else(of_first_link).unwrap_or(IpAddr::from([127, 0, 0, 1]))]
}
