//! `copepod image` and its flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DataDir;
use crate::cluster::ClusterName;

/// `copepod image …`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import an archive (OCI layout or `docker save`) into the node.
    Load(ImageLoadArgs),
}

/// `copepod image load`.
#[derive(Args, Clone, Debug)]
pub struct ImageLoadArgs {
    /// The archive.
    pub file: PathBuf,
    #[command(flatten)]
    pub data: DataDir,
    /// Directory for sockets and process ids; the one that the node of the data directory uses by default.
    #[arg(long)]
    pub run_dir: Option<PathBuf>,
    /// Load the image into every node of this local cluster.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["run_dir", "container_runtime_endpoint"])]
    pub cluster: Option<ClusterName>,
    /// CRI socket of a containerd that is not copepod's own.
    #[arg(long, conflicts_with = "run_dir")]
    pub container_runtime_endpoint: Option<String>,
}
