//! Which address this machine is reached at: found out at a start, waited for where there is none yet, and followed.
//! `choose` and `judge` decide, purely.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netproxy::links::{Clash, Kind, Netlink, Observed};

use crate::status::Reporter;

/// How often to look while there is none: networks come up at their own time.
const WAIT: Duration = Duration::from_secs(1);
/// How often to look whether it is still there.
const LOOK: Duration = Duration::from_secs(10);
/// How often in a row it has to be missing: a renewed lease takes it away for a moment.
const MISSING: u32 = 3;

/// What the machine has.
#[derive(Clone, Debug, Default)]
struct View {
    /// The address that packets to elsewhere carry.
    by_route: Option<Ipv4Addr>,
    links: Vec<Observed>,
}

impl View {
    async fn now() -> Result<Self> {
        let links = async { Netlink::open()?.links().await };
        Ok(Self { by_route: by_route(), links: links.await.context("look for this machine's addresses")? })
    }
}

fn by_route() -> Option<Ipv4Addr> {
    // Connecting a datagram socket looks a route up and sends nothing.
    let elsewhere = (Ipv4Addr::new(198, 51, 100, 1), 9);
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(elsewhere).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// Whether others can reach a machine at an address, as upstream has it (pkg/kubelet/kubelet_node_status.go,
/// `validateNodeIP`).
fn can_be_a_nodes(ip: Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast())
}

/// The address that packets to elsewhere carry. Upstream knows no other; on a machine without a way to elsewhere this
/// is the first one of a link that can lead to other machines: no bridge that only has containers and virtual machines,
/// as Docker's and our own, no end of a tunnel, and nothing that only exists inside the machine.
fn choose(view: &View) -> Option<Ipv4Addr> {
    let leads_out = |link: &&Observed| match &link.kind {
        _ if !link.up || Clash::with(link).by.is_some() => false,
        Kind::Vxlan { .. } => false,
        Kind::Bridge => view.links.iter().any(|port| port.master == Some(link.index) && is_no_guests(&port.kind)),
        Kind::Veth => true,
        Kind::Other(kind) => is_way_out(kind),
    };
    let addresses = view.links.iter().filter(leads_out).flat_map(|link| &link.addresses).map(|(ip, _)| *ip);
    view.by_route.into_iter().chain(addresses).find(|ip| can_be_a_nodes(*ip))
}

/// Whether a port of a bridge is something else than one end of a container's or virtual machine's link.
fn is_no_guests(port: &Kind) -> bool {
    match port {
        Kind::Veth | Kind::Vxlan { .. } => false,
        Kind::Other(kind) => is_way_out(kind),
        Kind::Bridge => true,
    }
}

/// Whether a kind of link leads to other machines by itself. What is not listed does not: most kinds are tunnels
/// (`wireguard`, `tun`, `ipip`, `sit`, …) or lead nowhere (`dummy`, which IPVS puts all its Services on; `ifb`).
/// Hardware has no kind.
fn is_way_out(kind: &str) -> bool {
    const WAYS_OUT: [&str; 14] = [
        "",
        "bond",
        "team",
        "vlan",
        "macvlan",
        "ipvlan",
        "macsec",
        "hsr",
        "dsa",
        "ipoib",
        "virt_wifi",
        "wwan",
        "ppp",
        "netkit",
    ];
    WAYS_OUT.contains(&kind)
}

/// Finds the address this machine is reached at; waits where there is none, which `reporter` tells.
///
/// # Errors
/// When the machine cannot be looked at.
pub async fn find(flag: &str, reporter: &Reporter) -> Result<IpAddr> {
    let mut told = false;
    loop {
        if let Some(ip) = choose(&View::now().await?) {
            if told {
                reporter.waits_for("");
            }
            return Ok(IpAddr::V4(ip));
        }
        if !told {
            let waits =
                format!("this machine has no address that others could reach it at: waiting for one; {flag} names one");
            tracing::warn!("{waits}");
            reporter.waits_for(&waits);
        }
        told = true;
        tokio::time::sleep(WAIT).await;
    }
}

/// What has become of the node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is there.
    Here,
    /// It is not.
    Missing,
    /// It is not, and another one took its place.
    Moved(Ipv4Addr),
}

