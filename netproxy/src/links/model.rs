//! Links as data: which there should be, which there are, and what leads from one to the other.
//! Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use super::owner::{Owner, is_mark};

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `aa:bb:cc:dd:ee:ff`; `None` for what cannot be one host's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        let one_host = bytes[0] & 1 == 0 && bytes != [0; 6];
        (parts.next().is_none() && one_host).then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An address of a link: the address and the length of its network's prefix.
pub type Address = (Ipv4Addr, u8);

/// What a link is. Of an existing link this cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bridge for the veths of the same owner.
    Bridge,
    /// One end of VXLAN tunnels, without learning.
    Vxlan {
        /// The virtual network's number.
        id: u32,
        /// The node's own address.
        local: Ipv4Addr,
        /// The UDP port.
        port: u16,
    },
    /// One end of a pair. Pairs are made by [`super::Netlink::add_veth`].
    Veth,
    /// Whatever others make.
    Other(String),
}

/// A link that there should be, up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its hardware address. A bridge without one of its own takes that of a port, and whoever had
    /// resolved it sends to nobody when ports come and go.
    pub mac: Mac,
    /// Bytes; `None` leaves what there is.
    pub mtu: Option<u32>,
    /// Its IPv4 addresses, all of them.
    pub addresses: BTreeSet<Address>,
    /// Whether what this bridge hands on passes the packet filter. It is the bridge's own setting:
    /// those of others are not touched.
    pub filter_bridged: bool,
}

/// A link as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its hardware address, if it has one.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Its owner's mark.
    pub alias: Option<String>,
    /// Its group.
    pub group: u32,
    /// Whether it is up.
    pub up: bool,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// Its IPv4 addresses.
    pub addresses: BTreeSet<Address>,
    /// See [`Link::filter_bridged`].
    pub filter_bridged: bool,
}

impl Observed {
    /// What its maker has noted on it, behind the mark.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.alias.as_deref()?.split_once(' ').map(|(_, note)| note)
    }

    /// Whether `owner` has made it.
    #[must_use]
    pub fn is_of(&self, owner: &Owner) -> bool {
        match &self.alias {
            Some(alias) => owner.has_marked(alias),
            // Its maker died before it could name itself.
            None => self.group == owner.birth_group(),
        }
    }
}

/// A link of that name is there, and somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link {name} is there and {}: remove it (ip link delete {name}) if nobody needs it", by.as_ref().map_or_else(
    || "not copepod's".to_owned(), |by| format!("belongs to another copepod ({by})")))]
pub struct Clash {
    /// The name.
    pub name: String,
    /// The mark of another copepod instance.
    pub by: Option<String>,
}

impl Clash {
    /// Who has this link.
    #[must_use]
    pub fn with(link: &Observed) -> Self {
        Self { name: link.name.clone(), by: link.alias.clone().filter(|alias| is_mark(alias)) }
    }
}

/// One step. Links are named by their index where they are there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Removes a link of ours.
    Delete(u32),
    /// Makes a link with its addresses, marked and up.
    Create(Link),
    /// Makes an existing link of ours right.
    Set {
        /// Which.
        index: u32,
        /// Marks it.
        mark: bool,
        /// Its hardware address, where that is wrong.
        mac: Option<Mac>,
        /// Its MTU, where that is wrong.
        mtu: Option<u32>,
        /// The bridge's filter, where that is wrong.
        filter_bridged: Option<bool>,
    },
    /// Gives a link an address.
    AddAddress(u32, Address),
    /// Takes an address from a link.
    RemoveAddress(u32, Address),
    /// Makes a veth a port of a bridge.
    Attach {
        /// The veth.
        port: u32,
        /// The bridge.
        bridge: u32,
    },
}

/// What makes the kernel's links what `desired` says. Links of `owner` that are not asked for stay:
/// several parts of a node have links. Veths of the owner that lost their bridge get it back.
///
/// # Errors
/// When a name is taken by somebody else's link; then nothing should be done.
pub fn plan(desired: &[Link], observed: &[Observed], owner: &Owner) -> Result<Vec<Change>, Clash> {
    let mut changes = Vec::new();
    for link in desired {
        match observed.iter().find(|there| there.name == link.name) {
            None => changes.push(Change::Create(link.clone())),
            Some(there) if !there.is_of(owner) => return Err(Clash::with(there)),
            Some(there) if there.kind != link.kind => {
                changes.extend([Change::Delete(there.index), Change::Create(link.clone())]);
            }
            Some(there) => {
                changes.extend(correct(link, there));
                if link.kind == Kind::Bridge {
                    changes.extend(lost_ports(observed, owner, there.index));
                }
            }
        }
    }
    Ok(changes)
}

fn correct(link: &Link, there: &Observed) -> Vec<Change> {
    let index = there.index;
    let mac = Some(link.mac).filter(|mac| there.mac != Some(*mac));
    let mtu = link.mtu.filter(|mtu| there.mtu != *mtu);
    let filter_bridged = Some(link.filter_bridged).filter(|on| there.filter_bridged != *on);
    let mark = there.alias.is_none();
    let mut changes = Vec::new();
    if mark || mac.is_some() || mtu.is_some() || filter_bridged.is_some() || !there.up {
        changes.push(Change::Set { index, mark, mac, mtu, filter_bridged });
    }
    changes.extend(there.addresses.difference(&link.addresses).map(|gone| Change::RemoveAddress(index, *gone)));
    changes.extend(link.addresses.difference(&there.addresses).map(|new| Change::AddAddress(index, *new)));
    changes
}

fn lost_ports(observed: &[Observed], owner: &Owner, bridge: u32) -> impl Iterator<Item = Change> {
    let lost = |link: &&Observed| link.kind == Kind::Veth && link.master.is_none() && link.is_of(owner);
    observed.iter().filter(lost).map(move |port| Change::Attach { port: port.index, bridge })
}

#[cfg(test)]
mod tests;
