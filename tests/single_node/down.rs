//! `make up` on a machine, and `copepod down` after all that may have happened.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::machine::{COPEPOD, Machine, SETTINGS};

/// What `make up` runs.
const UP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/up.sh");

/// Runs `make up`'s script and looks at what it shows.
fn make_up(machine: &Machine) -> Result<()> {
    let told = machine.run(&[UP, COPEPOD, "--cgroup-root", &machine.cgroup_root()])?;
    let shown = told.lines().skip_while(|line| !line.starts_with("six requests")).skip(1);
    let answers: Vec<_> = shown.take_while(|line| !line.starts_with("use it")).collect();
    let (first, second) = answers.split_at(answers.len() / 2);
    ensure!(first.len() == 3 && first == second, "not in turn: {told}");
    ensure!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2], "not three pods: {told}");
    Ok(())
}

fn copepod_pid(machine: &Machine) -> Result<u32> {
    let text = fs::read_to_string(machine.path("/run/copepod/copepod.pid"))?;
    text.trim().parse().with_context(|| text.clone())
}

#[test]
fn down_leaves_nothing() -> Result<()> {
    let machine = Machine::new("down")?;
    let before = machine.traces()?;
    make_up(&machine)?;
    let pid = copepod_pid(&machine)?;
    // Running it again is harmless.
    make_up(&machine)?;
    ensure!(copepod_pid(&machine)? == pid, "copepod was started again");
    machine.expect_cgroups_in_place()?;
    let all = machine.left_since(&before)?;
    for kind in ["process", "mount", "cgroup", "link", "route", "nft", "file"] {
        ensure!(all.iter().any(|trace| trace.starts_with(kind)), "no {kind} is seen of a running node: {all:?}");
    }
    machine.copepod(&["down"])?;
    machine.expect_nothing_since(&before)?;
    machine.copepod(&["down"])?;
    machine.expect_nothing_since(&before)
}

#[test]
fn down_clears_up_after_kill_9() -> Result<()> {
    let machine = Machine::new("kill")?;
    let before = machine.traces()?;
    make_up(&machine)?;
    machine.kill_9(copepod_pid(&machine)?)?;
    machine.copepod(&["down"])?;
    machine.expect_nothing_since(&before)?;
    // Everybody dies: containerd, shims, pods, and whoever waits for the killer.
    make_up(&machine)?;
    machine.try_run(&["bash", "-c", "kill -9 -1"])?;
    machine.copepod(&["down"])?;
    machine.expect_nothing_since(&before)
}

#[test]
fn a_cgroup_root_of_somebody_else_stays() -> Result<()> {
    let machine = Machine::new("root")?;
    let root = std::path::Path::new("/sys/fs/cgroup/pids").join(&machine.cgroup_root()[1..]);
    fs::create_dir(&root).with_context(|| format!("make {}", root.display()))?;
    let before = machine.traces()?;
    machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()])?;
    machine.copepod(&["down"])?;
    machine.expect_nothing_since(&before)?;
    ensure!(root.exists(), "it is gone");
    Ok(())
}

#[test]
fn data_is_kept_when_asked_for() -> Result<()> {
    let machine = Machine::new("keep")?;
    let before = machine.traces()?;
    make_up(&machine)?;
    let uid = || machine.kubectl(&["get", "deployment", "hello", "-o", "jsonpath={.metadata.uid}"]);
    let deployment = uid()?;
    let blobs = machine.path("/var/lib/copepod/containerd/io.containerd.content.v1.content/blobs/sha256");
    let images = fs::read_dir(&blobs)?.count();
    machine.copepod(&["down", "--keep-data"])?;
    let left = machine.left_since(&before)?;
    let elsewhere = |trace: &&String| !trace.starts_with("file var/lib/copepod");
    ensure!(!left.iter().any(|trace| elsewhere(&trace)), "left beside data: {:?}", left.iter().find(elsewhere));
    ensure!(images > 0 && fs::read_dir(&blobs)?.count() == images, "images are lost");
    machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()])?;
    ensure!(uid()? == deployment, "the Deployment is another");
    make_up(&machine)?;
    machine.copepod(&["down"])?;
    machine.expect_nothing_since(&before)
}

#[test]
fn settings_are_restored_and_mounts_of_others_emptied() -> Result<()> {
    let machine = Machine::new("set")?;
    let set = |setting: &str, value: &str| machine.run(&["bash", "-c", &format!("echo {value} > /proc/sys/{setting}")]);
    for (setting, value) in SETTINGS.iter().zip(["0", "1", "0"]) {
        set(setting, value)?;
    }
    // The machine's owner keeps logs of pods on a disk of their own.
    machine.run(&["bash", "-c", "mkdir /var/log/pods && mount -t tmpfs none /var/log/pods"])?;
    let before = machine.traces()?;
    let up = || machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()]);
    up()?;
    let changed = machine.left_since(&before)?;
    let changed: Vec<_> = changed.iter().filter(|trace| trace.starts_with("setting")).collect();
    ensure!(changed == ["setting net/ipv4/ip_forward is 1"], "what is other links' own stays: {changed:?}");
    fs::create_dir_all(machine.path("/var/log/pods/some_pod"))?;
    fs::write(machine.path("/var/log/pods/some_pod/0.log"), "said")?;
    machine.copepod(&["down"])?;
    machine.expect_nothing_since(&before)?;
    // What somebody set while the node ran is not ours to undo.
    up()?;
    set("net/ipv4/conf/all/rp_filter", "2")?;
    machine.copepod(&["down"])?;
    let left = machine.left_since(&before)?;
    let left: Vec<_> = left.iter().filter(|trace| trace.starts_with("setting")).collect();
    ensure!(left == ["setting net/ipv4/conf/all/rp_filter is 2"], "{left:?}");
    Ok(())
}
