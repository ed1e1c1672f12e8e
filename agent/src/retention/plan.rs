//! What may go now: pure rules, one file for each kind of thing that is kept.

pub mod containers;
pub mod images;
pub mod logs;
pub mod pods;
