//! Scheduler and controllers against the real API server in memory, with a
//! kubelet that only writes status.

mod budgets;
mod certificates;
mod cluster;
mod custom;
mod endpoints;
mod faults;
mod garbage;
mod kubectl;
mod nodes;
mod quotas;
mod restarts;
mod roles;
mod tenants;
mod tokens;
mod workloads;
