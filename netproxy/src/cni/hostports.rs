//! Host ports of pods: the rules that lead a port of the node into a container, as upstream's
//! `portmap` plugin makes them.
//!
//! Who has which port is written in the leases (`ipam`), under whose lock everything here runs;
//! the kernel's table follows them. So a plugin may die anywhere: rules without a lease go with the
//! next repair, and a lease without rules goes with its container. Adding a container's ports is
//! one transaction of elements; whatever else is to be done lists the table first and repairs it.
//!
//! `mapping` reads and compares ports, `table` decides what the table holds; both are pure.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use super::ipam::Leases;
use super::protocol::{NetworkConfig, PluginError};
use super::sysctl;
use crate::backend::netlink::NetlinkBackend;
use crate::backend::{self, NftBackend, NftError};
use crate::cidr::Cidr4;
use crate::conntrack::Flow;
use crate::conntrack::ctnetlink::{Conntrack, CtNetlink};
use crate::links::{self, Owner};
use crate::nft::object::Table;

pub mod mapping;
pub mod table;

use mapping::{HostPort, ReservedPort};
use table::{NetworkAddresses, TABLE};

/// What of the table is one network's, and what it must not have.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Containers with these addresses, and those with leases.
    pub subnet: Cidr4,
    /// Ports that the node answers on itself.
    pub reserved: &'a BTreeSet<ReservedPort>,
    /// Where cluster DNS answers on this node.
    pub dns: Option<Ipv4Addr>,
    /// Whose the table is.
    pub owner: Option<&'a Owner>,
}

impl Scope<'_> {
    /// The table as `leases` want it.
    fn table(&self, leases: &Leases) -> Table {
        let wanted = leases.with_ports(self.reserved);
        table::table(wanted.iter().map(|(address, ports)| (*address, ports.as_slice())), self.dns)
    }

    /// What of the table `leases` name, or named until those with `gone` addresses went.
    fn ours(&self, leases: &Leases, gone: impl IntoIterator<Item = Ipv4Addr>) -> NetworkAddresses {
        NetworkAddresses { subnet: self.subnet, leased: leases.addresses().chain(gone).collect() }
    }
}

/// Leads the ports of the container at `address` to it. Its lease is written already, so that no
/// other container of this network has one of them.
///
/// # Errors
/// When the kernel refuses, or a container of another network has one of the ports. Then some of
/// it may be done: [`close`] undoes it.
pub fn open(leases: &Leases, config: &NetworkConfig, address: Ipv4Addr, ports: &[HostPort]) -> Result<(), PluginError> {
    add(leases, config.scope()?, address, ports)?;
    // Only now: the rules that keep loopback to the node itself are in place.
    sysctl::route_localnet(&config.bridge)
        .map_err(|error| PluginError::io("let the bridge route loopback addresses", &error))?;
    let mut local = links::local_addresses();
    local.retain(|address| Some(*address) != config.dns_address);
    forget(ports, |flows| mapping::stale_when_opened(ports, address, &local, flows));
    Ok(())
}

fn add(leases: &Leases, scope: Scope<'_>, address: Ipv4Addr, ports: &[HostPort]) -> Result<(), PluginError> {
    let mut backend = NetlinkBackend::for_table(TABLE)?.of(scope.owner);
    match backend.run(&table::addition(address, ports), None) {
        // There is no table yet, or something in it is not as the leases say.
        Err(NftError::Refused { .. }) => {}
        other => return Ok(other?),
    }
    let (desired, ours) = (scope.table(leases), scope.ours(leases, []));
    backend::reconcile(&mut backend, |observed| match table::taken_by(observed, ports, &ours) {
        Some(by) => Err(PluginError::port_taken("a host port", &format!("by {by} of another network"))),
        None => Ok(table::repair(observed, desired.clone(), &ours)),
    })?;
    Ok(())
}

