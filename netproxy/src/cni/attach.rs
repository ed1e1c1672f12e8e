//! Does what a request asks: attaches a container to the bridge, detaches it,
//! checks it, and takes back what dead containers hold.
//!
//! ADD validates first, leases an address and the host ports, then makes links,
//! then opens the ports; when a step fails it undoes the ones before. DEL is
//! idempotent and needs no namespace. Whoever loses a lease loses its host
//! ports' rules first: a rule without a lease would belong to nobody.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use super::conflist::{CniConfig, NETWORK};
use super::hostports;
use super::hostports::mapping::{self, HostPort};
use super::ipam::{self, Holder, Leases, Refusal};
use super::link::{Link, Netlink, Veth};
use super::protocol::{Attached, Environment, Interface, NetworkConfig, PluginError, loopback_result};
use crate::cidr::Cidr4;

/// ADD: the container's interface, its address, its way out and the node's ports
/// that lead to it.
pub fn add(environment: &Environment, config: &NetworkConfig) -> Result<String, PluginError> {
    let subnet = config.subnet()?;
    let ports = mapping::wanted(&config.runtime_config)?;
    let gateway =
        ipam::gateway(subnet).ok_or_else(|| PluginError::config(format!("{subnet} is too small for pods")))?;
    let netns_path = netns_of(environment)?;
    let netns = File::open(netns_path).map_err(|error| PluginError::io("open the network namespace", &error))?;
    let holder = Holder {
        container_id: environment.container_id.clone(),
        ifname: environment.ifname.clone(),
        netns: netns_path.to_owned(),
        ports: ports.clone(),
    };
    let address = lease(config, subnet, holder)?;
    let host_name = host_side(&environment.container_id, &environment.ifname);
    let made = attach(environment, config, &netns, &host_name, (subnet, gateway, address))
        .and_then(|made| open_ports(config, address, &ports).map(|()| made));
    match made {
        Ok((bridge, host, container)) => Ok(Attached {
            bridge: interface(&config.bridge, bridge, None),
            host: interface(&host_name, host, None),
            container: interface(&environment.ifname, container, Some(netns_path)),
            address,
            prefix_len: subnet.prefix_len(),
            gateway,
        }
        .to_json(&config.cni_version)),
        Err(error) => {
            let _ = Netlink::open().and_then(|mut netlink| netlink.delete(&host_name));
            let _ = keep(config, |holder| !holder.is(&environment.container_id, &environment.ifname));
            Err(error)
        }
    }
}

/// Leases an address and the host ports; when there is none or one is taken,
/// after taking back what the dead hold.
fn lease(config: &NetworkConfig, subnet: Cidr4, holder: Holder) -> Result<Ipv4Addr, PluginError> {
    with_leases(config, |leases| {
        let before = leases.held_by(&holder.container_id, &holder.ifname).and_then(|address| leases.holder(address));
        if before.is_some_and(|before| before.ports != holder.ports) {
            // Asked for again, but for other ports: those it had must not stay behind.
            drop_leases(leases, subnet, |other| !other.is(&holder.container_id, &holder.ifname))?;
        }
        if let Ok(address) = leases.acquire(subnet, holder.clone()) {
            return Ok(address);
        }
        drop_leases(leases, subnet, |holder| holder.netns.exists())?;
        leases.acquire(subnet, holder).map_err(|refusal| match refusal {
            Refusal::Exhausted => PluginError::exhausted(subnet),
            Refusal::PortTaken { port, by } => {
                PluginError::port_taken(&format!("host port {port}"), &format!("by {by}"))
            }
        })
    })
}

/// Opens what [`lease`] has reserved.
fn open_ports(config: &NetworkConfig, address: Ipv4Addr, ports: &[HostPort]) -> Result<(), PluginError> {
    if ports.is_empty() {
        return Ok(());
    }
    with_leases(config, |leases| hostports::open(leases, config, address, ports))
}

/// Drops the leases whose holder does not live, after their host ports.
fn drop_leases(leases: &mut Leases, subnet: Cidr4, lives: impl Fn(&Holder) -> bool) -> Result<(), PluginError> {
    let mut kept = leases.clone();
    let gone = kept.retain(lives);
    if !gone.is_empty() {
        hostports::close(&kept, subnet, &gone)?;
    }
    *leases = kept;
    Ok(())
}

/// The same under the lock.
fn keep(config: &NetworkConfig, lives: impl Fn(&Holder) -> bool) -> Result<(), PluginError> {
    let subnet = config.subnet()?;
    with_leases(config, |leases| drop_leases(leases, subnet, lives))
}