/// The link that has an address.
fn link_of(ip: Ipv4Addr, view: &View) -> Option<&Observed> {
    view.links.iter().find(|link| link.addresses.iter().any(|(address, _)| *address == ip))
}

/// `had` is the index of the link that had the address when it was last seen.
fn judge(ip: Ipv4Addr, had: Option<u32>, view: &View) -> Verdict {
    // A machine that lost its uplink has other addresses, too: those of guests and tunnels. Only the way to elsewhere
    // tells that one took the place of another or, on a machine without one, that the same link has it.
    let on_its_link = || choose(view).filter(|other| had.is_some() && link_of(*other, view).map(|l| l.index) == had);
    match view.by_route.filter(|other| can_be_a_nodes(*other)).or_else(on_its_link) {
        _ if link_of(ip, view).is_some() => Verdict::Here,
        Some(other) => Verdict::Moved(other),
        None => Verdict::Missing,
    }
}

/// Follows the address that a node found for itself. Certificates, rules and routes are made for it, so a node that
/// is moved to another one has to start anew, as upstream's service proxy does (pkg/proxy/node.go, `OnNodeChange`).
///
/// # Errors
/// When the machine has another one instead.
pub async fn follow(ip: IpAddr) -> Result<()> {
    follow_with(ip, View::now).await
}

