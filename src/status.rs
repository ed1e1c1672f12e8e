//! How far the start of a copepod is, told to whoever started it: one small file in the run
//! directory, replaced at each step, and left behind by a process that failed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::paths::Paths;
use crate::{errors, files};

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Parts are being started.
    Starting,
    /// The node serves pods.
    Ready,
    /// The process was told to end.
    Stopping,
    /// The process ended with an error.
    Failed,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The process, as it sees itself.
    pub pid: u32,
    pub phase: Phase,
    /// Why it failed or, of a start, what it waits for.
    #[serde(default)]
    pub message: String,
    /// Tasks that do not run at present, and why.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The flags that it was started with and that are not the defaults.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// Who tells: the process that has the run directory.
#[derive(Clone, Debug)]
pub struct Reporter {
    paths: Paths,
    flags: Vec<String>,
}

impl Reporter {
    /// Tells that the start begins.
    pub fn new(paths: &Paths, flags: Vec<String>) -> Self {
        let reporter = Self { paths: paths.clone(), flags };
        reporter.report(Phase::Starting, "", Vec::new());
        reporter
    }

    /// Tells what the start waits for that somebody has to see to; empty when it goes on.
    pub fn waits_for(&self, what: &str) {
        self.report(Phase::Starting, what, Vec::new());
    }

    /// Tells that the node serves pods.
    pub fn ready(&self) {
        self.problems(Vec::new());
    }

    /// Tells that the node serves pods, but not what does not run.
    pub fn problems(&self, problems: Vec<String>) {
        self.report(Phase::Ready, "", problems);
    }

    /// Tells that the process was told to end: what it was ready for counts no longer.
    pub fn stopping(&self) {
        self.report(Phase::Stopping, "", Vec::new());
    }

    /// Tells how the process ends.
    pub fn ended(&self, result: &anyhow::Result<()>) {
        match result {
            Err(error) => self.report(Phase::Failed, &errors::one_line(error), Vec::new()),
            Ok(()) => drop(std::fs::remove_file(self.paths.status_file())),
        }
    }

    fn report(&self, phase: Phase, message: &str, problems: Vec<String>) {
        let (pid, message, flags) = (std::process::id(), message.to_owned(), self.flags.clone());
        let status = Status { pid, phase, message, problems, flags };
        let written = serde_json::to_vec(&status).map_err(std::io::Error::other);
        let written = written.and_then(|text| files::replace(&self.paths.status_file(), &text, 0o600));
        if let Err(error) = written {
            tracing::warn!(%error, "the state of the start cannot be written");
        }
    }
}

/// What the file says; `None` where there is none, or none that can be read.
pub fn read(file: &Path) -> Option<Status> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Flags of `asked` that a process with the flags `running` does not have, one line.
pub fn difference(asked: &[String], running: &[String]) -> Option<String> {
    let new: Vec<_> = asked.iter().filter(|flag| !running.contains(flag)).map(String::as_str).collect();
    (!new.is_empty()).then(|| new.join(" "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_word_stays_when_a_process_fails() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { data: dir.path().into(), run: dir.path().into(), log: dir.path().into() };
        let phase = || read(&paths.status_file()).map(|status| (status.phase, status.message));
        let reporter = Reporter::new(&paths, vec!["--port=1".to_owned()]);
        assert_eq!(phase(), Some((Phase::Starting, String::new())));
        reporter.waits_for("an address");
        assert_eq!(phase(), Some((Phase::Starting, "an address".to_owned())));
        reporter.ready();
        assert_eq!(phase(), Some((Phase::Ready, String::new())));
        reporter.ended(&Err(anyhow::anyhow!("inner").context("outer")));
        assert_eq!(phase(), Some((Phase::Failed, "outer: inner".to_owned())));
        reporter.ended(&Ok(()));
        assert_eq!(phase(), None);
        std::fs::write(paths.status_file(), "{").unwrap();
        assert_eq!(phase(), None);
    }

    #[test]
    fn flags_that_a_running_process_lacks_are_named() {
        let flags = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let running = flags(&["--port=1", "--cni=none"]);
        assert_eq!(difference(&flags(&["--cni=none"]), &running), None);
        assert_eq!(difference(&[], &running), None);
        let new = difference(&flags(&["--port=2", "--cni=none", "--tls-san=a"]), &running);
        assert_eq!(new.as_deref(), Some("--port=2 --tls-san=a"));
    }
}
