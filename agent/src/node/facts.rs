//! What the machine says of itself. Reads files only.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;

use crate::read;

/// Facts that do not change while the machine runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineInfo {
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`, …
    pub architecture: String,
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    pub swap: u64,
    pub pid_max: u64,
    pub hugepages: Vec<(u64, u64)>,
}

/// Facts that do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUsage {
    /// Bytes that can be had without swapping; `None` when nobody says.
    pub memory_available: Option<u64>,
    pub disk_capacity: u64,
    pub disk_available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    /// Processes and threads; `None` when nobody says.
    pub pids: Option<u64>,
}

fn line(path: &str) -> String {
    read::text(path, read::MUCH).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// The value of `/proc/meminfo`'s line, in bytes; `None` where there is none.
pub fn meminfo(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes.saturating_mul(1024))
}

/// `PRETTY_NAME` of os-release.
pub fn os_image(text: &str) -> String {
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |n| n.trim_matches(['"', '\'']).to_owned())
}

fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" | "i386" => "386",
        other => other,
    }
}

impl MachineInfo {
    /// Reads the facts.
    pub fn read() -> Self {
        let names = uname().ok();
        let name = |f: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            names.as_ref().map(|n| f(n).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let memory = read::text("/proc/meminfo", read::MUCH).unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        Self {
            machine_id: line("/etc/machine-id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: name(|n| n.release()),
            os_image: os_image(&read::text("/etc/os-release", read::MUCH).unwrap_or_default()),
            architecture: architecture(&name(|n| n.machine())).to_owned(),
            cpus,
            memory: meminfo(&memory, "MemTotal").unwrap_or(0),
            swap: meminfo(&memory, "SwapTotal").unwrap_or(0),
            pid_max: pid_max(&line("/proc/sys/kernel/pid_max"), &line("/proc/sys/kernel/threads-max")),
            hugepages: hugepages(),
        }
    }
}

/// How many processes and threads there can be: numbers may run out, or the
/// kernel's room for them.
fn pid_max(numbers: &str, threads: &str) -> u64 {
    [numbers, threads].iter().filter_map(|text| text.parse().ok()).min().unwrap_or(32_768)
}

/// Sizes in bytes and how many pages of each there are.
fn hugepages() -> Vec<(u64, u64)> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut out: Vec<(u64, u64)> = entries
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let kb: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = read::text(e.path().join("nr_hugepages"), read::MUCH).ok()?.trim().parse().ok()?;
            Some((kb * 1024, count))
        })
        .collect();
    out.sort_unstable();
    out
}

/// A file system's room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes.
    pub capacity: u64,
    /// Bytes that are not reserved for root.
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Disk {
    /// Of the file system that `path` is on; `None` when it cannot be had.
    pub fn of(path: &Path) -> Option<Self> {
        let disk = statvfs(path).ok()?;
        Some(Self {
            capacity: disk.blocks().saturating_mul(disk.fragment_size()),
            available: disk.blocks_available().saturating_mul(disk.fragment_size()),
            inodes: disk.files(),
            inodes_free: disk.files_available(),
        })
    }
}

impl MachineUsage {
    /// Reads the present usage; `root` is on the file system that counts.
    pub fn read(root: &Path) -> Self {
        let memory = read::text("/proc/meminfo", read::MUCH).unwrap_or_default();
        let disk = Disk::of(root).unwrap_or_default();
        // The fourth field is `running/total`.
        let loadavg = line("/proc/loadavg");
        let pids = loadavg.split_whitespace().nth(3).and_then(|f| f.split_once('/')?.1.parse().ok());
        Self {
            memory_available: meminfo(&memory, "MemAvailable"),
            disk_capacity: disk.capacity,
            disk_available: disk.available,
            inodes: disk.inodes,
            inodes_free: disk.inodes_free,
            pids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(meminfo("MemTotal:       2048 kB\nMemFree: x kB", "MemTotal"), Some(2 << 20));
        assert_eq!(meminfo("MemAvailable:      0 kB", "MemAvailable"), Some(0));
        assert_eq!((meminfo("MemFree: x kB", "MemFree"), meminfo("", "MemTotal")), (None, None));
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_image("garbage"), "Linux");
        let machine = MachineInfo::read();
        assert!(machine.cpus > 0 && machine.memory > 0 && !machine.kernel.is_empty());
        let usage = MachineUsage::read(Path::new("/"));
        assert!(usage.disk_capacity > 0 && usage.memory_available.is_some() && usage.pids.is_some());
        assert_eq!(Disk::of(Path::new("/nonexistent")), None);
    }
}
