//! Looks at the kernel's links and routes and changes ours. The tunnel device is `tunnel`'s.

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};

use super::RoutesError;
use super::plan::{Plan, Route, Tables};
use super::tunnel;
use crate::cidr::Cidr4;

/// Marks routes as ours; not assigned to any routing daemon that iproute2 knows.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(143);

/// A connection to the kernel's routing tables.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(super) handle: Handle,
}

impl Kernel {
    /// Opens a socket in the current network namespace.
    pub fn open() -> Result<Self, RoutesError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(RoutesError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The index of the bridge `name`, made and brought up when missing.
    pub async fn ensure_bridge(&self, name: &str) -> Result<u32, RoutesError> {
        let step = || format!("make the bridge {name}");
        if let Err(error) = self.handle.link().add(LinkBridge::new(name).up().build()).execute().await
            && !has_code(&error, libc::EEXIST)
        {
            return Err(refused(step())(error));
        }
        let up = LinkUnspec::new_with_name(name).up().build();
        self.handle.link().change(up).execute().await.map_err(refused(step()))?;
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        let link = links.try_next().await.map_err(refused(step()))?;
        link.map(|link| link.header.index).ok_or_else(|| refused(step())(rtnetlink::Error::RequestFailed))
    }

    /// Routes the service network to the bridge, with the node's own address as
    /// the source.
    pub async fn route_services(&self, service_cidr: Cidr4, bridge: u32, source: Ipv4Addr) -> Result<(), RoutesError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(service_cidr.addr(), service_cidr.prefix_len())
            .output_interface(bridge)
            .scope(RouteScope::Link)
            .pref_source(source)
            .protocol(PROTOCOL)
            .build();
        let added = self.handle.route().add(route).replace().execute().await;
        added.map_err(refused(format!("route {service_cidr} to the bridge")))
    }

    /// The networks of all addresses of this node.
    pub async fn networks(&self) -> Result<Vec<Cidr4>, RoutesError> {
        let mut addresses = self.handle.address().get().execute();
        let mut networks = Vec::new();
        while let Some(message) = addresses.try_next().await.map_err(refused("list addresses".to_owned()))? {
            let v4 = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
                _ => None,
            });
            networks.extend(v4.and_then(|address| Cidr4::new(address, message.header.prefix_len)));
        }
        Ok(networks)
    }

    /// The MTU of the link that has the address `ip`.
    pub async fn link_mtu(&self, ip: Ipv4Addr) -> Result<Option<u32>, RoutesError> {
        let mut addresses = self.handle.address().get().execute();
        let mut index = None;
        while let Some(message) = addresses.try_next().await.map_err(refused("list addresses".to_owned()))? {
            let local = AddressAttribute::Local(IpAddr::V4(ip));
            if message.attributes.contains(&local) {
                index = index.or(Some(message.header.index));
            }
        }
        let Some(index) = index else { return Ok(None) };
        let mut links = self.handle.link().get().match_index(index).execute();
        let link = links.try_next().await.map_err(refused(format!("look at the link of {ip}")))?;
        Ok(link.and_then(|link| {
            link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            })
        }))
    }

    /// What there is of ours; `device` is the tunnels', if there is one.
    pub async fn observe(&self, service_cidr: Cidr4, device: Option<u32>) -> Result<Tables, RoutesError> {
        let ours = self.ours().await?;
        let routes = ours.iter().filter_map(|route| read(route, device)).filter(|r| r.pod_cidr != service_cidr);
        let mut tables = Tables { routes: routes.collect(), ..Tables::default() };
        if let Some(device) = device {
            tables.neighbours = tunnel::neighbours(&self.handle, device).await?;
            tables.forwarding = tunnel::forwarding(&self.handle, device).await?;
        }
        Ok(tables)
    }

    /// Performs a plan. A way's route goes first and comes last, so that no packet takes half of it;
    /// what is missing when we die in between, the next start sees.
    pub async fn perform(&self, plan: &Plan, device: Option<u32>) -> Result<(), RoutesError> {
        for route in &plan.remove.routes {
            self.delete(message(*route, device), format!("remove the route to {}", route.pod_cidr)).await?;
        }
        if let Some(device) = device {
            tunnel::change(&self.handle, device, &plan.remove, &plan.add).await?;
        }
        for route in &plan.add.routes {
            let added = self.handle.route().add(message(*route, device)).replace().execute().await;
            added.map_err(refused(format!("route {} via {}", route.pod_cidr, route.gateway)))?;
        }
        Ok(())
    }

    async fn ours(&self) -> Result<Vec<RouteMessage>, RoutesError> {
        let mut routes = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let mut ours = Vec::new();
        while let Some(route) = routes.try_next().await.map_err(refused("list routes".to_owned()))? {
            if route.header.protocol == PROTOCOL {
                ours.push(route);
            }
        }
        Ok(ours)
    }

    /// Removes every route of ours, and the tunnel device.
    pub async fn remove_all(&self) -> Result<(), RoutesError> {
        for route in self.ours().await? {
            self.delete(route, "remove our routes".to_owned()).await?;
        }
        tunnel::remove(&self.handle).await
    }

    async fn delete(&self, route: RouteMessage, step: String) -> Result<(), RoutesError> {
        match self.handle.route().del(route).execute().await {
            Err(error) if !has_code(&error, libc::ESRCH) => Err(refused(step)(error)),
            _ => Ok(()),
        }
    }
}

fn message(route: Route, device: Option<u32>) -> RouteMessage {
    let builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.pod_cidr.addr(), route.pod_cidr.prefix_len())
        .gateway(route.gateway)
        .protocol(PROTOCOL);
    match device.filter(|_| route.tunnel) {
        Some(device) => builder.output_interface(device).onlink().build(),
        None => builder.build(),
    }
}

/// A route through a gateway; `None` for routes of another form.
fn read(route: &RouteMessage, device: Option<u32>) -> Option<Route> {
    let (mut destination, mut gateway, mut through) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Oif(index) => through = Some(*index),
            _ => {}
        }
    }
    let pod_cidr = Cidr4::new(destination?, route.header.destination_prefix_length)?;
    Some(Route { pod_cidr, gateway: gateway?, tunnel: device.is_some() && through == device })
}

pub(super) fn refused(step: String) -> impl FnOnce(rtnetlink::Error) -> RoutesError {
    move |source| RoutesError::Kernel { step, source }
}

pub(super) fn has_code(error: &rtnetlink::Error, code: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -code)
}