fn with_leases<T>(
    config: &NetworkConfig,
    change: impl FnOnce(&mut Leases) -> Result<T, PluginError>,
) -> Result<T, PluginError> {
    ipam::with_leases(&config.data_dir, &config.name, change)
        .map_err(|error| PluginError::io("use the leases", &error))?
}

type Made = (Link, Link, Link);

fn attach(
    environment: &Environment,
    config: &NetworkConfig,
    netns: &File,
    host_name: &str,
    (subnet, gateway, address): (Cidr4, Ipv4Addr, Ipv4Addr),
) -> Result<Made, PluginError> {
    let io = |step: &'static str| move |error: io::Error| PluginError::io(step, &error);
    let mut netlink = Netlink::open().map_err(io("open a netlink socket"))?;
    let bridge = ensure_bridge(&mut netlink, config, gateway, subnet).map_err(io("make the bridge"))?;
    let veth = Veth {
        host: host_name,
        container: &environment.ifname,
        netns: netns.as_raw_fd(),
        mac: hardware_address(address),
        bridge: bridge.index,
        mtu: config.mtu,
    };
    let mut made = netlink.add_veth(&veth);
    if made.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EEXIST)) {
        // Left by an attempt that died half-way: its address is ours again.
        netlink.delete(host_name).map_err(io("remove a stale interface"))?;
        made = netlink.add_veth(&veth);
    }
    made.map_err(io("make the container's interface"))?;
    let host = existing(&mut netlink, host_name).map_err(io("look up the host's interface"))?;
    let ifname = environment.ifname.clone();
    let container = inside(netns, move |netlink| {
        let link = existing(netlink, &ifname)?;
        netlink.add_address(link.index, address, subnet.prefix_len())?;
        netlink.set_up(link.index)?;
        netlink.add_default_route(link.index, gateway)?;
        Ok(link)
    })
    .map_err(io("configure the container's interface"))?;
    Ok((bridge, host, container))
}

fn ensure_bridge(netlink: &mut Netlink, config: &NetworkConfig, gateway: Ipv4Addr, subnet: Cidr4) -> io::Result<Link> {
    let bridge = match netlink.link(&config.bridge)? {
        Some(bridge) => bridge,
        None => {
            netlink.add_bridge(&config.bridge, config.mtu, hardware_address(gateway))?;
            existing(netlink, &config.bridge)?
        }
    };
    netlink.add_address(bridge.index, gateway, subnet.prefix_len())?;
    netlink.set_up(bridge.index)?;
    Ok(bridge)
}

fn existing(netlink: &mut Netlink, name: &str) -> io::Result<Link> {
    netlink.link(name)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no link {name}")))
}

/// DEL: takes the interface, the address and the host ports back, whatever is
/// left of them.
pub fn delete(environment: &Environment, config: &NetworkConfig) -> Result<String, PluginError> {
    let host_name = host_side(&environment.container_id, &environment.ifname);
    let removed = Netlink::open().and_then(|mut netlink| netlink.delete(&host_name));
    keep(config, |holder| !holder.is(&environment.container_id, &environment.ifname))?;
    removed.map_err(|error| PluginError::io("remove the container's interface", &error))?;
    Ok(String::new())
}

/// CHECK: the lease, its host ports, the host's side and the container's side
/// are there.
pub fn check(environment: &Environment, config: &NetworkConfig) -> Result<String, PluginError> {
    let wanted = mapping::wanted(&config.runtime_config)?;
    with_leases(config, |leases| {
        let held = leases.held_by(&environment.container_id, &environment.ifname);
        let Some((address, holder)) = held.and_then(|address| Some((address, leases.holder(address)?))) else {
            return Err(PluginError::check(format!("{} holds no address", environment.container_id)));
        };
        if let Some(missing) = wanted.iter().find(|port| !holder.ports.contains(port)) {
            return Err(PluginError::check(format!("{} does not hold host port {missing}", environment.container_id)));
        }
        hostports::check(address, &holder.ports)
    })?;
    let host_name = host_side(&environment.container_id, &environment.ifname);
    let here = Netlink::open().and_then(|mut netlink| existing(&mut netlink, &host_name));
    here.map_err(|error| PluginError::check(error.to_string()))?;
    let netns = File::open(netns_of(environment)?).map_err(|error| PluginError::check(error.to_string()))?;
    let ifname = environment.ifname.clone();
    inside(&netns, move |netlink| existing(netlink, &ifname)).map_err(|error| PluginError::check(error.to_string()))?;
    Ok(String::new())
}

