//! Names and addresses of a local cluster, decided before anything is touched.

use std::net::Ipv4Addr;

/// Node addresses are taken from this network, in every cluster alike: each
/// cluster's bridge is in a network namespace of its own.
const NODE_NETWORK: [u8; 3] = [10, 89, 0];
/// Length of the node network's prefix, in bits.
pub const NODE_PREFIX: u8 = 24;
/// The first node's host part; .1 is left to whoever joins the bridge to look on.
const FIRST_HOST: usize = 2;
/// As many nodes as fit the node network beside the bridge's onlookers.
pub const MAX_NODES: usize = 200;

/// A validated cluster name: a DNS label short enough for node names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(String);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the kubeconfig context, cluster and user.
    pub fn context(&self) -> String {
        format!("copepod-{}", self.0)
    }
}

impl std::fmt::Display for ClusterName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ClusterName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 {
            return Err("a cluster name has 1 to 40 characters".to_owned());
        }
        if !name.chars().all(legal) || name.starts_with('-') || name.ends_with('-') {
            return Err("a cluster name has lower case letters, digits and '-', and no '-' at its ends".to_owned());
        }
        Ok(Self(name.to_owned()))
    }
}

/// What a node of the cluster does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Control plane and agent in one process.
    ControlPlane,
    /// Agent only.
    Worker,
}

/// One node as planned.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NodePlan {
    /// Host name and name of the Node object.
    pub name: String,
    pub role: Role,
    pub ip: Ipv4Addr,
}

/// The nodes of a cluster: one control plane, then workers, named as other
/// tools for local clusters name them.
///
/// # Errors
/// When `count` is zero or beyond [`MAX_NODES`].
pub fn nodes(cluster: &ClusterName, count: usize) -> Result<Vec<NodePlan>, String> {
    if count == 0 || count > MAX_NODES {
        return Err(format!("a local cluster has 1 to {MAX_NODES} nodes, not {count}"));
    }
    let node = |index: usize| {
        let (role, name) = match index {
            0 => (Role::ControlPlane, format!("{cluster}-control-plane")),
            1 => (Role::Worker, format!("{cluster}-worker")),
            n => (Role::Worker, format!("{cluster}-worker{n}")),
        };
        let [a, b, c] = NODE_NETWORK;
        let host = u8::try_from(FIRST_HOST + index).expect("MAX_NODES keeps host parts below 255");
        NodePlan { name, role, ip: Ipv4Addr::new(a, b, c, host) }
    };
    Ok((0..count).map(node).collect())
}

/// The host end of a node's cable, at most 15 bytes as the kernel wants.
pub fn cable_name(index: usize) -> String {
    format!("node{index}")
}

/// The cgroup below which everything of a node lives.
pub fn cgroup_path(cluster: &ClusterName, node: &str) -> String {
    format!("copepod/{cluster}/{node}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_addresses_follow_the_index() {
        let cluster: ClusterName = "dev".parse().unwrap();
        let nodes = nodes(&cluster, 3).unwrap();
        let seen: Vec<_> = nodes.iter().map(|n| (n.name.as_str(), n.role, n.ip.to_string())).collect();
        assert_eq!(
            seen,
            [
                ("dev-control-plane", Role::ControlPlane, "10.89.0.2".to_owned()),
                ("dev-worker", Role::Worker, "10.89.0.3".to_owned()),
                ("dev-worker2", Role::Worker, "10.89.0.4".to_owned()),
            ]
        );
    }

    #[test]
    fn node_counts_out_of_range_are_refused() {
        let cluster: ClusterName = "dev".parse().unwrap();
        assert!(nodes(&cluster, 0).is_err());
        assert!(nodes(&cluster, MAX_NODES + 1).is_err());
        assert_eq!(nodes(&cluster, MAX_NODES).unwrap().len(), MAX_NODES);
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "x".repeat(41);
        for name in ["", "-a", "a-", "A", "a_b", "a/b", "..", long.as_str()] {
            assert!(name.parse::<ClusterName>().is_err(), "{name:?}");
        }
        assert!("a-1".parse::<ClusterName>().is_ok());
    }

    #[test]
    fn cables_fit_the_kernels_limit() {
        assert!(cable_name(MAX_NODES - 1).len() <= 15);
    }
}
