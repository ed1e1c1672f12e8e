//! Scheduler and controllers against the real API server in memory, with a
//! kubelet that only writes status.

#[path = "controllers/certificates.rs"]
mod certificates;
#[path = "controllers/cluster.rs"]
mod cluster;
#[path = "controllers/faults.rs"]
mod faults;
#[path = "controllers/garbage.rs"]
mod garbage;
#[path = "controllers/kubectl.rs"]
mod kubectl;
#[path = "controllers/nodes.rs"]
mod nodes;
#[path = "controllers/restarts.rs"]
mod restarts;
#[allow(dead_code)]
#[path = "apiserver/support.rs"]
mod support;
#[path = "controllers/workloads.rs"]
mod workloads;
