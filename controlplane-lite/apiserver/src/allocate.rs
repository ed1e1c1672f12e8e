//! Pure: which cluster IPs and node ports a Service gets, out of bitmaps of what is taken.
//!
//! The caller holds the lock, writes the Service and then commits or reverts the [`Grant`]; nothing here does I/O. The
//! bitmaps are rebuilt from the stored Services at start, so a crash between granting and writing costs nothing.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use bitmap::Bitmap;
use fields::{
    addresses, external_addresses, health_port, held_ports, keep_allocated, node_ports, protocol, set_families, set_ip,
    wanted_ip,
};
use scheme::access::{ensure_map, int_at, str_at};
use scheme::prepare::{needs_health_check_port, needs_node_port};
use scheme::{FieldErrors, Path};

mod bitmap;
mod fields;
pub mod objects;

/// An IPv4 range in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

/// A text that is no IPv4 CIDR with room for Services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 CIDR such as 10.43.0.0/16 (prefix length 8 to 29)")]
pub struct BadCidr(String);

impl std::str::FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        // Digits alone: a number may have a sign, and a length has none.
        let is_signed = prefix.starts_with('+');
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if is_signed || !(8..=29).contains(&prefix) {
            return Err(bad());
        }
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        Ok(Self { base: u32::from(address) & (u32::MAX << (32 - prefix)), prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl Cidr {
    /// Number of addresses.
    pub fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// The `index`-th address.
    pub fn nth(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + index)
    }

    /// Whether an address lies in the range.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address).checked_sub(self.base).is_some_and(|offset| offset < self.size())
    }

    /// Position of an address, `None` outside the range, for the network's own and the broadcast address.
    fn index(self, address: Ipv4Addr) -> Option<u32> {
        let offset = u32::from(address).checked_sub(self.base)?;
        (offset > 0 && offset < self.size() - 1).then_some(offset)
    }
}

/// What is taken in the whole cluster.
#[derive(Debug, Clone)]
pub struct Pools {
    cidr: Cidr,
    addresses: Bitmap,
    /// Ranges that were added later, of which addresses are given, too. They may overlap.
    added: Vec<Cidr>,
    /// Addresses that are held outside the first range, whether or not in another one.
    outside: HashSet<Ipv4Addr>,
    ports: Bitmap,
    port_range: (u16, u16),
}

/// What one write takes and, once it succeeded, gives back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    taken_ips: Vec<Ipv4Addr>,
    taken_ports: Vec<u16>,
    freed_ips: Vec<Ipv4Addr>,
    freed_ports: Vec<u16>,
}

/// Why a Service does not get what it needs.
#[derive(Debug, Clone)]
pub enum Refused {
    /// Fields ask for what they cannot have.
    Invalid(FieldErrors),
    /// What upstream answers as an error of its own (`pkg/registry/core/service/storage/alloc.go`): a range is full, or
    /// a port for health checks cannot be had.
    Failed(String),
}

impl Refused {
    fn full(what: &str) -> Self {
        Self::Failed(format!("failed to allocate {what}: range is full"))
    }
}

/// Upstream keeps a band for static choices: min(max(16, size/16), 256) numbers.
fn static_band(size: u32) -> u32 {
    if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size) }
}

impl Pools {
    /// Empty pools over a Service range and a node port range (both ends included).
    pub fn new(cidr: Cidr, port_range: (u16, u16)) -> Self {
        Self {
            cidr,
            addresses: Bitmap::new(1, cidr.size() - 1),
            added: Vec::new(),
            outside: HashSet::new(),
            ports: Bitmap::new(port_range.0.into(), u32::from(port_range.1) + 1),
            port_range,
        }
    }

    /// Marks what a stored Service holds.
    pub fn occupy(&mut self, service: &Value) {
        for address in addresses(service) {
            self.take_address(address);
        }
        for port in held_ports(service) {
            self.ports.take(port.into());
        }
    }

