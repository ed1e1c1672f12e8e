//! The canonical form of an Endpoints' subsets, as upstream's RepackSubsets (pkg/api/v1/endpoints/util.go): each set
//! of addresses once, with all the ports that it has. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

/// Addresses that are ready (true) or not on the same ports.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Group {
    pub(super) ports: Vec<EndpointPort>,
    /// Ready ones first, in the order of their addresses.
    pub(super) addresses: Vec<(EndpointAddress, bool)>,
}

/// What makes two addresses one: the address, and whose it is.
type AddressKey = (String, String);
/// Name, number, protocol and application protocol; none for a subset without ports.
type PortKey = Option<(String, i32, String, Option<String>)>;

/// Repacks subsets. What is not ready in one subset is not ready on that port, whatever another subset says.
pub(super) fn repack(subsets: &[EndpointSubset]) -> Vec<Group> {
    let mut addresses: BTreeMap<AddressKey, &EndpointAddress> = BTreeMap::new();
    let mut by_port: BTreeMap<PortKey, BTreeMap<AddressKey, bool>> = BTreeMap::new();
    for subset in subsets {
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let waiting = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(waiting) {
            let key = address_key(address);
            addresses.entry(key.clone()).or_insert(address);
            for port in port_keys(subset) {
                let known = by_port.entry(port).or_default().entry(key.clone()).or_insert(true);
                *known = *known && ready;
            }
        }
    }
    let mut groups: BTreeMap<Vec<(bool, AddressKey)>, Vec<PortKey>> = BTreeMap::new();
    for (port, set) in by_port {
        let mut set: Vec<_> = set.into_iter().map(|(address, ready)| (!ready, address)).collect();
        set.sort();
        groups.entry(set).or_default().push(port);
    }
    let group = |(set, ports): (Vec<(bool, AddressKey)>, Vec<PortKey>)| Group {
        ports: ports.into_iter().flatten().map(port).collect(),
        addresses: set.into_iter().map(|(waiting, key)| (addresses[&key].clone(), !waiting)).collect(),
    };
    groups.into_iter().map(group).collect()
}

fn address_key(address: &EndpointAddress) -> AddressKey {
    let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone());
    (address.ip.clone(), uid.unwrap_or_default())
}

fn port_keys(subset: &EndpointSubset) -> Vec<PortKey> {
    let key = |port: &EndpointPort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((port.name.clone().unwrap_or_default(), port.port, protocol, port.app_protocol.clone()))
    };
    let keys: Vec<_> = subset.ports.iter().flatten().map(key).collect();
    if keys.is_empty() { vec![None] } else { keys }
}

fn port((name, port, protocol, app_protocol): (String, i32, String, Option<String>)) -> EndpointPort {
    EndpointPort { name: Some(name), port, protocol: Some(protocol), app_protocol }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, from_value, json};

    /// Ports, and addresses with whether they are ready.
    type Packed = (Vec<i32>, Vec<(String, bool)>);

    fn packed(subsets: Value) -> Vec<Packed> {
        let subsets: Vec<EndpointSubset> = from_value(subsets).unwrap();
        let shown = |group: Group| {
            let ports = group.ports.iter().map(|port| port.port).collect();
            (ports, group.addresses.into_iter().map(|(address, ready)| (address.ip, ready)).collect())
        };
        repack(&subsets).into_iter().map(shown).collect()
    }

    fn subset(ready: &[&str], waiting: &[&str], ports: &[i32]) -> Value {
        let list = |ips: &[&str]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
        let ports: Vec<_> = ports.iter().map(|port| json!({"port": port})).collect();
        json!({"addresses": list(ready), "notReadyAddresses": list(waiting), "ports": ports})
    }

    #[test]
    fn subsets_are_repacked_as_upstreams_tests_expect() {
        let ready = |ip: &str| (ip.to_owned(), true);
        let one = subset(&["1.2.3.4"], &[], &[111]);
        assert_eq!(packed(json!([one])), [(vec![111], vec![ready("1.2.3.4")])]);
        assert_eq!(packed(json!([one, one])), [(vec![111], vec![ready("1.2.3.4")])], "said twice");
        let ports = json!([one, subset(&["1.2.3.4"], &[], &[222])]);
        assert_eq!(packed(ports), [(vec![111, 222], vec![ready("1.2.3.4")])], "one set of addresses, two ports");
        let hosts = json!([one, subset(&["5.6.7.8"], &[], &[111])]);
        assert_eq!(packed(hosts), [(vec![111], vec![ready("1.2.3.4"), ready("5.6.7.8")])], "one port, two addresses");
        let apart = json!([subset(&["1.2.3.4"], &[], &[111, 222]), subset(&["5.6.7.8"], &[], &[222])]);
        let expected = [(vec![111], vec![ready("1.2.3.4")]), (vec![222], vec![ready("1.2.3.4"), ready("5.6.7.8")])];
        assert_eq!(packed(apart), expected);
    }

    #[test]
    fn not_ready_wins_and_nothing_is_left_out() {
        let both = json!([subset(&["1.2.3.4"], &[], &[111]), subset(&[], &["1.2.3.4"], &[111])]);
        assert_eq!(packed(both), [(vec![111], vec![("1.2.3.4".to_owned(), false)])]);
        assert_eq!(packed(json!([subset(&["1.2.3.4"], &[], &[])])), [(vec![], vec![("1.2.3.4".to_owned(), true)])]);
        assert!(packed(json!([subset(&[], &[], &[111])])).is_empty());
        let pods = json!([{"ports": [{"port": 1}], "addresses": [
            {"ip": "1.2.3.4", "targetRef": {"uid": "a"}}, {"ip": "1.2.3.4", "targetRef": {"uid": "b"}}]}]);
        assert_eq!(packed(pods)[0].1.len(), 2, "two pods may share a host's address");
    }
}
