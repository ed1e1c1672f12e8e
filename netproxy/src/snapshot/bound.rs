//! How much of a Service is served. Pure.
//!
//! Whoever may write the Services and EndpointSlices of one namespace could otherwise hold up every node with one of
//! them: addresses, ports and endpoints multiply. What does not fit is left out: first addresses from outside the
//! cluster, of these the external ones first, so that none escapes the source ranges of a load balancer's; then whole
//! ports. Upstream has no such bound.

use std::sync::Arc;

use super::ServicePort;

/// How many elements and rules one Service may have: about ten thousand endpoints at a dozen frontends.
pub const MAX_ELEMENTS: usize = 1 << 17;
/// Beyond so many addresses a port has a chain for all of them, and no elements for each with each endpoint.
pub const MANY_ADDRESSES: usize = 8;
/// What an endpoint of a port with session affinity costs: a set, and rules.
const STICKY: usize = 16;

/// What of `port`, which has so many `endpoints`, fits into `left`, which it takes from; and how many frontends do not.
#[must_use]
pub fn fit(port: &Arc<ServicePort>, endpoints: usize, left: &mut usize) -> (Option<Arc<ServicePort>>, usize) {
    let weight = endpoints.saturating_mul(if port.affinity.is_some() { STICKY } else { 1 });
    let own = 1 + usize::from(port.node_port != 0);
    let addresses = port.external_ips.len() + port.load_balancer_ips.len();
    let Some(rest) = left.checked_sub(own.saturating_mul(weight.saturating_add(1))) else {
        return (None, own + addresses);
    };
    let cost = |addresses: usize| addresses.saturating_add(weight.saturating_mul(addresses.min(MANY_ADDRESSES)));
    if cost(addresses) <= rest {
        *left = rest - cost(addresses);
        return (Some(Arc::clone(port)), 0);
    }
    // As many as fit through one chain, or else none.
    let kept = rest.saturating_sub(weight.saturating_mul(MANY_ADDRESSES));
    *left = rest - cost(kept).min(rest);
    let balanced = kept.min(port.load_balancer_ips.len());
    let bounded = ServicePort {
        load_balancer_ips: port.load_balancer_ips[..balanced].into(),
        external_ips: port.external_ips[..kept - balanced].into(),
        ..(**port).clone()
    };
    (Some(Arc::new(bounded)), addresses - kept)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::Protocol;

    fn port(node_port: u16, external: u32, balanced: u32) -> Arc<ServicePort> {
        let addresses = |net: u32, count| (0..count).map(|index| Ipv4Addr::from_bits(net + index)).collect();
        Arc::new(ServicePort {
            node_port,
            external_ips: addresses(0xc633_0000, external),
            load_balancer_ips: addresses(0xc634_0000, balanced),
            ..ServicePort::new(Protocol::Tcp, Ipv4Addr::new(10, 43, 0, 1), 80)
        })
    }

    #[test]
    fn what_fits_is_served_as_it_is() {
        for (port, endpoints) in [(port(0, 0, 0), 100_000), (port(1, 2, 2), 10_000), (port(0, 100_000, 0), 3_000)] {
            let mut left = MAX_ELEMENTS;
            assert_eq!(fit(&port, endpoints, &mut left), (Some(Arc::clone(&port)), 0), "{endpoints} endpoints");
        }
    }

    #[test]
    fn external_addresses_go_before_balanced_ones_and_both_before_the_port() {
        let kept = |endpoints, mut left: usize| {
            let (kept, unserved) = fit(&port(30_000, 20, 20), endpoints, &mut left);
            (kept.map(|kept| (kept.load_balancer_ips.len(), kept.external_ips.len())), unserved)
        };
        assert_eq!(kept(10, 22 + 40 + 80), (Some((20, 20)), 0));
        assert_eq!(kept(10, 22 + 30 + 80), (Some((20, 10)), 10));
        assert_eq!(kept(10, 22 + 15 + 80), (Some((15, 0)), 25));
        assert_eq!(kept(10, 22), (Some((0, 0)), 40));
        assert_eq!(kept(10, 21), (None, 42));
        assert_eq!(kept(usize::MAX, MAX_ELEMENTS), (None, 42));
    }

    proptest! {
        #[test]
        fn the_bound_holds(ports in proptest::collection::vec((0u16..2, 0u32..300, 0u32..300, 0usize..300), 0..20)) {
            let (mut left, mut spent) = (5_000, 0);
            for (node_port, external, balanced, endpoints) in ports {
                let asked = port(node_port, external, balanced);
                let (kept, unserved) = fit(&asked, endpoints, &mut left);
                let count = |port: &ServicePort| {
                    1 + usize::from(port.node_port) + port.external_ips.len() + port.load_balancer_ips.len()
                };
                prop_assert_eq!(kept.as_ref().map_or(0, |kept| count(kept)) + unserved, count(&asked));
                if let Some(kept) = kept {
                    let addresses = kept.external_ips.len() + kept.load_balancer_ips.len();
                    spent += (1 + usize::from(node_port)) * (1 + endpoints);
                    spent += addresses + endpoints * addresses.min(MANY_ADDRESSES);
                }
                prop_assert!(spent + left <= 5_000, "{} spent, {} left", spent, left);
            }
        }
    }
}
