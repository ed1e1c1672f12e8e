//! What is wrong at the moment, told once and not at every look.

use std::collections::BTreeSet;
use std::error::Error;

/// Problems that were told and are still there.
#[derive(Debug, Default)]
pub struct Problems {
    told: BTreeSet<String>,
}

impl Problems {
    /// Tells of what is new in `present`, and forgets what is over; whether there are none.
    pub fn tell(&mut self, present: BTreeSet<String>) -> bool {
        for problem in present.difference(&self.told) {
            tracing::warn!("pod network: {problem}");
        }
        self.told = present;
        self.told.is_empty()
    }
}

/// An error with its sources, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        line = format!("{line}: {next}");
        source = next.source();
    }
    line
}
