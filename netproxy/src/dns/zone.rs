//! The names of the cluster: what Services and EndpointSlices say, and the
//! answers that follow. Pure; names are compared without regard to case.

use std::collections::BTreeMap;
#[cfg(test)]
use std::net::IpAddr;
use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::read::{Endpoint, Kind, Port, ServiceEntry, SliceEntry};
use crate::cidr::Cidr4;

/// Seconds that an answer may be kept: short, since pods come and go.
const TTL: u32 = 5;
/// Version of the naming scheme, reported as TXT at `dns-version`.
const SCHEMA_VERSION: &str = "1.1.0";

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
}

/// What the zone says to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name stands for another one outside the cluster.
    Alias {
        alias: Box<Record>,
        target: Name,
    },
    /// The name exists, but nothing of this type.
    NoData,
    /// There is no such name.
    NameError,
    /// Not a name of the cluster.
    Elsewhere,
}

/// Every name of the cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    origin: Name,
    /// The origin's labels, in order, lower case.
    suffix: Vec<String>,
    /// Networks whose reverse names are ours.
    reverse: Vec<Cidr4>,
    services: BTreeMap<ServiceKey, ServiceEntry>,
    slices: BTreeMap<ServiceKey, BTreeMap<String, SliceEntry>>,
    /// Cluster IPs and headless endpoints, to the Service they belong to.
    owners: BTreeMap<Ipv4Addr, ServiceKey>,
}

impl Zone {
    /// An empty zone; `None` when `domain` is no domain name.
    pub fn new(domain: &str, reverse: Vec<Cidr4>) -> Option<Self> {
        let mut origin = Name::from_ascii(domain).ok()?;
        origin.set_fqdn(true);
        let suffix = labels(&origin)?;
        (!suffix.is_empty()).then(|| Self {
            origin,
            suffix,
            reverse,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            owners: BTreeMap::new(),
        })
    }

    /// Takes a Service in, or takes its new state.
    pub fn put_service(&mut self, key: ServiceKey, entry: ServiceEntry) {
        self.remove_service(&key);
        if let Kind::ClusterIp(address) = entry.kind {
            self.owners.insert(address, key.clone());
        }
        self.services.insert(key, entry);
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        if let Some(ServiceEntry { kind: Kind::ClusterIp(address), .. }) = self.services.remove(key) {
            self.owners.remove(&address);
        }
    }

    /// Takes a slice of a Service's endpoints in, or takes its new state.
    pub fn put_slice(&mut self, key: &ServiceKey, name: &str, entry: SliceEntry) {
        self.remove_slice(key, name);
        for endpoint in &entry.endpoints {
            self.owners.entry(endpoint.address).or_insert_with(|| key.clone());
        }
        self.slices.entry(key.clone()).or_default().insert(name.to_owned(), entry);
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, key: &ServiceKey, name: &str) {
        let Some(of_service) = self.slices.get_mut(key) else { return };
        let removed = of_service.remove(name);
        if of_service.is_empty() {
            self.slices.remove(key);
        }
        for endpoint in removed.iter().flat_map(|slice| &slice.endpoints) {
            if self.owners.get(&endpoint.address) == Some(key) {
                self.owners.remove(&endpoint.address);
            }
        }
    }

    /// Forgets the Services that `keep` does not name.
    pub fn retain_services(&mut self, keep: impl Fn(&ServiceKey) -> bool) {
        let gone: Vec<_> = self.services.keys().filter(|key| !keep(key)).cloned().collect();
        for key in gone {
            self.remove_service(&key);
        }
    }

    /// Forgets the slices that `keep` does not name.
    pub fn retain_slices(&mut self, keep: impl Fn(&(ServiceKey, String)) -> bool) {
        let all = self.slices.iter().flat_map(|(key, slices)| slices.keys().map(|name| (key.clone(), name.clone())));
        let gone: Vec<_> = all.filter(|key| !keep(key)).collect();
        for (key, name) in gone {
            self.remove_slice(&key, &name);
        }
    }

    /// Answers a question.
    pub fn answer(&self, question: &Name, kind: RecordType) -> Answer {
        let Some(question_labels) = labels(question) else { return Answer::NameError };
        if let Some(rest) = question_labels.strip_suffix(self.suffix.as_slice()) {
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            return self.forward(question, &rest, kind);
        }
        match reverse_address(&question_labels) {
            Some(address) if self.reverse.iter().any(|network| network.contains(address)) => {
                self.backward(question, address, kind)
            }
            _ => Answer::Elsewhere,
        }
    }

