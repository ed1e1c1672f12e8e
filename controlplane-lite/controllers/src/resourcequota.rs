//! ResourceQuota: counts what a namespace uses, all of it anew when something was freed and every few minutes. What is
//! used more is charged by the API server's admission (pkg/controller/resourcequota).

mod objects;
mod plan;
mod sync;

pub(super) use sync::start;
