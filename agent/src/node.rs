//! The node object: what this machine is, whether it is well, and that it is
//! alive.
//!
//! [`run`] registers the node, keeps its status and its [`lease`], and tells
//! the rest of the agent what pods need to know ([`NodeView`]). What a status
//! says is decided purely in [`status`], [`conditions`] and [`capacity`].

pub mod address;
pub mod allocatable;
pub mod capacity;
pub mod conditions;
pub mod facts;
pub mod lease;
pub mod register;
pub mod run;
pub mod status;

pub use crate::podworker::NodeView;
pub use run::NodeStatusSync;
