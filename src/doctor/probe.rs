//! Looks at the machine; decides nothing.

use std::fs;
use std::path::Path;

use super::{CAP_NET_ADMIN, Facts};

/// What this machine has.
pub fn probe() -> Facts {
    let capabilities = capabilities(&read("/proc/self/status"));
    Facts {
        root: nix::unistd::geteuid().is_root(),
        containerd: on_path("containerd"),
        oci_runtime: on_path("runc") || on_path("crun"),
        nft: on_path("nft"),
        capabilities,
        controllers: controllers(&read("/proc/self/mountinfo"), &read("/sys/fs/cgroup/cgroup.controllers")),
        nftables_refusal: if capabilities & CAP_NET_ADMIN == 0 { None } else { nftables_refusal() },
        overlayfs: read("/proc/filesystems").split_whitespace().any(|word| word == "overlay") || module("overlay"),
        bridge: Path::new("/proc/sys/net/bridge").exists()
            || Path::new("/sys/module/bridge").exists()
            || module("bridge"),
        bridge_filter: Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() || module("br_netfilter"),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// The effective set of a status text, nothing when it cannot be read.
fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// v1 controllers are mount options, v2 ones words of cgroup.controllers.
fn controllers(mountinfo: &str, unified: &str) -> Vec<String> {
    let v1 = mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - cgroup "))
        .filter_map(|(_, rest)| rest.split(' ').nth(1))
        .flat_map(|options| options.split(','));
    v1.chain(unified.split_whitespace()).map(str::to_owned).collect()
}

/// What the kernel says to a trial run of the rules, in this network namespace.
fn nftables_refusal() -> Option<String> {
    let error = netproxy::services::check().err()?;
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    Some(reason.unwrap_or_else(|| error.to_string()))
}

/// Whether the module is built in or can be loaded.
fn module(name: &str) -> bool {
    let release = read("/proc/sys/kernel/osrelease");
    let directory = Path::new("/lib/modules").join(release.trim());
    let file = format!("/{name}.ko");
    ["modules.builtin", "modules.dep"].iter().any(|list| {
        fs::read_to_string(directory.join(list)).is_ok_and(|text| text.lines().any(|line| line.contains(&file)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_capabilities_are_read() {
        assert_eq!(capabilities("Name:\tx\nCapEff:\t00000000000000ff\n"), 0xff);
        assert_eq!(capabilities("CapEff: garbage"), 0);
        assert_eq!(capabilities(""), 0);
    }

    #[test]
    fn controllers_of_both_generations_are_found() {
        let mountinfo =
            "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n31 1 0:1 / / rw - ext4 /dev/vda rw\n";
        let found = controllers(mountinfo, "memory pids\n");
        for name in ["cpu", "cpuacct", "memory", "pids"] {
            assert!(found.iter().any(|c| c == name), "{name} in {found:?}");
        }
        assert_eq!(controllers("", ""), Vec::<String>::new());
    }
}