    /// The start of authority, which goes with every negative answer.
    pub fn soa(&self) -> Record {
        let below = |label: &str| Name::from_ascii(label).and_then(|name| name.append_domain(&self.origin));
        let server = below("ns.dns").unwrap_or_else(|_| self.origin.clone());
        let contact = below("hostmaster").unwrap_or_else(|_| self.origin.clone());
        let soa = SOA::new(server, contact, 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.origin.clone(), TTL, RData::SOA(soa))
    }

    fn forward(&self, question: &Name, rest: &[&str], kind: RecordType) -> Answer {
        match rest {
            [] => match kind {
                RecordType::SOA => records(vec![self.soa()]),
                RecordType::NS => {
                    let server = Name::from_ascii("ns.dns").and_then(|name| name.append_domain(&self.origin));
                    server.map_or(Answer::NoData, |server| one(question, RData::NS(NS(server))))
                }
                _ => Answer::NoData,
            },
            ["dns-version"] if kind == RecordType::TXT => {
                one(question, RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()])))
            }
            ["dns-version" | "svc" | "pod"] | [_, "pod"] => Answer::NoData,
            [namespace, "svc"] => self.namespace(namespace),
            [service, namespace, "svc"] => self.service(question, &key(namespace, service), kind),
            [label, service, namespace, "svc"] => self.below_service(question, label, &key(namespace, service), kind),
            [port, protocol, service, namespace, "svc"] => {
                self.port(question, port, protocol, &key(namespace, service), kind)
            }
            [address, _, "pod"] => match dashed(address) {
                Some(address) if kind == RecordType::A => one(question, RData::A(A(address))),
                Some(_) => Answer::NoData,
                None => Answer::NameError,
            },
            _ => Answer::NameError,
        }
    }

    /// An empty name above the Services of a namespace.
    fn namespace(&self, namespace: &str) -> Answer {
        let first = key(namespace, "");
        let found = self.services.range(first..).next();
        if found.is_some_and(|(key, _)| key.namespace == namespace) { Answer::NoData } else { Answer::NameError }
    }

    fn service(&self, question: &Name, key: &ServiceKey, kind: RecordType) -> Answer {
        let Some(service) = self.services.get(key) else { return Answer::NameError };
        match &service.kind {
            Kind::ExternalName(target) => {
                let alias = Record::from_rdata(question.clone(), TTL, RData::CNAME(CNAME(target.clone())));
                if kind == RecordType::CNAME {
                    records(vec![alias])
                } else {
                    Answer::Alias { alias: Box::new(alias), target: target.clone() }
                }
            }
            Kind::ClusterIp(address) if kind == RecordType::A => one(question, RData::A(A(*address))),
            Kind::Headless if kind == RecordType::A => {
                addresses(question, self.endpoints(key).map(|(endpoint, _)| endpoint.address))
            }
            // Upstream's servers list every port there.
            Kind::ClusterIp(_) | Kind::Headless if kind == RecordType::SRV => {
                self.srv(question, key, service, |_| true)
            }
            Kind::ClusterIp(_) | Kind::Headless => Answer::NoData,
        }
    }

    /// `_tcp.…`, or the name of one endpoint.
    fn below_service(&self, question: &Name, label: &str, key: &ServiceKey, kind: RecordType) -> Answer {
        let Some(service) = self.services.get(key) else { return Answer::NameError };
        if let Some(protocol) = label.strip_prefix('_') {
            let known = self.ports(key, service).iter().any(|port| port.protocol == protocol);
            return if known { Answer::NoData } else { Answer::NameError };
        }
        if service.kind != Kind::Headless {
            return Answer::NameError;
        }
        let named = self.endpoints(key).map(|(endpoint, _)| endpoint).filter(|endpoint| endpoint.label() == label);
        let named: Vec<_> = named.map(|endpoint| endpoint.address).collect();
        match named.is_empty() {
            true => Answer::NameError,
            false if kind == RecordType::A => addresses(question, named.into_iter()),
            false => Answer::NoData,
        }
    }

    fn port(&self, question: &Name, port: &str, protocol: &str, key: &ServiceKey, kind: RecordType) -> Answer {
        let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
            return Answer::NameError;
        };
        let Some(service) = self.services.get(key) else { return Answer::NameError };
        let matches = |candidate: &Port| candidate.name == port && candidate.protocol == protocol;
        if !self.ports(key, service).iter().any(matches) {
            return Answer::NameError;
        }
        if kind == RecordType::SRV { self.srv(question, key, service, matches) } else { Answer::NoData }
    }

    fn srv(&self, question: &Name, key: &ServiceKey, service: &ServiceEntry, wanted: impl Fn(&Port) -> bool) -> Answer {
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        let mut point_to = |port: u16, target: Name, address: Ipv4Addr| {
            let srv = SRV::new(0, 100, port, target.clone());
            answers.push(Record::from_rdata(question.clone(), TTL, RData::SRV(srv)));
            let additional = Record::from_rdata(target, TTL, RData::A(A(address)));
            if !additionals.contains(&additional) {
                additionals.push(additional);
            }
        };
        match &service.kind {
            Kind::ClusterIp(address) => {
                let Some(target) = self.service_name(key) else { return Answer::NoData };
                for port in service.ports.iter().filter(|port| wanted(port)) {
                    point_to(port.number, target.clone(), *address);
                }
            }
            _ => {
                for (endpoint, ports) in self.endpoints(key) {
                    let Some(target) = self.endpoint_name(key, endpoint) else { continue };
                    for port in ports.iter().filter(|port| wanted(port)) {
                        point_to(port.number, target.clone(), endpoint.address);
                    }
                }
            }
        }
        if answers.is_empty() { Answer::NoData } else { Answer::Records { answers, additionals } }
    }

    fn backward(&self, question: &Name, address: Ipv4Addr, kind: RecordType) -> Answer {
        let Some(key) = self.owners.get(&address) else { return Answer::NameError };
        let name = match self.services.get(key).map(|service| &service.kind) {
            Some(Kind::ClusterIp(own)) if *own == address => self.service_name(key),
            Some(Kind::Headless) => {
                let endpoint = self.endpoints(key).map(|(endpoint, _)| endpoint).find(|e| e.address == address);
                endpoint.and_then(|endpoint| self.endpoint_name(key, endpoint))
            }
            _ => None,
        };
        match name {
            None => Answer::NameError,
            Some(name) if kind == RecordType::PTR => one(question, RData::PTR(PTR(name))),
            Some(_) => Answer::NoData,
        }
    }

    /// The ports a Service's names have: its own, or its endpoints' when headless.
    fn ports(&self, key: &ServiceKey, service: &ServiceEntry) -> Vec<Port> {
        let of_slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values).flat_map(|slice| &slice.ports);
        service.ports.iter().chain(of_slices).cloned().collect()
    }

    /// The endpoints that are to be found, each with its slice's ports.
    fn endpoints(&self, key: &ServiceKey) -> impl Iterator<Item = (&Endpoint, &[Port])> {
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        slices.flat_map(|slice| {
            let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
            ready.map(|endpoint| (endpoint, slice.ports.as_slice()))
        })
    }

    fn service_name(&self, key: &ServiceKey) -> Option<Name> {
        Name::from_ascii(format!("{}.{}.svc", key.name, key.namespace)).ok()?.append_domain(&self.origin).ok()
    }

    fn endpoint_name(&self, key: &ServiceKey, endpoint: &Endpoint) -> Option<Name> {
        self.service_name(key)?.prepend_label(endpoint.label()).ok()
    }
}

