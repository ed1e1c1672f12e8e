//! What every part of `demo` may ask about its surroundings.

use std::fs;

/// The host name, which is the pod's name unless it asks for another.
pub fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    name.map(|n| n.trim().to_owned()).unwrap_or_else(|_| "unknown".to_owned())
}

/// `NAME=value` lines, sorted.
pub fn environment() -> String {
    let mut lines: Vec<_> =
        std::env::vars_os().map(|(k, v)| format!("{}={}\n", k.to_string_lossy(), v.to_string_lossy())).collect();
    lines.sort();
    lines.concat()
}
