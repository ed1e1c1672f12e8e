//! The tunnel device and its neighbour and forwarding entries in the kernel. What they should be is
//! decided in `plan`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, LinkUnspec, LinkVxlan};

use super::RoutesError;
use super::kernel::{has_code, refused};
use super::plan::{Mac, OVERHEAD, Tables, Vtep};
use crate::cidr::Cidr4;

/// The tunnels' device.
pub const DEVICE: &str = "copepod.1";
/// The virtual network's number.
const VNI: u32 = 1;
/// The UDP port that tunnels use; flannel's.
const PORT: u16 = 8472;

/// The device as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub index: u32,
    mac: Option<Mac>,
    mtu: u32,
    /// Number, own address and port: what cannot be changed later.
    fixed: (Option<u32>, Option<Ipv4Addr>, Option<u16>),
}

/// Looks for the device.
pub async fn find(handle: &Handle) -> Result<Option<Device>, RoutesError> {
    let mut links = handle.link().get().match_name(DEVICE.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.as_ref().map(describe)),
        Err(error) if has_code(&error, libc::ENODEV) => Ok(None),
        Err(error) => Err(refused(format!("look up {DEVICE}"))(error)),
    }
}

fn describe(link: &LinkMessage) -> Device {
    let mut device = Device { index: link.header.index, mac: None, mtu: 0, fixed: (None, None, None) };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => device.mac = bytes.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| {
                if let LinkInfo::Data(InfoData::Vxlan(data)) = info {
                    data.iter().for_each(|datum| match datum {
                        InfoVxlan::Id(id) => device.fixed.0 = Some(*id),
                        InfoVxlan::Local(local) => device.fixed.1 = Some(*local),
                        InfoVxlan::Port(port) => device.fixed.2 = Some(*port),
                        _ => {}
                    });
                }
            }),
            _ => {}
        }
    }
    device
}

/// Makes the device what it should be; one that is right stays, with its entries. Returns its index.
pub async fn ensure(handle: &Handle, vtep: Vtep, pod_cidr: Cidr4, link_mtu: u32) -> Result<u32, RoutesError> {
    let mtu = link_mtu.saturating_sub(OVERHEAD);
    let fixed = (Some(VNI), Some(vtep.ip), Some(PORT));
    let mut found = find(handle).await?;
    if found.is_some_and(|device| device.fixed != fixed || device.mac != Some(vtep.mac)) {
        remove(handle).await?;
        found = None;
    }
    let step = || format!("make {DEVICE}");
    let device = match found {
        Some(device) => device,
        None => {
            let link = LinkVxlan::new(DEVICE, VNI).port(PORT).local(vtep.ip).learning(false);
            let link = link.address(vtep.mac.0.to_vec()).mtu(mtu).up().build();
            handle.link().add(link).execute().await.map_err(refused(step()))?;
            find(handle).await?.ok_or_else(|| refused(step())(rtnetlink::Error::RequestFailed))?
        }
    };
    // Up again, should somebody have taken it down.
    let right = LinkUnspec::new_with_index(device.index).mtu(mtu).up().build();
    handle.link().change(right).execute().await.map_err(refused(step()))?;
    set_address(handle, device.index, pod_cidr.addr()).await?;
    Ok(device.index)
}

/// Gives the device this one address.
async fn set_address(handle: &Handle, device: u32, address: Ipv4Addr) -> Result<(), RoutesError> {
    let step = || format!("give {DEVICE} the address {address}");
    let mut present = handle.address().get().execute();
    let (mut there, mut stale) = (false, Vec::new());
    while let Some(message) = present.try_next().await.map_err(refused(step()))? {
        let v4 = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        match v4 {
            Some(v4) if v4 == address && message.header.index == device => there = true,
            Some(_) if message.header.index == device => stale.push(message),
            _ => {}
        }
    }
    for message in stale {
        handle.address().del(message).execute().await.map_err(refused(step()))?;
    }
    if !there {
        handle.address().add(device, IpAddr::V4(address), 32).execute().await.map_err(refused(step()))?;
    }
    Ok(())
}

/// Removes the device with everything on it; a missing one is success.
pub async fn remove(handle: &Handle) -> Result<(), RoutesError> {
    let Some(device) = find(handle).await? else { return Ok(()) };
    match handle.link().del(device.index).execute().await {
        Err(error) if !has_code(&error, libc::ENODEV) => Err(refused(format!("remove {DEVICE}"))(error)),
        _ => Ok(()),
    }
}

async fn entries(handle: &Handle, device: u32, family: AddressFamily) -> Result<Vec<NeighbourMessage>, RoutesError> {
    let mut all = handle.neighbours().get().set_address_family(family).execute();
    let mut ours = Vec::new();
    while let Some(entry) = all.try_next().await.map_err(refused(format!("list the entries of {DEVICE}")))? {
        if entry.header.ifindex == device && entry.header.state == NeighbourState::Permanent {
            ours.push(entry);
        }
    }
    Ok(ours)
}

fn hardware(entry: &NeighbourMessage) -> Option<Mac> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

fn destination(entry: &NeighbourMessage) -> Option<Ipv4Addr> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
        // Forwarding entries are of no address family: the bytes are there as they came.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from)
        }
        _ => None,
    })
}

/// Which hardware addresses the far ends have.
pub async fn neighbours(handle: &Handle, device: u32) -> Result<BTreeSet<(Ipv4Addr, Mac)>, RoutesError> {
    let all = entries(handle, device, AddressFamily::Inet).await?;
    Ok(all.iter().filter_map(|entry| Some((destination(entry)?, hardware(entry)?))).collect())
}

/// Which nodes hardware addresses are on.
pub async fn forwarding(handle: &Handle, device: u32) -> Result<BTreeSet<(Mac, Ipv4Addr)>, RoutesError> {
    let all = entries(handle, device, AddressFamily::Bridge).await?;
    Ok(all.iter().filter_map(|entry| Some((hardware(entry)?, destination(entry)?))).collect())
}

/// Removes entries, then adds others.
pub async fn change(handle: &Handle, device: u32, gone: &Tables, new: &Tables) -> Result<(), RoutesError> {
    for (address, mac) in &gone.neighbours {
        let mut request = handle.neighbours().add(device, IpAddr::V4(*address));
        delete(handle, request.message_mut().clone(), format!("forget {address} at {mac}")).await?;
    }
    for (mac, node) in &gone.forwarding {
        let mut request = handle.neighbours().add_bridge(device, &mac.0).destination(IpAddr::V4(*node));
        request = request.flags(NeighbourFlags::Own);
        delete(handle, request.message_mut().clone(), format!("forget {mac} on {node}")).await?;
    }
    for (mac, node) in &new.forwarding {
        let request = handle.neighbours().add_bridge(device, &mac.0).destination(IpAddr::V4(*node));
        let added = request.flags(NeighbourFlags::Own).replace().execute().await;
        added.map_err(refused(format!("send frames for {mac} to {node}")))?;
    }
    for (address, mac) in &new.neighbours {
        let request = handle.neighbours().add(device, IpAddr::V4(*address)).link_layer_address(&mac.0);
        request.replace().execute().await.map_err(refused(format!("know {address} at {mac}")))?;
    }
    Ok(())
}

async fn delete(handle: &Handle, entry: NeighbourMessage, step: String) -> Result<(), RoutesError> {
    match handle.neighbours().del(entry).execute().await {
        Err(error) if !has_code(&error, libc::ENOENT) => Err(refused(step)(error)),
        _ => Ok(()),
    }
}
