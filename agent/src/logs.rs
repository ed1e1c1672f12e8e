//! Container logs as the runtime writes them: reading, following, rotating.
//!
//! The runtime owns the current file; this module reads it, renames it when it
//! has grown and has the runtime open a new one. Line format and options are
//! pure ([`line`], [`options`]); removing the logs of dead containers is the
//! pod workers' business.

pub mod line;
pub mod options;
pub mod read;
pub mod rotate;
pub mod tail;
pub mod watch;

pub use options::{LogOptions, LogStream};
pub use rotate::{LogRotator, RotationPolicy};
pub use tail::termination_text;
pub use watch::LogWatcher;
