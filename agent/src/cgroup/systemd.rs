//! Slices made by systemd: the one thing cgroup files cannot do, because
//! systemd takes away directories and limits it does not know of.

use std::path::{Path, PathBuf};
use std::process::Output;

use async_trait::async_trait;
use tokio::process::Command;

use super::CgroupError;
use super::hierarchy::Hierarchy;
use super::limits::weight;
use crate::convert::resources::{PodCgroupLimits, SwapControl};

const MANAGER: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];

/// Microseconds a second that are one percent of a CPU.
const PERCENT: i64 = 10_000;

/// Cgroups that systemd makes and limits; `files` sees to the rest of them.
#[derive(Debug)]
pub(super) struct Systemd {
    pub files: Box<dyn Hierarchy>,
    /// Whether `files` are v2's: names of properties differ.
    pub v2: bool,
}

#[async_trait]
impl Hierarchy for Systemd {
    async fn apply(&self, cgroup: &Path, limits: &PodCgroupLimits) -> Result<(), CgroupError> {
        start_slice(&slice_of(cgroup), limits, self.v2).await
    }

    fn directories(&self, cgroup: &Path) -> Vec<PathBuf> {
        self.files.directories(cgroup)
    }

    fn has(&self, controller: &str) -> bool {
        self.files.has(controller)
    }

    fn weight(&self, cgroup: &Path) -> Option<i64> {
        self.files.weight(cgroup)
    }

    fn weight_of(&self, shares: i64) -> i64 {
        self.files.weight_of(shares)
    }

    fn pids(&self, cgroup: &Path) -> Option<u64> {
        self.files.pids(cgroup)
    }

    fn swap_control(&self, cgroup: &Path) -> SwapControl {
        self.files.swap_control(cgroup)
    }

    fn kill(&self, cgroup: &Path) {
        self.files.kill(cgroup);
    }

    /// Stopping a slice ends what is in it, and has systemd forget it; where it knew nothing of it the
    /// directories remain.
    async fn remove(&self, cgroup: &Path) -> Result<(), CgroupError> {
        stop_slice(&slice_of(cgroup)).await?;
        self.files.remove(cgroup).await
    }
}

/// The slice whose cgroup this is.
fn slice_of(cgroup: &Path) -> String {
    cgroup.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether systemd is the init of this machine.
pub(super) fn is_running() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// The properties of a slice as `busctl` takes them. Pure.
fn properties(limits: &PodCgroupLimits, v2: bool) -> Vec<(String, String, String)> {
    let mut out: Vec<(String, String, String)> = Vec::new();
    let mut put = |name: &str, kind: &str, value: String| out.push((name.to_owned(), kind.to_owned(), value));
    put("DefaultDependencies", "b", "false".to_owned());
    for accounting in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"] {
        put(accounting, "b", "true".to_owned());
    }
    if v2 {
        put("CPUWeight", "t", weight(limits.cpu_shares).to_string());
    } else {
        put("CPUShares", "t", limits.cpu_shares.to_string());
    }
    if let Some(quota) = limits.cpu_quota.filter(|_| limits.cpu_period > 0) {
        // systemd cuts to whole percents of a CPU: up, or containers would get
        // more than their pod.
        let per_second = (quota.saturating_mul(1_000_000) / limits.cpu_period).saturating_add(PERCENT - 1);
        put("CPUQuotaPerSecUSec", "t", (per_second / PERCENT * PERCENT).to_string());
        put("CPUQuotaPeriodUSec", "t", limits.cpu_period.to_string());
    }
    if let Some(memory) = limits.memory {
        put(if v2 { "MemoryMax" } else { "MemoryLimit" }, "t", memory.to_string());
    }
    if let Some(pids) = limits.pids {
        put("TasksMax", "t", pids.to_string());
    }
    out
}

async fn busctl(slice: &str, args: &[String]) -> Result<Output, CgroupError> {
    let failed = |message: String| CgroupError::Systemd { slice: slice.to_owned(), message };
    let run = Command::new("busctl").arg("call").args(MANAGER).args(args).kill_on_drop(true).output();
    run.await.map_err(|e| failed(format!("run busctl: {e}")))
}

/// Starts the slice, or changes the limits of one that runs.
async fn start_slice(slice: &str, limits: &PodCgroupLimits, v2: bool) -> Result<(), CgroupError> {
    let properties = properties(limits, v2);
    let flat = || properties.iter().flat_map(|(name, kind, value)| [name.clone(), kind.clone(), value.clone()]);
    let mut args: Vec<String> =
        ["StartTransientUnit", "ssa(sv)a(sa(sv))", slice, "fail"].iter().map(|s| (*s).to_owned()).collect();
    args.push(properties.len().to_string());
    args.extend(flat());
    args.push("0".to_owned());
    let output = busctl(slice, &args).await?;
    if output.status.success() {
        return Ok(());
    }
    // It exists: only its limits are to be set. DefaultDependencies is fixed.
    let mut args: Vec<String> =
        ["SetUnitProperties", "sba(sv)", slice, "true"].iter().map(|s| (*s).to_owned()).collect();
    args.push((properties.len() - 1).to_string());
    args.extend(flat().skip(3));
    let output = busctl(slice, &args).await?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(CgroupError::Systemd { slice: slice.to_owned(), message })
}

/// Stops a slice; one that is gone is fine.
pub async fn stop_slice(slice: &str) -> Result<(), CgroupError> {
    let args = ["StopUnit", "ss", slice, "replace"].map(str::to_owned);
    let output = busctl(slice, &args).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || error.contains("not loaded") || error.contains("NoSuchUnit") {
        return Ok(());
    }
    Err(CgroupError::Systemd { slice: slice.to_owned(), message: error.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_carry_limits() {
        let limits = PodCgroupLimits {
            cpu_shares: 1024,
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            memory: Some(7),
            pids: Some(9),
        };
        let has = |v2: bool, name: &str| properties(&limits, v2).into_iter().find(|p| p.0 == name).map(|p| p.2);
        assert_eq!(has(true, "CPUQuotaPerSecUSec").as_deref(), Some("500000"));
        assert_eq!((has(true, "MemoryMax").as_deref(), has(true, "TasksMax").as_deref()), (Some("7"), Some("9")));
        let odd = PodCgroupLimits { cpu_quota: Some(12_300), ..limits };
        let quota = properties(&odd, true).into_iter().find(|p| p.0 == "CPUQuotaPerSecUSec").map(|p| p.2);
        assert_eq!(quota.as_deref(), Some("130000"));
        assert_eq!((has(false, "CPUShares").as_deref(), has(true, "CPUWeight").as_deref()), (Some("1024"), Some("39")));
    }
}
