//! Process 1 of a local cluster's node: prepares the node's view of the
//! machine, starts copepod, starts it again when it dies, and buries orphans.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin, sethostname};
use serde::{Deserialize, Serialize};

use crate::sys;

/// Exit code of a process that was started wrongly: starting it again is no use.
const EXIT_USAGE: i32 = 2;
/// How long a copepod has to run for its next start to be immediate: a crash then is no loop, and all of the node's
/// requests wait for that start.
const STEADY: Duration = Duration::from_secs(10);
/// Where copepod's output goes, as the node sees it.
pub const LOG: &str = "/var/log/copepod.log";
/// Shortest and longest pause before a start that follows a short run.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// What a node's first process has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    pub hostname: String,
    /// Bound over the node's data directory.
    pub data: PathBuf,
    /// Where the node sees `data`.
    pub data_dir: PathBuf,
    /// Bound over /var/log.
    pub log: PathBuf,
    /// Arguments of the copepod to keep running.
    pub args: Vec<String>,
    /// A listening socket for it to inherit.
    pub listen_fd: Option<RawFd>,
}

/// First stage, still in the machine's PID namespace: starts process 1 and
/// prints its id, as the machine counts. Its standard input is process 1's.
///
/// # Errors
/// When the program cannot be started.
pub fn launch(path: &Path) -> Result<()> {
    let spec = read_spec(path)?;
    // Nothing of the caller's may stay open in a process that outlives it.
    let log = append_to(&spec.log.join("node-init.log"))?;
    let mut command = sys::process::own_command();
    command.args(["node-init", "--first"]).arg(path).stdout(Stdio::null()).stderr(log);
    let first = command.spawn().context("start the node's first process")?;
    writeln!(std::io::stdout(), "{}", first.id()).context("tell the first process's id")
}

/// What a node is started with.
///
/// # Errors
/// When the file cannot be read.
pub fn read_spec(path: &Path) -> Result<NodeSpec> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
}

fn append_to(path: &Path) -> Result<fs::File> {
    let log = fs::OpenOptions::new().create(true).append(true).open(path);
    log.with_context(|| format!("open {}", path.display()))
}

/// Second stage, process 1 of the node. Returns when copepod ended after
/// SIGTERM; the kernel then ends whatever is left in the node.
///
/// # Errors
/// When the node's view of the machine cannot be made.
pub fn run(spec: &Path) -> Result<()> {
    let spec = read_spec(spec)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    wait_at_the_gate()?;
    prepare(&spec)?;
    supervise(&spec, &signals)
}

/// Where containerd's network library keeps its notes, whatever the containerd.
/// A node's pods end with it, so these need not outlive it.
pub const CNI_CACHE: &str = "/var/lib/cni";

/// Waits until whoever starts the node has recorded this process. Had they died
/// before that, nobody could ever end the node: then it must not begin.
fn wait_at_the_gate() -> Result<()> {
    let mut word = [0];
    std::io::stdin().read_exact(&mut word).context("the node's creator ended before it recorded the node")?;
    let nothing = fs::File::open("/dev/null").context("open /dev/null")?;
    dup2_stdin(&nothing).context("let go of the creator's pipe")
}

/// A private /run (sockets, namespaces of pods), own data and logs, own /proc,
/// and an own directory for what the runtime's network library notes of pods.
fn prepare(spec: &NodeSpec) -> Result<()> {
    sys::make_mounts_private().context("make the node's mounts private")?;
    sethostname(&spec.hostname).context("set the host name")?;
    sys::mount_proc().context("mount /proc")?;
    sys::mount_tmpfs(Path::new("/run"), 256).context("mount /run")?;
    fs::create_dir_all(CNI_CACHE).with_context(|| format!("make {CNI_CACHE}"))?;
    sys::mount_tmpfs(Path::new(CNI_CACHE), 16).with_context(|| format!("mount {CNI_CACHE}"))?;
    fs::create_dir_all(&spec.data_dir).context("make the data directory")?;
    sys::bind_mount(&spec.log, Path::new("/var/log")).context("mount /var/log")?;
    sys::bind_mount(&spec.data, &spec.data_dir).context("mount the data directory")
}

