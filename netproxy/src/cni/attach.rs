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
use std::os::fd::AsRawFd;
use std::path::Path;

use super::conflist::{CniConfig, NETWORK};
use super::hostports::mapping::{self, HostPort};
use super::hostports::{self, Scope};
use super::ipam::{self, Holder, Leases, LeasesError, Refusal};
use super::protocol::{Attached, Environment, Interface, NetworkConfig, PluginError, Previous, loopback_result};
use crate::cidr::Cidr4;
use crate::links::{self, LinkError, Netlink, Observed, Owner, Veth, in_namespace, pod_mac, veth_name};

/// ADD: the container's interface, its address, its way out and the node's ports
/// that lead to it.
pub fn add(environment: &Environment, config: &NetworkConfig) -> Result<String, PluginError> {
    let subnet = config.subnet()?;
    let owner = config.owner()?;
    let ports = mapping::wanted(&config.runtime_config)?;
    mapping::refuse_reserved(&ports, &config.reserved_ports)?;
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
    let address = lease(config, subnet, holder.clone())?;
    let host_name = veth_name(&environment.container_id, &environment.ifname);
    let made = attach(environment, config, &netns, &owner, (subnet, gateway, address), &ipam::note(address, &holder))
        .and_then(|made| open_ports(config, address, &ports).map(|()| made));
    match made {
        Ok((bridge, host, container)) => Ok(Attached {
            bridge: interface(&config.bridge, &bridge, None),
            host: interface(&host_name, &host, None),
            container: interface(&environment.ifname, &container, Some(netns_path)),
            address,
            prefix_len: subnet.prefix_len(),
            gateway,
        }
        .to_json(&config.cni_version)),
        Err(error) => {
            let _ = with_netlink(async |netlink| netlink.remove(&host_name, &owner).await);
            let _ = keep(config, |holder| !holder.is(&environment.container_id, &environment.ifname));
            Err(error)
        }
    }
}

