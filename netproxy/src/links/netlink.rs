//! The one netlink client for links and addresses; routes use its connection, too.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVxlan, RouteMessageBuilder};
use tokio::task::AbortHandle;

use super::model::{Address, Change, Kind, Link, Mac, Observed};
use super::owner::Owner;
use super::{Clash, LinkError};
use crate::cni::sysctl;

/// A connection to the kernel in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    pub(crate) handle: Handle,
    connection: AbortHandle,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A veth pair to be made: one end here, a port of a bridge, the other in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end here.
    pub host: &'a str,
    /// Name of the end there.
    pub peer: &'a str,
    /// The other end's namespace.
    pub netns: RawFd,
    /// Hardware address of the other end; `None` leaves the kernel's choice.
    pub mac: Option<Mac>,
    /// Index of the bridge.
    pub bridge: u32,
    /// Bytes; 0 leaves the kernel's choice.
    pub mtu: u32,
    /// What to note on the end here, behind the mark; nothing when empty or too long for an alias.
    pub note: &'a str,
}

/// The longest alias that kernels take, in bytes.
const MAX_ALIAS: usize = 255;

pub(crate) fn refused(step: String) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    move |error| LinkError::Kernel {
        step,
        source: match error {
            rtnetlink::Error::NetlinkError(message) => io::Error::from_raw_os_error(message.raw_code().wrapping_neg()),
            other => io::Error::other(other),
        },
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Needs a runtime.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn open() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Socket)?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, connection })
    }

    /// All links with their IPv4 addresses.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub async fn links(&self) -> Result<Vec<Observed>, LinkError> {
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(refused("list links".to_owned()))?;
        let addresses = self.addresses().await?;
        Ok(messages.iter().map(|message| read(message, &addresses)).collect())
    }

    /// The link `name`.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub async fn link(&self, name: &str) -> Result<Option<Observed>, LinkError> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        let message = match links.try_next().await.map_err(refused(format!("look up the link {name}"))) {
            Err(error) if error.has_code(libc::ENODEV) => None,
            other => other?,
        };
        let Some(message) = message else { return Ok(None) };
        Ok(Some(read(&message, &self.addresses().await?)))
    }

    /// The IPv4 addresses of all links.
    async fn addresses(&self) -> Result<Vec<(u32, Address)>, LinkError> {
        let messages: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(refused("list addresses".to_owned()))?;
        Ok(messages.iter().filter_map(read_address).collect())
    }

    /// Performs one step of a plan.
    ///
    /// # Errors
    /// When the kernel refuses. What is gone already needs no removal.
    pub async fn perform(&self, change: &Change, owner: &Owner) -> Result<(), LinkError> {
        match change {
            Change::Delete(index) => self.delete(*index).await,
            Change::Create(link) => self.create(link, owner).await,
            Change::Set { index, mark, mac, mtu, filter_bridged } => {
                let mut message = LinkUnspec::new_with_index(*index).up();
                if *mark {
                    message = message.alias(owner.mark());
                }
                if let Some(mac) = mac {
                    message = message.address(mac.0.to_vec());
                }
                if let Some(mtu) = mtu {
                    message = message.mtu(*mtu);
                }
                let mut message = message.build();
                if let Some(on) = filter_bridged {
                    message.attributes.push(filter(*on));
                }
                self.set(message, format!("correct link {index}")).await
            }
            Change::AddAddress(index, (address, prefix_len)) => self.add_address(*index, (*address, *prefix_len)).await,
            Change::RemoveAddress(index, (address, prefix_len)) => {
                let mut request = self.handle.address().add(*index, IpAddr::V4(*address), *prefix_len);
                let message = request.message_mut().clone();
                let removed = self.handle.address().del(message).execute().await;
                match removed.map_err(refused(format!("take the address {address} from link {index}"))) {
                    Err(error) if error.has_code(libc::EADDRNOTAVAIL) => Ok(()),
                    other => other,
                }
            }
            Change::Attach { port, bridge } => {
                let message = LinkUnspec::new_with_index(*port).controller(*bridge).up().build();
                self.set(message, format!("make link {port} a port of the bridge")).await
            }
        }
    }

    async fn create(&self, link: &Link, owner: &Owner) -> Result<(), LinkError> {
        let step = || format!("make the link {}", link.name);
        let message = match &link.kind {
            Kind::Bridge => born(LinkBridge::new(&link.name).nf_call_iptables(link.filter_bridged), link, owner),
            Kind::Vxlan { id, local, port } => {
                born(LinkVxlan::new(&link.name, *id).port(*port).local(*local).learning(false), link, owner)
            }
            Kind::Veth | Kind::Other(_) => {
                let source = io::Error::other("links of this kind are not made so");
                return Err(LinkError::Kernel { step: step(), source });
            }
        };
        let made = self.handle.link().add(message).execute().await.map_err(refused(step()));
        match made {
            // Somebody was quicker: the next look says who.
            Err(error) if error.has_code(libc::EEXIST) && self.link(&link.name).await?.is_some() => return Ok(()),
            Err(error) if error.has_code(libc::EEXIST) => {
                let source = io::Error::other(taken(&link.kind));
                return Err(LinkError::Kernel { step: step(), source });
            }
            other => other?,
        }
        // Before it is up, and anybody is heard on it. Where that cannot be set, who keeps the link says so.
        let _ = sysctl::learn_nothing(&link.name);
        let named = LinkUnspec::new_with_name(&link.name).alias(owner.mark()).up().build();
        self.set(named, step()).await?;
        let index = self.index(&link.name).await?;
        for address in &link.addresses {
            self.add_address(index, *address).await?;
        }
        Ok(())
    }

    /// Makes a veth pair in one request, so that no half of it can be left somewhere, marks the end here and brings it
    /// up. One of ours with that name, left by an attempt that died half-way, makes room.
    ///
    /// # Errors
    /// When the name is somebody else's, or the kernel refuses.
    pub async fn add_veth(&self, veth: &Veth<'_>, owner: &Owner) -> Result<(), LinkError> {
        let step = || format!("make the veth pair {}", veth.host);
        let mut made = self.try_veth(veth, owner).await;
        if made.as_ref().is_err_and(|error| error.has_code(libc::EEXIST))
            && let Some(there) = self.link(veth.host).await?
        {
            if !there.is_of(owner) {
                return Err(Clash::with(&there).into());
            }
            self.delete(there.index).await?;
            made = self.try_veth(veth, owner).await;
        }
        made?;
        // Nothing is heard on it before it is up. Upstream goes on where that cannot be set, too: what a port of a
        // bridge hears is the bridge's.
        let _ = sysctl::learn_nothing(veth.host);
        let mut message = named(veth.host);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let noted = format!("{} {}", owner.mark(), veth.note);
        let alias = if veth.note.is_empty() || noted.len() > MAX_ALIAS { owner.mark() } else { noted };
        message.attributes.push(LinkAttribute::IfAlias(alias));
        // A frame may go back where it came from: a pod that reaches itself through a Service.
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]));
        self.handle.link().set_port(message).execute().await.map_err(refused(step()))
    }

    async fn try_veth(&self, veth: &Veth<'_>, owner: &Owner) -> Result<(), LinkError> {
        let mut peer = named(veth.peer);
        peer.attributes.push(LinkAttribute::NetNsFd(veth.netns));
        peer.attributes.extend(veth.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        let mut message = named(veth.host);
        if veth.mtu > 0 {
            peer.attributes.push(LinkAttribute::Mtu(veth.mtu));
            message.attributes.push(LinkAttribute::Mtu(veth.mtu));
        }
        message.attributes.push(LinkAttribute::Group(owner.birth_group()));
        message.attributes.push(LinkAttribute::Controller(veth.bridge));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let made = self.handle.link().add(message).execute().await;
        made.map_err(refused(format!("make the veth pair {}", veth.host)))
    }

    /// Removes the link `name` if it is the owner's; a missing one is success.
    ///
    /// # Errors
    /// When it is somebody else's, or the kernel refuses.
    pub async fn remove(&self, name: &str, owner: &Owner) -> Result<(), LinkError> {
        match self.link(name).await? {
            None => Ok(()),
            Some(link) if link.is_of(owner) => self.delete(link.index).await,
            Some(link) => Err(Clash::with(&link).into()),
        }
    }

    /// Removes the pod's end `name` if it is the owner's, or nobody's: links were not marked at first, and the name
    /// itself is made of the container's id. A missing one is success.
    ///
    /// # Errors
    /// When it is somebody else's, or the kernel refuses.
    pub async fn remove_port(&self, name: &str, owner: &Owner) -> Result<(), LinkError> {
        match self.link(name).await? {
            Some(link) if link.kind == Kind::Veth && link.alias.is_none() => self.delete(link.index).await,
            _ => self.remove(name, owner).await,
        }
    }

    async fn delete(&self, index: u32) -> Result<(), LinkError> {
        let removed = self.handle.link().del(index).execute().await;
        match removed.map_err(refused(format!("remove link {index}"))) {
            Err(error) if error.has_code(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set_up(&self, name: &str) -> Result<(), LinkError> {
        self.set(LinkUnspec::new_with_name(name).up().build(), format!("bring {name} up")).await
    }

    /// Gives a link an address; one that is there already stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_address(&self, index: u32, (address, prefix_len): Address) -> Result<(), LinkError> {
        let mut request = self.handle.address().add(index, IpAddr::V4(address), prefix_len);
        // Nobody asks a broadcast address of ours.
        let broadcast = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Broadcast(_));
        request.message_mut().attributes.retain(|attribute| !broadcast(attribute));
        let added = request.execute().await;
        match added.map_err(refused(format!("give link {index} the address {address}/{prefix_len}"))) {
            Err(error) if error.has_code(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Sends everything without a better route through `gateway`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn add_default_route(&self, index: u32, gateway: Ipv4Addr) -> Result<(), LinkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .protocol(RouteProtocol::Boot)
            .build();
        let added = self.handle.route().add(route).replace().execute().await;
        added.map_err(refused(format!("route everything through {gateway}")))
    }

    /// Gateways of default routes, each with its link's index.
    ///
    /// # Errors
    /// When the kernel does not list routes.
    pub async fn default_gateways(&self) -> Result<Vec<(u32, Ipv4Addr)>, LinkError> {
        let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(request)
            .execute()
            .try_collect()
            .await
            .map_err(refused("list routes".to_owned()))?;
        let through = |route: &RouteMessage| {
            let (mut gateway, mut index) = (None, None);
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                    RouteAttribute::Oif(oif) => index = Some(*oif),
                    _ => {}
                }
            }
            Some((index?, gateway?))
        };
        Ok(routes.iter().filter(|route| route.header.destination_prefix_length == 0).filter_map(through).collect())
    }

    async fn set(&self, message: LinkMessage, step: String) -> Result<(), LinkError> {
        self.handle.link().change(message).execute().await.map_err(refused(step))
    }

    async fn index(&self, name: &str) -> Result<u32, LinkError> {
        let link = self.link(name).await?;
        link.map(|link| link.index).ok_or_else(|| LinkError::Kernel {
            step: format!("look up the link {name}"),
            source: io::Error::from_raw_os_error(libc::ENODEV),
        })
    }
}

/// Why a link cannot be made though nothing has its name.
fn taken(kind: &Kind) -> String {
    match kind {
        Kind::Vxlan { id, port, .. } => {
            format!("another VXLAN link has the number {id} and the port {port} (ip -d link show type vxlan)")
        }
        _ => "there is one like it".to_owned(),
    }
}

/// What every link of ours is born with.
fn born<T>(builder: LinkMessageBuilder<T>, link: &Link, owner: &Owner) -> LinkMessage {
    let builder = builder.address(link.mac.0.to_vec()).link_group(owner.birth_group());
    match link.mtu {
        Some(mtu) => builder.mtu(mtu).build(),
        None => builder.build(),
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn filter(on: bool) -> LinkAttribute {
    let data = InfoData::Bridge(vec![InfoBridge::NfCallIpTables(on)]);
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)])
}

