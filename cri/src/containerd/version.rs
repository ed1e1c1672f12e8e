//! What `containerd --version` prints, asked once per program file: to start a program of that size takes longer than
//! to adopt the daemon that runs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::ContainerdError;

/// Name of the note in the daemon's state directory, which does not outlive the machine's start.
pub(super) const NOTE: &str = "version.json";

/// How long the program may take to say so: a script may wait for something that never comes.
const LONGEST: Duration = Duration::from_secs(30);

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

/// The first line of `program --version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    /// It comes from the note, and the program did not run.
    pub noted: bool,
}

/// The line as noted in the file `note` for this very program, else as the program says.
///
/// # Errors
/// When the program cannot be run, fails or prints nothing.
pub(super) async fn line(program: &Path, note: &Path) -> Result<Line, ContainerdError> {
    let noted = fs::read(note).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
    if let Some(noted) = noted
        && File::of(program).ok().as_ref() == Some(&noted.file)
    {
        return Ok(Line { text: noted.line, noted: true });
    }
    Ok(Line { text: ask_and_note(program, note).await?, noted: false })
}

/// Whether the file says nothing of the program that runs: a script may start another one than yesterday.
pub(super) fn is_script(program: &Path) -> bool {
    let mut start = [0; 2];
    let read = fs::File::open(program).and_then(|mut file| io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start == *b"#!"
}

/// The line as the program says it now, which is noted.
///
/// # Errors
/// When the program cannot be run, fails or prints nothing.
pub(super) async fn ask_and_note(program: &Path, note: &Path) -> Result<String, ContainerdError> {
    // Before it is asked: a file that is replaced meanwhile must not get the old one's answer.
    let file = File::of(program).ok();
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
    let output = tokio::time::timeout(LONGEST, output).await.map_err(|_| failed(format!("not within {LONGEST:?}")))?;
    let output = output.map_err(|e| failed(e.to_string()))?;
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
            assert_eq!(line(&program, &note).await.unwrap().text, "containerd x 1.6.20");
        }
        assert_eq!(ran(), 1);
        install(&program, "containerd x 2.1.0", &runs);
        assert_eq!(line(&program, &note).await.unwrap(), Line { text: "containerd x 2.1.0".into(), noted: false });
        assert_eq!(line(&program, &note).await.unwrap(), Line { text: "containerd x 2.1.0".into(), noted: true });
        assert_eq!(ran(), 2);
        assert!(is_script(&program) && !is_script(&runs) && !is_script(&note) && !is_script(dir.path()));
        for garbage in ["", "{", r#"{"line":"containerd x 9.9"}"#, "\u{0}"] {
            fs::write(&note, garbage).unwrap();
            assert_eq!(line(&program, &note).await.unwrap().text, "containerd x 2.1.0", "{garbage}");
        }
        assert_eq!(ran(), 6);
    }

    #[tokio::test]
    async fn a_note_that_cannot_be_kept_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        let [program, runs] = ["containerd", "runs"].map(|name| dir.path().join(name));
        install(&program, "containerd x 1.7.1", &runs);
        let told = line(&program, &dir.path().join("missing/note")).await.unwrap();
        assert_eq!(told, Line { text: "containerd x 1.7.1".into(), noted: false });
        let gone = line(&dir.path().join("gone"), &dir.path().join("note")).await;
        assert!(gone.unwrap_err().to_string().contains("gone"));
    }
}