/// Keeps copepod running. All pods of the node end with this process, so it returns only when it is
/// told to, or when the very first copepod was started with arguments that make no sense.
fn supervise(spec: &NodeSpec, signals: &SigSet) -> Result<()> {
    let mut restarts = Restarts::default();
    loop {
        let started = Instant::now();
        let end = match start(spec) {
            Ok(child) => {
                let (end, stopping) = wait_for(&child, signals)?;
                if stopping {
                    return Ok(());
                }
                end
            }
            // Out of processes, descriptors or disk: that may pass.
            Err(error) => {
                eprintln!("copepod: {error:#}");
                None
            }
        };
        match restarts.after(end, started.elapsed()) {
            Next::End => return Ok(()),
            Next::Pause(pause) => {
                if wait_quietly(pause, signals)? {
                    return Ok(());
                }
            }
        }
    }
}

/// What to do after copepod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    End,
    Pause(Duration),
}

/// How often it ended in a row.
#[derive(Debug, Default)]
struct Restarts {
    count: u32,
    pause: Duration,
}

impl Restarts {
    /// What follows an end with this exit code (`None` for a signal or no start) after `ran`.
    fn after(&mut self, code: Option<i32>, ran: Duration) -> Next {
        self.count += 1;
        if self.count == 1 && code == Some(EXIT_USAGE) {
            return Next::End;
        }
        self.pause = if ran >= STEADY { Duration::ZERO } else { (self.pause * 2).clamp(MIN_PAUSE, MAX_PAUSE) };
        Next::Pause(self.pause)
    }
}

fn start(spec: &NodeSpec) -> Result<Child> {
    let log = append_to(Path::new(LOG))?;
    let mut command = sys::process::own_command();
    command.args(&spec.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    if let Some(fd) = spec.listen_fd {
        command.arg("--listen-fd").arg(fd.to_string());
    }
    sys::process::unblock_signals(&mut command);
    command.spawn().context("start copepod")
}

/// Buries children until `child` ends; passes SIGTERM on. Tells the exit code
/// (`None` for a signal) and whether the node is to stop.
fn wait_for(child: &Child, signals: &SigSet) -> Result<(Option<i32>, bool)> {
    let mut stopping = false;
    loop {
        if let Some(end) = bury(Some(child.id()))? {
            return Ok((end, stopping));
        }
        if signals.wait().context("wait for a signal")? != Signal::SIGCHLD {
            stopping = true;
            sys::process::signal_child(child.id(), Signal::SIGTERM)?;
        }
    }
}

/// Waits for `pause` while burying orphans; `true` when the node is to stop.
fn wait_quietly(pause: Duration, signals: &SigSet) -> Result<bool> {
    let until = Instant::now() + pause;
    loop {
        bury(None)?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        if sys::process::wait_signal(signals, left)?.is_some_and(|signal| signal != Signal::SIGCHLD) {
            return Ok(true);
        }
    }
}

/// Collects every ended child; tells how `child` ended if it was among them.
fn bury(child: Option<u32>) -> Result<Option<Option<i32>>> {
    let is_child = |pid: Pid| child.is_some_and(|id| i64::from(id) == i64::from(pid.as_raw()));
    let mut end = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if is_child(pid) => end = Some(Some(code)),
            Ok(WaitStatus::Signaled(pid, ..)) if is_child(pid) => end = Some(None),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(end),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for a child"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_start_with_wrong_arguments_ends_the_node() {
        let short = Duration::from_secs(1);
        assert_eq!(Restarts::default().after(Some(EXIT_USAGE), short), Next::End);
        for code in [None, Some(1), Some(0), Some(101)] {
            let mut restarts = Restarts::default();
            assert_eq!(restarts.after(code, short), Next::Pause(MIN_PAUSE), "{code:?}");
            // A configuration that somebody broke later must not cost the node its pods.
            assert_eq!(restarts.after(Some(EXIT_USAGE), short), Next::Pause(MIN_PAUSE * 2), "{code:?}");
        }
    }

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_anew_after_a_steady_run() {
        let mut restarts = Restarts::default();
        let pauses: Vec<_> = (0..10).map(|_| restarts.after(None, Duration::ZERO)).collect();
        assert_eq!((pauses[0], pauses[9]), (Next::Pause(MIN_PAUSE), Next::Pause(MAX_PAUSE)));
        assert_eq!(restarts.after(None, STEADY), Next::Pause(Duration::ZERO));
        assert_eq!(restarts.after(None, Duration::ZERO), Next::Pause(MIN_PAUSE));
    }
}
