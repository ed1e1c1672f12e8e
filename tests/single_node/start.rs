//! What is told of a start: that it works, although something odd came before, or at once why not.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use harness::machine::Machine;
use harness::time;

use crate::machine::{self, COPEPOD};

const POD: [&str; 4] = ["run", "hello", "--image=copepod.local/demo:latest", "--image-pull-policy=IfNotPresent"];

/// `copepod up --detach` with more arguments.
fn up(machine: &Machine, more: &[&str]) -> Result<(bool, String)> {
    let root = machine.cgroup_root();
    machine.try_run(&[&[COPEPOD, "up", "--detach", "--cgroup-root", &root], more].concat())
}

fn up_well(machine: &Machine, more: &[&str]) -> Result<()> {
    let (success, told) = up(machine, more)?;
    if !success {
        let nodes = machine.kubectl(&["get", "nodes", "-o", "yaml"]).unwrap_or_else(|error| error.to_string());
        let log = std::fs::read_to_string(machine.path("/var/lib/copepod/copepod.log")).unwrap_or_default();
        let end: Vec<_> = log.lines().rev().take(60).collect();
        bail!("{told}\n{nodes}\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(())
}

/// The end of a start that cannot be: one line, and a reason in it.
fn refused((success, told): (bool, String), reason: &str) -> Result<()> {
    let last = told.lines().last().unwrap_or_default();
    ensure!(!success && last.contains(reason), "{reason:?} is not why: {told}");
    ensure!(!told.contains("Ready within"), "it was waited for: {told}");
    Ok(())
}

#[test]
fn a_node_that_is_told_to_be_ready_is() -> Result<()> {
    let machine = machine::new("ready")?;
    let before = machine.picture()?;
    // A proxy that is not there, and exceptions that nobody can read.
    let root = machine.cgroup_root();
    let proxied = ["env", "HTTPS_PROXY=http://127.0.0.1:9", "https_proxy=odd", "NO_PROXY=a,,", COPEPOD];
    machine.run(&[&proxied[..], &["up", "--detach", "--cgroup-root", &root]].concat())?;
    time::until("the service account", || machine.kubectl(&POD))?;
    machine.kubectl(&["wait", "pod/hello", "--for=condition=Ready", &time::kubectl_timeout()])?;
    time::until("the node's role", || {
        let nodes = machine.kubectl(&["get", "nodes", "--no-headers"])?;
        ensure!(nodes.split_whitespace().nth(2) == Some("control-plane"), "{nodes}");
        Ok(())
    })?;
    // The Node object says Ready throughout: that is the last process's word.
    for signal in ["-9", "-TERM", "-9"] {
        let pid = machine.process("copepod", "up")?.pid.to_string();
        machine.run(&["kill", signal, &pid])?;
        up_well(&machine, &[])?;
        ensure!(machine.process("copepod", "up")?.pid.to_string() != pid, "no new process after kill {signal}");
        let logs = machine.kubectl(&["exec", "hello", "--", "/demo", "resolve", "localhost"]);
        ensure!(logs.is_ok() || !format!("{logs:?}").contains("refused"), "after kill {signal}: {logs:?}");
        machine.kubectl(&["logs", "hello"]).with_context(|| format!("after kill {signal}"))?;
    }
    refused(up(&machine, &["--cluster-cidr=10.99.0.0/16"])?, "not with --cluster-cidr=10.99.0.0/16")?;
    refused(machine.try_run(&[COPEPOD, "up"])?, "runs already, as process")?;
    // The log is on disk.
    ensure!(machine.path("/var/lib/copepod/copepod.log").exists(), "no log");
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)
}

#[test]
fn a_start_that_cannot_be_is_told_at_once() -> Result<()> {
    let machine = machine::new("told")?;
    let before = machine.picture()?;
    for (port, flag) in [(10250, "--port"), (6443, "--secure-port")] {
        let held = machine.listen(port)?;
        refused(
            up(&machine, &[])?,
            &format!("port {port} is taken by another process: end it, or choose another {flag}"),
        )?;
        drop(held);
    }
    let problems = ["--cluster-domain=bad domain", "--tls-san=bad san!", "--node-name=Bad_Name"];
    let (success, told) = up(&machine, &problems)?;
    ensure!(!success && problems.iter().all(|problem| told.contains(problem)), "{told}");
    // A child's own error.
    refused(up(&machine, &["--datastore=etcd://127.0.0.1:1"])?, "127.0.0.1:1")?;
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)?;
    // A store that is lost is no new cluster.
    up_well(&machine, &[])?;
    machine.copepod(&["down", "--keep-data"])?;
    fs::File::create(machine.path("/var/lib/copepod/server/store.redb"))?;
    refused(up(&machine, &[])?, "store.redb is empty: put a backup of it there")?;
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)
}

