//! Ranges and which of them a node gets. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// An IPv4 range with its host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

/// Why a text or pair is no range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CidrError {
    /// Not `a.b.c.d/n`.
    #[error("{0:?} is not an IPv4 range like 10.42.0.0/16")]
    Syntax(String),
    /// The prefix length is over 32.
    #[error("prefix length {0} is over 32")]
    Prefix(u8),
}

impl Cidr {
    /// The range of `address` with this prefix length; host bits are dropped.
    ///
    /// # Errors
    /// When the prefix length is over 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, CidrError> {
        if prefix > 32 {
            return Err(CidrError::Prefix(prefix));
        }
        Ok(Self { base: u32::from(address) & mask(prefix), prefix })
    }

    /// First address.
    pub fn base(self) -> Ipv4Addr {
        self.base.into()
    }

    /// Prefix length.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.base & shorter == other.base & shorter
    }

    /// The n-th part of prefix length `prefix`, if there are that many.
    pub fn part(self, prefix: u8, n: u32) -> Option<Self> {
        let bits = prefix.checked_sub(self.prefix).filter(|_| prefix <= 32)?;
        if bits < 32 && n >= 1 << bits {
            return None;
        }
        let offset = u32::try_from(u64::from(n) << (32 - u32::from(prefix))).ok()?;
        Some(Self { base: self.base | offset, prefix })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let syntax = || CidrError::Syntax(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(syntax)?;
        // Digits alone: a number may have a sign, and a length has none.
        let prefix = prefix.parse().ok().filter(|_| !prefix.starts_with('+')).ok_or_else(syntax)?;
        Self::new(address.parse().map_err(|_| syntax())?, prefix)
    }
}

/// Which node holds which range. A range handed out stays taken until its node
/// is forgotten, so a failed write cannot give it to two nodes.
///
/// A node's object may go while its pods run on; when it comes back, they have addresses of the
/// range it had. So a range that was given back waits for its node as long as there are others.
#[derive(Debug)]
pub struct Allocations {
    cluster: Cidr,
    node_prefix: u8,
    by_node: BTreeMap<String, BTreeSet<Cidr>>,
    /// Ranges that were given back, and by whom: one node a range, so there are no more than ranges.
    former: BTreeMap<Cidr, String>,
    next: u32,
}

impl Allocations {
    /// Nothing handed out.
    pub fn new(cluster: Cidr, node_prefix: u8) -> Self {
        Self { cluster, node_prefix, by_node: BTreeMap::new(), former: BTreeMap::new(), next: 0 }
    }

    /// Notes the range a node says it has.
    pub fn occupy(&mut self, node: &str, cidr: Cidr) {
        self.former.remove(&cidr);
        self.by_node.entry(node.to_owned()).or_default().insert(cidr);
    }

    /// Notes that a node is gone. Its part of the cluster's range is the first to be given to it again.
    pub fn release(&mut self, node: &str) {
        let given_back = self.by_node.remove(node).into_iter().flatten();
        let ours = given_back.filter(|cidr| cidr.prefix() == self.node_prefix && self.cluster.overlaps(*cidr));
        self.former.extend(ours.map(|cidr| (cidr, node.to_owned())));
    }

    /// The range for a node: the one noted for it, the one it had, the next free one that nobody had,
    /// or the next free one.
    pub fn assign(&mut self, node: &str) -> Option<Cidr> {
        if let Some(cidr) = self.by_node.get(node).and_then(|c| c.first()) {
            return Some(*cidr);
        }
        let taken: BTreeSet<Cidr> = self.by_node.values().flatten().copied().collect();
        let odd: Vec<Cidr> = taken.iter().copied().filter(|c| c.prefix() != self.node_prefix).collect();
        let is_free = |cidr: Cidr| !taken.contains(&cidr) && !odd.iter().any(|o| o.overlaps(cidr));
        let had = self.former.iter().find(|(cidr, name)| *name == node && is_free(**cidr)).map(|(cidr, _)| *cidr);
        let cidr = match had {
            Some(cidr) => cidr,
            None => {
                let unused = |cidr| is_free(cidr) && !self.former.contains_key(&cidr);
                let (n, cidr) = self.next_part(unused).or_else(|| self.next_part(is_free))?;
                self.next = n.wrapping_add(1);
                cidr
            }
        };
        self.occupy(node, cidr);
        Some(cidr)
    }

