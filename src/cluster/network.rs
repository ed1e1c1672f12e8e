//! The cables of a local cluster: a bridge in a namespace of its own and one
//! veth pair to each node. No uplink: no packet of a cluster leaves the machine.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use netproxy::links::{self, Kind, Link, Netlink, Owner, Veth};

use super::plan;
use crate::sys::netns;

/// The bridge's name inside the switch namespace.
const BRIDGE: &str = "br0";
/// A node's own interface.
const NODE_LINK: &str = "eth0";

/// What cables are marked with. The namespaces they are in are the cluster's alone.
fn owner() -> Result<Owner> {
    Owner::new("local-cluster").context("name the owner of cables")
}

/// Makes the switch: a namespace with a bridge in it.
///
/// # Errors
/// When the kernel refuses a namespace or a link.
pub fn create_switch(switch: &Path) -> Result<()> {
    netns::create(switch).with_context(|| format!("make the network namespace {}", switch.display()))?;
    netns::run_inside(switch, async || {
        let (netlink, owner) = (Netlink::open()?, owner()?);
        let bridge = Link {
            name: BRIDGE.to_owned(),
            kind: Kind::Bridge,
            mac: owner.mac(BRIDGE),
            mtu: None,
            addresses: [].into(),
            filter_bridged: false,
        };
        links::apply(&netlink, &[bridge], &owner).await?;
        Ok(netlink.set_up("lo").await?)
    })
}

/// Makes a node's namespace and its cable to the switch, with its address.
/// What is there already stays.
///
/// # Errors
/// When the kernel refuses a namespace, link or address.
pub fn connect_node(switch: &Path, node: &Path, index: usize, ip: Ipv4Addr) -> Result<()> {
    netns::create(node).with_context(|| format!("make the network namespace {}", node.display()))?;
    let namespace = node.to_owned();
    netns::run_inside(switch, async move || lay_cable(&namespace, index).await)?;
    netns::run_inside(node, async move || {
        let netlink = Netlink::open()?;
        netlink.set_up("lo").await?;
        let link = netlink.link(NODE_LINK).await?.context("the node's interface is missing")?;
        netlink.add_address(link.index, (ip, plan::NODE_PREFIX)).await.context("give the node its address")?;
        Ok(netlink.set_up(NODE_LINK).await?)
    })
}

/// One request makes the cable with its far end in the node: whoever dies here leaves none or all of it.
async fn lay_cable(node: &PathBuf, index: usize) -> Result<()> {
    let (netlink, owner) = (Netlink::open()?, owner()?);
    let near = plan::cable_name(index);
    if netlink.link(&near).await?.is_some() {
        return Ok(());
    }
    let bridge = netlink.link(BRIDGE).await?.context("the bridge is missing")?.index;
    let target = File::open(node)?;
    let netns = target.as_raw_fd();
    let cable = Veth { host: &near, peer: NODE_LINK, netns, mac: None, bridge, mtu: 0, note: "" };
    netlink.add_veth(&cable, &owner).await.context("lay a cable to the node")
}
