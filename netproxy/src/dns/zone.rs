//! The names of the cluster: what Services and EndpointSlices say, and the answers that follow.
//! Pure; names are compared without regard to case.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::message::RECORDS;
use super::read::{Endpoint, Kind, Port, ServiceEntry, SliceEntry};
use crate::cidr::Cidr4;
use crate::snapshot::ServiceName;

/// Seconds that an answer may be kept: short, since pods come and go.
const TTL: u32 = 5;
/// Version of the naming scheme, reported as TXT at `dns-version`.
const SCHEMA_VERSION: &str = "1.1.0";
/// What SRV records of one name share out among them, as upstream's server has it.
const WEIGHT: u16 = 100;
/// How many ports of endpoints are looked at for one question.
const LOOKS: usize = 1 << 16;
/// How many names of one address are told.
const NAMES: usize = 1000;

/// What the zone says to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name stands for another one, in the cluster or outside.
    Alias {
        alias: Box<Record>,
        target: Name,
    },
    /// The name exists, but nothing of this type.
    NoData,
    /// There is no such name.
    NameError,
}

/// Whom an address belongs to; a Service that has it itself comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    ClusterIp(ServiceName),
    /// An endpoint in this slice of the Service.
    Slice(ServiceName, Arc<str>),
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    services: BTreeMap<Arc<str>, Named>,
}

/// Everything below one Service's name.
#[derive(Clone, Debug, Default)]
struct Named {
    service: Option<ServiceEntry>,
    slices: BTreeMap<Arc<str>, SliceEntry>,
}

/// Every name of the cluster.
#[derive(Clone, Debug)]
pub struct Zone {
    origin: Name,
    /// The origin's labels, in order, lower case.
    suffix: Vec<String>,
    /// The address of the server, which the zone names, too.
    server: Ipv4Addr,
    /// Networks whose reverse names are ours.
    reverse: Vec<Cidr4>,
    /// More of them: Services' networks, as the cluster says.
    service_ranges: Vec<Cidr4>,
    namespaces: BTreeMap<Arc<str>, Namespace>,
    /// The namespaces there are, and whether all of them are known.
    known_namespaces: BTreeSet<Arc<str>>,
    namespaces_known: bool,
    owners: BTreeSet<(Ipv4Addr, Owner)>,
}

impl Zone {
    /// An empty zone; `None` when `domain` is no domain name.
    pub fn new(domain: &str, server: Ipv4Addr, reverse: Vec<Cidr4>) -> Option<Self> {
        let mut origin = Name::from_ascii(domain).ok()?;
        origin.set_fqdn(true);
        let suffix = labels(&origin)?;
        (!suffix.is_empty()).then(|| Self {
            origin,
            suffix,
            server,
            reverse,
            service_ranges: Vec::new(),
            namespaces: BTreeMap::new(),
            known_namespaces: BTreeSet::new(),
            namespaces_known: false,
            owners: BTreeSet::new(),
        })
    }

    /// Takes in whether a namespace exists.
    pub fn set_namespace(&mut self, name: &Arc<str>, exists: bool) {
        if exists {
            self.known_namespaces.insert(Arc::clone(name));
        } else {
            self.known_namespaces.remove(name);
        }
    }

    /// Takes in which networks the cluster says its Services have: reverse names there are ours, too.
    pub fn set_service_ranges(&mut self, ranges: Vec<Cidr4>) {
        self.service_ranges = ranges;
    }

    /// From now on, namespaces that were not told do not exist.
    pub fn namespaces_are_known(&mut self) {
        self.namespaces_known = true;
    }

