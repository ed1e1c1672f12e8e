//! Follows the first packet of a connection through a table, the way the kernel's hooks would.
//! For tests of what a ruleset means; independent of how it is encoded.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use crate::nft::object::{ChainKind, Hook, Key, Name, Protocol, Table, Value, Verdict};
use crate::nft::statement::{Field, Side, Statement};

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Whether the node itself sends it; else it comes in from a link.
    pub from_node: bool,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port.
    pub dport: u16,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Delivered {
        /// To where, after translation.
        to: (Ipv4Addr, u16),
        /// Whether its source is replaced.
        masqueraded: bool,
    },
    /// It is refused with an answer.
    Rejected,
    /// It is dropped silently.
    Dropped,
}

/// A table with the state its rules keep.
#[derive(Debug)]
pub struct Tracer {
    /// The table; replace it to see what a change does.
    pub table: Table,
    /// Seconds; affinity ends by it.
    pub now: u64,
    /// Through which link packets from a source come in; through one without a name else.
    pub links: HashMap<Ipv4Addr, &'static str>,
    local: BTreeSet<Ipv4Addr>,
    counters: HashMap<(Name, usize, usize), u32>,
    random: u64,
    affinity: HashMap<(Name, Ipv4Addr), u64>,
}

#[derive(Clone, Copy)]
struct State {
    packet: Packet,
    mark: u32,
    translated: bool,
    masqueraded: bool,
}

/// How a chain or rule ended.
enum End {
    /// The next rule.
    Next,
    /// The next rule of the caller.
    Return,
    /// This hook's next base chain.
    Accept,
    Drop,
    Reject,
    /// Address translation was decided: leaves the base chain like an accept.
    Translated,
}

impl Tracer {
    /// A host with these addresses and this table.
    #[must_use]
    pub fn new(table: Table, local: &[Ipv4Addr]) -> Self {
        let local = local.iter().copied().collect();
        let (links, counters, affinity) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { table, now: 0, links, local, counters, random: 0, affinity }
    }

    fn is_local(&self, addr: Ipv4Addr) -> bool {
        addr.is_loopback() || self.local.contains(&addr)
    }

    /// Sends one packet.
    pub fn send(&mut self, packet: Packet) -> Outcome {
        let mut state = State { packet, mark: 0, translated: false, masqueraded: false };
        let mut hooks = vec![if packet.from_node { Hook::Output } else { Hook::Prerouting }];
        let mut index = 0;
        while let Some(hook) = hooks.get(index).copied() {
            index += 1;
            match self.hook(hook, &mut state) {
                End::Drop => return Outcome::Dropped,
                End::Reject => return Outcome::Rejected,
                _ => {}
            }
            let to_local = self.is_local(state.packet.dst);
            match hook {
                Hook::Prerouting => hooks.push(if to_local { Hook::Input } else { Hook::Forward }),
                Hook::Output if to_local => hooks.extend([Hook::Postrouting, Hook::Input]),
                Hook::Output | Hook::Forward => hooks.push(Hook::Postrouting),
                Hook::Input | Hook::Postrouting => {}
            }
        }
        let to = (state.packet.dst, state.packet.dport);
        Outcome::Delivered { to, masqueraded: state.masqueraded }
    }

    fn hook(&mut self, hook: Hook, state: &mut State) -> End {
        let mut chains: Vec<_> = self
            .table
            .chains
            .iter()
            .filter_map(|(name, chain)| chain.base.filter(|b| b.hook == hook).map(|b| (b, name.clone())))
            .collect();
        chains.sort_by_key(|(base, _)| base.priority);
        for (base, name) in chains {
            let end = self.chain(&name, state);
            assert!(
                base.kind == ChainKind::Nat || !matches!(end, End::Translated),
                "the kernel allows address translation in nat chains only"
            );
            if matches!(end, End::Drop | End::Reject) {
                return end;
            }
        }
        End::Accept
    }

    fn chain(&mut self, name: &Name, state: &mut State) -> End {
        let rules = self.table.chains.get(name).unwrap_or_else(|| panic!("no chain {name}")).rules.clone();
        for (number, rule) in rules.iter().enumerate() {
            for (position, statement) in rule.0.iter().enumerate() {
                match self.statement(statement, (name.clone(), number, position), state) {
                    None => break,
                    Some(End::Next) => {}
                    Some(end) => return end,
                }
            }
        }
        End::Return
    }