/// Leases an address and the host ports; when there is none or one is taken,
/// after taking back what the dead hold.
fn lease(config: &NetworkConfig, subnet: Cidr4, holder: Holder) -> Result<Ipv4Addr, PluginError> {
    let scope = config.scope()?;
    with_leases(config, |leases| {
        let before = leases.held_by(&holder.container_id, &holder.ifname);
        let had_others = |address| leases.holder(address).is_some_and(|before| before.ports != holder.ports);
        if before.is_some_and(|address| !subnet.contains(address) || had_others(address)) {
            // Asked for again, but for other ports, or in another subnet: what it had must not stay behind.
            drop_leases(leases, scope, |other| !other.is(&holder.container_id, &holder.ifname))?;
        }
        if let Ok(address) = leases.acquire(subnet, holder.clone()) {
            return Ok(address);
        }
        drop_leases(leases, scope, |holder| holder.netns.exists())?;
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
fn drop_leases(leases: &mut Leases, scope: Scope<'_>, lives: impl Fn(&Holder) -> bool) -> Result<(), PluginError> {
    let mut kept = leases.clone();
    let gone = kept.retain(lives);
    if !gone.is_empty() {
        hostports::close(&kept, scope, &gone)?;
    }
    *leases = kept;
    Ok(())
}

/// The same under the lock.
fn keep(config: &NetworkConfig, lives: impl Fn(&Holder) -> bool) -> Result<(), PluginError> {
    let scope = config.scope()?;
    with_leases(config, |leases| drop_leases(leases, scope, lives))
}

fn with_leases<T>(
    config: &NetworkConfig,
    change: impl FnOnce(&mut Leases) -> Result<T, PluginError>,
) -> Result<T, PluginError> {
    let rebuild = || rebuild_leases(config.owner.as_ref(), &config.bridge);
    ipam::with_leases(&config.data_dir, &config.name, rebuild, change).map_err(|error| unusable(&error))?
}

/// What leases there are, by what the kernel has: containers' interfaces, those of another network's bridge not among
/// them, and host ports' rules.
fn rebuild_leases(owner: Option<&Owner>, bridge: &str) -> io::Result<Leases> {
    let owner = owner.ok_or_else(|| io::Error::other("the network configuration has no owner"))?;
    let links = with_netlink(async |netlink| netlink.links().await).map_err(io::Error::other)?;
    let ports = hostports::in_force().map_err(io::Error::other)?;
    let bridge = links.iter().find(|link| link.name == bridge).map(|bridge| bridge.index);
    let is_ours = |link: &&Observed| link.is_of(owner) && (link.master.is_none() || link.master == bridge);
    let notes = links.iter().filter(is_ours).filter_map(Observed::note);
    Ok(Leases::rebuild(notes, &ports))
}

/// The bridge, the host's side and the container's side.
type Made = (Observed, Observed, Observed);

fn attach(
    environment: &Environment,
    config: &NetworkConfig,
    netns: &File,
    owner: &Owner,
    (subnet, gateway, address): (Cidr4, Ipv4Addr, Ipv4Addr),
    note: &str,
) -> Result<Made, PluginError> {
    let host_name = veth_name(&environment.container_id, &environment.ifname);
    let (bridge, host) = with_netlink(async |netlink| {
        let bridge = existing(netlink, &config.bridge).await?;
        if !bridge.is_of(owner) {
            return Err(links::Clash::with(&bridge).into());
        }
        let veth = Veth {
            host: &host_name,
            peer: &environment.ifname,
            netns: netns.as_raw_fd(),
            mac: Some(pod_mac(address)),
            bridge: bridge.index,
            mtu: config.mtu,
            note,
        };
        netlink.add_veth(&veth, owner).await?;
        Ok((bridge, existing(netlink, &host_name).await?))
    })?;
    let ifname = environment.ifname.clone();
    let container = in_namespace(netns, async move || {
        let netlink = Netlink::open()?;
        let link = existing(&netlink, &ifname).await?;
        netlink.add_address(link.index, (address, subnet.prefix_len())).await?;
        netlink.set_up(&ifname).await?;
        netlink.add_default_route(link.index, gateway).await?;
        Ok::<_, LinkError>(link)
    })?;
    Ok((bridge, host, container))
}

/// Runs `work` with a connection to the kernel, in this process's network namespace.
fn with_netlink<T>(work: impl AsyncFnOnce(&Netlink) -> Result<T, LinkError>) -> Result<T, PluginError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(LinkError::Socket)?;
    Ok(runtime.block_on(async { work(&Netlink::open()?).await })?)
}

async fn existing(netlink: &Netlink, name: &str) -> Result<Observed, LinkError> {
    netlink.link(name).await?.ok_or_else(|| LinkError::Kernel {
        step: format!("look up the link {name}"),
        source: io::Error::from_raw_os_error(libc::ENODEV),
    })
}

/// DEL: takes the interface, the address and the host ports back, whatever is
/// left of them.
pub fn delete(environment: &Environment, config: &NetworkConfig) -> Result<String, PluginError> {
    let host_name = veth_name(&environment.container_id, &environment.ifname);
    let removed = match &config.owner {
        Some(owner) => with_netlink(async |netlink| netlink.remove_port(&host_name, owner).await),
        // An attachment from before links had owners: it goes with its namespace.
        None => Ok(()),
    };
    let scope = config.scope()?;
    let lives = |holder: &Holder| !holder.is(&environment.container_id, &environment.ifname);
    let rebuild = || rebuild_leases(config.owner.as_ref(), &config.bridge);
    match ipam::with_leases(&config.data_dir, &config.name, rebuild, |leases| drop_leases(leases, scope, lives)) {
        Ok(dropped) => dropped?,
        // The lease is taken back when its namespace is gone; a pod that cannot end would not make room.
        Err(LeasesError::Unwritten(error) | LeasesError::Unknown(error)) if is_full(&error) => {
            eprintln!("the lease of {} stays until its namespace is gone: {error}", environment.container_id);
        }
        // Without an owner no interface tells of leases, and none is removed here.
        Err(LeasesError::Unknown(error)) if config.owner.is_none() => {
            eprintln!("the lease of {} is not known: {error}", environment.container_id);
        }
        Err(error) => return Err(unusable(&error)),
    }
    removed.map(|()| String::new())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn unusable(error: &LeasesError) -> PluginError {
    PluginError::io("use the leases", &io::Error::other(error.to_string()))
}

/// CHECK: the lease, its host ports, the host's side and the container's side with its address and
/// its way out are there, and are what ADD has answered, from whatever range that was.
pub fn check(environment: &Environment, config: &NetworkConfig) -> Result<String, PluginError> {
    let wanted = mapping::wanted(&config.runtime_config)?;
    let owner = config.owner()?;
    let address = with_leases(config, |leases| {
        let held = leases.held_by(&environment.container_id, &environment.ifname);
        let Some((address, holder)) = held.and_then(|address| Some((address, leases.holder(address)?))) else {
            return Err(PluginError::check(format!("{} holds no address", environment.container_id)));
        };
        if let Some(missing) = wanted.iter().find(|port| !holder.ports.contains(port)) {
            return Err(PluginError::check(format!("{} does not hold host port {missing}", environment.container_id)));
        }
        hostports::check(address, &holder.ports)?;
        Ok(address)
    })?;
    let told = config.previous(address, &environment.ifname)?;
    let failed = |error: PluginError| PluginError::check(error.to_string());
    let host_name = veth_name(&environment.container_id, &environment.ifname);
    let (bridge, host) = with_netlink(async |netlink| {
        Ok((existing(netlink, &config.bridge).await?, existing(netlink, &host_name).await?))
    })
    .map_err(failed)?;
    if host.master != Some(bridge.index) || !host.is_of(&owner) || !host.up {
        return Err(PluginError::check(format!("{host_name} is not an own port of {}, up", config.bridge)));
    }
    let netns = File::open(netns_of(environment)?).map_err(|error| PluginError::check(error.to_string()))?;
    let ifname = environment.ifname.clone();
    let (container, gateways) = in_namespace(&netns, async move || {
        let netlink = Netlink::open()?;
        Ok::<_, LinkError>((existing(&netlink, &ifname).await?, netlink.default_gateways().await?))
    })
    .map_err(|error| PluginError::check(PluginError::from(error).to_string()))?;
    let expected = Previous::expected(told, address, container.addresses).filter(|_| container.up);
    let Some(expected) = expected else {
        return Err(PluginError::check(format!("{} does not have the address {address}, up", environment.ifname)));
    };
    if !gateways.iter().any(|(index, via)| *index == container.index && Some(*via) == expected.gateway) {
        return Err(PluginError::check(format!("{} has no default route through the bridge", environment.ifname)));
    }
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
    let scope = config.scope()?;
    with_leases(config, |leases| {
        drop_leases(leases, scope, lives)?;
        hostports::repair(leases, scope)
    })?;
    Ok(String::new())
}

/// STATUS: whether an ADD could work: the leases can be used, and the bridge is there and ours.
pub fn status(config: &NetworkConfig) -> Result<String, PluginError> {
    let unavailable = |details: String| PluginError::unavailable(details);
    let owner = config.owner()?;
    let usable =
        ipam::with_leases(&config.data_dir, &config.name, || rebuild_leases(Some(&owner), &config.bridge), |_| ());
    usable.map_err(|error| unavailable(error.to_string()))?;
    let bridge = with_netlink(async |netlink| netlink.link(&config.bridge).await)?;
    match bridge {
        Some(bridge) if bridge.is_of(&owner) && bridge.up => Ok(String::new()),
        Some(bridge) if bridge.is_of(&owner) => Err(unavailable(format!("the bridge {} is down", config.bridge))),
        Some(bridge) => Err(unavailable(links::Clash::with(&bridge).to_string())),
        None => Err(unavailable(format!("the bridge {} is missing", config.bridge))),
    }
}

/// The `loopback` plugin: brings `lo` up.
pub fn loopback(environment: &Environment, config: &NetworkConfig) -> Result<String, PluginError> {
    use super::protocol::Command;
    if environment.command != Command::Add {
        return Ok(String::new());
    }
    let path = netns_of(environment)?;
    let netns = File::open(path).map_err(|error| PluginError::io("open the network namespace", &error))?;
    in_namespace(&netns, async || Netlink::open()?.set_up("lo").await)?;
    Ok(loopback_result(&config.cni_version, &path.to_string_lossy()))
}

/// Makes the rules of host ports what the leases of this node's network say, and
/// tells whether they were not: somebody flushed them, or another version made
/// them. Leases whose holder is gone, which a plugin without room could not take back, say nothing.
///
/// # Errors
/// When the leases cannot be read or the kernel refuses.
pub fn restore_host_ports(config: &CniConfig) -> io::Result<bool> {
    let rebuild = || rebuild_leases(Some(&config.owner), &config.bridge);
    let scope = Scope {
        subnet: config.pod_cidr,
        reserved: &config.reserved_ports,
        dns: config.dns_address,
        owner: Some(&config.owner),
    };
    let restored = ipam::with_leases(&config.data_dir, NETWORK, rebuild, |leases| {
        drop_leases(leases, scope, |holder| holder.netns.exists())?;
        hostports::restore(leases, scope, &config.bridge)
    });
    restored.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// Removes the leases and the configuration of a node. What it made in the kernel goes with
/// [`crate::network::remove_owned`], interfaces of containers with their namespaces.
///
/// # Errors
/// The first thing that the file system refuses; the rest is done.
pub fn cleanup(data_dir: &Path, conf_dir: &Path) -> io::Result<()> {
    let remove = |directory: &Path| match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    // Both are tried, whatever fails.
    [remove(data_dir), remove(conf_dir)].into_iter().collect()
}

fn netns_of(environment: &Environment) -> Result<&Path, PluginError> {
    environment.netns.as_deref().ok_or_else(|| PluginError::environment("CNI_NETNS is not set".to_owned()))
}

fn interface(name: &str, link: &Observed, netns: Option<&Path>) -> Interface {
    let sandbox = netns.map(|path| path.to_string_lossy().into_owned());
    Interface { name: name.to_owned(), mac: link.mac.map(|mac| mac.to_string()).unwrap_or_default(), sandbox }
}
