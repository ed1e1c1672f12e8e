//! The kernel settings that pods' network needs, in the node's own namespace.

use std::fs;
use std::io;

/// Setting, value, and whether a kernel without it can do.
const SETTINGS: [(&str, &str, bool); 4] = [
    // Packets between pods, and between pods and elsewhere, pass through this node.
    ("net/ipv4/ip_forward", "1", false),
    ("net/ipv4/conf/all/forwarding", "1", false),
    // Services must be translated between pods of one bridge, too. The setting
    // is there only where the kernel filters bridges.
    ("net/bridge/bridge-nf-call-iptables", "1", true),
    // Strict checks of the reverse path drop what comes back translated.
    ("net/ipv4/conf/all/rp_filter", "0", true),
];

/// Prepares the kernel; what is right already is not written.
///
/// # Errors
/// Names the setting that cannot be made.
pub fn prepare_node() -> io::Result<()> {
    for (setting, value, optional) in SETTINGS {
        let path = format!("/proc/sys/{setting}");
        if fs::read_to_string(&path).is_ok_and(|present| present.trim() == value) {
            continue;
        }
        match fs::write(&path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && optional => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("set {setting} to {value}: {error}"))),
            Ok(()) => {}
        }
    }
    Ok(())
}
