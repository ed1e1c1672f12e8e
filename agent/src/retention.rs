//! The one owner of what is kept, and for how long, of what pods and containers
//! leave: dead containers and their logs, sandboxes, the directories of pods,
//! rotated logs, images.
//!
//! What may go now is decided in [`plan`] (pure); each kind is removed by one
//! function here and nowhere else. Who ends a pod ([`crate::podworker`]) or runs
//! short of disk ([`crate::eviction`]) calls these. Volumes go by their plugins
//! and cgroups by their tree, before what is removed here.
//!
//! Whoever dies in between leaves what the next one finds: the runtime knows its
//! containers, and a pod's directory stays until everything else of it is gone.

pub mod containers;
pub mod images;
pub mod logs;
pub mod plan;
pub mod pods;
pub mod removals;

pub use removals::Removals;
