//! ClusterRole aggregation: a ClusterRole with an `aggregationRule` shows the rules of the roles that it selects.

mod plan;
mod sync;

pub(super) use sync::start;
