//! Looks at the kernel's links and routes and changes ours.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};

use super::RoutesError;
use super::plan::Peer;
use crate::cidr::Cidr4;

/// Marks routes as ours; not assigned to any routing daemon that iproute2 knows.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(143);

/// A connection to the kernel's routing tables.
#[derive(Clone, Debug)]
pub struct Kernel {
    handle: Handle,
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

    /// Our routes to other nodes' pods.
    pub async fn pod_routes(&self, service_cidr: Cidr4) -> Result<BTreeSet<Peer>, RoutesError> {
        let ours = self.ours().await?;
        Ok(ours.iter().filter_map(read).filter(|peer| peer.pod_cidr != service_cidr).collect())
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

    /// Adds a route; replaces another one to the same pods.
    pub async fn add(&self, peer: Peer) -> Result<(), RoutesError> {
        let added = self.handle.route().add(message(peer)).replace().execute().await;
        added.map_err(refused(format!("route {} via {}", peer.pod_cidr, peer.ip)))
    }

    /// Removes a route; a missing one is success.
    pub async fn remove(&self, peer: Peer) -> Result<(), RoutesError> {
        self.delete(message(peer), format!("remove the route to {}", peer.pod_cidr)).await
    }

    /// Removes every route of ours.
    pub async fn remove_all(&self) -> Result<(), RoutesError> {
        for route in self.ours().await? {
            self.delete(route, "remove our routes".to_owned()).await?;
        }
        Ok(())
    }

    async fn delete(&self, route: RouteMessage, step: String) -> Result<(), RoutesError> {
        match self.handle.route().del(route).execute().await {
            Err(error) if !has_code(&error, libc::ESRCH) => Err(refused(step)(error)),
            _ => Ok(()),
        }
    }
}

fn message(peer: Peer) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(peer.pod_cidr.addr(), peer.pod_cidr.prefix_len())
        .gateway(peer.ip)
        .protocol(PROTOCOL)
        .build()
}

/// A route through a gateway as a peer; `None` for routes of another form.
fn read(route: &RouteMessage) -> Option<Peer> {
    let mut destination = None;
    let mut gateway = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            _ => {}
        }
    }
    let pod_cidr = Cidr4::new(destination?, route.header.destination_prefix_length)?;
    Some(Peer { pod_cidr, ip: gateway? })
}

fn refused(step: String) -> impl FnOnce(rtnetlink::Error) -> RoutesError {
    move |source| RoutesError::Kernel { step, source }
}

fn has_code(error: &rtnetlink::Error, code: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -code)
}