    /// Takes a Service's new state in; `None` when it is gone.
    pub fn set_service(&mut self, name: &ServiceName, entry: Option<ServiceEntry>) {
        let address = |entry: &ServiceEntry| match entry.kind {
            Kind::ClusterIp(address) => Some(address),
            Kind::Headless | Kind::ExternalName(_) => None,
        };
        let new = entry.as_ref().and_then(address);
        let old = self.change(name, |named| std::mem::replace(&mut named.service, entry));
        if let Some(old) = old.as_ref().and_then(address) {
            self.owners.remove(&(old, Owner::ClusterIp(name.clone())));
        }
        self.owners.extend(new.map(|new| (new, Owner::ClusterIp(name.clone()))));
    }

    /// Takes the new state of a slice of a Service's endpoints in; `None` when it is gone.
    pub fn set_slice(&mut self, service: &ServiceName, slice: &Arc<str>, entry: Option<SliceEntry>) {
        let owner = Owner::Slice(service.clone(), Arc::clone(slice));
        let owned = |entry: &Option<SliceEntry>| -> Vec<(Ipv4Addr, Owner)> {
            let endpoints = entry.iter().flat_map(SliceEntry::endpoints);
            endpoints.map(|endpoint| (endpoint.address, owner.clone())).collect()
        };
        let entry = entry.filter(|entry| !entry.endpoints().is_empty());
        let new = owned(&entry);
        let old = self.change(service, |named| match entry {
            Some(entry) => named.slices.insert(Arc::clone(slice), entry),
            None => named.slices.remove(slice),
        });
        for gone in owned(&old) {
            self.owners.remove(&gone);
        }
        self.owners.extend(new);
    }

    /// Changes what is below a Service's name, and forgets what became empty.
    fn change<T>(&mut self, name: &ServiceName, change: impl FnOnce(&mut Named) -> T) -> T {
        let namespace = self.namespaces.entry(Arc::clone(&name.namespace)).or_default();
        let named = namespace.services.entry(Arc::clone(&name.name)).or_default();
        let result = change(named);
        if named.service.is_none() && named.slices.is_empty() {
            namespace.services.remove(&name.name);
            if namespace.services.is_empty() {
                self.namespaces.remove(&name.namespace);
            }
        }
        result
    }

    /// Whom an address belongs to, in order.
    fn owners_of(&self, address: Ipv4Addr) -> impl Iterator<Item = &Owner> {
        let least = Owner::ClusterIp(ServiceName { namespace: "".into(), name: "".into() });
        let from = self.owners.range((address, least)..);
        from.take_while(move |(of, _)| *of == address).map(|(_, owner)| owner)
    }

    /// The domain, in full.
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// Whether a name is ours to answer.
    pub fn covers(&self, name: &Name) -> bool {
        let Some(labels) = labels(name) else { return self.origin.zone_of(name) };
        labels.ends_with(&self.suffix) || self.covered_address(&labels).is_some()
    }

    /// The address that a reverse name of ours stands for.
    fn covered_address(&self, labels: &[String]) -> Option<Ipv4Addr> {
        let address = reverse_address(labels)?;
        self.reverse.iter().chain(&self.service_ranges).any(|network| network.contains(address)).then_some(address)
    }

    /// Answers a question about a name that the zone covers.
    pub fn answer(&self, question: &Name, kind: RecordType) -> Answer {
        let Some(question_labels) = labels(question) else { return Answer::NameError };
        if let Some(rest) = question_labels.strip_suffix(self.suffix.as_slice()) {
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            return self.forward(question, &rest, kind);
        }
        match self.covered_address(&question_labels) {
            Some(address) => self.backward(question, address, kind),
            None => Answer::NameError,
        }
    }

    /// The start of authority, which goes with every negative answer.
    pub fn soa(&self) -> Record {
        let below = |label: &str| self.below_origin(label).unwrap_or_else(|| self.origin.clone());
        let soa = SOA::new(below("ns.dns"), below("hostmaster"), 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.origin.clone(), TTL, RData::SOA(soa))
    }

    fn below_origin(&self, name: &str) -> Option<Name> {
        Name::from_ascii(name).and_then(|name| name.append_domain(&self.origin)).ok()
    }

