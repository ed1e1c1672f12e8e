//! Credentials for members of a cluster, issued from its certificates on disk.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

/// A kubeconfig with a client certificate for the node `name`.
///
/// # Errors
/// When the cluster's authority cannot be read.
pub fn node_kubeconfig(_pki: &Path, _name: &str, _server: &str) -> Result<Value> {
    anyhow::bail!("no")
}
