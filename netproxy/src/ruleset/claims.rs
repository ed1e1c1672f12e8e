//! Frontends and who has one that several Service ports name. Pure.
//!
//! Upstream's proxy gives it to whichever it comes upon first. Here what the cluster allocated goes before a load
//! balancer's address, and that before `spec.externalIPs`, which whoever may write a Service chooses freely: it must
//! take neither `kubernetes.default` nor cluster DNS from everybody (CVE-2020-8554). Among equals the first by name
//! has it, so that every node decides alike.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use crate::nft::object::Protocol;
use crate::snapshot::{ServiceName, ServicePort, ServicePortName};

/// A destination clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    /// A virtual address and port.
    Ip(Ipv4Addr, Protocol, u16),
    /// A port on the node's addresses.
    NodePort(Protocol, u16),
}

/// Who gave a port a frontend, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The cluster: a ClusterIP or node port.
    Cluster,
    /// A load balancer: `status.loadBalancer`.
    LoadBalancer,
    /// The Service's author: `spec.externalIPs`.
    External,
}

/// That a port wants a frontend; the least of several has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// Why it wants it.
    pub origin: Origin,
    /// The port.
    pub port: ServicePortName,
}

/// All frontends of a port with their origins; one that has two is told twice.
pub fn origins(port: &ServicePort) -> impl Iterator<Item = (Frontend, Origin)> + '_ {
    let cluster = std::iter::once((port.cluster_ip, Origin::Cluster));
    let external = port.external_ips.iter().map(|ip| (*ip, Origin::External));
    let balanced = port.load_balancer_ips.iter().map(|ip| (*ip, Origin::LoadBalancer));
    let ips = cluster.chain(external).chain(balanced);
    let node_port = (port.node_port != 0).then_some(Frontend::NodePort(port.protocol, port.node_port));
    ips.map(|(ip, origin)| (Frontend::Ip(ip, port.protocol, port.port), origin))
        .chain(node_port.map(|frontend| (frontend, Origin::Cluster)))
}

/// All frontends of a port.
pub fn frontends(port: &ServicePort) -> impl Iterator<Item = Frontend> + '_ {
    origins(port).map(|(frontend, _)| frontend)
}

/// What a port claims.
pub fn claims_of<'a>(name: &'a ServicePortName, port: &'a ServicePort) -> impl Iterator<Item = (Frontend, Claim)> + 'a {
    origins(port).map(|(frontend, origin)| (frontend, Claim { origin, port: name.clone() }))
}

/// Nearly every frontend has one claim, which then takes no memory of its own.
#[derive(Debug)]
struct Claimants {
    first: Claim,
    rest: BTreeSet<Claim>,
}

impl Claimants {
    fn insert(&mut self, claim: Claim) {
        if claim < self.first {
            self.rest.insert(std::mem::replace(&mut self.first, claim));
        } else if claim != self.first {
            self.rest.insert(claim);
        }
    }

    /// Takes a claim out; tells whether none is left.
    fn remove(&mut self, claim: &Claim) -> bool {
        if *claim != self.first {
            self.rest.remove(claim);
            return false;
        }
        match self.rest.pop_first() {
            Some(next) => self.first = next,
            None => return true,
        }
        false
    }
}

/// Every claim there is.
#[derive(Debug, Default)]
pub struct Claims {
    by_frontend: HashMap<Frontend, Claimants>,
    /// How many claims were made and given up.
    #[cfg(test)]
    pub steps: usize,
}

impl Claims {
    /// Whether `name` has the frontend.
    #[must_use]
    pub fn has(&self, name: &ServicePortName, frontend: Frontend) -> bool {
        self.by_frontend.get(&frontend).is_some_and(|claimants| claimants.first.port == *name)
    }

    /// Whether nobody wants anything.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_frontend.is_empty()
    }

    /// Gives up the claims `had` and makes those `wanted`; returns the Services who got or lost a frontend.
    pub fn exchange(
        &mut self,
        had: impl Iterator<Item = (Frontend, Claim)>,
        wanted: impl Iterator<Item = (Frontend, Claim)>,
    ) -> BTreeSet<ServiceName> {
        let mut before: BTreeMap<Frontend, Option<ServicePortName>> = BTreeMap::new();
        for (frontend, claim) in had {
            before.entry(frontend).or_insert_with(|| self.owner(frontend).cloned());
            #[cfg(test)]
            {
                self.steps += 1;
            }
            if let Entry::Occupied(mut there) = self.by_frontend.entry(frontend)
                && there.get_mut().remove(&claim)
            {
                there.remove();
            }
        }
        for (frontend, claim) in wanted {
            before.entry(frontend).or_insert_with(|| self.owner(frontend).cloned());
            #[cfg(test)]
            {
                self.steps += 1;
            }
            match self.by_frontend.entry(frontend) {
                Entry::Occupied(mut there) => there.get_mut().insert(claim),
                Entry::Vacant(free) => {
                    free.insert(Claimants { first: claim, rest: BTreeSet::new() });
                }
            }
        }
        let changed = before.into_iter().filter(|(frontend, before)| self.owner(*frontend) != before.as_ref());
        let both = changed.flat_map(|(frontend, before)| before.into_iter().chain(self.owner(frontend).cloned()));
        both.map(|port| port.service).collect()
    }

    fn owner(&self, frontend: Frontend) -> Option<&ServicePortName> {
        self.by_frontend.get(&frontend).map(|claimants| &claimants.first.port)
    }
}