    fn forward(&self, question: &Name, rest: &[&str], kind: RecordType) -> Answer {
        match rest {
            [] => self.apex(question, kind),
            ["dns-version"] if kind == RecordType::TXT => {
                one(question, RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()])))
            }
            ["ns", "dns"] if kind == RecordType::A => one(question, RData::A(A(self.server))),
            ["dns-version" | "svc" | "pod" | "dns"] | ["ns", "dns"] => Answer::NoData,
            [namespace, "svc" | "pod"] if self.has_namespace(namespace) => Answer::NoData,
            [service, namespace, "svc"] => self.service(question, namespace, service, kind),
            [label, service, namespace, "svc"] => self.below_service(question, (label, service, namespace), kind),
            [port, protocol, service, namespace, "svc"] => {
                let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
                    return Answer::NameError;
                };
                self.port(question, (namespace, service), (port, protocol), kind)
            }
            [address, namespace, "pod"] if self.has_namespace(namespace) => match dashed(address) {
                Some(address) if kind == RecordType::A => one(question, RData::A(A(address))),
                Some(_) => Answer::NoData,
                None => Answer::NameError,
            },
            _ => Answer::NameError,
        }
    }

    fn apex(&self, question: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => records(vec![self.soa()]),
            RecordType::NS => self.below_origin("ns.dns").map_or(Answer::NoData, |server| {
                let address = Record::from_rdata(server.clone(), TTL, RData::A(A(self.server)));
                let answer = Record::from_rdata(question.clone(), TTL, RData::NS(NS(server)));
                Answer::Records { answers: vec![answer], additionals: vec![address] }
            }),
            _ => Answer::NoData,
        }
    }

    /// Whether there is a namespace of this name. Where that is not known, there is: better a name
    /// too many than a pod's missing.
    fn has_namespace(&self, namespace: &str) -> bool {
        !self.namespaces_known || self.known_namespaces.contains(namespace) || self.namespaces.contains_key(namespace)
    }

    fn named(&self, namespace: &str, service: &str) -> Option<(&ServiceEntry, &Named)> {
        let named = self.namespaces.get(namespace)?.services.get(service)?;
        named.service.as_ref().map(|entry| (entry, named))
    }

    fn service(&self, question: &Name, namespace: &str, name: &str, kind: RecordType) -> Answer {
        let Some((service, named)) = self.named(namespace, name) else { return Answer::NameError };
        match &service.kind {
            Kind::ExternalName(target) => {
                let alias = Record::from_rdata(question.clone(), TTL, RData::CNAME(CNAME(target.clone())));
                if kind == RecordType::CNAME {
                    records(vec![alias])
                } else {
                    Answer::Alias { alias: Box::new(alias), target: target.clone() }
                }
            }
            // The specification: without endpoints to be found there is no such name.
            Kind::Headless if named.endpoints().next().is_none() => Answer::NameError,
            Kind::ClusterIp(address) if kind == RecordType::A => one(question, RData::A(A(*address))),
            Kind::Headless if kind == RecordType::A => {
                addresses(question, named.endpoints().map(|endpoint| endpoint.address))
            }
            // Upstream's servers list every port there.
            Kind::ClusterIp(_) | Kind::Headless if kind == RecordType::SRV => {
                self.srv(question, (namespace, name), |_| true)
            }
            Kind::ClusterIp(_) | Kind::Headless => Answer::NoData,
        }
    }

    /// `_tcp.…`, or the name of one endpoint.
    fn below_service(&self, question: &Name, labels: (&str, &str, &str), kind: RecordType) -> Answer {
        let (label, service, namespace) = labels;
        let Some((entry, named)) = self.named(namespace, service) else { return Answer::NameError };
        if let Some(protocol) = label.strip_prefix('_') {
            let known = named.ports(entry).any(|port| *port.protocol == *protocol);
            return if known { Answer::NoData } else { Answer::NameError };
        }
        if matches!(entry.kind, Kind::ExternalName(_)) {
            return Answer::NameError;
        }
        // As upstream's server, those of Services with an address of their own have names, too.
        match addresses(question, named.labelled(label).map(|endpoint| endpoint.address)) {
            Answer::Records { .. } if kind != RecordType::A => Answer::NoData,
            found => found,
        }
    }

    fn port(&self, question: &Name, key: (&str, &str), (port, protocol): (&str, &str), kind: RecordType) -> Answer {
        let Some((entry, named)) = self.named(key.0, key.1) else { return Answer::NameError };
        let matches = |candidate: &Port| *candidate.name == *port && *candidate.protocol == *protocol;
        if !named.ports(entry).any(matches) {
            return Answer::NameError;
        }
        if kind == RecordType::SRV { self.srv(question, key, matches) } else { Answer::NoData }
    }

    fn srv(&self, question: &Name, (namespace, name): (&str, &str), wanted: impl Fn(&Port) -> bool) -> Answer {
        let Some((service, named)) = self.named(namespace, name) else { return Answer::NameError };
        let Some(of_service) = self.service_name(namespace, name) else { return Answer::NoData };
        let Kind::ClusterIp(address) = &service.kind else {
            return endpoints_answer(question, &of_service, named.targets(wanted).collect());
        };
        let ports: BTreeSet<u16> = service.ports.iter().filter(|port| wanted(port)).map(|port| port.number).collect();
        let ports: Vec<_> = ports.into_iter().map(|port| (port, of_service.clone())).collect();
        targets_answer(question, ports, [(of_service, *address)])
    }

    /// The names of an address. A ClusterIP has its Service's alone; an endpoint has one in each
    /// Service that it is behind, those with a host name first, since many take the first one.
    fn backward(&self, question: &Name, address: Ipv4Addr, kind: RecordType) -> Answer {
        let mut names: BTreeSet<(bool, Name)> = BTreeSet::new();
        // Of all slices together: one address may be in as many endpoints as somebody likes.
        let mut looks = 4 * NAMES;
        for owner in self.owners_of(address).take(NAMES) {
            match owner {
                Owner::ClusterIp(service) => {
                    if let Some(name) = self.service_name(&service.namespace, &service.name) {
                        return pointers(question, kind, vec![name]);
                    }
                }
                Owner::Slice(service, slice) => {
                    let Some((_, named)) = self.named(&service.namespace, &service.name) else { continue };
                    let Some(slice) = named.slices.get(slice) else { continue };
                    let Some(of_service) = self.service_name(&service.namespace, &service.name) else { continue };
                    for endpoint in slice.with_address(address).take(looks) {
                        looks -= 1;
                        let name = of_service.prepend_label(endpoint.label()).ok();
                        names.extend(name.map(|name| (endpoint.hostname.is_none(), name)));
                    }
                }
            }
        }
        pointers(question, kind, names.into_iter().map(|(_, name)| name).take(NAMES).collect())
    }

    fn service_name(&self, namespace: &str, name: &str) -> Option<Name> {
        self.below_origin(&format!("{name}.{namespace}.svc"))
    }
}

