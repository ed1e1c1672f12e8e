//! What tests share: waiting, programs with bounds, machines made of namespaces and what is to be seen
//! on them. For tests only; it knows no crate of the workspace.
//!
//! Time says nothing here about whether something is right. There is one limit ([`time::limit`]),
//! against hanging; what happened, and in which order, is told by states, events and counters.

pub mod api;
pub mod etcd;
pub mod kubectl;
pub mod machine;
pub mod net;
pub mod picture;
pub mod program;
pub mod suite;
pub mod sys;
pub mod time;
pub mod token;
pub mod watchdog;
