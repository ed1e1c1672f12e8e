//! What names follow from, read from API objects: Services and EndpointSlices
//! reduced to the fields that matter. Pure.

use std::net::Ipv4Addr;

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::zone::ServiceKey;

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
    pub name: String,
    /// Lower case.
    pub protocol: String,
    pub number: u16,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    pub kind: Kind,
    pub ports: Vec<Port>,
}

/// One address behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub hostname: Option<String>,
    pub ready: bool,
}

impl Endpoint {
    /// Its own label below the Service: the host name, else the dashed address.
    pub fn label(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| self.address.to_string().replace('.', "-"))
    }
}

/// A slice of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEntry {
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<Port>,
}

/// Reads a Service; `None` when it has no IPv4 name (yet).
pub fn service(service: &Service) -> Option<(ServiceKey, ServiceEntry)> {
    let key = ServiceKey { namespace: service.metadata.namespace.clone()?, name: service.metadata.name.clone()? };
    let spec = service.spec.as_ref()?;
    let kind = if spec.type_.as_deref() == Some("ExternalName") {
        let mut target = Name::from_ascii(spec.external_name.as_ref()?).ok()?;
        target.set_fqdn(true);
        Kind::ExternalName(target)
    } else if spec.cluster_ip.as_deref() == Some("None") {
        Kind::Headless
    } else {
        let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        Kind::ClusterIp(all.filter_map(|address| address.parse().ok()).next()?)
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default().to_ascii_lowercase(),
            protocol: protocol(port.protocol.as_deref()),
            number: u16::try_from(port.port).ok()?,
        })
    });
    Some((key, ServiceEntry { kind, ports: ports.collect() }))
}

/// The Service that a slice belongs to, and the slice's own name.
pub fn slice_key(slice: &EndpointSlice) -> Option<(ServiceKey, String)> {
    let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.clone();
    let namespace = slice.metadata.namespace.clone()?;
    Some((ServiceKey { namespace, name: service }, slice.metadata.name.clone()?))
}

/// Reads a slice; addresses of other families are left out.
pub fn slice(slice: &EndpointSlice) -> SliceEntry {
    let endpoints = slice.endpoints.iter().flatten().flat_map(|endpoint| {
        // Nothing said counts as ready.
        let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
        let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
        addresses.map(move |address| Endpoint {
            address,
            hostname: endpoint.hostname.as_ref().map(|name| name.to_ascii_lowercase()),
            ready,
        })
    });
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default().to_ascii_lowercase(),
            protocol: protocol(port.protocol.as_deref()),
            number: u16::try_from(port.port?).ok()?,
        })
    });
    SliceEntry { endpoints: endpoints.collect(), ports: ports.collect() }
}

fn protocol(protocol: Option<&str>) -> String {
    protocol.unwrap_or("TCP").to_ascii_lowercase()
}
