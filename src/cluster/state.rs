//! The directory of a cluster on disk and the one file that describes it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::plan::{ClusterName, NodePlan};
use crate::files;
use crate::sys::process;

/// A cluster as written to `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterState {
    /// The API's port on 127.0.0.1.
    pub api_port: u16,
    pub nodes: Vec<NodeState>,
    /// The further arguments that its nodes were started with; unknown of a cluster of an earlier copepod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_args: Option<Vec<String>>,
}

impl ClusterState {
    /// Whether one of its nodes runs.
    pub fn runs(&self) -> bool {
        self.nodes.iter().any(NodeState::runs)
    }
}

/// A node and, once started, its first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeState {
    #[serde(flatten)]
    pub plan: NodePlan,
    /// Process 1 of the node, as the machine counts processes.
    pub init: Option<InitProcess>,
}

impl NodeState {
    /// Whether its first process runs.
    pub fn runs(&self) -> bool {
        self.init.is_some_and(|init| init.is_alive())
    }
}

/// A process told apart from a later one with the same id by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitProcess {
    pub pid: i32,
    /// Clock ticks after boot, as /proc/PID/stat has it.
    pub start_ticks: u64,
}

impl InitProcess {
    /// Whether it is there and not about to be gone.
    pub fn is_alive(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks) && process::is_alive(self.pid)
    }
}

/// The files of one cluster.
#[derive(Clone, Debug)]
pub struct ClusterDir {
    pub root: PathBuf,
    pub name: ClusterName,
}

impl ClusterDir {
    /// The directory of `name` below the directory of all clusters.
    pub fn new(clusters: &Path, name: &ClusterName) -> Self {
        Self { root: clusters.join(name.as_str()), name: name.clone() }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The namespace that holds the bridge between the nodes.
    pub fn switch(&self) -> PathBuf {
        self.root.join("netns/switch")
    }

    /// The network namespace of a node.
    pub fn netns(&self, node: &str) -> PathBuf {
        self.root.join("netns").join(node)
    }

    /// What a node sees as its data directory.
    pub fn node_data(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node).join("data")
    }

    /// What a node sees as /var/log.
    pub fn node_log(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node).join("log")
    }

    /// The specification that a node's first process reads.
    pub fn node_spec(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(node).join("node.json")
    }

    /// Names of the nodes that there are files of, whatever the description says.
    pub fn nodes_on_disk(&self) -> Vec<String> {
        let entries = ["nodes", "netns"].map(|directory| fs::read_dir(self.root.join(directory)));
        let names = entries.into_iter().flatten().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
        let names: std::collections::BTreeSet<_> = names.filter(|name| name != "switch").collect();
        names.into_iter().collect()
    }

    fn state_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// Reads the cluster's description; `None` when there is no such cluster.
    pub fn load(&self) -> Result<Option<ClusterState>> {
        let path = self.state_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let state =
            serde_json::from_str(&text).with_context(|| format!("{} is not a cluster's file", path.display()))?;
        Ok(Some(state))
    }

    /// Replaces the cluster's description atomically.
    pub fn save(&self, state: &ClusterState) -> Result<()> {
        let path = self.state_file();
        let text = serde_json::to_vec_pretty(state)?;
        files::replace(&path, &text, 0o600).with_context(|| format!("write {}", path.display()))
    }
}

/// When a process started, in clock ticks after boot; `None` when it is gone.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_ticks(&stat)
}

/// Field 22 of a stat line; the command (field 2) may hold spaces and brackets.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let after_command = &stat[stat.rfind(')')? + 1..];
    after_command.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_state_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::new(dir.path(), &"dev".parse().unwrap());
        assert_eq!(cluster.load().unwrap(), None);
        fs::create_dir_all(&cluster.root).unwrap();
        let plans = super::super::plan::nodes(&cluster.name, 2).unwrap();
        let nodes = plans
            .into_iter()
            .map(|plan| NodeState { plan, init: Some(InitProcess { pid: 7, start_ticks: 9 }) })
            .collect();
        let state = ClusterState { api_port: 6443, nodes, extra_args: Some(vec!["--port=1".to_owned()]) };
        cluster.save(&state).unwrap();
        assert_eq!(cluster.load().unwrap(), Some(state.clone()));
        let earlier = ClusterState { extra_args: None, ..state };
        let text = serde_json::to_string(&earlier).unwrap();
        assert!(!text.contains("extra_args"), "{text}");
        assert_eq!(serde_json::from_str::<ClusterState>(&text).unwrap(), earlier);
    }

    #[test]
    fn garbage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::new(dir.path(), &"dev".parse().unwrap());
        fs::create_dir_all(&cluster.root).unwrap();
        fs::write(cluster.root.join("cluster.json"), "{\"api_port\": 70000").unwrap();
        let error = format!("{:#}", cluster.load().unwrap_err());
        assert!(error.contains("cluster.json is not a cluster's file"), "{error}");
    }

    #[test]
    fn commands_with_brackets_do_not_shift_the_fields() {
        let fields = (3..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_start_ticks(&format!("7 (a b) c) {fields}")), Some(22));
        assert_eq!(parse_start_ticks("7 (cut"), None);
        assert!(start_ticks(i32::try_from(std::process::id()).unwrap()).is_some());
    }
}
