//! Lanes: chains that serve connections in turn, and who has one of its own. Pure.

use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash as _, Hasher as _};

use super::names::SetId;
use crate::nft::object::Name;
use crate::nft::statement::{Field, Fnv, Rule, Statement};
use crate::snapshot::{ServiceName, ServicePortName};

/// How many Service ports have lanes of their own.
pub const OWN_LANES: usize = 1000;
/// Over how many lanes ports with the same number of endpoints are spread.
pub const SHARED_SLOTS: u64 = 16;

/// How a lane recognises the destination and whether it masquerades.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneKind {
    /// By address, protocol and port.
    Cluster,
    /// The same, masqueraded: external and load balancer addresses.
    External,
    /// By protocol and port, masqueraded.
    NodePort,
}

impl LaneKind {
    /// The prefix of a lane of a port's own.
    #[must_use]
    pub fn own_prefix(self) -> &'static str {
        match self {
            Self::Cluster => "service",
            Self::External => "external",
            Self::NodePort => "nodeport",
        }
    }

    /// The map a lane takes its endpoints from.
    #[must_use]
    pub fn map(self, own: bool) -> SetId {
        match (self, own) {
            (Self::Cluster | Self::External, true) => SetId::Endpoints,
            (Self::Cluster | Self::External, false) => SetId::LaneEndpoints,
            (Self::NodePort, true) => SetId::NodePortEndpoints,
            (Self::NodePort, false) => SetId::NodePortLaneEndpoints,
        }
    }

    /// The key of its map, `which` being how it picks an endpoint.
    #[must_use]
    pub fn key(self, which: Field) -> Vec<Field> {
        match self {
            Self::Cluster | Self::External => vec![Field::Daddr, Field::L4Proto, Field::Dport, which],
            Self::NodePort => vec![Field::L4Proto, Field::Dport, which],
        }
    }

    /// The rules of a lane for `endpoints` endpoints.
    #[must_use]
    pub fn rules(self, endpoints: u32, own: bool, mark: u32) -> Vec<Rule> {
        // One counter for several ports would tie them to each other: whoever calls two of them in turn would meet
        // the same endpoint of each for ever.
        let which = if own { Field::NumgenInc(endpoints) } else { Field::NumgenRandom(endpoints) };
        let pick = Rule(vec![Statement::DnatMap { key: self.key(which), map: self.map(own).name() }]);
        match self {
            Self::Cluster => vec![pick],
            Self::External | Self::NodePort => vec![Rule(vec![Statement::SetMark(mark)]), pick],
        }
    }
}

/// A lane several ports share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// Which destinations it serves.
    pub kind: LaneKind,
    /// How many endpoints each of its ports has.
    pub endpoints: u32,
    /// Which of the lanes like it.
    pub slot: u64,
}

impl Lane {
    /// The lane a port shares.
    #[must_use]
    pub fn shared(kind: LaneKind, endpoints: u32, name: &ServicePortName) -> Self {
        let mut hasher = Fnv::default();
        name.hash(&mut hasher);
        Self { kind, endpoints, slot: hasher.finish() % SHARED_SLOTS }
    }

    /// Its chain.
    #[must_use]
    pub fn chain(self) -> Name {
        let prefix = match self.kind {
            LaneKind::Cluster => "lane",
            LaneKind::External => "external-lane",
            LaneKind::NodePort => "nodeport-lane",
        };
        format!("{prefix}-{}-{}", self.endpoints, self.slot).into()
    }

    /// Its rules.
    #[must_use]
    pub fn rules(self, mark: u32) -> Vec<Rule> {
        self.kind.rules(self.endpoints, false, mark)
    }
}

/// Who has lanes of its own. First come, first served; a port keeps what it has while it needs it.
#[derive(Debug)]
pub struct LaneAllocator {
    limit: usize,
    own: HashSet<ServicePortName>,
    /// Who shares lanes, because there were no more.
    waiting: BTreeSet<ServicePortName>,
}

impl Default for LaneAllocator {
    fn default() -> Self {
        Self::with_limit(OWN_LANES)
    }
}

impl LaneAllocator {
    /// Nobody has lanes, of which there are enough for `limit` ports.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { limit, own: HashSet::new(), waiting: BTreeSet::new() }
    }

    /// Whether nobody waits while there are lanes left.
    #[cfg(test)]
    pub fn is_fair(&self) -> bool {
        self.own.len() <= self.limit && (self.waiting.is_empty() || self.own.len() == self.limit)
    }

    /// Whether `name` has lanes of its own; gives it some while there are any left.
    pub fn claim(&mut self, name: &ServicePortName) -> bool {
        if self.own.contains(name) {
            return true;
        }
        if self.own.len() < self.limit {
            self.waiting.remove(name);
            return self.own.insert(name.clone());
        }
        self.waiting.insert(name.clone());
        false
    }

    /// Takes back what `name` has.
    pub fn release(&mut self, name: &ServicePortName) {
        self.own.remove(name);
        self.waiting.remove(name);
    }

    /// The Services of ports that waited and for which there are lanes now: they have to claim them.
    pub fn promote(&mut self) -> BTreeSet<ServiceName> {
        let free = self.limit.saturating_sub(self.own.len());
        let mut promoted = BTreeSet::new();
        for _ in 0..free {
            let Some(name) = self.waiting.pop_first() else { break };
            promoted.insert(name.service);
        }
        promoted
    }
}
