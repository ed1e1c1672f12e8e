//! The mark by which a copepod instance knows what it has made. Pure.

use std::fmt;
use std::net::Ipv4Addr;

use super::model::Mac;

/// What every mark begins with.
const PREFIX: &str = "copepod:";
/// The longest id: an alias is shown on one line.
const MAX_ID: usize = 64;

/// One copepod instance, known by an id that nobody else has. Its links carry the id as their alias
/// (`ip link show`: `alias copepod:ID`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    id: String,
}

/// Why a text cannot be an instance's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an instance id: 8 to {MAX_ID} of a-z, A-Z, 0-9 and '-' are expected")]
pub struct OwnerError(String);

impl Owner {
    /// The instance with this id.
    ///
    /// # Errors
    /// When the id could be mistaken for something else in a mark.
    pub fn new(id: &str) -> Result<Self, OwnerError> {
        let legal = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if legal && (8..=MAX_ID).contains(&id.len()) {
            Ok(Self { id: id.to_owned() })
        } else {
            Err(OwnerError(id.to_owned()))
        }
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The mark: a link's alias, a rule's comment.
    #[must_use]
    pub fn mark(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// Whether an alias is this instance's: its mark, alone or before what else is said of the link.
    #[must_use]
    pub fn has_marked(&self, alias: &str) -> bool {
        alias.split(' ').next() == Some(self.mark().as_str())
    }

    /// A link's group at its birth. The kernel takes an alias only for a link that is there, but a
    /// group together with the link: a process that dies in between leaves no link that is nobody's.
    #[must_use]
    pub fn birth_group(&self) -> u32 {
        // Group 0 is every link's; the highest bit is left alone, tools print groups signed.
        (fold(fnv1a(self.id.bytes())) & 0x7fff_ffff).max(1)
    }

    /// The hardware address of this instance's link `name`: the same after every start, whatever the
    /// link's ports and addresses. Locally administered.
    #[must_use]
    pub fn mac(&self, name: &str) -> Mac {
        let bytes = self.id.bytes().chain([0]).chain(name.bytes());
        let [a, b, c, d] = fold(fnv1a(bytes)).to_be_bytes();
        Mac([0x0a, 0x58, a, b, c, d])
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// Whether a mark is that of any copepod instance.
pub(crate) fn is_mark(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// The hardware address of a pod's interface with this address, so that neighbours' tables stay
/// right when the address is used again.
#[must_use]
pub fn pod_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x0a, 0x58, a, b, c, d])
}

/// The host's side of a container's interface: the same name every time, so that DEL finds it
/// without a record.
#[must_use]
pub fn veth_name(container_id: &str, ifname: &str) -> String {
    let hash = fnv1a(container_id.bytes().chain([0]).chain(ifname.bytes()));
    format!("veth{:011x}", hash >> 20)
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn fold(hash: u64) -> u32 {
    let [a, b, c, d, e, f, g, h] = hash.to_be_bytes();
    u32::from_be_bytes([a ^ e, b ^ f, c ^ g, d ^ h])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_that_could_be_mistaken_are_refused() {
        assert_eq!(Owner::new("0123abcd").unwrap().mark(), "copepod:0123abcd");
        for id in ["", "short", "with space", "a:b:c:d:e", "0123abcd\n", &"x".repeat(65)] {
            assert!(Owner::new(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn instances_and_links_differ() {
        let (one, two) = (Owner::new("instance-1").unwrap(), Owner::new("instance-2").unwrap());
        assert_ne!(one.mac("copepod0"), two.mac("copepod0"));
        assert_ne!(one.mac("copepod0"), one.mac("copepod1"));
        assert_eq!(one.mac("copepod0").0[0] & 3, 2, "locally administered, one host's");
        assert_ne!(one.birth_group(), two.birth_group());
        assert_ne!(one.birth_group(), 0);
    }

    #[test]
    fn host_sides_fit_and_differ() {
        let one = veth_name("0123456789abcdef", "eth0");
        assert!(one.len() <= 15 && one.starts_with("veth"), "{one}");
        assert_eq!(one, veth_name("0123456789abcdef", "eth0"));
        assert_ne!(one, veth_name("0123456789abcdef", "eth1"));
        assert_ne!(one, veth_name("0123456789abcdee", "eth0"));
        assert_ne!(veth_name("ab", "c"), veth_name("a", "bc"));
    }
}