fn read_address(message: &AddressMessage) -> Option<(u32, Address)> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) if local => Some(*address),
            AddressAttribute::Address(IpAddr::V4(address)) if !local => Some(*address),
            _ => None,
        })
    };
    Some((message.header.index, (find(true).or_else(|| find(false))?, message.header.prefix_len)))
}

fn read(message: &LinkMessage, addresses: &[(u32, Address)]) -> Observed {
    let index = message.header.index;
    let own: BTreeSet<Address> = addresses.iter().filter(|(of, _)| *of == index).map(|(_, address)| *address).collect();
    let mut link = Observed {
        index,
        name: String::new(),
        kind: Kind::Other(String::new()),
        mac: None,
        mtu: 0,
        alias: None,
        group: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        addresses: own,
        filter_bridged: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::LinkInfo(infos) => read_info(&mut link, infos),
            _ => {}
        }
    }
    link
}

fn read_info(link: &mut Observed, infos: &[LinkInfo]) {
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::Bridge) => link.kind = Kind::Bridge,
            LinkInfo::Kind(InfoKind::Veth) => link.kind = Kind::Veth,
            LinkInfo::Kind(other) => link.kind = Kind::Other(other.to_string()),
            LinkInfo::Data(InfoData::Bridge(data)) => {
                link.filter_bridged = data.contains(&InfoBridge::NfCallIpTables(true));
            }
            LinkInfo::Data(InfoData::Vxlan(data)) => {
                let (mut of_id, mut of_local, mut of_port) = (0, Ipv4Addr::UNSPECIFIED, 0);
                for datum in data {
                    match datum {
                        InfoVxlan::Id(id) => of_id = *id,
                        InfoVxlan::Local(local) => of_local = *local,
                        InfoVxlan::Port(port) => of_port = *port,
                        _ => {}
                    }
                }
                link.kind = Kind::Vxlan { id: of_id, local: of_local, port: of_port };
            }
            _ => {}
        }
    }
}
