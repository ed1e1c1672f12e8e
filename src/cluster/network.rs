//! The cables of a local cluster: a bridge in a namespace of its own and one
//! veth pair to each node. No uplink: no packet of a cluster leaves the machine.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use super::plan;
use crate::sys::netns;

/// The bridge's name inside the switch namespace.
const BRIDGE: &str = "br0";
/// A node's own interface.
const NODE_LINK: &str = "eth0";

/// Makes the switch: a namespace with a bridge in it.
///
/// # Errors
/// When the kernel refuses a namespace or a link.
pub fn create_switch(switch: &Path) -> Result<()> {
    netns::create(switch).with_context(|| format!("make the network namespace {}", switch.display()))?;
    netns::run_inside(switch, async || {
        let handle = connect()?;
        if index_of(&handle, BRIDGE).await?.is_none() {
            handle.link().add(LinkBridge::new(BRIDGE).up().build()).execute().await.context("make the bridge")?;
        }
        set_up(&handle, "lo").await
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
        let handle = connect()?;
        set_up(&handle, "lo").await?;
        let link = index_of(&handle, NODE_LINK).await?.context("the node's interface is missing")?;
        let added = handle.address().add(link, IpAddr::V4(ip), plan::NODE_PREFIX).execute().await;
        if let Err(error) = added
            && !is_exists(&error)
        {
            return Err(error).context("give the node its address");
        }
        set_up(&handle, NODE_LINK).await
    })
}

async fn lay_cable(node: &PathBuf, index: usize) -> Result<()> {
    let handle = connect()?;
    let near = plan::cable_name(index);
    if index_of(&handle, &near).await?.is_some() {
        return Ok(());
    }
    let far = format!("far{index}");
    handle.link().add(LinkVeth::new(&near, &far).build()).execute().await.context("make a veth pair")?;
    let bridge = index_of(&handle, BRIDGE).await?.context("the bridge is missing")?;
    handle
        .link()
        .change(LinkUnspec::new_with_name(&near).controller(bridge).up().build())
        .execute()
        .await
        .context("plug a cable into the bridge")?;
    let target = File::open(node)?;
    let far_index = index_of(&handle, &far).await?.context("the far end is missing")?;
    let to_node = LinkUnspec::new_with_index(far_index).name(NODE_LINK.to_owned()).setns_by_fd(target.as_raw_fd());
    handle.link().change(to_node.build()).execute().await.context("hand the far end to the node")
}

fn connect() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

async fn index_of(handle: &Handle, name: &str) -> Result<Option<u32>> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look up the link {name}")),
    }
}

async fn set_up(handle: &Handle, name: &str) -> Result<()> {
    let link = LinkUnspec::new_with_name(name).up().build();
    handle.link().change(link).execute().await.with_context(|| format!("bring {name} up"))
}

fn is_exists(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -libc::EEXIST)
}
