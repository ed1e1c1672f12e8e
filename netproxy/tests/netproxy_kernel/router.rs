//! No pod becomes the router of its node.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use harness::api::Api;
use netproxy::links::BRIDGE;
use netproxy::routes::{DEVICE, NodeNetwork};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, socket};
use serde_json::json;

use crate::eventually;
use crate::net::Namespace;
use crate::tunnels::{TestNode, annotate, router};

/// A router advertisement for a life of half an hour; the kernel fills the checksum in.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];

/// Says from `pod` that it is a router; tells whether it could be sent.
fn advertise(pod: &Namespace, to: &str) -> bool {
    let to: Ipv6Addr = to.parse().unwrap();
    pod.run(move || {
        let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), SockProtocol::IcmpV6).unwrap();
        let scope = nix::net::if_::if_nametoindex("eth0").unwrap();
        let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, scope));
        sendto(socket.as_raw_fd(), &ADVERTISEMENT, &to, MsgFlags::empty()).is_ok()
    })
}

/// What a link's IPv6 has heard of routers.
fn heard(namespace: &Namespace, link: &str) -> u32 {
    let counters = namespace.command("cat", &format!("/proc/thread-self/net/dev_snmp6/{link}"));
    let line = counters.lines().find(|line| line.starts_with("Icmp6InRouterAdvertisements")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A pod that calls itself a router gets none of the node's own IPv6 (CVE-2020-10749).
#[test]
fn no_pod_becomes_the_nodes_router() {
    let (router, api) = (router(), Api::default());
    let mut a = TestNode::new("a", &router, 1, 1, &api);
    let mut b = TestNode::new("b", &router, 1, 2, &api);
    for node in [&mut a, &mut b] {
        node.start(NodeNetwork::Vxlan, &api);
    }
    a.reaches(&b);
    let names = a.namespace.command("ip", "-o link show type veth");
    let veth = names.split_whitespace().find_map(|word| word.strip_prefix("veth")).unwrap();
    let veth = format!("veth{}", veth.split('@').next().unwrap());
    for link in [BRIDGE, DEVICE, &veth] {
        for setting in ["accept_ra", "autoconf", "accept_redirects"] {
            let value = a.namespace.command("cat", &format!("/proc/sys/net/ipv6/conf/{link}/{setting}"));
            assert_eq!(value.trim(), "0", "{setting} of {link}");
        }
    }
    let own = || {
        let shown = a.namespace.command("ip", &format!("-o -6 addr show dev {BRIDGE} scope link -tentative"));
        shown.split_whitespace().nth(3).map(|address| address.split('/').next().unwrap().to_owned())
    };
    eventually("the bridge has an address of IPv6", || own().is_some());
    // What comes from further away is believed by nobody.
    a.pod.sysctl("ipv6/conf/eth0/hop_limit", "255");
    let routes = || a.namespace.command("ip", "-6 route show default");
    for round in 1..=2 {
        let before = heard(&a.namespace, BRIDGE);
        eventually("the bridge hears it", || {
            advertise(&a.pod, &own().unwrap()) && heard(&a.namespace, BRIDGE) > before
        });
        assert_eq!(routes(), "", "round {round}");
    }
    // What keeps it out is the setting, and not a test that is not heard.
    a.namespace.command("sysctl", &format!("-qw net/ipv6/conf/{BRIDGE}/accept_ra=1"));
    eventually("it would be the router", || advertise(&a.pod, &own().unwrap()) && routes().contains(BRIDGE));
    // Somebody's setting lasts until the next look.
    annotate(&api, "b", &json!({}));
    let accepts = || a.namespace.command("cat", &format!("/proc/sys/net/ipv6/conf/{BRIDGE}/accept_ra"));
    eventually("it is set again", || accepts().trim() == "0");
}
