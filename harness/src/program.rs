//! Programs with bounds: none runs longer than the limit, prints more than a test can hold, or outlives
//! the test that started it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{sys, time};

/// Most that is kept of what a program prints: the beginning, on each of its outputs.
const OUTPUT: u64 = 4 << 20;

/// What came of a program.
#[derive(Clone, Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Standard output of a program that succeeded.
    ///
    /// # Errors
    /// What a failed one printed; `what` says which it was.
    pub fn success(self, what: &str) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!("{what}: {}\n{}{}", self.status, self.stderr, self.stdout)
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started, or has not ended within the limit: then it is killed, with its children.
pub fn run(command: &mut Command, input: Option<&str>) -> Result<Ended> {
    run_within(time::limit(), command, input)
}

/// [`run`] for a task, which other tasks of its thread may have to answer.
///
/// # Errors
/// As [`run`]'s.
pub async fn run_beside(mut command: Command, input: Option<&str>) -> Result<Ended> {
    let input = input.map(str::to_owned);
    // The thread waits for its program, whoever else gives up.
    tokio::task::spawn_blocking(move || run(&mut command, input.as_deref())).await.context("a thread to wait")?
}

/// A program that goes on by itself; it ends when this is dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Background {
    /// Starts it; what it prints is kept.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let child = sys::end_with_us(command).spawn();
        let child = child.with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(Self { child, stdout, stderr })
    }

    /// Everything that it has printed so far.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn printed(&self) -> Result<String> {
        text_so_far(&self.stdout)
    }

    /// Waits for a line that `of` makes something of; its complaints are told where none comes.
    ///
    /// # Errors
    /// When none comes within the limit, or it ends before.
    pub fn line<T>(&mut self, what: &str, of: impl Fn(&str) -> Option<T>) -> Result<T> {
        let found = time::until(what, || {
            let ended = self.child.try_wait()?;
            match self.printed()?.lines().find_map(&of) {
                Some(value) => Ok(Some(value)),
                None if ended.is_some() => Ok(None),
                None => bail!("it has printed {:?}", self.printed()?),
            }
        })?;
        let said = || text_so_far(&self.stderr).unwrap_or_default();
        found.with_context(|| format!("{what}: it ended before: {}{}", said(), self.printed().unwrap_or_default()))
    }

    /// Ends it now.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn end(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait().context("wait for its end").map(drop)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a file holds that somebody else still writes to: its position is shared with them.
fn text_so_far(file: &File) -> Result<String> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len().min(OUTPUT))?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn run_within(limit: Duration, command: &mut Command, input: Option<&str>) -> Result<Ended> {
    // Files and not pipes: whoever stays in the background with one in hand keeps nobody waiting, and
    // nothing waits for somebody to read.
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).stdin(Stdio::null()).process_group(0);
    if let Some(input) = input {
        let mut file = tempfile::tempfile()?;
        file.write_all(input.as_bytes())?;
        file.rewind()?;
        command.stdin(file);
    }
    let child = sys::end_with_us(command).spawn();
    let mut child = child.with_context(|| format!("run {:?}", command.get_program()))?;
    let ended = wait(&mut child, limit)?;
    let (stdout, stderr) = (text(stdout)?, text(stderr)?);
    match ended {
        Some(status) => Ok(Ended { status, stdout, stderr }),
        None => bail!("{command:?} hangs and was killed after {limit:?}\n{stderr}{stdout}"),
    }
}

/// The child's status, `None` when it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= limit {
            let group = Pid::from_raw(i32::try_from(child.id())?);
            // Gone in this moment is as good.
            let _ = killpg(group, Signal::SIGKILL);
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn text(mut file: File) -> Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn output_input_and_status_come_back() {
        let ended = run(&mut shell("cat; echo warned >&2; exit 3"), Some("said")).unwrap();
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("said", "warned\n"));
        let error = ended.success("a program").unwrap_err().to_string();
        assert!(error.contains("exit status: 3\nwarned\nsaid"), "{error}");
    }

    #[test]
    fn what_prints_without_end_is_cut() {
        let ended = run(&mut shell("yes | head -c 9000000"), None).unwrap();
        assert_eq!(ended.stdout.len() as u64, OUTPUT);
    }

    #[test]
    fn who_hangs_is_killed_with_all_children() {
        let begin = shell("sleep 600 & echo $!; wait");
        let error = run_within(Duration::from_millis(300), &mut { begin }, None).unwrap_err().to_string();
        let child = error.lines().last().unwrap().trim().to_owned();
        assert!(error.contains("hangs"), "{error}");
        time::until_true("the end of its child", || has_ended(&child)).unwrap();
    }

    #[test]
    fn what_goes_on_is_read_meanwhile_and_ends_with_its_handle() {
        let mut told = Background::start(&mut shell("echo first; echo pid $$; exec sleep 600")).unwrap();
        let pid = told.line("its pid", |line| line.strip_prefix("pid ").map(str::to_owned)).unwrap();
        assert_eq!(told.printed().unwrap(), format!("first\npid {pid}\n"));
        drop(told);
        assert!(has_ended(&pid));
        let mut ended = Background::start(&mut shell("echo complaint >&2; echo last")).unwrap();
        let error = ended.line("another", |line| line.strip_prefix("another").map(drop)).unwrap_err().to_string();
        assert_eq!(error, "another: it ended before: complaint\nlast\n");
    }

    fn has_ended(pid: &str) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    }

    /// The test program itself, killed while it waits for a program, is played by this one run again.
    #[test]
    fn nothing_outlives_a_test_program_that_is_killed() {
        const PIDS: &str = "HARNESS_TEST_PIDS";
        if let Some(pids) = std::env::var_os(PIDS) {
            let script = format!("echo $$ >> '{}'; exec sleep 600", pids.display());
            let _goes_on = Background::start(&mut shell(&script)).unwrap();
            run(&mut shell(&script), None).unwrap();
            return;
        }
        let pids = tempfile::NamedTempFile::new().unwrap();
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "program::tests::nothing_outlives_a_test_program_that_is_killed"]);
        let mut killed = again.env(PIDS, pids.path()).stdout(Stdio::null()).spawn().unwrap();
        let both = || {
            let text = std::fs::read_to_string(pids.path())?;
            let pids: Vec<_> = text.lines().map(str::to_owned).collect();
            if pids.len() == 2 { Ok(pids) } else { bail!("{text:?}") }
        };
        let both = time::until("both programs", both).unwrap();
        assert!(!both.iter().any(|pid| has_ended(pid)), "{both:?}");
        nix::sys::signal::kill(Pid::from_raw(i32::try_from(killed.id()).unwrap()), Signal::SIGTERM).unwrap();
        killed.wait().unwrap();
        time::until_true("the end of both", || both.iter().all(|pid| has_ended(pid))).unwrap();
    }

    #[test]
    fn who_leaves_something_in_the_background_is_not_waited_for_in_vain() {
        let ended = run(&mut shell("sleep 600 & echo $!"), None).unwrap();
        let left = Pid::from_raw(ended.stdout.trim().parse().unwrap());
        nix::sys::signal::kill(left, Signal::SIGKILL).unwrap();
    }
}
