//! What names follow from, read from API objects: Services and EndpointSlices reduced to the fields
//! that matter. Pure.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::rr::Name;

use crate::api::{EndpointSlice, Service};

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

/// One address behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub hostname: Option<Box<str>>,
    pub ready: bool,
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
    pub endpoints: Box<[Endpoint]>,
    pub ports: Box<[Port]>,
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
    Some(ServiceEntry { kind, ports: ports.collect() })
}

/// Reads a slice; addresses of other families are left out.
pub fn slice(slice: &EndpointSlice) -> SliceEntry {
    let endpoints = slice.endpoints.iter().flat_map(|endpoint| {
        // Nothing said counts as ready.
        let ready = endpoint.conditions.ready.unwrap_or(true);
        let hostname = Some(endpoint.hostname.to_ascii_lowercase()).filter(|name| !name.is_empty());
        let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
        addresses.map(move |address| Endpoint { address, hostname: hostname.clone().map(Into::into), ready })
    });
    let ports = slice.ports.iter().filter_map(|p| port(&p.name, &p.protocol, p.port?));
    SliceEntry { endpoints: endpoints.collect(), ports: ports.collect() }
}

fn port(name: &str, protocol: &str, number: i32) -> Option<Port> {
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    let name = name.to_ascii_lowercase().into();
    Some(Port { name, protocol: protocol.into(), number: u16::try_from(number).ok()? })
}