/// GC: drops the leases and host ports of containers that the runtime does not
/// name, and rules that belong to nobody.
pub fn collect(config: &NetworkConfig) -> Result<String, PluginError> {
    let Some(valid) = &config.valid_attachments else {
        return Err(PluginError::config("cni.dev/valid-attachments is missing".to_owned()));
    };
    let lives = |holder: &Holder| {
        valid.iter().any(|live| live.container_id == holder.container_id && live.ifname == holder.ifname)
    };
    let subnet = config.subnet()?;
    with_leases(config, |leases| {
        drop_leases(leases, subnet, lives)?;
        hostports::repair(leases, subnet)
    })?;
    Ok(String::new())
}

/// STATUS: whether an ADD could work.
pub fn status(config: &NetworkConfig) -> Result<String, PluginError> {
    let full = ipam::with_leases(&config.data_dir, &config.name, |_| ()).is_err();
    if full {
        return Err(PluginError { code: 50, message: "the leases cannot be used".to_owned(), details: String::new() });
    }
    Ok(String::new())
}

/// The `loopback` plugin: brings `lo` up.
pub fn loopback(environment: &Environment, config: &NetworkConfig) -> Result<String, PluginError> {
    use super::protocol::Command;
    if environment.command != Command::Add {
        return Ok(String::new());
    }
    let path = netns_of(environment)?;
    let netns = File::open(path).map_err(|error| PluginError::io("open the network namespace", &error))?;
    inside(&netns, |netlink| {
        let lo = existing(netlink, "lo")?;
        netlink.set_up(lo.index)
    })
    .map_err(|error| PluginError::io("bring lo up", &error))?;
    Ok(loopback_result(&config.cni_version, &path.to_string_lossy()))
}

/// Makes the rules of host ports what the leases of this node's network say, and
/// tells whether they were not: somebody flushed them, or another version made
/// them.
///
/// # Errors
/// When the leases cannot be read or the kernel refuses.
pub fn restore_host_ports(config: &CniConfig) -> io::Result<bool> {
    let restored = ipam::with_leases(&config.data_dir, NETWORK, |leases| hostports::repair(leases, config.pod_cidr));
    restored?.map_err(io::Error::other)
}

/// Removes the host ports, the bridge, the leases and the configuration of a
/// node. Interfaces of containers go with their namespaces.
///
/// # Errors
/// The first thing that the kernel or the file system refuses; the rest is done.
pub fn cleanup(bridge: &str, data_dir: &Path, conf_dir: &Path) -> io::Result<()> {
    let remove = |directory: &Path| match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let rules = hostports::cleanup().map_err(io::Error::other);
    let link = Netlink::open().and_then(|mut netlink| netlink.delete(bridge));
    // All of it is tried, whatever fails.
    [rules, link, remove(data_dir), remove(conf_dir)].into_iter().collect()
}

fn netns_of(environment: &Environment) -> Result<&Path, PluginError> {
    environment.netns.as_deref().ok_or_else(|| PluginError::environment("CNI_NETNS is not set".to_owned()))
}

fn interface(name: &str, link: Link, netns: Option<&Path>) -> Interface {
    let sandbox = netns.map(|path| path.to_string_lossy().into_owned());
    Interface { name: name.to_owned(), mac: link.mac, sandbox }
}

/// The host's side of a container's interface: the same name every time, so
/// that DEL finds it without a record. FNV-1a keeps it within 15 bytes.
fn host_side(container_id: &str, ifname: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in container_id.bytes().chain([0]).chain(ifname.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("veth{:011x}", hash >> 20)
}

/// The hardware address that goes with an address, locally administered. When
/// a pod's address is used again, neighbours' tables stay right.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// Runs `work` with a netlink socket of the namespace `netns`. A thread enters
/// it, so that this process itself stays where it is.
fn inside<T: Send + 'static>(
    netns: &File,
    work: impl FnOnce(&mut Netlink) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let netns = netns.try_clone()?;
    let thread = std::thread::spawn(move || {
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
        work(&mut Netlink::open()?)
    });
    thread.join().map_err(|_| io::Error::other("the thread in the container's namespace panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_sides_fit_and_differ() {
        let one = host_side("0123456789abcdef", "eth0");
        assert!(one.len() <= 15 && one.starts_with("veth"), "{one}");
        assert_eq!(one, host_side("0123456789abcdef", "eth0"));
        assert_ne!(one, host_side("0123456789abcdef", "eth1"));
        assert_ne!(one, host_side("0123456789abcdee", "eth0"));
        assert_ne!(host_side("ab", "c"), host_side("a", "bc"));
    }
}
