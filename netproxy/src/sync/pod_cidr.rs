//! What this node's part of the pod network tells of pods' traffic. Pure.

use std::collections::BTreeSet;

use crate::cidr::Cidr4;
use crate::routes::peers::cluster_range;
use crate::ruleset::LocalTraffic;

/// What this node's part of the pod network tells of pods' traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodCidr {
    /// That is pods' traffic here: nothing is written before it is known.
    IsLocal,
    /// Whether the cluster's networks were named as they are. If it is not within them, the range around it is taken
    /// for them, as routes take it.
    IsWithin,
    /// Nothing.
    Ignored,
}

impl PodCidr {
    /// Which traffic is that of pods, and whose is masqueraded, where they are `named` so and this node's part is
    /// `own`; `None` where that tells nothing.
    pub fn networks(self, named: &(LocalTraffic, Vec<Cidr4>), own: Cidr4) -> Option<(LocalTraffic, Vec<Cidr4>)> {
        let (local, outbound) = named;
        let local = match (self, local) {
            (Self::Ignored, _) => return None,
            (Self::IsLocal, _) => LocalTraffic::from_networks(vec![own]),
            (Self::IsWithin, LocalTraffic::From(networks)) => LocalTraffic::From(around(networks, own)),
            (Self::IsWithin, other) => other.clone(),
        };
        Some((local, around(outbound, own)))
    }
}

/// The networks of pods, named so, of a node whose part of them is `own`.
fn around(named: &[Cidr4], own: Cidr4) -> Vec<Cidr4> {
    if named.iter().any(|net| net.covers(own)) {
        return named.to_vec();
    }
    let guessed: BTreeSet<Cidr4> = named.iter().map(|net| cluster_range(*net, Some(own))).collect();
    guessed.into_iter().collect()
}
