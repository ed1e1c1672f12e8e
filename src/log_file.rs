//! A log file of bounded size: what is written goes to one file, which is put aside when it is
//! large, in place of the one that was put aside before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Size at which a log is put aside: with the one before, a log takes twice as much at most.
const MAX_SIZE: u64 = 10 << 20;

/// Why the last line could not be written: a process has one log, which whoever logs writes to.
static PROBLEM: Mutex<Option<String>> = Mutex::new(None);

/// Why the log is not written at present.
pub fn problem() -> Option<String> {
    PROBLEM.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The open log; clones write to the same one.
#[derive(Clone, Debug)]
pub struct LogFile(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    /// Run with each new file.
    opened: fn(&File),
}

impl LogFile {
    /// Opens the log at `path`. What else this process prints, such as a panic, goes there, too.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with(path, MAX_SIZE, redirect_output)
    }

    fn with(path: &Path, limit: u64, opened: fn(&File)) -> io::Result<Self> {
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        opened(&file);
        Ok(Self(Arc::new(Mutex::new(Open { path: path.to_owned(), file, size, limit, opened }))))
    }
}

/// Where a log is put aside.
pub fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn redirect_output(file: &File) {
    // Failing leaves the output where it was.
    let _ = nix::unistd::dup2_stdout(file);
    let _ = nix::unistd::dup2_stderr(file);
}

impl Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size >= self.limit {
            fs::rename(&self.path, aside(&self.path))?;
            self.file = append_to(&self.path)?;
            self.size = 0;
            (self.opened)(&self.file);
        }
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
        let problem = written.as_ref().err().map(ToString::to_string);
        let mut known = PROBLEM.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != problem {
            *known = problem;
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_log_takes_no_more_than_twice_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copepod.log");
        let mut log = LogFile::with(&path, 100, |_| {}).unwrap();
        for line in 0..1003 {
            log.clone().write_all(format!("line {line:04}\n").as_bytes()).unwrap();
        }
        log.flush().unwrap();
        let (now, before) = (fs::read_to_string(&path).unwrap(), fs::read_to_string(aside(&path)).unwrap());
        assert!(now.len() <= 110 && before.len() <= 110, "{} {}", now.len(), before.len());
        assert!(now.ends_with("line 1002\n"), "{now}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // A start goes on where the last one ended.
        LogFile::with(&path, 100, |_| {}).unwrap().write_all(b"again\n").unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("line 1002\nagain\n"));
        // A log that cannot be written is known until it can be again.
        assert_eq!(problem(), None);
        LogFile::with(Path::new("/dev/full"), 100, |_| {}).unwrap().write_all(b"x\n").unwrap_err();
        assert!(problem().unwrap().contains("No space left"));
        LogFile::with(&path, 100, |_| {}).unwrap().write_all(b"room\n").unwrap();
        assert_eq!(problem(), None);
    }
}
