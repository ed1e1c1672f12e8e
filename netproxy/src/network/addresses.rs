//! Which addresses the pods' bridge is to have, and which links of others have. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::cidr::Cidr4;
use crate::cni::ipam;
use crate::links::{Address, Observed, Owner};

/// The bridge's addresses but cluster DNS's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    pub addresses: BTreeSet<Address>,
    /// Former parts of the pod network that still have pods.
    pub former: BTreeSet<Cidr4>,
}

/// What pods go through, where `own` is this node's part of the pod network and the bridge has `present`. Before the
/// cluster has said what that is, what is there stays. Where the cluster has given this node another part, pods run on
/// with their addresses and their way out, so the former gateway stays as long as one of `pods` is behind it.
pub fn gateways(own: Option<Cidr4>, present: &BTreeSet<Address>, pods: &[Ipv4Addr]) -> Gateways {
    let gateway = own.and_then(|own| Some((own, ipam::gateway(own)?)));
    let Some((own, gateway)) = gateway else {
        return Gateways { addresses: present.clone(), former: BTreeSet::new() };
    };
    let mut gateways = Gateways { addresses: [(gateway, own.prefix_len())].into(), former: BTreeSet::new() };
    for (address, prefix_len) in present {
        let Some(net) = Cidr4::new(*address, *prefix_len).filter(|net| ipam::gateway(*net) == Some(*address)) else {
            continue;
        };
        if net != own && pods.iter().any(|pod| net.contains(*pod) && !own.contains(*pod)) {
            gateways.addresses.insert((*address, *prefix_len));
            gateways.former.insert(net);
        }
    }
    gateways
}

/// The addresses of pods that have links of `owner`, as is noted on them.
pub fn of_pods(observed: &[Observed], owner: &Owner) -> Vec<Ipv4Addr> {
    let ours = observed.iter().filter(|link| link.is_of(owner));
    ours.filter_map(|link| ipam::noted_address(link.note()?)).collect()
}

/// Addresses of links that are not the owner's, with the networks they are in. A network around
/// the whole cluster's does not clash with it: the longer prefix decides.
pub fn of_others<'a>(observed: &'a [Observed], owner: &'a Owner) -> impl Iterator<Item = (&'a str, Ipv4Addr, Cidr4)> {
    observed.iter().filter(|link| !link.is_of(owner)).flat_map(|link| {
        link.addresses.iter().filter_map(|(ip, len)| Some((link.name.as_str(), *ip, Cidr4::new(*ip, *len)?)))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> Address {
        let (ip, len) = text.split_once('/').unwrap();
        (ip.parse().unwrap(), len.parse().unwrap())
    }

    #[test]
    fn a_former_gateway_stays_for_those_who_go_through_it() {
        let check = |own: Option<&str>, present: &[&str], pods: &[&str], expected: &[&str], former: &[&str]| {
            let present = present.iter().map(|text| address(text)).collect();
            let pods: Vec<_> = pods.iter().map(|text| text.parse().unwrap()).collect();
            let expected = Gateways {
                addresses: expected.iter().map(|text| address(text)).collect(),
                former: former.iter().map(|text| text.parse().unwrap()).collect(),
            };
            assert_eq!(gateways(own.map(|own| own.parse().unwrap()), &present, &pods), expected);
        };
        let old = ["10.42.1.1/24", "10.43.0.10/32"];
        check(Some("10.42.1.0/24"), &[], &[], &["10.42.1.1/24"], &[]);
        check(Some("10.42.1.0/24"), &old, &["10.42.1.5"], &["10.42.1.1/24"], &[]);
        // Nothing is known yet, or what is known cannot be used.
        check(None, &old, &[], &old, &[]);
        check(Some("10.42.1.0/31"), &old, &[], &old, &[]);
        // The node's part has moved.
        check(Some("10.42.8.0/24"), &old, &["10.42.8.2"], &["10.42.8.1/24"], &[]);
        let both = ["10.42.1.1/24", "10.42.8.1/24"];
        check(Some("10.42.8.0/24"), &old, &["10.42.8.2", "10.42.1.2"], &both, &["10.42.1.0/24"]);
        // It shrank: those within the new part have its gateway.
        check(Some("10.42.8.0/24"), &["10.42.0.1/16"], &["10.42.8.2"], &["10.42.8.1/24"], &[]);
        let both = ["10.42.0.1/16", "10.42.8.1/24"];
        check(Some("10.42.8.0/24"), &["10.42.0.1/16"], &["10.42.9.2"], &both, &["10.42.0.0/16"]);
        // What is no gateway is nobody's way out.
        check(Some("10.42.8.0/24"), &["10.42.1.9/24"], &["10.42.1.2"], &["10.42.8.1/24"], &[]);
    }
}