async fn follow_with(ip: IpAddr, look: impl AsyncFn() -> Result<View>) -> Result<()> {
    let IpAddr::V4(ip) = ip else { return std::future::pending().await };
    let (mut missing, mut had) = (0, None);
    loop {
        tokio::time::sleep(LOOK).await;
        // Whoever cannot look knows nothing new.
        let Ok(view) = look().await else { continue };
        had = link_of(ip, &view).map(|link| link.index).or(had);
        let verdict = judge(ip, had, &view);
        missing = if verdict == Verdict::Here { 0 } else { missing + 1 };
        if let Verdict::Moved(other) = verdict
            && missing >= MISSING
        {
            bail!(
                "this node's address {ip} is gone, and the machine is reached at {other} now: start copepod again for \
                 it to be the node's, or name one with --node-ip"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    fn link(index: u32, kind: Kind, address: &str) -> Observed {
        let addresses = (!address.is_empty()).then(|| (address.parse().unwrap(), 24));
        Observed {
            index,
            name: format!("link{index}"),
            kind,
            mac: None,
            mtu: 1500,
            alias: None,
            group: 0,
            up: true,
            master: None,
            addresses: BTreeSet::from_iter(addresses),
            filter_bridged: false,
        }
    }

    fn hardware(index: u32, address: &str) -> Observed {
        link(index, Kind::Other(String::new()), address)
    }

    fn port_of(bridge: u32, port: Observed) -> Observed {
        Observed { master: Some(bridge), ..port }
    }

    fn chosen(by_route: Option<&str>, links: Vec<Observed>) -> Option<String> {
        let view = View { by_route: by_route.map(|ip| ip.parse().unwrap()), links };
        choose(&view).map(|ip| ip.to_string())
    }

    #[test]
    fn the_way_to_elsewhere_decides() {
        let links = || vec![hardware(1, "127.0.0.1"), hardware(2, "192.0.2.1"), hardware(3, "192.0.2.3")];
        assert_eq!(chosen(Some("192.0.2.3"), links()).as_deref(), Some("192.0.2.3"));
        assert_eq!(chosen(None, links()).as_deref(), Some("192.0.2.1"));
        assert_eq!(chosen(Some("169.254.7.7"), links()).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn nobody_is_reached_at_addresses_for_guests() {
        let ours = Observed { alias: Some("copepod:0123abcd".to_owned()), ..hardware(9, "10.42.0.1") };
        let vxlan = Kind::Vxlan { id: 1, local: Ipv4Addr::UNSPECIFIED, port: 8472 };
        let down = Observed { up: false, ..hardware(8, "192.0.2.8") };
        let docker = || link(4, Kind::Bridge, "172.17.0.1");
        let guests = [
            hardware(1, "127.0.0.1"),
            hardware(2, "169.254.3.4"),
            hardware(3, ""),
            docker(),
            port_of(4, link(5, Kind::Veth, "")),
            port_of(4, link(6, Kind::Other("tun".to_owned()), "")),
            link(7, vxlan, "10.244.0.0"),
            down,
            ours,
        ];
        assert_eq!(chosen(None, guests.to_vec()), None);
        // A machine whose own card is a port of a bridge, or whose link is one end of a pair, is reached there.
        let with = |more: &[Observed]| chosen(None, [&guests[..], more].concat());
        let other = |kind: &str| link(11, Kind::Other(kind.to_owned()), "192.0.2.11");
        for tunnel in
            ["wireguard", "tun", "ipip", "gre", "gretap", "sit", "ip6tnl", "vti", "geneve", "dummy", "ifb", "vrf"]
        {
            assert_eq!(with(&[other(tunnel)]), None, "{tunnel}");
            assert_eq!(with(&[port_of(4, other(tunnel))]), None, "a port of a bridge: {tunnel}");
            // The way to elsewhere may be such a one: somebody wants it so.
            assert_eq!(chosen(Some("192.0.2.11"), vec![other(tunnel)]).as_deref(), Some("192.0.2.11"), "{tunnel}");
        }
        for way_out in ["bond", "vlan", "macvlan", "ppp"] {
            assert_eq!(with(&[other(way_out)]).as_deref(), Some("192.0.2.11"), "{way_out}");
        }
        assert_eq!(with(&[port_of(4, hardware(10, ""))]).as_deref(), Some("172.17.0.1"));
        assert_eq!(with(&[link(10, Kind::Veth, "192.0.2.10")]).as_deref(), Some("192.0.2.10"));
    }

    /// Looks at what comes, one after the other and the last one for ever; how many seconds that took to be an error.
    async fn seconds(views: Vec<View>) -> Option<u64> {
        let (began, left) = (Instant::now(), Mutex::new(views.into_iter()));
        let last = Mutex::new(View::default());
        let look = async || {
            let mut last = last.lock().unwrap();
            *last = left.lock().unwrap().next().unwrap_or_else(|| last.clone());
            Ok(last.clone())
        };
        let ended = tokio::time::timeout(Duration::from_secs(3600), follow_with([192, 0, 2, 1].into(), look)).await;
        let error = ended.ok()?.unwrap_err().to_string();
        assert!(error.contains("192.0.2.1 is gone") && error.contains("192.0.2.9"), "{error}");
        Some(began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_moved_ends_the_node_and_one_that_is_missing_does_not() {
        let view = |addresses: &[&str]| {
            let links = addresses.iter().map(|address| hardware(2, address)).collect::<Vec<_>>();
            View { by_route: None, links }
        };
        let (here, missing) = (view(&["192.0.2.1"]), view(&[]));
        let moved = View { by_route: Some([192, 0, 2, 9].into()), ..view(&["192.0.2.9"]) };
        assert_eq!(seconds(vec![here.clone()]).await, None);
        assert_eq!(seconds(vec![missing.clone()]).await, None);
        // A lost uplink: what is left leads nowhere.
        let elsewhere = View { by_route: None, links: vec![hardware(2, ""), hardware(3, "192.0.2.9")] };
        assert_eq!(seconds(vec![here.clone(), elsewhere]).await, None);
        // A machine without a way to elsewhere: its link got another one.
        assert_eq!(seconds(vec![here.clone(), view(&["192.0.2.9"])]).await, Some(40));
        assert_eq!(seconds(vec![here.clone(), missing.clone(), view(&["169.254.3.4"])]).await, None);
        // Another one beside it, and the way to elsewhere, are somebody's choice.
        let beside = View { by_route: Some([192, 0, 2, 9].into()), ..view(&["192.0.2.9", "192.0.2.1"]) };
        assert_eq!(seconds(vec![beside]).await, None);
        assert_eq!(seconds(vec![moved.clone(), moved.clone(), here.clone()]).await, None, "it came back");
        assert_eq!(seconds(vec![here, moved.clone()]).await, Some(40));
        assert_eq!(seconds(vec![missing.clone(), missing.clone(), missing, moved]).await, Some(40));
    }
}