    /// The same pools with nothing taken.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { added: self.added.clone(), ..Self::new(self.cidr, self.port_range) }
    }

    /// Gives addresses of these ranges beside the first. What is held stays held.
    pub fn set_added(&mut self, added: Vec<Cidr>) {
        self.added = added;
    }

    /// All ranges that addresses are given of.
    pub fn ranges(&self) -> impl Iterator<Item = Cidr> + Clone + '_ {
        std::iter::once(self.cidr).chain(self.added.iter().copied())
    }

    /// Takes an address; false when it was taken. One of no range is taken like any other.
    fn take_address(&mut self, address: Ipv4Addr) -> bool {
        match self.cidr.index(address) {
            Some(index) => self.addresses.take(index),
            None => self.outside.insert(address),
        }
    }

    /// Takes a free address, of a range that was added when the first is full.
    fn take_any_address(&mut self, random: &mut dyn FnMut(u32) -> u32) -> Option<Ipv4Addr> {
        let first = self.addresses.take_any(1 + static_band(self.cidr.size()), random);
        if let Some(index) = first {
            return Some(self.cidr.nth(index));
        }
        for cidr in self.added.clone() {
            let end = cidr.size() - 1;
            let upper = (1 + static_band(cidr.size())).min(end);
            for (from, to) in [(upper, end), (1, upper)] {
                let span = to.saturating_sub(from);
                let start = random(span.max(1)) % span.max(1);
                let all = (0..span).map(|i| cidr.nth(from + (start + i) % span));
                let is_free =
                    |address: &Ipv4Addr| self.cidr.index(*address).is_none() && !self.outside.contains(address);
                let found = all.into_iter().find(is_free);
                if let Some(address) = found {
                    self.outside.insert(address);
                    return Some(address);
                }
            }
        }
        None
    }

    /// Marks what a grant took.
    pub fn retake(&mut self, grant: &Grant) {
        for address in &grant.taken_ips {
            self.take_address(*address);
        }
        for port in &grant.taken_ports {
            self.ports.take((*port).into());
        }
    }

    /// Frees what a deleted Service held.
    pub fn vacate(&mut self, service: &Value) {
        self.free(&addresses(service), &held_ports(service));
    }

    /// Ends a grant whose write is stored: what it freed is free.
    pub fn commit(&mut self, grant: &Grant) {
        self.free(&grant.freed_ips, &grant.freed_ports);
    }

    /// Ends a grant without a write: what it took is free.
    pub fn revert(&mut self, grant: &Grant) {
        self.free(&grant.taken_ips, &grant.taken_ports);
    }

    fn free(&mut self, ips: &[Ipv4Addr], ports: &[u16]) {
        for address in ips {
            match self.cidr.index(*address) {
                Some(index) => self.addresses.release(index),
                None => {
                    self.outside.remove(address);
                }
            }
        }
        for port in ports {
            self.ports.release((*port).into());
        }
    }

    /// Completes a Service: families, cluster IPs and node ports, as upstream's service registry does. `old` is the
    /// stored Service on update.
    ///
    /// # Errors
    /// What is wrong with the fields asked for, or what else cannot be had; nothing is taken then.
    pub fn fill(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Result<Grant, Refused> {
        let mut errors = FieldErrors::new();
        let mut grant = Grant::default();
        if let Some(old) = old {
            keep_allocated(service, old);
        }
        set_families(service, &mut errors);
        external_addresses(service, old, self.ranges(), &mut errors);
        let filled = self
            .fill_addresses(service, old, &mut grant, &mut errors, random)
            .and_then(|()| self.fill_ports(service, old, &mut grant, &mut errors, random))
            .and_then(|()| self.fill_health_port(service, old, &mut grant, random));
        let refused = if errors.is_empty() { filled.err() } else { Some(Refused::Invalid(errors)) };
        if let Some(refused) = refused {
            self.revert(&grant);
            return Err(refused);
        }
        if let Some(old) = old {
            let ips: HashSet<Ipv4Addr> = addresses(service).into_iter().collect();
            let ports: HashSet<u16> = held_ports(service).into_iter().collect();
            grant.freed_ips = addresses(old).into_iter().filter(|ip| !ips.contains(ip)).collect();
            grant.freed_ports = held_ports(old).into_iter().filter(|port| !ports.contains(port)).collect();
        }
        Ok(grant)
    }

    fn fill_addresses(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
        grant: &mut Grant,
        errors: &mut FieldErrors,
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Result<(), Refused> {
        if str_at(service, &["spec", "type"]) == "ExternalName" {
            let spec = ensure_map(service, &["spec"]);
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(field);
            }
            return Ok(());
        }
        let wanted = wanted_ip(service);
        if wanted == "None" {
            set_ip(service, "None");
        } else if wanted.is_empty() {
            let address = self.take_any_address(random).ok_or_else(|| Refused::full("a serviceIP"))?;
            grant.taken_ips.push(address);
            set_ip(service, &address.to_string());
        } else {
            self.claim_address(service, old, &wanted, grant, errors);
        }
        Ok(())
    }

    /// Takes the address a Service asks for, unless it holds it already.
    fn claim_address(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
        wanted: &str,
        grant: &mut Grant,
        errors: &mut FieldErrors,
    ) {
        let path = Path::new("spec");
        let path = path.child("clusterIPs");
        let Ok(address) = wanted.parse::<Ipv4Addr>() else {
            // Validation says what is wrong with a text that is no address.
            if wanted.parse::<Ipv6Addr>().is_ok() && old.is_none_or(|old| wanted_ip(old) != wanted) {
                errors.invalid(&path.index(0), json!([wanted]), "IPv6 is not configured on this cluster");
            }
            return;
        };
        if old.is_some_and(|old| addresses(old).contains(&address)) {
            set_ip(service, wanted);
            return;
        }
        if !self.ranges().any(|range| range.index(address).is_some()) {
            let ranges: Vec<String> = self.ranges().map(|range| range.to_string()).collect();
            let why = format!(
                "failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. The range of \
                 valid IPs is {}",
                ranges.join(", ")
            );
            errors.invalid(&path, json!([wanted]), why);
        } else if self.take_address(address) {
            grant.taken_ips.push(address);
            set_ip(service, wanted);
        } else {
            let why = format!("failed to allocate IP {wanted}: provided IP is already allocated");
            errors.invalid(&path, json!([wanted]), why);
        }
    }

    fn fill_ports(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
        grant: &mut Grant,
        errors: &mut FieldErrors,
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Result<(), Refused> {
        if !needs_node_port(service) {
            return Ok(());
        }
        // Who wants no ports drawn may name some all the same: what is named is claimed like any other, as upstream.
        let draws = service["spec"]["type"] != "LoadBalancer"
            || service["spec"]["allocateLoadBalancerNodePorts"] != json!(false);
        let held: HashSet<u16> = old.map(node_ports).unwrap_or_default().into_iter().collect();
        let spec = Path::new("spec");
        let ports = spec.child("ports");
        // Port number → node port within this Service: TCP and UDP on one number share it.
        let mut shared: HashMap<i64, u16> = HashMap::new();
        let mut own = HashSet::new();
        let Some(list) = service["spec"].get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
        // A node sends what arrives at a port to one place.
        let mut used: HashSet<(String, i64)> =
            list.iter().filter_map(|p| Some((protocol(p), int_at(p, &["nodePort"])?))).collect();
        let number = |entry: &Value| int_at(entry, &["port"]).unwrap_or(0);
        // What is named first: nobody draws it then.
        for (index, entry) in list.iter().enumerate() {
            let Some(wanted) = int_at(entry, &["nodePort"]).filter(|wanted| *wanted != 0) else { continue };
            match self.claim_port(wanted, |port| held.contains(&port) || own.contains(&port), grant) {
                Ok(port) => {
                    shared.entry(number(entry)).or_insert(port);
                    own.insert(port);
                }
                Err(why) => errors.invalid(&ports.index(index).child("nodePort"), wanted, why),
            }
        }
        for entry in list.iter_mut().filter(|entry| draws && int_at(entry, &["nodePort"]).unwrap_or(0) == 0) {
            let is_free = |port: &u16| !used.contains(&(protocol(entry), i64::from(*port)));
            let other = shared.get(&number(entry)).copied().filter(is_free);
            let port = other.or_else(|| self.take_port(grant, random)).ok_or_else(|| Refused::full("a nodePort"))?;
            shared.entry(number(entry)).or_insert(port);
            used.insert((protocol(entry), i64::from(port)));
            entry["nodePort"] = json!(port);
        }
        Ok(())
    }

    /// A load balancer with local traffic policy needs a port that tells whether the node has endpoints, whether or not
    /// it wants node ports.
    fn fill_health_port(
        &mut self,
        service: &mut Value,
        old: Option<&Value>,
        grant: &mut Grant,
        random: &mut dyn FnMut(u32) -> u32,
    ) -> Result<(), Refused> {
        if !needs_health_check_port(service) {
            return Ok(());
        }
        let wanted = int_at(service, &["spec", "healthCheckNodePort"]).unwrap_or(0);
        let port = if wanted == 0 {
            self.take_port(grant, random).ok_or_else(|| Refused::full("a HealthCheck NodePort 0"))?
        } else {
            let held = old.and_then(health_port);
            self.claim_port(wanted, |port| held == Some(port), grant).map_err(|why| {
                Refused::Failed(format!("failed to allocate requested HealthCheck NodePort {wanted}: {why}"))
            })?
        };
        ensure_map(service, &["spec"]).insert("healthCheckNodePort".into(), json!(port));
        Ok(())
    }

    fn take_port(&mut self, grant: &mut Grant, random: &mut dyn FnMut(u32) -> u32) -> Option<u16> {
        let size = u32::from(self.port_range.1 - self.port_range.0) + 1;
        let upper = u32::from(self.port_range.0) + (size / 32).clamp(16, 128).min(size);
        let port = u16::try_from(self.ports.take_any(upper, random)?).ok()?;
        grant.taken_ports.push(port);
        Some(port)
    }

    /// Takes the port that a Service asks for, unless it `has` it; the error says why it cannot be had.
    fn claim_port(&mut self, wanted: i64, has: impl Fn(u16) -> bool, grant: &mut Grant) -> Result<u16, String> {
        let (low, high) = self.port_range;
        let named = u16::try_from(wanted).ok();
        // What a Service has it keeps, even of a range that this server no longer serves.
        if let Some(port) = named.filter(|port| has(*port)) {
            return Ok(port);
        }
        let Some(port) = named.filter(|p| (low..=high).contains(p)) else {
            return Err(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
        };
        if self.ports.take(port.into()) {
            grant.taken_ports.push(port);
            return Ok(port);
        }
        Err("provided port is already allocated".into())
    }
}

#[cfg(test)]
mod tests;
