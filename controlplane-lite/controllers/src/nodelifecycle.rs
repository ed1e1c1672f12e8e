//! Node lifecycle: silent nodes become Unknown, conditions become taints, and
//! pods that do not bear NoExecute taints are evicted.

pub mod eviction;
pub mod health;
mod sync;
mod taint_manager;
pub mod taints;
pub mod zones;

use super::Context;

/// Where kubelets renew their leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

pub(super) fn start(ctx: &Context) {
    sync::start(ctx);
    taint_manager::start(ctx);
}