#[test]
fn pods_run_while_the_kubelets_port_is_taken() -> Result<()> {
    let machine = machine::new("port")?;
    let held = machine.listen(10250)?;
    let root = machine.cgroup_root();
    let mut foreground = machine.command(&[COPEPOD, "up", "--cgroup-root", &root, "--log", "warn"]).spawn()?;
    time::until("a pod", || machine.kubectl(&POD))?;
    machine.kubectl(&["wait", "pod/hello", "--for=condition=Ready", &time::kubectl_timeout()])?;
    drop(held);
    time::until("logs", || machine.kubectl(&["logs", "hello"]))?;
    machine.copepod(&["down"])?;
    foreground.wait()?;
    Ok(())
}

/// A machine whose only address is that of a link which leads nowhere. Whoever starts a node there is told what it
/// waits for, not only when the time is up, and the node comes up when an address does. It logs where it was asked to.
#[test]
fn what_a_start_waits_for_is_told_at_once() -> Result<()> {
    let machine = machine::new("alone")?;
    machine.run(&["ip", "link", "delete", "eth0"])?;
    // A bridge without ports, as Docker's.
    let inside = "ip link add inside type bridge && ip address add 192.0.2.9/24 dev inside && ip link set inside up";
    machine.run(&["sh", "-c", inside])?;
    let root = machine.cgroup_root();
    let words = [COPEPOD, "up", "--detach", "--cgroup-root", &root, "--log-file", "/var/log/own.log"];
    let mut starting = machine.command(&words).stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut told = BufReader::new(starting.stderr.take().context("no standard error")?).lines();
    let mut before = Vec::new();
    let waits = loop {
        let Some(line) = told.next().transpose()? else { bail!("it ended: {}, after {before:?}", starting.wait()?) };
        if line.contains("no address that others could reach it at") {
            break line;
        }
        before.push(line);
    };
    ensure!(waits.starts_with("warn  ") && waits.contains("--node-ip"), "{waits}");
    ensure!(starting.try_wait()?.is_none(), "it ended: {waits}");
    let eth0 = "ip link add eth0 type veth peer name cable && ip address add 192.0.2.1/24 dev eth0 &&
        ip link set cable up && ip link set eth0 up";
    machine.run(&["sh", "-c", eth0])?;
    let rest: Vec<String> = told.collect::<std::io::Result<_>>()?;
    ensure!(starting.wait()?.success(), "{rest:?}");
    ensure!(rest.iter().all(|line| *line != waits), "it is told once: {rest:?}");
    let log = fs::read_to_string(machine.path("/var/log/own.log"))?;
    ensure!(log.contains("no address that others could reach it at"), "{log}");
    ensure!(!machine.path("/var/lib/copepod/copepod.log").exists(), "a log beside the one that was asked for");
    machine.copepod(&["down"])?;
    Ok(())
}

#[test]
fn arguments_for_nodes_are_tried_before_there_is_a_cluster() -> Result<()> {
    let machine = machine::new("tried")?;
    let before = machine.picture()?;
    let create = |more: &[&str]| {
        machine.try_run(&[&[COPEPOD, "cluster", "create", machine.name(), "--no-merge", "--"], more].concat())
    };
    refused(create(&["--nope"])?, "unexpected argument '--nope'")?;
    fs::write(
        machine.path("/var/lib/k.yaml"),
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: many\n",
    )?;
    refused(create(&["--config=/var/lib/k.yaml"])?, "KubeletConfiguration: maxPods")?;
    fs::remove_file(machine.path("/var/lib/k.yaml"))?;
    machine.expect_unchanged_since(&before)
}