    /// The next part that `fits`, those before the last one handed out at the end.
    fn next_part(&self, fits: impl Fn(Cidr) -> bool) -> Option<(u32, Cidr)> {
        let from = |start: u32| {
            let mut parts = (start..).map_while(|n| self.cluster.part(self.node_prefix, n).map(|c| (n, c)));
            parts.find(|(_, cidr)| fits(*cidr))
        };
        from(self.next).or_else(|| from(0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn lengths_are_digits() {
        assert!("10.0.0.0/+8".parse::<Cidr>().is_err());
    }

    #[test]
    fn ranges_parse_and_print() {
        assert_eq!(cidr("10.42.3.7/16").to_string(), "10.42.0.0/16");
        assert_eq!(cidr("0.0.0.0/0").to_string(), "0.0.0.0/0");
        for bad in ["", "10.42.0.0", "10.42.0.0/33", "fd00::/8", "10.42.0/16", "a/b", "10.42.0.0/-1"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_get_distinct_parts_and_keep_them() {
        let mut a = Allocations::new(cidr("10.42.0.0/16"), 24);
        a.occupy("old", cidr("10.42.0.0/24"));
        assert_eq!(a.assign("n1"), Some(cidr("10.42.1.0/24")));
        assert_eq!(a.assign("n2"), Some(cidr("10.42.2.0/24")));
        assert_eq!(a.assign("n1"), Some(cidr("10.42.1.0/24")));
        assert_eq!(a.assign("old"), Some(cidr("10.42.0.0/24")));
        a.release("n1");
        assert_eq!(a.assign("n3"), Some(cidr("10.42.3.0/24")), "ranges are reused late");
    }

    #[test]
    fn a_full_range_gives_nothing_until_a_node_goes() {
        let mut a = Allocations::new(cidr("10.0.0.0/30"), 31);
        assert!(a.assign("a").is_some() && a.assign("b").is_some());
        assert_eq!(a.assign("c"), None);
        a.release("a");
        assert_eq!(a.assign("c"), Some(cidr("10.0.0.0/31")));
        assert_eq!(Allocations::new(cidr("10.0.0.0/24"), 16).assign("x"), None, "node larger than cluster");
    }

    #[test]
    fn a_node_that_comes_back_finds_the_range_its_pods_are_in() {
        let mut a = Allocations::new(cidr("10.42.0.0/22"), 24);
        let first: Vec<_> = ["n0", "n1", "n2"].iter().map(|n| a.assign(n).unwrap().to_string()).collect();
        assert_eq!(first, ["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"]);
        a.release("n1");
        a.release("n0");
        assert_eq!(a.assign("n1"), Some(cidr("10.42.1.0/24")));
        a.release("n1");
        assert_eq!(a.assign("new"), Some(cidr("10.42.3.0/24")), "what nobody had comes first");
        assert_eq!(a.assign("n0"), Some(cidr("10.42.0.0/24")));
        // Nothing else is left: whoever needs it gets it, and then it is theirs.
        assert_eq!(a.assign("newer"), Some(cidr("10.42.1.0/24")));
        assert_eq!(a.assign("n1"), None);
        a.release("newer");
        assert_eq!(a.assign("n1"), Some(cidr("10.42.1.0/24")), "it was another's last");
        // One that was told by hand, from elsewhere, is nobody's to give.
        a.occupy("odd", cidr("192.0.2.0/24"));
        a.release("odd");
        a.release("n1");
        assert_eq!(a.assign("odd"), Some(cidr("10.42.1.0/24")));
    }

    #[test]
    fn foreign_sizes_are_respected() {
        let mut a = Allocations::new(cidr("10.42.0.0/16"), 24);
        a.occupy("big", cidr("10.42.0.0/22"));
        assert_eq!(a.assign("n"), Some(cidr("10.42.4.0/24")));
    }

    proptest! {
        #[test]
        fn no_two_nodes_overlap(ops in proptest::collection::vec((0u8..12, any::<bool>()), 0..60)) {
            let mut a = Allocations::new(cidr("10.0.0.0/24"), 27);
            let mut have: BTreeMap<u8, Cidr> = BTreeMap::new();
            for (node, add) in ops {
                if add {
                    if let Some(c) = a.assign(&node.to_string()) { have.insert(node, c); }
                } else {
                    a.release(&node.to_string());
                    have.remove(&node);
                }
                let all: Vec<Cidr> = have.values().copied().collect();
                for (i, x) in all.iter().enumerate() {
                    prop_assert!(all[i + 1..].iter().all(|y| !x.overlaps(*y)));
                }
            }
        }
    }
}
