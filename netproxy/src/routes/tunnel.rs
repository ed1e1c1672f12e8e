//! The tunnels' device as a link, and its neighbour and forwarding entries in the kernel. What they
//! should be is decided in `plan`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::Handle;

use super::peers::Vtep;
use super::plan::{OVERHEAD, Tables};
use crate::cidr::Cidr4;
use crate::links::netlink::refused;
use crate::links::{Kind, Link, LinkError, Mac};

/// The tunnels' device.
pub const DEVICE: &str = "copepod.1";
/// The virtual network's number.
const VNI: u32 = 1;
/// The UDP port that tunnels use; flannel's.
pub const PORT: u16 = 8472;

/// The device on a node with this end and pod network, where the node's own link carries `link_mtu`.
pub fn link(vtep: Vtep, pod_cidr: Cidr4, link_mtu: u32) -> Link {
    Link {
        name: DEVICE.to_owned(),
        kind: Kind::Vxlan { id: VNI, local: vtep.ip, port: PORT },
        mac: vtep.mac,
        mtu: Some(link_mtu.saturating_sub(OVERHEAD)),
        addresses: [(pod_cidr.addr(), 32)].into(),
        filter_bridged: false,
    }
}

async fn entries(handle: &Handle, device: u32, family: AddressFamily) -> Result<Vec<NeighbourMessage>, LinkError> {
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
pub async fn neighbours(handle: &Handle, device: u32) -> Result<BTreeSet<(Ipv4Addr, Mac)>, LinkError> {
    let all = entries(handle, device, AddressFamily::Inet).await?;
    Ok(all.iter().filter_map(|entry| Some((destination(entry)?, hardware(entry)?))).collect())
}

/// Which nodes hardware addresses are on.
pub async fn forwarding(handle: &Handle, device: u32) -> Result<BTreeSet<(Mac, Ipv4Addr)>, LinkError> {
    let all = entries(handle, device, AddressFamily::Bridge).await?;
    Ok(all.iter().filter_map(|entry| Some((hardware(entry)?, destination(entry)?))).collect())
}

/// Removes entries, then adds others; returns what the kernel refused.
pub async fn change(handle: &Handle, device: u32, gone: &Tables, new: &Tables) -> Vec<LinkError> {
    let mut failures = Vec::new();
    for (address, mac) in &gone.neighbours {
        let mut request = handle.neighbours().add(device, IpAddr::V4(*address));
        let entry = request.message_mut().clone();
        failures.extend(delete(handle, entry, format!("forget {address} at {mac}")).await.err());
    }
    for (mac, node) in &gone.forwarding {
        let mut request = handle.neighbours().add_bridge(device, &mac.0).destination(IpAddr::V4(*node));
        request = request.flags(NeighbourFlags::Own);
        let entry = request.message_mut().clone();
        failures.extend(delete(handle, entry, format!("forget {mac} on {node}")).await.err());
    }
    for (mac, node) in &new.forwarding {
        let request = handle.neighbours().add_bridge(device, &mac.0).destination(IpAddr::V4(*node));
        let added = request.flags(NeighbourFlags::Own).replace().execute().await;
        failures.extend(added.map_err(refused(format!("send frames for {mac} to {node}"))).err());
    }
    for (address, mac) in &new.neighbours {
        let request = handle.neighbours().add(device, IpAddr::V4(*address)).link_layer_address(&mac.0);
        let added = request.replace().execute().await;
        failures.extend(added.map_err(refused(format!("know {address} at {mac}"))).err());
    }
    failures
}

async fn delete(handle: &Handle, entry: NeighbourMessage, step: String) -> Result<(), LinkError> {
    match handle.neighbours().del(entry).execute().await.map_err(refused(step)) {
        Err(error) if error.has_code(libc::ENOENT) => Ok(()),
        other => other,
    }
}