/// The program of a running cluster is replaced, its description lost.
#[test]
fn a_cluster_outlives_its_program_and_its_description() -> Result<()> {
    let machine = machine::new("lost")?;
    let before = machine.picture()?;
    machine.run(&["install", COPEPOD, "/var/lib/copepod-program"])?;
    let program = "/var/lib/copepod-program";
    let config = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 7\n";
    fs::write(machine.path("/var/lib/k.yaml"), config)?;
    let create = [program, "cluster", "create", machine.name(), "--no-merge", "--", "--config=/var/lib/k.yaml"];
    machine.run(&create)?;
    let kubeconfig = format!("--kubeconfig=/var/lib/copepod/clusters/{}/kubeconfig", machine.name());
    let most =
        machine.run(&["kubectl", &kubeconfig, "get", "nodes", "-o", "jsonpath={.items[*].status.capacity.pods}"])?;
    ensure!(most == "7", "maxPods is not followed: {most}");
    machine.run(&["rm", program, "/var/lib/k.yaml"])?;
    let init = machine.process("copepod-program", "node-init")?.pid;
    let first = machine.process("copepod-program", "up")?.pid;
    machine.kill_9(first)?;
    let again = time::until("another copepod", || machine.process("copepod", "up"))?;
    ensure!(again.pid != first && machine.process("copepod-program", "node-init")?.pid == init, "the node ended");
    let description = machine.path(&format!("/var/lib/copepod/clusters/{}/cluster.json", machine.name()));
    fs::write(&description, "{")?;
    fs::create_dir_all(machine.path("/var/lib/copepod/clusters/zzz"))?;
    let listed = machine.copepod(&["cluster", "list"])?;
    ensure!(listed.contains(machine.name()) && listed.contains("cluster.json is not a cluster's file"), "{listed}");
    machine.copepod(&["cluster", "delete", machine.name()])?;
    machine.copepod(&["cluster", "delete", "zzz"])?;
    machine.expect_unchanged_since(&before)
}

/// A second server on one etcd is refused while the first lives, and takes over when it is gone.
#[test]
fn an_etcd_has_one_server() -> Result<()> {
    let machine = machine::new("etcd")?;
    let etcd = ["etcd", "--data-dir", "/var/lib/etcd", "--log-level", "error"];
    let mut etcd = machine.command(&etcd).spawn()?;
    let datastore = "--datastore=etcd://127.0.0.1:2379";
    // Upstream's scheduler and controllers could take these places.
    let first = ["server", datastore, "--disable-scheduler", "--controllers=*,-deployment-controller", "--log=warn"];
    let config = "--kubeconfig=/var/lib/copepod/admin.kubeconfig";
    time::until("etcd", || machine.run(&["etcdctl", "endpoint", "health"]))?;
    let mut serving = machine.command(&[&[COPEPOD], &first[..]].concat()).spawn()?;
    time::until("the lease", || {
        machine.run(&["kubectl", config, "get", "lease", "copepod-server", "--namespace=kube-system"])
    })?;
    let second = ["server", datastore, "--data-dir=/var/lib/second", "--run-dir=/run/second", "--secure-port=6444"];
    let second = [&[COPEPOD, "--log=warn"], &second[..]].concat();
    refused(machine.try_run(&second)?, "uses this etcd: two at once are not supported yet")?;
    machine.run(&["kubectl", config, "create", "deployment", "idle", "--image=none"])?;
    machine.kill_9(machine.process("copepod", "server")?.pid)?;
    serving.wait()?;
    let mut serving = machine.command(&second).spawn()?;
    let config = "--kubeconfig=/var/lib/second/admin.kubeconfig";
    time::until("the second server", || {
        // The deployment controller runs in this one.
        let sets = machine.run(&["kubectl", config, "get", "replicasets", "--no-headers"])?;
        ensure!(sets.contains("idle-"), "{sets}");
        Ok(())
    })?;
    machine.copepod(&["down", "--data-dir=/var/lib/second", "--run-dir=/run/second"])?;
    serving.wait()?;
    etcd.kill()?;
    etcd.wait()?;
    Ok(())
}

/// What any user of the machine can do must not keep a node from starting, nor `down` from removing it.
#[test]
fn only_root_decides_whose_the_network_is() -> Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let machine = machine::new("claimed")?;
    let before = machine.picture()?;
    // Names of abstract sockets are anybody's.
    let claim = || Ok(UnixListener::bind_addr(&SocketAddr::from_abstract_name("copepod/node")?)?);
    let _claimed = machine.network().run(claim)?;
    machine.copepod(&["up", "--detach", "--cgroup-root", &machine.cgroup_root()])?;
    let others = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let (entered, told) = machine.try_run(&[&others[..], &["ls", "/run/copepod.network"]].concat())?;
    ensure!(!entered && told.contains("Permission denied"), "anybody sees the locks: {told}");
    machine.copepod(&["down"])?;
    machine.expect_unchanged_since(&before)
}
