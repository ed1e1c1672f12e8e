//! The limit on open files: every connection of a client takes one, and the usual
//! soft limit of 1,024 is for programs that still use `select`. Containers must
//! not notice: they get what this process was given.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

static FORMER: OnceLock<(u64, u64)> = OnceLock::new();

/// Raises the soft limit to the hard one, as programs in Go do.
pub fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        FORMER.get_or_init(|| (soft, hard));
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// Soft and hard limit as they were before [`raise`].
pub fn former() -> Option<(u64, u64)> {
    FORMER.get().copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_limits_are_remembered() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        raise();
        raise();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        assert_eq!(former(), Some((soft, hard)));
    }
}
