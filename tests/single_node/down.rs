//! `make up` on a machine, and `copepod down` after all that may have happened.

use std::fs;

use anyhow::{Context, Result, ensure};
use harness::machine::Machine;
use harness::time;

use crate::machine::{self, COPEPOD, SETTINGS};

/// What `make up` runs.
const UP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/up.sh");

/// A pod that needs no registry.
const IMAGE: &str = "--image=copepod.local/demo:latest";

/// Objects of others, of every kind that a node makes. The shim is a local cluster's: its daemon has
/// the same path as the node's, in a mount namespace of its own.
const OTHERS: &str = r#"set -e
ip link add br-other type bridge
ip link set br-other up
ip route add 198.51.100.0/24 dev eth0
nft add table inet other
nft add chain inet other input
mkdir -p /var/log/pods/default_other_3-4 /var/lib/cni/results /var/lib/copepod /run/copepod /run/other
echo said > /var/log/pods/default_other_3-4/0.log
echo theirs > /var/lib/copepod/theirs
echo theirs > /run/copepod/theirs
mkdir -p "$1/kubepods/other"
setsid bash -c 'echo $$ > "$1/kubepods/other/cgroup.procs"; exec sleep 900' x "$1" < /dev/null > /dev/null 2>&1 &
setsid unshare --mount bash -c 'mount -t tmpfs none /run; mkdir -p /run/copepod/containerd
    exec -a /usr/bin/containerd-shim-runc-v2 bash -c "sleep 900; :" x -id y -address /run/copepod/containerd/containerd.sock' \
    < /dev/null > /dev/null 2>&1 &
"#;

/// Plants them, and waits for the processes among them.
fn plant(machine: &Machine) -> Result<()> {
    let cgroup = format!("/sys/fs/cgroup/pids{}", machine.cgroup_root());
    machine.run(&["bash", "-c", OTHERS, "x", &cgroup])?;
    time::until("others' processes", || {
        let running = machine.processes()?;
        let has = |words: &[&str]| {
            running
                .iter()
                .any(|process| process.arguments.starts_with(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>()))
        };
        ensure!(
            has(&["/usr/bin/containerd-shim-runc-v2"])
                && running.iter().filter(|p| p.arguments == ["sleep", "900"]).count() == 2,
            "{running:?}"
        );
        Ok(())
    })
}

#[test]
fn down_touches_nothing_of_others() -> Result<()> {
    let machine = machine::new("others")?;
    plant(&machine)?;
    // The name that k3s, flannel and CRI-O give their bridge.
    machine.run(&["ip", "link", "add", "cni0", "type", "bridge"])?;
    let before = machine.picture()?;
    // Where no node ever was.
    let told = machine.copepod(&["down"])?;
    ensure!(told.contains("copepod never ran"), "{told}");
    machine.expect_unchanged_since(&before)?;
    // A start that fails early, and what its user does then.
    let (success, _) = machine.try_run(&[COPEPOD, "up", "--node-name", "a", "--datastore", "nothing://"])?;
    ensure!(!success, "it started");
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)?;
    machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()])?;
    let running = machine.picture()?;
    // Another pair of directories, where nothing ran, beside a node that runs.
    machine.copepod(&["down", "--data-dir", "/var/lib/nothing", "--run-dir", "/run/nothing"])?;
    machine.expect_unchanged_since(&running)?;
    let (success, told) = machine.try_run(&[COPEPOD, "down", "--run-dir", "/run/nothing"])?;
    ensure!(!success && told.contains("uses --run-dir /run/copepod"), "{told}");
    machine.expect_unchanged_since(&running)?;
    let second = ["up", "--data-dir", "/var/lib/second", "--run-dir", "/run/second"];
    let (success, told) = machine.try_run(&[&[COPEPOD], &second[..]].concat())?;
    ensure!(!success && told.contains("a copepod node in this network namespace"), "{told}");
    machine.copepod(&["down", "--data-dir", "/var/lib/second", "--run-dir", "/run/second"])?;
    machine.expect_unchanged_since(&running)?;
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)
}

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
    let machine = machine::new("down")?;
    let before = machine.picture()?;
    make_up(&machine)?;
    let pid = copepod_pid(&machine)?;
    // Running it again is harmless.
    make_up(&machine)?;
    ensure!(copepod_pid(&machine)? == pid, "copepod was started again");
    machine.expect_cgroups_in_place()?;
    let all = machine.picture()?.left_since(&before);
    for kind in ["process", "mount", "cgroup", "link", "route", "nft", "file"] {
        ensure!(all.iter().any(|trace| trace.starts_with(kind)), "no {kind} is seen of a running node: {all:?}");
    }
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)?;
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)
}

#[test]
fn down_clears_up_after_kill_9() -> Result<()> {
    let machine = machine::new("kill")?;
    let before = machine.picture()?;
    make_up(&machine)?;
    machine.kill_9(copepod_pid(&machine)?)?;
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)?;
    // Everybody dies: containerd, shims, pods, and whoever waits for the killer.
    make_up(&machine)?;
    machine.try_run(&["bash", "-c", "kill -9 -1"])?;
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)
}

#[test]
fn a_cgroup_root_of_somebody_else_stays() -> Result<()> {
    let machine = machine::new("root")?;
    let root = std::path::Path::new("/sys/fs/cgroup/pids").join(&machine.cgroup_root()[1..]);
    fs::create_dir(&root).with_context(|| format!("make {}", root.display()))?;
    let before = machine.picture()?;
    machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()])?;
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)?;
    ensure!(root.exists(), "it is gone");
    Ok(())
}

