//! Who else is on the machine that a node would share it with: other nodes, and filters of others.
//! Looking is apart from deciding here, too.

use std::fs;
use std::path::Path;

use netproxy::cidr::Cidr4;
use netproxy::firewall;

use super::{Finding, Severity};

/// Programs that are a node, or a part of one, as /proc names them.
const NODE_PROGRAMS: [&str; 7] = ["kubelet", "kube-proxy", "k3s-server", "k3s-agent", "rke2", "k0s", "kubelite"];

/// A process of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    name: String,
}

/// Another node on this machine: its programs, and Service rules that one has left.
pub fn other_nodes() -> Vec<Finding> {
    let rules = firewall::other_proxy().unwrap_or_else(|error| Some(format!("nftables cannot be read: {error}")));
    judge(&processes(Path::new("/proc")), rules)
}

/// Another node of copepod's in this network namespace, whatever it sees as its files.
pub fn other_copepod() -> Option<u32> {
    let proc = Path::new("/proc");
    let others = processes(proc).into_iter().filter(|process| process.pid != std::process::id());
    let own = pods_around(&proc.join("self"));
    let is_node = |directory: &Path| is_copepod_node(directory) && pods_around(directory) <= own;
    let mut nodes = others.filter(|process| process.name == "copepod" && is_node(&proc.join(process.pid.to_string())));
    nodes.next().map(|process| process.pid)
}

/// How deep in cgroups of pods a process below `/proc` is. A container that shares the node's network is deeper than
/// the node itself, and no node, whatever it is called; a node may be in a pod of somebody else's.
fn pods_around(process: &Path) -> usize {
    let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.map(|path| path.split('/').filter(|name| name.starts_with("kubepods")).count()).max().unwrap_or(0)
}

/// Whether the process below `/proc` is root's, and runs as a node: anybody may call a program copepod.
fn is_copepod_node(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let is_roots = status.lines().any(|line| line.split_whitespace().eq(["Uid:", "0", "0", "0", "0"]));
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let runs = words.next().is_some_and(|word| word == b"up" || word == b"agent");
    // Who starts one in the background waits for it, and is none.
    is_roots && runs && !words.any(|word| word == b"--detach")
}

/// Filters of others that pods' packets would meet.
pub fn filters(cluster_cidr: Cidr4) -> Vec<Finding> {
    let lines =
        firewall::in_the_way(cluster_cidr).unwrap_or_else(|error| vec![format!("nftables cannot be read: {error}")]);
    lines.into_iter().map(warning).collect()
}

fn warning(message: String) -> Finding {
    Finding { severity: Severity::Warning, message }
}

fn judge(processes: &[Process], rules: Option<String>) -> Vec<Finding> {
    let nodes = processes.iter().filter(|process| NODE_PROGRAMS.contains(&process.name.as_str()));
    let names: Vec<_> = nodes.map(|process| format!("process {} ({})", process.pid, process.name)).collect();
    let running = (!names.is_empty()).then(|| {
        format!(
            "another Kubernetes node runs here: {}; two nodes use the same ports, cgroups and addresses of Services: \
             end one of them",
            names.join(", ")
        )
    });
    running.into_iter().chain(rules).map(warning).collect()
}

/// The processes below `proc` that share its own network namespace.
fn processes(proc: &Path) -> Vec<Process> {
    let namespace = |of: &str| fs::read_link(proc.join(of).join("ns/net")).ok();
    let Some(own) = namespace("self") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if namespace(&format!("{pid}")).as_ref() == Some(&own)
            && let Ok(name) = fs::read_to_string(entry.path().join("comm"))
        {
            found.push(Process { pid, name: name.trim().to_owned() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn another_node_is_one_line() {
        let process = |pid, name: &str| Process { pid, name: name.to_owned() };
        assert_eq!(judge(&[process(1, "systemd"), process(2, "copepod"), process(3, "kubelet-helper")], None), []);
        let findings = judge(&[process(7, "kubelet"), process(8, "kube-proxy")], Some("rules are there".to_owned()));
        assert_eq!(findings.len(), 2);
        assert!(findings[0].message.contains("process 7 (kubelet), process 8 (kube-proxy)"), "{findings:?}");
        assert!(
            findings.iter().all(|finding| finding.severity == Severity::Warning && !finding.message.contains('\n'))
        );
    }

    #[test]
    fn only_processes_of_this_network_count() {
        let proc = tempfile::tempdir().unwrap();
        let add = |pid: &str, namespace: &str, name: &str| {
            let directory = proc.path().join(pid);
            fs::create_dir_all(directory.join("ns")).unwrap();
            std::os::unix::fs::symlink(namespace, directory.join("ns/net")).unwrap();
            fs::write(directory.join("comm"), format!("{name}\n")).unwrap();
        };
        assert_eq!(processes(proc.path()), [], "nothing can be told");
        for (pid, namespace, name) in [
            ("self", "net:[1]", "copepod"),
            ("5", "net:[1]", "kubelet"),
            ("6", "net:[2]", "kubelet"),
            ("irq", "net:[1]", "kubelet"),
        ] {
            add(pid, namespace, name);
        }
        assert_eq!(processes(proc.path()), [Process { pid: 5, name: "kubelet".to_owned() }]);
    }

    #[test]
    fn a_container_is_deeper_in_pods_than_its_node() {
        let proc = tempfile::tempdir().unwrap();
        let depth = |text: &str| {
            fs::write(proc.path().join("cgroup"), text).unwrap();
            pods_around(proc.path())
        };
        let node = depth("0::/system.slice/copepod.service\n");
        let plain = "5:memory:/x/kubepods/burstable/poda1/0123\n1:name=systemd:/\n0::/\n";
        assert!(
            depth(plain) > node && depth("0::/kubepods.slice/kubepods-poda1.slice/cri-containerd-1.scope\n") > node
        );
        // A node that is itself in somebody's pod, and what it runs.
        let nested = depth("0::/kubepods/pod9/c/node");
        assert!(nested > node && depth("0::/kubepods/pod9/c/node/kubepods/besteffort/podb2/4567") > nested);
        assert_eq!((depth(""), depth("nonsense"), depth("0::/podkubepods")), (0, 0, 0));
    }

    #[test]
    fn roots_copepods_that_run_as_a_node_count() {
        let proc = tempfile::tempdir().unwrap();
        let is_node = |uid: &str, words: &[&str]| {
            fs::write(proc.path().join("status"), format!("Name:\tcopepod\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"))
                .unwrap();
            fs::write(proc.path().join("cmdline"), words.join("\0")).unwrap();
            is_copepod_node(proc.path())
        };
        assert!(is_node("0", &["copepod", "up"]) && is_node("0", &["/usr/bin/copepod", "agent", "--kubeconfig=k"]));
        assert!(!is_node("1000", &["copepod", "up"]), "anybody can start that");
        for words in
            [&["copepod", "up", "--detach"][..], &["copepod", "down"], &["copepod", "node-init", "x"], &["copepod"]]
        {
            assert!(!is_node("0", words), "{words:?}");
        }
    }
}
