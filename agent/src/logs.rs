//! Container logs as the runtime writes them: reading and following.
//!
//! The runtime owns the current file; this module reads it. Line format and
//! options are pure ([`line`], [`options`]). When a log is rotated and when it
//! goes is [`crate::retention`]'s business.

pub mod line;
pub(crate) mod open;
pub mod options;
pub mod read;
pub mod tail;
pub mod watch;

pub use options::{LogOptions, LogStream};
pub use tail::termination_text;
pub use watch::LogWatcher;
