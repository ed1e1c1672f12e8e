//! Stale UDP flows: which connection-tracking entries lead to endpoints that no longer serve.
//! Pure; reading and deleting them is `ctnetlink`.
//!
//! Connectionless traffic keeps an entry alive as long as packets come, so a client would talk to
//! a dead endpoint for ever. TCP needs no such help. Upstream reconciles the same way; two cases
//! go further here: flows of a Service that lost its last endpoint, or was deleted, go too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::ruleset::Frontend;
use crate::ruleset::claims::{Claim, claims_of};
use crate::snapshot::{Protocol, Resolved, ServiceName, ServicePortName};

pub mod ctnetlink;
pub mod tuning;

/// One direction's addresses of a tracked flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

/// A tracked UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// As the client sent it.
    pub original: Tuple,
    /// As the answer is expected; its source is the endpoint.
    pub reply: Tuple,
    /// The conntrack zone; 0 is the default.
    pub zone: u16,
}

impl Flow {
    fn translated(&self) -> bool {
        self.reply.src != self.original.dst
    }
}

/// A Service port's claim of a frontend, and who serves it; `None` when that is another proxy's to say.
type Serving = (Claim, Option<Arc<BTreeSet<(Ipv4Addr, u16)>>>);

/// The UDP frontends of all Services and who serves them.
#[derive(Debug, Default)]
pub struct UdpServices {
    services: BTreeMap<ServiceName, BTreeMap<Frontend, Serving>>,
    removed: BTreeSet<Frontend>,
    pending: bool,
}

impl UdpServices {
    /// Takes in how a Service looks now. Traffic policies and topology play no part: a flow may go
    /// on with any endpoint that serves.
    pub fn update(&mut self, name: &ServiceName, ports: &[Resolved]) {
        let mut now: BTreeMap<Frontend, Serving> = BTreeMap::new();
        for resolved in ports.iter().filter(|r| r.port.protocol == Protocol::Udp) {
            let endpoints = resolved.endpoints.iter().filter(|e| e.serving).map(|e| (e.addr, e.port));
            let serving = resolved.port.proxied.then(|| Arc::new(endpoints.collect()));
            let (port, protocol) = (Arc::clone(&resolved.port.port_name), Protocol::Udp);
            let name = ServicePortName { service: name.clone(), port, protocol };
            for (frontend, claim) in claims_of(&name, &resolved.port) {
                if now.get(&frontend).is_none_or(|there| claim < there.0) {
                    now.insert(frontend, (claim, serving.clone()));
                }
            }
        }
        let before = self.services.remove(name).unwrap_or_default();
        if before == now {
            if !now.is_empty() {
                self.services.insert(name.clone(), now);
            }
            return;
        }
        self.pending = true;
        self.removed.extend(before.into_keys().filter(|frontend| !now.contains_key(frontend)));
        if !now.is_empty() {
            self.services.insert(name.clone(), now);
        }
    }

    /// Whether flows have to be looked at.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.pending
    }

    /// Flows were looked at.
    pub fn done(&mut self) {
        self.pending = false;
        self.removed.clear();
    }

    /// The flows that must go. `node_ips` are this node's addresses: a flow to a node port that was
    /// not translated counts only when it was for one of them.
    #[must_use]
    pub fn stale(&self, flows: &[Flow], node_ips: &[Ipv4Addr]) -> Vec<Flow> {
        // Of several that claim a frontend the same one has it as in the rules.
        let mut wanted: HashMap<Frontend, &Serving> = HashMap::new();
        for (frontend, serving) in self.services.values().flatten() {
            let there = wanted.entry(*frontend).or_insert(serving);
            if serving.0 < there.0 {
                *there = serving;
            }
        }
        let is_stale = |flow: &&Flow| {
            let to = flow.original;
            let by_ip = Frontend::Ip(to.dst, Protocol::Udp, to.dport);
            let by_port = Frontend::NodePort(Protocol::Udp, to.dport);
            let ours = |frontend: &Frontend| {
                matches!(frontend, Frontend::Ip(..)) || flow.translated() || node_ips.contains(&to.dst)
            };
            [by_ip, by_port].iter().filter(|f| ours(f)).any(|frontend| match wanted.get(frontend) {
                Some((_, None)) => false,
                Some((_, Some(serving))) if serving.is_empty() => flow.translated(),
                Some((_, Some(serving))) => !serving.contains(&(flow.reply.src, flow.reply.sport)),
                None => self.removed.contains(frontend) && flow.translated(),
            })
        };
        flows.iter().filter(is_stale).copied().collect()
    }
}

#[cfg(test)]
mod tests;
