//! `copepod down`: ends a node and leaves nothing of it behind. Every step
//! works on what a crash left, goes on past failures, and may be repeated.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cri::containerd::{self, Keep};

use crate::cli::DownArgs;
use crate::node::BRIDGE;
use crate::paths::Paths;
use crate::progress::step;
use crate::sys::process::Process;
use crate::{cgroups, pidfile, runtime, sys};

/// How long copepod may take to drain.
const DRAIN: Duration = Duration::from_secs(20);

/// Removes the node.
///
/// # Errors
/// Lists what could not be removed.
pub fn run(args: &DownArgs) -> Result<()> {
    let paths = args.paths.paths();
    let ending = step("end the node");
    stop_copepod(&paths)?;
    let mut failures = Vec::new();
    let mut attempt = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{what}: {error:#}"));
        }
    };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keep = if args.keep_data { Keep::Images } else { Keep::Nothing };
    let purged = tokio.block_on(containerd::purge(&runtime::options(&paths), keep));
    attempt("containers", purged.map_err(Into::into));
    attempt("service rules", netproxy::services::cleanup().map_err(Into::into));
    attempt("routes", tokio.block_on(netproxy::routes::cleanup()).map_err(Into::into));
    let network = netproxy::cni::cleanup(BRIDGE, &paths.cni_data(), &paths.cni_conf());
    attempt("pod network", network.map_err(Into::into));
    attempt("volumes", unmount_below(&paths.kubelet()));
    attempt("cgroups", remove_cgroups(&args.cgroup_root));
    for directory in [&paths.run, &paths.log] {
        attempt("files", remove(directory));
    }
    if args.keep_data {
        attempt("files", remove(&paths.kubelet()));
    } else {
        attempt("files", remove_data(&paths.data));
    }
    if !failures.is_empty() {
        bail!("not everything is removed:\n{}", failures.join("\n"));
    }
    ending.done();
    Ok(())
}

fn stop_copepod(paths: &Paths) -> Result<()> {
    let Some(pid) = pidfile::holder(&paths.pid_file())? else { return Ok(()) };
    let Some(process) = Process::open(pid)? else { return Ok(()) };
    process.terminate(DRAIN).with_context(|| format!("end copepod, process {pid}"))
}

/// Unmounts what is mounted below `directory`, the innermost first.
fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<_> = points.filter(|point| Path::new(point).starts_with(directory)).collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in below {
        sys::unmount(Path::new(&point)).with_context(|| format!("unmount {point}"))?;
    }
    Ok(())
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(point: &str) -> String {
    let mut plain = point.to_owned();
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(code, character);
    }
    plain
}

/// The pods' tree under either driver's name.
fn remove_cgroups(root: &str) -> Result<()> {
    let root = root.trim_matches('/');
    for name in ["kubepods", "kubepods.slice"] {
        let path = if root.is_empty() { name.to_owned() } else { format!("{root}/{name}") };
        cgroups::remove(&path)?;
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
    let _ = std::fs::remove_dir(data);
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape("/plain"), "/plain");
    }
}