/// Takes the ports away from containers that `leases` no longer name: `gone` with their ports.
///
/// # Errors
/// When the kernel refuses; then nothing happened.
pub fn close(leases: &Leases, scope: Scope<'_>, gone: &[(Ipv4Addr, Vec<HostPort>)]) -> Result<(), PluginError> {
    repair_beside(leases, scope, gone.iter().map(|(address, _)| *address))?;
    for (address, ports) in gone {
        forget(ports, |flows| mapping::stale_when_closed(ports, *address, flows));
    }
    Ok(())
}

/// Makes the kernel's table what the leases say, whatever it is; tells whether it was not.
///
/// # Errors
/// When the kernel refuses.
pub fn repair(leases: &Leases, scope: Scope<'_>) -> Result<bool, PluginError> {
    repair_beside(leases, scope, [])
}

/// The same when containers with `gone` addresses just lost their leases.
fn repair_beside(
    leases: &Leases,
    scope: Scope<'_>,
    gone: impl IntoIterator<Item = Ipv4Addr>,
) -> Result<bool, PluginError> {
    let (desired, ours) = (scope.table(leases), scope.ours(leases, gone));
    let mut backend = NetlinkBackend::for_table(TABLE)?.of(scope.owner);
    backend::reconcile(&mut backend, |observed| Ok(table::repair(observed, desired.clone(), &ours)))
        .map(|done| !done.ops.is_empty())
}

/// As [`repair`], and has `bridge` route loopback addresses where there are ports: it may be another one than when
/// they were opened. A bridge that is missing has nothing to route yet.
///
/// # Errors
/// When the kernel refuses.
pub fn restore(leases: &Leases, scope: Scope<'_>, bridge: &str) -> Result<bool, PluginError> {
    let restored = repair(leases, scope)?;
    if !leases.with_ports(scope.reserved).is_empty() {
        match sysctl::route_localnet(bridge) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PluginError::io("let the bridge route loopback addresses", &error));
            }
            _ => {}
        }
    }
    Ok(restored)
}

/// Which ports lead to which container, by the kernel's table.
///
/// # Errors
/// When it cannot be read.
pub fn in_force() -> Result<BTreeMap<Ipv4Addr, Vec<HostPort>>, NftError> {
    let listing = NetlinkBackend::for_table(TABLE)?.list()?;
    Ok(table::ports(listing.table.as_ref()))
}

/// Whether the rules for the container's ports are in the kernel.
///
/// # Errors
/// When they cannot be read, or one is missing.
pub fn check(address: Ipv4Addr, ports: &[HostPort]) -> Result<(), PluginError> {
    if ports.is_empty() {
        return Ok(());
    }
    let listing = NetlinkBackend::for_table(TABLE)?.list()?;
    if table::holds(listing.table.as_ref(), address, ports) {
        return Ok(());
    }
    Err(PluginError::check(format!("a rule for a host port of {address} is missing")))
}

/// Removes the owner's table, or one without a mark; fine when there is none.
///
/// # Errors
/// [`NftError`] when the kernel refuses.
pub fn cleanup(owner: &Owner) -> Result<(), NftError> {
    NetlinkBackend::for_table(TABLE)?.of(Some(owner)).remove()
}

/// Deletes tracked UDP flows, which would go on as before for as long as datagrams come. As
/// upstream, failing at it does not fail the request: the flows end by themselves when idle.
fn forget(ports: &[HostPort], stale: impl Fn(&[Flow]) -> Vec<Flow>) {
    if ports.iter().all(|port| port.protocol != crate::nft::object::Protocol::Udp) {
        return;
    }
    let forgotten = CtNetlink::new().and_then(|mut conntrack| {
        let flows = conntrack.udp_flows()?;
        stale(&flows).iter().try_for_each(|flow| conntrack.delete(flow))
    });
    if let Err(error) = forgotten {
        // The specification's place for a plugin's log.
        eprintln!("stale UDP flows of host ports could not be forgotten: {error}");
    }
}
