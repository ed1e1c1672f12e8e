//! Placeholder.

pub(super) fn start(_ctx: &super::Context) {}
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