#[test]
fn data_is_kept_when_asked_for() -> Result<()> {
    let machine = machine::new("keep")?;
    let before = machine.picture()?;
    make_up(&machine)?;
    let uid = || machine.kubectl(&["get", "deployment", "hello", "-o", "jsonpath={.metadata.uid}"]);
    let deployment = uid()?;
    let blobs = machine.path("/var/lib/copepod/containerd/io.containerd.content.v1.content/blobs/sha256");
    let images = fs::read_dir(&blobs)?.count();
    machine.copepod(&["down", "--keep-data"])?;
    let left = machine.picture()?.left_since(&before);
    let elsewhere = |trace: &&String| !trace.starts_with("file var/lib/copepod");
    ensure!(!left.iter().any(|trace| elsewhere(&trace)), "left beside data: {:?}", left.iter().find(elsewhere));
    ensure!(images > 0 && fs::read_dir(&blobs)?.count() == images, "images are lost");
    machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()])?;
    ensure!(uid()? == deployment, "the Deployment is another");
    make_up(&machine)?;
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)
}

#[test]
fn settings_are_restored_and_logs_on_a_disk_of_their_own_removed() -> Result<()> {
    let machine = machine::new("set")?;
    let set = |setting: &str, value: &str| machine.run(&["bash", "-c", &format!("echo {value} > /proc/sys/{setting}")]);
    for (setting, value) in SETTINGS.iter().zip(["0", "1", "0"]) {
        set(setting, value)?;
    }
    // The machine's owner keeps logs of pods on a disk of their own, and another kubelet's beside.
    machine.run(&["bash", "-c", "mkdir /var/log/pods && mount -t tmpfs none /var/log/pods"])?;
    fs::create_dir_all(machine.path("/var/log/pods/default_theirs_1-2"))?;
    fs::write(machine.path("/var/log/pods/default_theirs_1-2/0.log"), "said")?;
    let before = machine.picture()?;
    let up = || machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()]);
    up()?;
    let changed = machine.picture()?.left_since(&before);
    let changed: Vec<_> = changed.iter().filter(|trace| trace.starts_with("setting")).collect();
    ensure!(changed == ["setting net/ipv4/ip_forward is 1"], "what is other links' own stays: {changed:?}");
    time::until("a pod", || machine.kubectl(&["run", "said", IMAGE, "--image-pull-policy=IfNotPresent"]))?;
    machine.kubectl(&["wait", "pod/said", "--for=condition=Ready", &time::kubectl_timeout()])?;
    ensure!(
        machine.picture()?.left_since(&before).iter().any(|trace| trace.contains("/pods/default_said_")),
        "no logs are seen"
    );
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)?;
    // What somebody set while the node ran is not ours to undo.
    up()?;
    set("net/ipv4/conf/all/rp_filter", "2")?;
    machine.copepod(&["down"])?;
    let left = machine.picture()?.left_since(&before);
    let left: Vec<_> = left.iter().filter(|trace| trace.starts_with("setting")).collect();
    ensure!(left == ["setting net/ipv4/conf/all/rp_filter is 2"], "{left:?}");
    Ok(())
}

/// Takes the marks off a node, as one was before there were marks, and gives its bridge the name it had then.
const UNMARK: &str = r#"set -e
rm -r /var/lib/copepod/instance.json /run/copepod/owner.json /run/copepod/status.json /run/copepod.network
sed -i 's/"copepod0"/"cni0"/' /run/copepod/cni/net.d/*
ip link set copepod0 down
ip link set copepod0 name cni0
ip link set cni0 up
for table in $(nft list tables | awk '/copepod/ { print $3 }'); do
  nft list table ip "$table" | sed '/^\tcomment /d' >/tmp/"$table"-$$.nft
  nft delete table ip "$table"
  nft -f /tmp/"$table"-$$.nft
  rm /tmp/"$table"-$$.nft
done
for link in $(ip -brief link | sed 's/[@ ].*//'); do ip link set dev "$link" alias ""; done
"#;

#[test]
fn a_node_from_before_marks_is_ended_by_the_command_that_is_told() -> Result<()> {
    let machine = machine::new("unmarked")?;
    let before = machine.picture()?;
    make_up(&machine)?;
    let uid = || machine.kubectl(&["get", "deployment", "hello", "-o", "jsonpath={.metadata.uid}"]);
    let deployment = uid()?;
    machine.kill_9(copepod_pid(&machine)?)?;
    machine.run(&["bash", "-c", UNMARK])?;
    let (success, told) = machine.try_run(&[COPEPOD, "up", "--detach", "--cgroup-root", &machine.cgroup_root()])?;
    let line = told.lines().last().unwrap_or_default();
    ensure!(!success && line.contains("copepod down --keep-data, and start again"), "{told}");
    let told = machine.copepod(&["down", "--keep-data"])?;
    ensure!(told.contains("ip link delete cni0"), "{told}");
    machine.run(&["ip", "link", "delete", "cni0"])?;
    let left = machine.picture()?.left_since(&before);
    let others: Vec<_> =
        left.iter().filter(|trace| !trace.starts_with("file ") && !trace.starts_with("setting ")).collect();
    ensure!(others.is_empty(), "{others:?}");
    make_up(&machine)?;
    ensure!(uid()? == deployment, "the Deployment is another");
    machine.copepod(&["down"]).map(drop)
}
