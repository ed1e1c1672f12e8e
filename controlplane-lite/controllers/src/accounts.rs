//! What every namespace has: the ServiceAccount `default`, and the cluster's CA
//! in the ConfigMap `kube-root-ca.crt`.

mod plan;
mod sync;

pub(super) use sync::start;

/// Name of the ConfigMap with the cluster's CA.
pub const ROOT_CA_NAME: &str = "kube-root-ca.crt";
