//! cgroups of pods: the QoS tree `kubepods/{burstable,besteffort}/pod<uid>`.
//!
//! v1, hybrid and v2 are told apart by what is mounted ([`mounts`]); names
//! follow the driver ([`layout`]); [`tree`] makes and removes directories and
//! [`kill`] ends what is left in them.
//! The containers' own cgroups are the runtime's business. Plain files are
//! used throughout: five of them per pod, and a test can point them anywhere.

mod kill;
pub mod layout;
pub mod mounts;
pub mod systemd;
pub mod tree;

pub use layout::Layout;
pub use mounts::Hierarchies;
pub use tree::{CgroupError, CgroupTree, Weighing, remove_tree};
