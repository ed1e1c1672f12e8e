//! Node IPAM: gives every node a pod network out of the cluster's range.

mod plan;
mod sync;

pub use plan::{Cidr, CidrError};
pub(super) use sync::start;
