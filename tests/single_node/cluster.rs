//! `copepod cluster create`, killed at bad moments.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::machine::Machine;
use harness::time;
use nix::sys::stat::Mode;

use crate::machine::{self, COPEPOD, open_without_waiting};

fn create(machine: &Machine, nodes: &str) -> Result<std::process::Child> {
    let mut command = machine.command(&[COPEPOD, "cluster", "create", machine.name(), "--no-merge", "--nodes", nodes]);
    command.spawn().context("run copepod")
}

#[test]
fn a_node_that_nobody_recorded_does_not_begin() -> Result<()> {
    let machine = machine::new("unrecorded")?;
    let before = machine.picture()?;
    // Whoever starts the node's first process opens its log before that: a pipe
    // holds it there until the creator, which waits for its word, is dead.
    let logs = format!("/var/lib/copepod/clusters/{0}/nodes/{0}-control-plane/log", machine.name());
    fs::create_dir_all(machine.path(&logs))?;
    let log = machine.path(&logs).join("node-init.log");
    nix::unistd::mkfifo(&log, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut creator = create(&machine, "1")?;
    time::until("the node's start", || machine.process("copepod", "node-init"))?;
    machine.kill_9(machine.process("copepod", "cluster")?.pid)?;
    creator.wait()?;
    let _log = open_without_waiting(&log)?;
    time::until("the end of what was started", || {
        let left = machine.processes()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    machine.copepod(&["cluster", "delete", machine.name()])?;
    machine.expect_unchanged_since(&before)
}

#[test]
fn a_cluster_whose_creator_was_killed_is_deleted() -> Result<()> {
    let machine = machine::new("abandoned")?;
    let before = machine.picture()?;
    let mut creator = create(&machine, "2")?;
    time::until("the worker's copepod", || machine.process("copepod", "agent"))?;
    machine.kill_9(machine.process("copepod", "cluster")?.pid)?;
    creator.wait()?;
    machine.copepod(&["cluster", "delete", machine.name()])?;
    machine.expect_unchanged_since(&before)
}

#[test]
fn a_cluster_with_pods_is_deleted() -> Result<()> {
    let machine = machine::new("populated")?;
    let before = machine.picture()?;
    machine.copepod(&["cluster", "create", machine.name(), "--no-merge", "--wait", "90"])?;
    let config = format!("--kubeconfig=/var/lib/copepod/clusters/{}/kubeconfig", machine.name());
    let kubectl = |arguments: &[&str]| machine.run(&[&["kubectl", &config], arguments].concat());
    let image = "--image=copepod.local/demo:latest";
    time::until("the service account", || kubectl(&["run", "hello", image, "--image-pull-policy=IfNotPresent"]))?;
    kubectl(&["wait", "pod/hello", "--for=condition=Ready", &time::kubectl_timeout()])?;
    machine.copepod(&["cluster", "delete", machine.name()])?;
    machine.expect_unchanged_since(&before)
}

/// Nodes of all clusters mount over the same empty directories of the machine,
/// and the machine's own node has its files in them.
#[test]
fn what_ends_leaves_another_cluster_its_data() -> Result<()> {
    let machine = machine::new("two")?;
    let before = machine.picture()?;
    let names = ["a", "b"].map(|one| format!("{}{one}", machine.name()));
    let directories = ["/var/lib/clusters-a", "/var/lib/clusters-b"];
    for (name, directory) in names.iter().zip(directories) {
        machine.copepod(&["cluster", "create", name, "--no-merge", "--data-dir", directory, "--wait", "90"])?;
    }
    machine.copepod(&["cluster", "delete", &names[0], "--data-dir", directories[0]])?;
    // The machine's own node ends, too; pods of the cluster live on.
    machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()])?;
    let config = format!("--kubeconfig={}/clusters/{}/kubeconfig", directories[1], names[1]);
    let kubectl = |arguments: &[&str]| machine.run(&[&["kubectl", &config], arguments].concat());
    let image = "--image=copepod.local/demo:latest";
    time::until("the service account", || kubectl(&["run", "hello", image, "--image-pull-policy=IfNotPresent"]))?;
    kubectl(&["wait", "pod/hello", "--for=condition=Ready", &time::kubectl_timeout()])?;
    let shims = || -> Result<Vec<u32>> {
        let shims = machine.processes()?.into_iter().filter(|p| p.arguments[0].contains("containerd-shim"));
        Ok(shims.map(|shim| shim.pid).collect())
    };
    let before_down = shims()?;
    ensure!(!before_down.is_empty(), "no shim is seen");
    machine.copepod(&["down"])?;
    ensure!(shims()? == before_down, "shims of the cluster are gone");
    let node = machine.process("copepod", "up")?.pid;
    let mounts = fs::read_to_string(machine.path(&format!("/proc/{node}/mountinfo")))?;
    for target in ["/var/lib/copepod", "/var/lib/cni"] {
        ensure!(mounts.lines().any(|line| line.split(' ').nth(4) == Some(target)), "{target} is gone:\n{mounts}");
    }
    machine.copepod(&["cluster", "delete", &names[1], "--data-dir", directories[1]])?;
    for directory in directories {
        fs::remove_dir(machine.path(directory)).with_context(|| format!("more is left in {directory}"))?;
    }
    machine.expect_unchanged_since(&before)
}
