//! A world of its own for the suite: nothing of it can leak or stay.
//!
//! New network, mount and PID namespaces: there is no way out, mounts are ours
//! alone, and when the suite's process ends the kernel ends everything in it.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const INSIDE: &str = "CRI_CONTRACT_CGROUP";

/// The cgroup all pods of this run live under; `None` before [`run_inside`].
pub fn cgroup() -> Option<String> {
    env::var(INSIDE).ok()
}

/// Runs this program again inside the new namespaces, and cleans up after it.
pub fn run_inside() -> Result<ExitStatus> {
    let cgroup = format!("/cri-contract-{}", std::process::id());
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    unshare(flags).context("new namespaces: the suite needs root")?;
    let child = Command::new(env::current_exe()?).args(env::args_os().skip(1)).env(INSIDE, &cgroup).status();
    let status = child.context("run inside the new namespaces")?;
    remove_cgroups(&cgroup)?;
    Ok(status)
}

/// First thing inside: our own /proc and /run, and the loopback interface.
pub fn enter() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keep mounts private")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).context("mount /proc")?;
    // Shims put their sockets below /run/containerd, wherever containerd is.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("mount /run")?;
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("run ip")?;
    ensure!(status.success(), "ip cannot start the loopback interface");
    Ok(())
}

/// Removes a cgroup with all below it, in every hierarchy.
fn remove_cgroups(cgroup: &str) -> Result<()> {
    let name = Path::new(cgroup).strip_prefix("/")?;
    let root = Path::new("/sys/fs/cgroup");
    let mut bases = vec![root.to_owned()];
    bases.extend(fs::read_dir(root)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    // A hierarchy may be nested for this process: ask what is mounted where.
    for base in bases {
        remove_tree(&base.join(name)).with_context(|| format!("remove cgroup {}", base.join(name).display()))?;
    }
    Ok(())
}

fn remove_tree(path: &PathBuf) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    // The kernel needs a moment after the last process.
    let mut result = fs::remove_dir(path);
    for _ in 0..100 {
        match &result {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(10));
                result = fs::remove_dir(path);
            }
            _ => break,
        }
    }
    result
}
