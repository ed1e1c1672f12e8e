//! What `containerd --version` prints, asked once per program file: to start a program of that size takes longer than
//! to adopt the daemon that runs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::ContainerdError;

/// Name of the note in the daemon's state directory, which does not outlive the machine's start.
pub(super) const NOTE: &str = "version.json";

/// A program's answer, and by what its file is known again. An upgrade puts another file in its place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    file: File,
    line: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl File {
    fn of(program: &Path) -> io::Result<Self> {
        let found = fs::metadata(program)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// The first line of `program --version`: as noted in the file `note` for this very program, else as it says, which is
/// noted then.
///
/// # Errors
/// When the program cannot be run, fails or prints nothing.
pub(super) async fn line(program: &Path, note: &Path) -> Result<String, ContainerdError> {
    // Before it is asked: a file that is replaced meanwhile must not get the old one's answer.
    let file = File::of(program).ok();
    let noted = fs::read(note).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
    if let Some(noted) = noted
        && file.as_ref() == Some(&noted.file)
    {
        return Ok(noted.line);
    }
    let line = ask(program).await?;
    if let Some(file) = file
        && let Ok(text) = serde_json::to_vec(&Note { file, line: line.clone() })
    {
        // A note that is cut off or missing only means to ask again.
        let _ = fs::write(note, text);
    }
    Ok(line)
}

async fn ask(program: &Path) -> Result<String, ContainerdError> {
    let name = program.display().to_string();
    let failed = |problem: String| ContainerdError::Version { program: name.clone(), problem };
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = output.await.map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned).ok_or_else(|| failed("it prints nothing".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that prints its version and counts how often it ran.
    fn install(path: &Path, version: &str, runs: &Path) {
        let text = format!("#!/bin/sh\necho run >> {}\necho {version}\n", runs.display());
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    #[tokio::test]
    async fn a_program_is_asked_once_until_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let [program, note, runs] = ["containerd", NOTE, "runs"].map(|name| dir.path().join(name));
        let ran = || fs::read_to_string(&runs).unwrap_or_default().lines().count();
        install(&program, "containerd x 1.6.20", &runs);
        for _ in 0..2 {
            assert_eq!(line(&program, &note).await.unwrap(), "containerd x 1.6.20");
        }
        assert_eq!(ran(), 1);
        install(&program, "containerd x 2.1.0", &runs);
        assert_eq!(line(&program, &note).await.unwrap(), "containerd x 2.1.0");
        assert_eq!(ran(), 2);
        for garbage in ["", "{", r#"{"line":"containerd x 9.9"}"#, "\u{0}"] {
            fs::write(&note, garbage).unwrap();
            assert_eq!(line(&program, &note).await.unwrap(), "containerd x 2.1.0", "{garbage}");
        }
        assert_eq!(ran(), 6);
    }

    #[tokio::test]
    async fn a_note_that_cannot_be_kept_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        let [program, runs] = ["containerd", "runs"].map(|name| dir.path().join(name));
        install(&program, "containerd x 1.7.1", &runs);
        assert_eq!(line(&program, &dir.path().join("missing/note")).await.unwrap(), "containerd x 1.7.1");
        let gone = line(&dir.path().join("gone"), &dir.path().join("note")).await;
        assert!(gone.unwrap_err().to_string().contains("gone"));
    }
}
