//! Bootstrap tokens: removes those that expired (upstream's token cleaner), and
//! signs the ConfigMap `cluster-info` with each that may sign (upstream's
//! bootstrap signer), so that whoever holds a token can tell the true cluster.

mod plan;
mod sync;

pub(super) use sync::start;

/// Type of the Secrets that are tokens.
pub const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where tokens are.
pub const TOKEN_NAMESPACE: &str = "kube-system";
/// The ConfigMap that tells how to reach the cluster, and where it is.
pub const CLUSTER_INFO: (&str, &str) = ("kube-public", "cluster-info");
