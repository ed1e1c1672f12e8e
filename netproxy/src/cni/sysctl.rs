//! The kernel settings that pods' network needs, in the node's own namespace.

use std::fs;
use std::io;
use std::path::Path;

use super::modprobe;

/// Whether packets that a bridge only hands on are filtered.
const BRIDGE_FILTER: &str = "net/bridge/bridge-nf-call-iptables";

/// Setting, value, and whether a kernel without it can do.
const SETTINGS: [(&str, &str, bool); 4] = [
    // Packets between pods, and between pods and elsewhere, pass through this node.
    ("net/ipv4/ip_forward", "1", false),
    ("net/ipv4/conf/all/forwarding", "1", false),
    // Services must be translated between pods of one bridge, too: the answer of
    // a pod to its neighbour would otherwise not pass where it is turned back.
    (BRIDGE_FILTER, "1", false),
    // Strict checks of the reverse path drop what comes back translated.
    ("net/ipv4/conf/all/rp_filter", "0", true),
];

/// Prepares the kernel; what is right already is not written.
///
/// # Errors
/// Names the setting that cannot be made.
pub fn prepare_node() -> io::Result<()> {
    // The module that nothing loads by itself. Where that fails, the setting is missing and says so.
    let present = Path::new("/proc/sys").join(BRIDGE_FILTER).exists();
    let loaded = if present { Ok(()) } else { modprobe::load("br_netfilter") };
    for (setting, value, optional) in SETTINGS {
        match set(setting, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && optional => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && setting == BRIDGE_FILTER => {
                let why = loaded.err().map(|why| format!(" ({why})")).unwrap_or_default();
                let message = format!(
                    "the kernel does not filter bridges: load the module br_netfilter \
                     (modprobe br_netfilter) and start again{why}"
                );
                return Err(io::Error::new(error.kind(), message));
            }
            other => other?,
        }
    }
    Ok(())
}

/// Lets loopback addresses pass `link`, so that the node reaches containers' ports at 127.0.0.1.
///
/// # Errors
/// Names the setting that cannot be made.
pub fn route_localnet(link: &str) -> io::Result<()> {
    set(&format!("net/ipv4/conf/{link}/route_localnet"), "1")
}

fn set(setting: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{setting}");
    if fs::read_to_string(&path).is_ok_and(|present| present.trim() == value) {
        return Ok(());
    }
    let named = |error: io::Error| io::Error::new(error.kind(), format!("set {setting} to {value}: {error}"));
    fs::write(&path, value).map_err(named)
}
