//! A table that uses everything rulesets can use, for asking a kernel whether it can. Pure.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::{NodeView, PortInput, Ruleset};
use crate::nft::object::{Protocol, Table};
use crate::snapshot::{Endpoint, ServiceName, ServicePort};
use crate::topology::Chosen;

/// Such a table. Its one Service has addresses reserved for documentation.
#[must_use]
pub fn table(node: &NodeView) -> Table {
    let service = ServiceName { namespace: "probe".into(), name: "probe".into() };
    let port = ServicePort {
        node_port: 1,
        load_balancer_ips: [Ipv4Addr::new(192, 0, 2, 2)].into(),
        source_ranges: Some(Vec::new()),
        ..ServicePort::new(Protocol::Tcp, Ipv4Addr::new(192, 0, 2, 1), 1)
    };
    let endpoint = |last| Endpoint::new(Ipv4Addr::new(198, 51, 100, last), 1);
    let both = vec![endpoint(1), endpoint(2)];
    let sticky = ServicePort { port_name: "sticky".into(), affinity: Some(1), port: 2, node_port: 2, ..port.clone() };
    let chosen = Chosen { cluster: both.clone(), local: both, any: true };
    let mut ruleset = Ruleset::new(node.clone());
    ruleset.update([service].into(), &|_| {
        let input = |port: &ServicePort| PortInput { port: Arc::new(port.clone()), chosen: chosen.clone() };
        vec![input(&port), input(&sticky)]
    });
    ruleset.table()
}
