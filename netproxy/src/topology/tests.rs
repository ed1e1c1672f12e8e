//! Upstream's table of which endpoints a port uses.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::snapshot::{Hints, Protocol};

const HERE: NodeTopology<'static> = NodeTopology { node_name: "here", zone: Some("zone-a") };

fn port() -> ServicePort {
    ServicePort { node_port: 30080, ..ServicePort::new(Protocol::Tcp, Ipv4Addr::new(10, 43, 0, 1), 80) }
}

/// `r`eady, `t`erminating but serving, `n`either; capital letters are on this node.
fn endpoints(spec: &str) -> Vec<Endpoint> {
    let one = |(last, kind): (u8, char)| Endpoint {
        ready: kind.eq_ignore_ascii_case(&'r'),
        serving: !kind.eq_ignore_ascii_case(&'n'),
        terminating: kind.eq_ignore_ascii_case(&'t'),
        local: kind.is_ascii_uppercase(),
        ..Endpoint::new(Ipv4Addr::new(10, 42, 0, last), 8080)
    };
    (0u8..).zip(spec.chars()).map(one).collect()
}

fn check(port: ServicePort, spec: &str, cluster: &[u8], local: &[u8], any: bool) {
    let chosen = choose(&Resolved { port: Arc::new(port.clone()), endpoints: endpoints(spec) }, HERE);
    let lasts = |list: &[Endpoint]| list.iter().map(|e| e.addr.octets()[3]).collect::<Vec<_>>();
    assert_eq!(
        (lasts(&chosen.cluster), lasts(&chosen.local), chosen.any),
        (cluster.into(), local.into(), any),
        "{spec}"
    );
}

#[test]
fn readiness_and_terminating_fallback() {
    check(port(), "", &[], &[], false);
    check(port(), "rRn", &[0, 1], &[], true);
    check(port(), "rt", &[0], &[], true);
    check(port(), "tTn", &[0, 1], &[], true);
    check(port(), "nn", &[], &[], false);
}

#[test]
fn local_policies_fall_back_on_their_own() {
    let internal = ServicePort { internal_local: true, node_port: 0, ..port() };
    check(internal.clone(), "rR", &[], &[1], true);
    check(internal.clone(), "rT", &[], &[1], true);
    check(internal.clone(), "r", &[], &[], true);
    check(internal, "n", &[], &[], false);
    let external = ServicePort { external_local: true, ..port() };
    check(external.clone(), "rR", &[0, 1], &[1], true);
    check(external.clone(), "rT", &[0], &[1], true);
    check(external.clone(), "r", &[0], &[], true);
    let not_external = ServicePort { node_port: 0, ..external };
    check(not_external, "rR", &[0, 1], &[], true);
}

#[test]
fn hints_count_only_when_they_are_complete_and_mean_us() {
    let hinted = |zones: &[Option<&str>], nodes: &[Option<&str>]| {
        let mut list = endpoints("rrr");
        for (index, endpoint) in list.iter_mut().enumerate() {
            let zones = zones.get(index).copied().flatten().map(Into::into).into_iter().collect();
            let nodes = nodes.get(index).copied().flatten().map(Into::into).into_iter().collect();
            endpoint.hints = Some(Arc::new(Hints { zones, nodes }));
        }
        let chosen = choose(&Resolved { port: Arc::new(port()), endpoints: list }, HERE);
        chosen.cluster.iter().map(|e| e.addr.octets()[3]).collect::<Vec<_>>()
    };
    let (a, b) = (Some("zone-a"), Some("zone-b"));
    assert_eq!(hinted(&[a, b, a], &[]), [0, 2]);
    assert_eq!(hinted(&[a, None, a], &[]), [0, 1, 2], "a hint is missing");
    assert_eq!(hinted(&[b, b, b], &[]), [0, 1, 2], "nobody means our zone");
    assert_eq!(hinted(&[a, a, b], &[Some("there"), Some("here"), Some("there")]), [1], "nodes go before zones");
    assert_eq!(hinted(&[a, a, b], &[Some("there"), Some("there"), Some("there")]), [0, 1]);
}
