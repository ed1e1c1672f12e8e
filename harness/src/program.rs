//! Programs with bounds: none runs longer than the limit or prints more than a test can hold.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::time;

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
    let mut child = command.spawn().with_context(|| format!("run {:?}", command.get_program()))?;
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
        time::until("the end of its child", || {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") { Ok(()) } else { bail!("{state}") }
        })
        .unwrap();
    }

    #[test]
    fn who_leaves_something_in_the_background_is_not_waited_for_in_vain() {
        let ended = run(&mut shell("sleep 600 & echo $!"), None).unwrap();
        let left = Pid::from_raw(ended.stdout.trim().parse().unwrap());
        nix::sys::signal::kill(left, Signal::SIGKILL).unwrap();
    }
}
