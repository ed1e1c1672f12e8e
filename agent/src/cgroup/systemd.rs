//! Slices made by systemd: the one thing cgroup files cannot do, because
//! systemd takes away directories and limits it does not know of.

use std::process::Output;

use tokio::process::Command;

use super::tree::CgroupError;
use crate::convert::resources::PodCgroupLimits;

const MANAGER: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];

/// Microseconds a second that are one percent of a CPU.
const PERCENT: i64 = 10_000;

/// Whether systemd is the init of this machine.
pub fn is_running() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// The properties of a slice as `busctl` takes them. Pure.
pub fn properties(limits: &PodCgroupLimits, v2: bool) -> Vec<(String, String, String)> {
    let mut out: Vec<(String, String, String)> = Vec::new();
    let mut put = |name: &str, kind: &str, value: String| out.push((name.to_owned(), kind.to_owned(), value));
    put("DefaultDependencies", "b", "false".to_owned());
    for accounting in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"] {
        put(accounting, "b", "true".to_owned());
    }
    if v2 {
        put("CPUWeight", "t", super::tree::weight(limits.cpu_shares).to_string());
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
pub async fn start_slice(slice: &str, limits: &PodCgroupLimits, v2: bool) -> Result<(), CgroupError> {
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