impl Named {
    /// The ports that names can have: a Service's own, or its endpoints' when headless.
    fn ports<'a>(&'a self, service: &'a ServiceEntry) -> impl Iterator<Item = &'a Port> {
        let headless = service.kind == Kind::Headless;
        let own = service.ports.iter().filter(move |_| !headless);
        own.chain(self.slice_ports().map(|(_, port)| port).filter(move |_| headless))
    }

    /// The ports of endpoints, as many as are looked at.
    fn slice_ports(&self) -> impl Iterator<Item = (&SliceEntry, &Port)> {
        let all = self.slices.values().flat_map(|slice| slice.ports.iter().map(move |port| (slice, port)));
        all.take(LOOKS)
    }

    /// Ports that are `wanted` with each endpoint that has them, as many as one answer tells of.
    fn targets(&self, wanted: impl Fn(&Port) -> bool) -> impl Iterator<Item = (u16, &Endpoint)> {
        let ports = self.slice_ports().filter(move |(_, port)| wanted(port));
        ports.flat_map(|(slice, port)| slice.endpoints().iter().map(|endpoint| (port.number, endpoint))).take(RECORDS)
    }

    /// The endpoints that are to be found, as many as one answer tells of.
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.slices.values().flat_map(SliceEntry::endpoints).take(RECORDS)
    }

    /// The endpoints that have this label: their host name, or the dashed address where they have none.
    fn labelled<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a Endpoint> {
        let address = dashed(label);
        let of_slice = move |slice: &'a SliceEntry| {
            let unnamed = address.into_iter().flat_map(|address| slice.with_address(address));
            unnamed.filter(|endpoint| endpoint.hostname.is_none()).chain(slice.with_hostname(label))
        };
        self.slices.values().flat_map(of_slice).take(RECORDS)
    }
}

