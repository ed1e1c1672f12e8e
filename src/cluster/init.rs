//! Process 1 of a local cluster's node: prepares the node's view of the
//! machine, starts copepod, starts it again when it dies, and buries orphans.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
/// How long a copepod has to run for its next start to be immediate.
const STEADY: Duration = Duration::from_secs(10);
/// Longest pause between two starts.
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
    let program = std::env::current_exe().context("find this program")?;
    let spec = read_spec(path)?;
    // Nothing of the caller's may stay open in a process that outlives it.
    let log = append_to(&spec.log.join("node-init.log"))?;
    let mut command = Command::new(program);
    command.args(["node-init", "--first"]).arg(path).stdout(Stdio::null()).stderr(log);
    let first = command.spawn().context("start the node's first process")?;
    writeln!(std::io::stdout(), "{}", first.id()).context("tell the first process's id")
}

fn read_spec(path: &Path) -> Result<NodeSpec> {
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

fn supervise(spec: &NodeSpec, signals: &SigSet) -> Result<()> {
    let mut pause = Duration::from_millis(100);
    loop {
        let started = Instant::now();
        let child = start(spec)?;
        let (end, stopping) = wait_for(&child, signals)?;
        if stopping || end == Some(EXIT_USAGE) {
            return Ok(());
        }
        pause = if started.elapsed() >= STEADY { Duration::from_millis(100) } else { (pause * 2).min(MAX_PAUSE) };
        if wait_quietly(pause, signals)? {
            return Ok(());
        }
    }
}

fn start(spec: &NodeSpec) -> Result<Child> {
    let program = std::env::current_exe().context("find this program")?;
    let log = append_to(Path::new("/var/log/copepod.log"))?;
    let mut command = Command::new(program);
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
