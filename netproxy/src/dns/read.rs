//! What names follow from, read from API objects: Services and EndpointSlices reduced to the fields
//! that matter, and to what one name can make use of. Pure.
//!
//! Whoever may write the Services and EndpointSlices of one namespace could otherwise hold up every node with one of
//! them: ports and endpoints multiply. Upstream's server has no such bound.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::rr::Name;

use super::message::RECORDS;
use crate::api::{EndpointSlice, Service};

/// Ports of one Service or slice that have names: one answer could not tell of more.
pub const PORTS: usize = RECORDS;
/// Addresses of one slice that have names: so many endpoints are allowed (pkg/apis/discovery/validation/validation.go,
/// `maxEndpoints`).
pub const ENDPOINTS: usize = 1000;

/// What a Service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    ClusterIp(Ipv4Addr),
    Headless,
    ExternalName(Name),
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty for the only port of a Service.
    pub name: Box<str>,
    /// Lower case.
    pub protocol: Box<str>,
    pub number: u16,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    pub kind: Kind,
    pub ports: Box<[Port]>,
}

/// One address behind a Service, to be found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub hostname: Option<Box<str>>,
}

impl Endpoint {
    /// Its own label below the Service: the host name, else the dashed address.
    pub fn label(&self) -> String {
        self.hostname.as_deref().map_or_else(|| self.address.to_string().replace('.', "-"), str::to_owned)
    }
}

/// A slice of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEntry {
    /// In order, each once.
    endpoints: Box<[Endpoint]>,
    /// Places of those with a host name, in the order of these.
    named: Box<[usize]>,
    pub ports: Box<[Port]>,
}

impl SliceEntry {
    /// A slice with as many of these as names are given to.
    pub fn new(endpoints: impl Iterator<Item = Endpoint>, ports: impl Iterator<Item = Port>) -> Self {
        let mut endpoints: Vec<_> = endpoints.take(ENDPOINTS).collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        let mut named: Vec<_> = (0..endpoints.len()).filter(|at| endpoints[*at].hostname.is_some()).collect();
        named.sort_by_key(|at| endpoints[*at].hostname.clone());
        Self { endpoints: endpoints.into(), named: named.into(), ports: ports.take(PORTS).collect() }
    }

    /// All endpoints.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Those with an address.
    pub fn with_address(&self, address: Ipv4Addr) -> impl Iterator<Item = &Endpoint> {
        let first = self.endpoints.partition_point(|endpoint| endpoint.address < address);
        self.endpoints[first..].iter().take_while(move |endpoint| endpoint.address == address)
    }

    /// Those with a host name.
    pub fn with_hostname<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Endpoint> {
        let host = |at: &usize| self.endpoints[*at].hostname.as_deref();
        let first = self.named.partition_point(|at| host(at) < Some(name));
        let same = self.named[first..].iter().take_while(move |at| host(at) == Some(name));
        same.map(|at| &self.endpoints[*at])
    }
}

/// Reads a Service; `None` when it has no IPv4 name (yet).
pub fn service(service: &Service) -> Option<ServiceEntry> {
    let spec = &service.spec;
    let kind = if spec.r#type == "ExternalName" {
        // An address is no name, and an alias of it would be none.
        if spec.external_name.parse::<IpAddr>().is_ok() {
            return None;
        }
        let mut target = Name::from_ascii(&spec.external_name).ok().filter(|name| !name.is_root())?;
        target.set_fqdn(true);
        Kind::ExternalName(target)
    } else if spec.cluster_ip == "None" {
        Kind::Headless
    } else {
        let all = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
        Kind::ClusterIp(all.filter_map(|address| address.parse().ok()).next()?)
    };
    let ports = spec.ports.iter().filter_map(|p| port(&p.name, &p.protocol, p.port));
    Some(ServiceEntry { kind, ports: ports.take(PORTS).collect() })
}

/// Reads a slice; what is not ready is not to be found, and addresses of other families are left out.
pub fn slice(slice: &EndpointSlice) -> SliceEntry {
    // Nothing said counts as ready.
    let ready = slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready.unwrap_or(true));
    let endpoints = ready.flat_map(|endpoint| {
        let hostname = Some(endpoint.hostname.to_ascii_lowercase()).filter(|name| !name.is_empty());
        let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
        addresses.map(move |address| Endpoint { address, hostname: hostname.clone().map(Into::into) })
    });
    let ports = slice.ports.iter().filter_map(|p| port(&p.name, &p.protocol, p.port?));
    SliceEntry::new(endpoints, ports)
}

fn port(name: &str, protocol: &str, number: i32) -> Option<Port> {
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    let name = name.to_ascii_lowercase().into();
    Some(Port { name, protocol: protocol.into(), number: u16::try_from(number).ok()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn no_more_is_read_than_names_are_given_to() {
        let ports: Vec<_> = (1..=65_535).map(|number| json!({"name": format!("p{number}"), "port": number})).collect();
        let addresses = |n: u32| (0..100).map(move |m| Ipv4Addr::from_bits(0x0a2a_0000 + n * 100 + m).to_string());
        let endpoints: Vec<_> = (0..1000).map(|n| json!({"addresses": addresses(n).collect::<Vec<_>>()})).collect();
        let text = json!({"spec": {"clusterIP": "10.43.0.7", "ports": ports}});
        assert_eq!(service(&serde_json::from_value(text).unwrap()).unwrap().ports.len(), PORTS);
        let text = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        let read = slice(&serde_json::from_value(text).unwrap());
        assert_eq!((read.endpoints().len(), read.ports.len()), (ENDPOINTS, PORTS));
    }

    #[test]
    fn endpoints_of_a_slice_are_found_by_address_and_by_host_name() {
        let text = json!({"endpoints": [
            {"addresses": ["10.42.0.9"], "hostname": "B"},
            {"addresses": ["10.42.0.8", "fd00::8"], "conditions": {"ready": true}},
            {"addresses": ["10.42.0.7"], "hostname": "b"},
            {"addresses": ["10.42.0.9"], "hostname": "a"},
            {"addresses": ["10.42.0.9"], "hostname": "a"},
            {"addresses": ["10.42.0.6"], "hostname": "a", "conditions": {"ready": false}},
        ]});
        let read = slice(&serde_json::from_value(text).unwrap());
        assert_eq!(read.endpoints().len(), 4, "{read:?}");
        let labels = |address: [u8; 4]| read.with_address(address.into()).map(Endpoint::label).collect::<Vec<_>>();
        assert_eq!(labels([10, 42, 0, 9]), ["a", "b"]);
        assert_eq!((labels([10, 42, 0, 8]), labels([10, 42, 0, 6])), (vec!["10-42-0-8".to_owned()], vec![]));
        let hosts = |name| read.with_hostname(name).map(|endpoint| endpoint.address.octets()[3]).collect::<Vec<_>>();
        assert_eq!((hosts("a"), hosts("b"), hosts("c"), hosts("")), (vec![9], vec![7, 9], vec![], vec![]));
    }
}