    /// `None`: the rule does not match, or ended without effect.
    fn statement(&mut self, statement: &Statement, place: (Name, usize, usize), state: &mut State) -> Option<End> {
        let matched = |yes: bool| yes.then_some(End::Next);
        match statement {
            // What is traced is the first packet of a connection.
            Statement::CtStateNew => Some(End::Next),
            Statement::CtStateEstablished => None,
            Statement::CtStatusDnat => matched(state.translated),
            Statement::L4Proto(protocol) => matched(state.packet.protocol == *protocol),
            Statement::AddrIn { side, net, negate } => matched(net.contains(address(*side, state)) != *negate),
            Statement::IifName { name, prefix, negate } => {
                let link = self.links.get(&state.packet.src).copied().filter(|_| !state.packet.from_node);
                let link = link.unwrap_or_default();
                let same = if *prefix { link.starts_with(name.as_str()) } else { link == name.as_str() };
                matched(same != *negate)
            }
            Statement::FibLocal(side) => matched(self.is_local(address(*side, state))),
            Statement::InSet { key, set } => {
                let key = self.key(key, &place, state);
                matched(self.contains(set, &key, state))
            }
            Statement::NumgenInc(of) => matched(self.numgen_inc(&place, *of) == 0),
            Statement::MarkIsSet(mask) => matched(state.mark & mask == *mask),
            Statement::SetMark(mask) => {
                state.mark |= mask;
                Some(End::Next)
            }
            Statement::ClearMark(mask) => {
                state.mark &= !mask;
                Some(End::Next)
            }
            Statement::UpdateSaddr { set, timeout } => {
                self.affinity.insert((set.clone(), state.packet.src), self.now + u64::from(*timeout));
                Some(End::Next)
            }
            Statement::Dnat { addr, port } => Some(translate(state, *addr, *port)),
            Statement::DnatMap { key, map } => {
                let key = self.key(key, &place, state);
                let Value::Data(data) = self.lookup(map, &key)? else { return None };
                let (addr, port) = data.as_addr_port()?;
                Some(translate(state, addr, port))
            }
            Statement::Vmap { key, map } => {
                let key = self.key(key, &place, state);
                let Value::Verdict(verdict) = self.lookup(map, &key)? else { return None };
                Some(self.verdict(&verdict, state))
            }
            Statement::Masquerade => {
                state.masqueraded = true;
                Some(End::Translated)
            }
            Statement::Reject(_) => Some(End::Reject),
            Statement::Verdict(verdict) => Some(self.verdict(verdict, state)),
        }
    }

    fn verdict(&mut self, verdict: &Verdict, state: &mut State) -> End {
        match verdict {
            Verdict::Accept => End::Accept,
            Verdict::Drop => End::Drop,
            Verdict::Return => End::Return,
            Verdict::Goto(chain) => self.chain(chain, state),
            Verdict::Jump(chain) => match self.chain(chain, state) {
                End::Return => End::Next,
                end => end,
            },
        }
    }

    fn lookup(&self, map: &Name, key: &Key) -> Option<Value> {
        self.table.sets.get(map).unwrap_or_else(|| panic!("no map {map}")).elements.get(key).cloned()
    }

    fn contains(&self, set: &Name, key: &Key, state: &State) -> bool {
        if self.table.sets.get(set).unwrap_or_else(|| panic!("no set {set}")).spec.dynamic {
            return self.affinity.get(&(set.clone(), state.packet.src)).is_some_and(|end| *end > self.now);
        }
        self.lookup(set, key).is_some()
    }

    fn numgen_inc(&mut self, place: &(Name, usize, usize), of: u32) -> u32 {
        let counter = self.counters.entry(place.clone()).or_insert(0);
        let number = *counter % of.max(1);
        *counter = counter.wrapping_add(1);
        number
    }

    /// Some number below `of`: the same ones each time a test runs, one after the other without a pattern.
    fn numgen_random(&mut self, of: u32) -> u32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.random >> 33).unwrap_or_default() % of.max(1)
    }

    fn key(&mut self, fields: &[Field], place: &(Name, usize, usize), state: &State) -> Key {
        fields.iter().fold(Key::new(), |key, field| match field {
            Field::Saddr => key.addr(state.packet.src),
            Field::Daddr => key.addr(state.packet.dst),
            Field::L4Proto => key.proto(state.packet.protocol),
            Field::Dport => key.port(state.packet.dport),
            Field::NumgenInc(of) => key.index(self.numgen_inc(place, *of)),
            Field::NumgenRandom(of) => key.index(self.numgen_random(*of)),
        })
    }
}

fn address(side: Side, state: &State) -> Ipv4Addr {
    match side {
        Side::Saddr => state.packet.src,
        Side::Daddr => state.packet.dst,
    }
}

fn translate(state: &mut State, addr: Ipv4Addr, port: u16) -> End {
    state.packet.dst = addr;
    state.packet.dport = port;
    state.translated = true;
    End::Translated
}