/// The answer with these ports of endpoints below a Service's name.
fn endpoints_answer(question: &Name, of_service: &Name, mut targets: Vec<(u16, &Endpoint)>) -> Answer {
    targets.sort_unstable_by_key(|(port, endpoint)| (*port, endpoint.hostname.as_deref(), endpoint.address));
    targets.dedup();
    // Names take much longer to make and to compare than what they are made of.
    let endpoints: BTreeSet<&Endpoint> = targets.iter().map(|(_, endpoint)| *endpoint).collect();
    let name = |endpoint: &Endpoint| of_service.prepend_label(endpoint.label()).ok();
    let names: BTreeMap<_, _> = endpoints.into_iter().filter_map(|of| Some((of, name(of)?))).collect();
    let ports = targets.into_iter().filter_map(|(port, endpoint)| Some((port, names.get(endpoint)?.clone())));
    targets_answer(question, ports.collect(), names.iter().map(|(of, name)| (name.clone(), of.address)))
}

/// The answer with these ports, and the addresses of what they are on.
fn targets_answer(
    question: &Name,
    targets: Vec<(u16, Name)>,
    hosts: impl IntoIterator<Item = (Name, Ipv4Addr)>,
) -> Answer {
    if targets.is_empty() {
        return Answer::NoData;
    }
    let weight = (WEIGHT / u16::try_from(targets.len()).unwrap_or(u16::MAX)).max(1);
    let host = |(name, address)| Record::from_rdata(name, TTL, RData::A(A(address)));
    let answer =
        |(port, target)| Record::from_rdata(question.clone(), TTL, RData::SRV(SRV::new(0, weight, port, target)));
    Answer::Records {
        answers: targets.into_iter().map(answer).collect(),
        additionals: hosts.into_iter().map(host).collect(),
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

fn one(question: &Name, data: RData) -> Answer {
    records(vec![Record::from_rdata(question.clone(), TTL, data)])
}

fn records(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new() }
}

fn pointers(question: &Name, kind: RecordType, names: Vec<Name>) -> Answer {
    match names.is_empty() {
        true => Answer::NameError,
        false if kind == RecordType::PTR => {
            let record = |name| Record::from_rdata(question.clone(), TTL, RData::PTR(PTR(name)));
            records(names.into_iter().map(record).collect())
        }
        false => Answer::NoData,
    }
}

/// The addresses of a name that goes with its addresses.
fn addresses(question: &Name, addresses: impl Iterator<Item = Ipv4Addr>) -> Answer {
    let distinct: BTreeSet<_> = addresses.collect();
    if distinct.is_empty() {
        return Answer::NameError;
    }
    let record = |address| Record::from_rdata(question.clone(), TTL, RData::A(A(address)));
    records(distinct.into_iter().map(record).collect())
}

#[cfg(test)]
mod tests;
