//! Looks at the kernel's routes and changes ours. Entries of the tunnel device are `tunnel`'s.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::RouteMessageBuilder;

use super::plan::{Observed, Plan, Route, Via};
use super::tunnel;
use crate::cidr::Cidr4;
use crate::links::netlink::refused;
use crate::links::{LinkError, Netlink};

/// Marks routes as ours; not assigned to any routing daemon that iproute2 knows.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(143);

/// Links that routes of ours lead through, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    /// The pods' bridge.
    pub bridge: u32,
    /// The tunnels' device, if there is one.
    pub tunnel: Option<u32>,
}

/// What there is, and our routes' messages, by which they are removed.
#[derive(Debug)]
pub struct Present {
    pub observed: Observed,
    routes: Vec<(Route, RouteMessage)>,
}

/// Looks at routes, and at the entries of the tunnel device.
pub async fn observe(netlink: &Netlink, devices: Devices) -> Result<Present, LinkError> {
    let mut present = Present { observed: Observed::default(), routes: Vec::new() };
    for message in list(netlink).await? {
        let Some(to) = destination(&message) else { continue };
        if message.header.protocol == PROTOCOL {
            let route = Route { to, via: via(&message, devices) };
            present.observed.ours.routes.insert(route);
            present.routes.push((route, message));
        } else if table(&message) == u32::from(RouteHeader::RT_TABLE_MAIN) {
            present.observed.foreign.insert(to);
        }
    }
    if let Some(device) = devices.tunnel {
        present.observed.ours.neighbours = tunnel::neighbours(&netlink.handle, device).await?;
        present.observed.ours.forwarding = tunnel::forwarding(&netlink.handle, device).await?;
    }
    Ok(present)
}

/// Performs a plan; returns what the kernel refused. A way's route goes first and comes last, so
/// that no packet takes half of it; what is missing when we die in between, the next start sees.
pub async fn perform(netlink: &Netlink, plan: &Plan, present: &Present, devices: Devices) -> Vec<LinkError> {
    let mut failures = Vec::new();
    for (route, message) in &present.routes {
        if plan.remove.routes.contains(route) {
            failures.extend(delete(netlink, message.clone(), route.to).await.err());
        }
    }
    if let Some(device) = devices.tunnel {
        failures.extend(tunnel::change(&netlink.handle, device, &plan.remove, &plan.add).await);
    }
    for route in &plan.add.routes {
        let Some(message) = message(*route, devices) else { continue };
        // Never in another's place: the request asks for a new route and nothing else.
        let added = netlink.handle.route().add(message).execute().await;
        match added.map_err(refused(format!("route to {}", route.to))) {
            Ok(()) => tracing::info!(to = %route.to, via = ?route.via, "route added"),
            Err(error) => failures.push(error),
        }
    }
    failures
}

/// Removes every route of ours.
pub async fn remove_all(netlink: &Netlink) -> Result<(), LinkError> {
    let mut result = Ok(());
    for message in list(netlink).await? {
        if message.header.protocol == PROTOCOL
            && let Some(to) = destination(&message)
        {
            result = result.and(delete(netlink, message, to).await);
        }
    }
    result
}

async fn list(netlink: &Netlink) -> Result<Vec<RouteMessage>, LinkError> {
    let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
    netlink.handle.route().get(request).execute().try_collect().await.map_err(refused("list routes".to_owned()))
}

async fn delete(netlink: &Netlink, message: RouteMessage, to: Cidr4) -> Result<(), LinkError> {
    match netlink.handle.route().del(message).execute().await.map_err(refused(format!("remove the route to {to}"))) {
        Err(error) if error.has_code(libc::ESRCH) => Ok(()),
        other => other,
    }
}

/// The request for a route; `None` for what cannot be made: a tunnel without its device.
fn message(route: Route, devices: Devices) -> Option<RouteMessage> {
    let builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.to.addr(), route.to.prefix_len())
        .protocol(PROTOCOL);
    Some(match route.via {
        Via::Gateway(gateway) => builder.gateway(gateway).build(),
        Via::Tunnel(far) => builder.gateway(far).output_interface(devices.tunnel?).onlink().build(),
        Via::Bridge(source) => {
            builder.output_interface(devices.bridge).scope(RouteScope::Link).pref_source(source).build()
        }
        Via::Other => return None,
    })
}

fn table(route: &RouteMessage) -> u32 {
    let attribute = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or(u32::from(route.header.table))
}

/// Where a route leads to; one without destination is the default route.
fn destination(route: &RouteMessage) -> Option<Cidr4> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    Cidr4::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), route.header.destination_prefix_length)
}

fn via(route: &RouteMessage, devices: Devices) -> Via {
    let (mut gateway, mut through, mut source, mut plain) = (None, None, None, true);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Oif(index) => through = Some(*index),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            RouteAttribute::Priority(_) | RouteAttribute::MultiPath(_) => plain = false,
            _ => {}
        }
    }
    plain &= route.header.kind == RouteType::Unicast && table(route) == u32::from(RouteHeader::RT_TABLE_MAIN);
    match (gateway, source) {
        _ if !plain => Via::Other,
        (Some(far), None) if through.is_some() && through == devices.tunnel => Via::Tunnel(far),
        (Some(gateway), None) if through != Some(devices.bridge) => Via::Gateway(gateway),
        (None, Some(source)) if through == Some(devices.bridge) => Via::Bridge(source),
        _ => Via::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: Devices = Devices { bridge: 3, tunnel: Some(4) };

    #[test]
    fn what_is_asked_for_is_what_is_read() {
        let to: Cidr4 = Cidr4::host(Ipv4Addr::new(10, 42, 1, 0));
        let address = Ipv4Addr::new(192, 0, 2, 1);
        for via in [Via::Gateway(address), Via::Tunnel(address), Via::Bridge(address)] {
            let route = Route { to, via };
            let message = message(route, DEVICES).map(|message| (destination(&message), super::via(&message, DEVICES)));
            assert_eq!(message, Some((Some(to), via)));
        }
        assert_eq!(message(Route { to, via: Via::Tunnel(address) }, Devices { tunnel: None, ..DEVICES }), None);
    }

    #[test]
    fn odd_routes_of_ours_are_seen_as_odd() {
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(Ipv4Addr::new(192, 0, 2, 1)).build();
        assert_eq!(destination(&route), Cidr4::new(Ipv4Addr::UNSPECIFIED, 0));
        route.attributes.push(RouteAttribute::Priority(7));
        assert_eq!(via(&route, DEVICES), Via::Other);
        let bare = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(9).build();
        assert_eq!(via(&bare, DEVICES), Via::Other);
    }
}
