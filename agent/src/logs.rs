//! Container logs as the runtime writes them: reading, following, rotating.
//!
//! The runtime owns the current file; this module reads it, renames it when it
//! has grown and has the runtime open a new one. Line format and options are
//! pure ([`line`], [`options`]). When a dead container's logs go is decided in
//! [`crate::retention`]; those of a pod go with its directory.

pub mod line;
mod open;
pub mod options;
pub mod read;
pub mod rotate;
pub mod tail;
pub mod watch;

use std::io;
use std::path::Path;

pub use options::{LogOptions, LogStream};
pub use rotate::{LogRotator, RotationPolicy};
pub use tail::termination_text;
pub use watch::LogWatcher;

/// Removes a log and what was rotated of it. Absent is success.
pub fn remove(log: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else {
        return Err(io::Error::other("not a file in a directory"));
    };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let found = entry?.file_name();
        let rotated = found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        if !rotated.is_some_and(|rest| rest.is_empty() || rest.starts_with(b".")) {
            continue;
        }
        match std::fs::remove_file(dir.join(&found)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_log_itself_and_its_rotated_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let all = ["1.log", "1.log.20260101-000000", "1.log.20260101-000000.gz", "10.log", "11.log", "1.logs"];
        for name in all {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        remove(&dir.path().join("1.log")).unwrap();
        remove(&dir.path().join("1.log")).unwrap();
        remove(&dir.path().join("none/1.log")).unwrap();
        let mut left: Vec<String> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["1.logs", "10.log", "11.log"]);
    }
}
