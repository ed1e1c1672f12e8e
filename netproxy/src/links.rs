//! Links of this node: the pods' bridge, veth pairs, the tunnels' device. The one maker of each.
//!
//! Which links there should be is data ([`Link`]). [`apply`] looks at the kernel's, `model` finds
//! the difference (purely), and the one netlink client performs it. Everything made here carries its
//! [`Owner`]'s mark as its alias; a link without it is never taken over, changed or removed, and one
//! that has a name we need is an error that says so.
//!
//! The bridge [`BRIDGE`] is also how an instance holds a network namespace: two nodes in one would
//! use the same tables and routes. See [`holder`].

mod model;
pub(crate) mod netlink;
mod owner;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns};

pub use model::{Address, Change, Clash, Kind, Link, Mac, Observed, plan};
pub use netlink::{Netlink, Veth};
pub(crate) use owner::is_mark;
pub use owner::{Owner, OwnerError, pod_mac, veth_name};

/// The bridge that a node's pods hang on.
pub const BRIDGE: &str = "copepod0";

/// How often to look again: what was made shows in the next look, a new bridge has its ports in one more.
const ROUNDS: usize = 4;

/// Why links are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No socket to the kernel.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused a step.
    #[error("{step}")]
    Kernel {
        /// What was to be done.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A name is somebody else's.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// Somebody changes links as fast as we do.
    #[error("links do not stay as they are made")]
    Unsettled,
}

impl LinkError {
    /// Whether the kernel refused with this code.
    #[must_use]
    pub fn has_code(&self, code: i32) -> bool {
        matches!(self, Self::Kernel { source, .. } if source.raw_os_error() == Some(code))
    }
}

/// The node's IPv4 addresses, for who needs no more of its links; none when they cannot be read.
#[must_use]
pub fn local_addresses() -> Vec<Ipv4Addr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip())).collect()
}

/// The pods' bridge, with these addresses.
#[must_use]
pub fn bridge(owner: &Owner, mtu: Option<u32>, addresses: impl IntoIterator<Item = Address>) -> Link {
    Link {
        name: BRIDGE.to_owned(),
        kind: Kind::Bridge,
        mac: owner.mac(BRIDGE),
        mtu,
        addresses: addresses.into_iter().collect(),
        // Services must be translated between pods of one bridge, too: the answer of a pod to its
        // neighbour would otherwise not pass where it is turned back.
        filter_bridged: true,
    }
}

/// Makes the kernel's links what `desired` says.
///
/// # Errors
/// When a name is taken, in which case nothing is done, or the kernel refuses a step.
pub async fn apply(netlink: &Netlink, desired: &[Link], owner: &Owner) -> Result<(), LinkError> {
    for _ in 0..ROUNDS {
        let changes = plan(desired, &netlink.links().await?, owner)?;
        if changes.is_empty() {
            return Ok(());
        }
        for change in changes {
            netlink.perform(&change, owner).await?;
        }
    }
    Err(LinkError::Unsettled)
}

/// Who holds this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// No node runs or ran here, as far as links show.
    Nobody,
    /// The asking instance.
    Own,
    /// Somebody else has a link called [`BRIDGE`].
    Other(Clash),
}

/// Who holds the network namespace of the socket.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn holder(netlink: &Netlink, owner: &Owner) -> Result<Holder, LinkError> {
    Ok(match netlink.link(BRIDGE).await? {
        None => Holder::Nobody,
        Some(bridge) if bridge.is_of(owner) => Holder::Own,
        Some(bridge) => Holder::Other(Clash::with(&bridge)),
    })
}

/// Removes every link with the owner's mark; none is fine.
///
/// # Errors
/// The first refusal; the rest is done.
pub async fn remove_owned(netlink: &Netlink, owner: &Owner) -> Result<(), LinkError> {
    let mut result = Ok(());
    for link in netlink.links().await?.into_iter().filter(|link| link.is_of(owner)) {
        let removed = netlink.perform(&Change::Delete(link.index), owner).await;
        result = result.and(removed);
    }
    result
}

/// Runs `work` on a thread in the network namespace `netns`, with a runtime of its own: this
/// process stays where it is.
///
/// # Errors
/// When the namespace cannot be entered, or what `work` reports.
pub fn in_namespace<T, E>(netns: &File, work: impl AsyncFnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<io::Error> + Send + 'static,
{
    let netns = netns.try_clone()?;
    let thread = std::thread::spawn(move || -> Result<T, E> {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work())
    });
    thread.join().map_err(|_| io::Error::other("the thread in the network namespace panicked"))?
}

impl From<io::Error> for LinkError {
    fn from(source: io::Error) -> Self {
        Self::Kernel { step: "enter a network namespace".to_owned(), source }
    }
}
