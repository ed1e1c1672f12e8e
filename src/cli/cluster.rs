//! `copepod cluster` and its flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DATA_DIR;
use crate::cluster::ClusterName;

/// `copepod cluster …`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a cluster and wait for its nodes to be Ready.
    Create(ClusterCreateArgs),
    /// Show the clusters of this machine.
    List(ClusterDirArgs),
    /// Remove a cluster and everything of it.
    Delete(ClusterDeleteArgs),
}

/// Where the clusters are.
#[derive(Args, Clone, Debug)]
pub struct ClusterDirArgs {
    /// The machine's data directory.
    #[arg(long, default_value = DATA_DIR)]
    pub data_dir: PathBuf,
}

/// `copepod cluster create`.
#[derive(Args, Clone, Debug)]
pub struct ClusterCreateArgs {
    /// Name of the cluster.
    pub name: ClusterName,
    /// How many nodes: one control plane, the rest workers.
    #[arg(long, default_value_t = 1)]
    pub nodes: usize,
    /// Port of the API on 127.0.0.1; any free one by default.
    #[arg(long, default_value_t = 0)]
    pub api_port: u16,
    /// Seconds to wait for all nodes to be Ready.
    #[arg(long, default_value_t = 120)]
    pub wait: u64,
    /// Do not touch the user's own kubeconfig.
    #[arg(long)]
    pub no_merge: bool,
    #[command(flatten)]
    pub dir: ClusterDirArgs,
    /// Further arguments for every node, after `--`.
    #[arg(last = true)]
    pub extra: Vec<String>,
}

/// `copepod cluster delete`.
#[derive(Args, Clone, Debug)]
pub struct ClusterDeleteArgs {
    /// Name of the cluster.
    pub name: ClusterName,
    #[command(flatten)]
    pub dir: ClusterDirArgs,
}
