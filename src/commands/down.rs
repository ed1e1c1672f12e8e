//! `copepod down`: ends a node and leaves nothing of it behind, and nothing of anybody else's
//! touched. Every step works on what a crash left, goes on past failures, and may be repeated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::ids::PodUid;
use agent::retention::plan::pods::uid_of_log_dir;
use agent::volume::mounts;
use anyhow::{Context, Result, bail};
use cri::containerd::{self, Keep};
use netproxy::conntrack::tuning;

use crate::cli::DownArgs;
use crate::instance::{self, Instance};
use crate::paths::Paths;
use crate::progress::step;
use crate::sys::process::Process;
use crate::{cgroups, files, network_lock, pidfile, runtime, sys, unmarked};

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

/// Removes the node of these directories and nothing else: only what bears its mark.
///
/// # Errors
/// Lists what could not be removed.
pub fn run(args: &DownArgs) -> Result<()> {
    let paths = args.paths.paths();
    let found = instance::find(&paths)?;
    // Read before it is removed.
    let unmarked = unmarked::links(&paths);
    if found.is_none() && !unmarked::is_here(&paths) {
        println!("no node to end: copepod never ran with {} and {}", paths.data.display(), paths.run.display());
        return Ok(());
    }
    let ending = step("end the node");
    stop_copepod(&paths)?;
    let node = match found {
        Some(node) => node,
        None => instance::adopt_unmarked(&paths)?,
    };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keep = if args.keep_data { Keep::Images } else { Keep::Nothing };
    let failures = tokio.block_on(remove_everything(&paths, &node, keep));
    if !failures.0.is_empty() {
        bail!("not everything is removed:\n{}", failures.0.join("\n"));
    }
    ending.done();
    unmarked::report_links(&unmarked);
    Ok(())
}

async fn remove_everything(paths: &Paths, node: &Instance, keep: Keep) -> Failures {
    let mut failures = Failures::default();
    // Read first: these directories say which logs and cgroups are the node's.
    let pods = pods(&paths.kubelet());
    let trees = cgroups::noted(&paths.cgroups_note()).unwrap_or_else(|error| {
        failures.note("cgroups", Err(error));
        Vec::new()
    });
    let systemd = trees.last().is_some_and(|tree| tree.systemd);
    // Without the mark a daemon in the run directory is somebody else's; a boot ends ours.
    if node.run.is_some() {
        let mut options = runtime::options(paths, systemd);
        options.directories_of_others = node.directories_of_others();
        failures.note("containers", containerd::purge(&options, keep).await);
    }
    remove_network(paths, node, &mut failures).await;
    failures.note("volumes", unmount_below(&paths.kubelet()));
    for tree in &trees {
        failures.note("cgroups", cgroups::remove_pods(tree, &pods).await);
    }
    for directory in node.logs() {
        failures.note("files", remove_logs(directory, &pods));
        remove_if_made(directory, node);
    }
    if !failures.0.is_empty() {
        // What is left knows what is left to do should this be repeated.
        return failures;
    }
    if keep == Keep::Images {
        failures.note("files", remove(&paths.kubelet()));
    } else {
        failures.note("files", remove_directory(paths.data_entries(), &paths.data_stamp()));
        containerd::remove_unused(&paths.manifests());
        remove_if_made(&paths.data, node);
    }
    if node.run.is_some() {
        failures.note("files", remove_directory(paths.run_entries(), &paths.run_stamp()));
        if node.made(&paths.run) {
            // Nodes of local clusters mount over what is above it, never over it.
            let _ = std::fs::remove_dir(&paths.run);
        }
    }
    failures
}

/// Links, routes, rules and kernel settings. They belong to a network namespace, of which one node
/// at a time is the master: what another one that runs has adopted is no longer this node's.
async fn remove_network(paths: &Paths, node: &Instance, failures: &mut Failures) {
    let made = node.run.as_ref().is_some_and(|run| run.network);
    match network_lock::try_take() {
        Ok(Ok(lock)) => {
            if made {
                match node.owner() {
                    Ok(owner) => failures.note("pod network", netproxy::network::remove_owned(&owner).await),
                    Err(error) => failures.note("pod network", Err(error)),
                }
                failures.note("pod network", netproxy::cni::cleanup(&paths.cni_data(), &paths.cni_conf()));
                failures.note("kernel settings", netproxy::cni::restore_node(&paths.sysctls_note()));
                let tracking = Path::new(tuning::NETFILTER);
                failures.note("kernel settings", tuning::restore(tracking, &paths.conntrack_note()));
            }
            failures.note("network lock", lock.remove());
        }
        Ok(Err(pid)) if made => println!("links, routes and rules stay: process {pid} is a node that uses them"),
        Ok(Err(_)) => {}
        Err(error) => failures.note("pod network", Err(error)),
    }
}

/// The pods that the node has or had directories for.
fn pods(kubelet: &Path) -> BTreeSet<PodUid> {
    let entries = std::fs::read_dir(kubelet.join("pods")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).map(PodUid::new).collect()
}

/// The logs of these pods, among which others may have theirs.
fn remove_logs(directory: &Path, pods: &BTreeSet<PodUid>) -> Result<()> {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if uid_of_log_dir(&name.to_string_lossy()).is_some_and(|uid| pods.contains(&uid)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
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

/// Removes what copepod keeps in a directory, and the mark when everything else is gone.
fn remove_directory(entries: Vec<PathBuf>, stamp: &Path) -> Result<()> {
    for entry in entries {
        remove(&entry)?;
        let (Some(parent), Some(name)) = (entry.parent(), entry.file_name()) else { continue };
        // What a replacement that was cut short left beside it.
        for left in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if files::is_temporary(&left.file_name(), name) {
                remove(&left.path())?;
            }
        }
    }
    remove(stamp)
}

/// Removes a directory that the node made, unless others have something in it or on it.
fn remove_if_made(directory: &Path, node: &Instance) {
    if node.made(directory) {
        containerd::remove_unused(directory);
    }
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
