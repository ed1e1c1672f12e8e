//! The objects of one nftables table: sets, maps, elements, chains. Not rules' statements
//! (`statement`), not how objects reach the kernel (`encode`, `render`).

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::statement::{Rule, Statement};

/// The name of a chain, set or map.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for Name {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// A transport protocol Services and host ports can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this IP protocol number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|p| p.number() == number)
    }

    /// The lower-case name nft uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One component of a set's key or a map's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// `ipv4_addr`: network order.
    Ipv4Addr,
    /// `inet_proto`: one byte.
    InetProto,
    /// `inet_service`: a port, network order.
    InetService,
    /// A number from `numgen`: 32 bits in host order.
    Index,
}

/// What a set maps its keys to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Nothing: a plain set.
    None,
    /// A verdict map.
    Verdict,
    /// A map to a concatenation.
    Fields(&'static [FieldType]),
}

/// The declaration of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetSpec {
    /// The set's name.
    pub name: Name,
    /// Components of the key.
    pub key: &'static [FieldType],
    /// What keys map to.
    pub data: DataType,
    /// Filled by rules, with elements that expire; its elements are the kernel's business, not ours.
    pub dynamic: bool,
    /// Most elements it may hold; 0 for no limit.
    pub size: u32,
}

/// At most 16 bytes, as in nft registers: each component padded to 4 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    len: u8,
    bytes: [u8; 16],
}

impl Key {
    /// A key with no components yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { len: 0, bytes: [0; 16] }
    }

    fn word(mut self, word: [u8; 4]) -> Self {
        let at = usize::from(self.len);
        debug_assert!(at + 4 <= 16, "no set of ours has more than four components");
        if at + 4 <= 16 {
            self.bytes[at..at + 4].copy_from_slice(&word);
            self.len += 4;
        }
        self
    }

    /// Appends an address.
    #[must_use]
    pub fn addr(self, addr: Ipv4Addr) -> Self {
        self.word(addr.octets())
    }

    /// Appends a transport protocol.
    #[must_use]
    pub fn proto(self, protocol: Protocol) -> Self {
        self.word([protocol.number(), 0, 0, 0])
    }

    /// Appends a port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        let [a, b] = port.to_be_bytes();
        self.word([a, b, 0, 0])
    }

    /// Appends an index, as `numgen` writes it.
    #[must_use]
    pub fn index(self, index: u32) -> Self {
        self.word(index.to_ne_bytes())
    }

    /// The bytes, a multiple of 4.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// A key from the kernel's bytes; `None` when they are longer than any of ours.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > 16 {
            return None;
        }
        let mut key = Self::new();
        key.bytes[..bytes.len()].copy_from_slice(bytes);
        key.len = u8::try_from(bytes.len().next_multiple_of(4)).ok()?;
        Some(key)
    }

    /// The 4-byte component `index`.
    #[must_use]
    pub fn component(&self, index: usize) -> Option<[u8; 4]> {
        self.as_bytes().get(index * 4..index * 4 + 4)?.try_into().ok()
    }

    /// The components as an address and a port, as maps to endpoints hold them.
    #[must_use]
    pub fn as_addr_port(&self) -> Option<(Ipv4Addr, u16)> {
        let addr = self.component(0)?;
        let [a, b, ..] = self.component(1)?;
        Some((Ipv4Addr::from(addr), u16::from_be_bytes([a, b])))
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Leave this base chain; later hooks still see the packet.
    Accept,
    /// Discard the packet.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Continue in a chain and come back.
    Jump(Name),
    /// Continue in a chain and do not come back.
    Goto(Name),
}

impl Verdict {
    /// The chain this verdict leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Return => None,
        }
    }
}

/// What an element maps to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// Nothing: it is an element of a plain set.
    None,
    /// Data, as in a register.
    Data(Key),
    /// A verdict.
    Verdict(Verdict),
}

/// The kind of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Sees the first packet of a connection.
    Nat,
    /// Sees every packet.
    Filter,
}

/// Where a base chain is attached; the numbers are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Everything that comes in.
    Prerouting = 0,
    /// What is for this node.
    Input = 1,
    /// What passes through.
    Forward = 2,
    /// What this node sends.
    Output = 3,
    /// Everything that goes out.
    Postrouting = 4,
}

/// How a base chain is attached. The policy is always `accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// Nat or filter.
    pub kind: ChainKind,
    /// The hook.
    pub hook: Hook,
    /// Order among the hook's chains, low first.
    pub priority: i32,
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chain {
    /// `None` for a regular chain.
    pub base: Option<BaseChain>,
    /// The rules in order.
    pub rules: Vec<Rule>,
}

/// A set with its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The declaration.
    pub spec: Arc<SetSpec>,
    /// Elements; always empty for a dynamic set.
    pub elements: BTreeMap<Key, Value>,
}

/// A whole table, or the part of it some Services are responsible for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Table {
    /// Chains by name.
    pub chains: BTreeMap<Name, Chain>,
    /// Sets by name.
    pub sets: BTreeMap<Name, Set>,
}

impl Table {
    /// Declares a set; keeps the elements when it is there already.
    pub fn declare(&mut self, spec: &Arc<SetSpec>) -> &mut Set {
        self.sets.entry(spec.name.clone()).or_insert_with(|| Set { spec: Arc::clone(spec), elements: BTreeMap::new() })
    }

    /// Adds a chain with these rules; a base chain when it is told where to attach it.
    pub fn add_chain(
        &mut self,
        name: &str,
        base: Option<(ChainKind, Hook, i32)>,
        rules: impl IntoIterator<Item = Vec<Statement>>,
    ) {
        let base = base.map(|(kind, hook, priority)| BaseChain { kind, hook, priority });
        let rules = rules.into_iter().map(Rule).collect();
        self.chains.insert(name.into(), Chain { base, rules });
    }
}

/// A table as far as the kernel can tell us: rules are known by their tags alone.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Observed {
    /// Chains: attachment and the tag of each rule; 0 for a rule that is not ours.
    pub chains: BTreeMap<Name, (Option<BaseChain>, Vec<u64>)>,
    /// Sets by name; the spec is `None` when no set of ours has such a shape.
    pub sets: BTreeMap<Name, ObservedSet>,
    /// Whether it bears the mark of another instance, which held this network namespace before.
    pub foreign: bool,
}

/// A set as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSet {
    /// The declaration's fingerprint, see [`SetSpec::shape`].
    pub shape: SetShape,
    /// Elements; empty for dynamic sets.
    pub elements: BTreeMap<Key, Value>,
}

/// What the kernel tells about a set's declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SetShape {
    /// `NFT_SET_*` flags.
    pub flags: u32,
    /// nft's key type id.
    pub key_type: u32,
    /// Key length in bytes.
    pub key_len: u32,
    /// nft's data type id; 0 for plain sets.
    pub data_type: u32,
    /// Data length in bytes; 0 for plain sets and verdict maps.
    pub data_len: u32,
    /// Maximal number of elements; 0 for no limit.
    pub size: u32,
}

impl Table {
    /// What the kernel would tell about this table.
    #[must_use]
    pub fn observe(&self) -> Observed {
        Observed {
            foreign: false,
            chains: self
                .chains
                .iter()
                .map(|(name, chain)| (name.clone(), (chain.base, chain.rules.iter().map(Rule::tag).collect())))
                .collect(),
            sets: self
                .sets
                .iter()
                .map(|(name, set)| {
                    (name.clone(), ObservedSet { shape: set.spec.shape(), elements: set.elements.clone() })
                })
                .collect(),
        }
    }
}
