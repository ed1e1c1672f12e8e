//! `copepod down`: ends a node and leaves nothing of it behind. Every step
//! works on what a crash left, goes on past failures, and may be repeated.

use std::path::Path;
use std::time::Duration;

use agent::cgroup::{Layout, systemd};
use agent::config::CgroupDriver;
use agent::volume::mounts;
use anyhow::{Context, Result, bail};
use cri::containerd::{self, Keep};

use crate::cgroups::Tree;
use crate::cli::DownArgs;
use crate::paths::Paths;
use crate::progress::step;
use crate::sys::process::Process;
use crate::{cgroups, instance, pidfile, runtime, sys};

/// How long copepod may take to drain.
const DRAIN: Duration = Duration::from_secs(20);

/// What could not be removed so far.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn note<E: Into<anyhow::Error>>(&mut self, what: &str, result: Result<(), E>) {
        if let Err(error) = result {
            self.0.push(format!("{what}: {:#}", error.into()));
        }
    }
}

/// Removes the node.
///
/// # Errors
/// Lists what could not be removed.
pub fn run(args: &DownArgs) -> Result<()> {
    let paths = args.paths.paths();
    let ending = step("end the node");
    stop_copepod(&paths)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keep = if args.keep_data { Keep::Images } else { Keep::Nothing };
    let failures = tokio.block_on(remove_everything(&paths, keep));
    if !failures.0.is_empty() {
        bail!("not everything is removed:\n{}", failures.0.join("\n"));
    }
    ending.done();
    Ok(())
}

async fn remove_everything(paths: &Paths, keep: Keep) -> Failures {
    let mut failures = Failures::default();
    let trees = cgroups::noted(&paths.cgroups_note()).unwrap_or_else(|error| {
        failures.note("cgroups", Err(error));
        Vec::new()
    });
    let systemd = trees.last().is_some_and(|tree| tree.systemd);
    failures.note("containers", containerd::purge(&runtime::options(paths, systemd), keep).await);
    failures.note("pod network", remove_network(paths).await);
    failures.note("kernel settings", netproxy::cni::restore_node(&paths.sysctls_note()));
    failures.note("volumes", unmount_below(&paths.kubelet()));
    for tree in &trees {
        failures.note("cgroups", remove_cgroups(tree).await);
    }
    failures.note("files", remove_or_empty(&paths.log));
    failures.note("files", if keep == Keep::Images { remove(&paths.kubelet()) } else { remove_data(&paths.data) });
    if failures.0.is_empty() {
        // Last: it knows what is left to do should this be repeated.
        failures.note("files", remove(&paths.run));
    }
    failures
}

/// Links, routes and rules that bear this instance's mark, and the plugin's files.
async fn remove_network(paths: &Paths) -> Result<()> {
    if let Some(owner) = instance::find(paths)? {
        netproxy::network::remove_owned(&owner).await?;
    }
    Ok(netproxy::cni::cleanup(&paths.cni_data(), &paths.cni_conf())?)
}

fn stop_copepod(paths: &Paths) -> Result<()> {
    let Some(pid) = pidfile::holder(&paths.pid_file())? else { return Ok(()) };
    let Some(process) = Process::open(pid)? else { return Ok(()) };
    process.terminate(DRAIN).with_context(|| format!("end copepod, process {pid}"))
}

/// Unmounts what is mounted below `directory`, the innermost first.
fn unmount_below(directory: &Path) -> Result<()> {
    for point in mounts::mounts_below(directory).context("read the mounts")? {
        sys::unmount(&point).with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

/// The pods' cgroups, and those above them that the node made and nobody else uses.
async fn remove_cgroups(tree: &Tree) -> Result<()> {
    let driver = if tree.systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
    let pods = Layout::new(driver, &tree.root).path(None, None);
    if tree.systemd {
        let slice = pods.file_name().unwrap_or_default().to_string_lossy();
        systemd::stop_slice(&slice).await.with_context(|| format!("stop {slice}"))?;
    }
    cgroups::remove(&pods)?;
    for directory in &tree.made {
        // Busy or missing: both are as they should be.
        let _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

/// Removes a directory; one that somebody mounted something on is emptied, since
/// the mount is not ours.
fn remove_or_empty(directory: &Path) -> Result<()> {
    let mounts = mounts::mounts_below(directory).context("read the mounts")?;
    // The table shows resolved paths.
    if !directory.canonicalize().is_ok_and(|resolved| mounts.contains(&resolved)) {
        return remove(directory);
    }
    for entry in std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        remove(&entry?.path())?;
    }
    Ok(())
}

/// Everything but the machine's local clusters, which are not this node's.
fn remove_data(data: &Path) -> Result<()> {
    let clusters = crate::paths::clusters_dir(data);
    let entries = match std::fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", data.display())),
    };
    for entry in entries {
        let path = entry?.path();
        if path != clusters {
            remove(&path)?;
        }
    }
    // Not empty when there are clusters: then it stays.
    containerd::remove_unused(data);
    Ok(())
}

/// Removes a file or a tree, but nothing in a mount that could not be undone:
/// there may be somebody's data.
fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => cri::dirtree::remove(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
