//! Which address the node is reached at.

use std::net::{IpAddr, UdpSocket};

/// The address packets to the outside leave from. Connecting a UDP socket asks
/// the routing table and sends nothing.
fn of_default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

/// The configured addresses, else that of the default route, as upstream (pkg/kubelet/nodestatus/setters.go,
/// `NodeAddress`); loopback as the last resort, so that a machine without a network still is a node. The first link
/// that has an address may be a bridge for containers, where nobody else reaches the node.
pub fn node_ips(configured: &[IpAddr]) -> Vec<IpAddr> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    vec![of_default_route().unwrap_or(IpAddr::from([127, 0, 0, 1]))]
}