/// The labels of a name, lower case, the top one last; `None` when one is no text.
fn labels(name: &Name) -> Option<Vec<String>> {
    name.iter().map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect()
}

/// The address that a name in `in-addr.arpa` stands for.
fn reverse_address(labels: &[String]) -> Option<Ipv4Addr> {
    let [d, c, b, a, inverse, arpa] = labels else { return None };
    if inverse != "in-addr" || arpa != "arpa" {
        return None;
    }
    let octet = |text: &String| text.parse::<u8>().ok();
    Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?))
}

/// `10-42-0-7` as an address.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn one(question: &Name, data: RData) -> Answer {
    records(vec![Record::from_rdata(question.clone(), TTL, data)])
}

fn records(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new() }
}

fn addresses(question: &Name, addresses: impl Iterator<Item = Ipv4Addr>) -> Answer {
    let mut distinct: Vec<_> = addresses.collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.is_empty() {
        return Answer::NoData;
    }
    let record = |address| Record::from_rdata(question.clone(), TTL, RData::A(A(address)));
    records(distinct.into_iter().map(record).collect())
}

/// The addresses in an answer, for tests and logs.
#[cfg(test)]
fn found(answer: &Answer) -> Vec<IpAddr> {
    let Answer::Records { answers, .. } = answer else { return Vec::new() };
    answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

#[cfg(test)]
mod tests;
