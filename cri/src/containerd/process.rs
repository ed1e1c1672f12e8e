//! The daemon as a process: prepared, started, adopted, ended.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::version::{self, Line};
use super::{ContainerdError, Options, config, detect, sys};
use crate::client::{CriClient, Deadlines};
use crate::error::CriError;
use crate::service::RuntimeService;
use crate::types::Version;

/// The longest path of a unix socket, without the ending zero: sockaddr_un.
const MAX_SOCKET_PATH: usize = 107;
/// A log larger than this is put aside at the next start.
const MAX_LOG: u64 = 16 << 20;
/// How long the daemon may take to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a running daemon may take to answer before it counts as dead.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(10);

/// What to run, found out once.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub containerd: PathBuf,
    pub config: String,
    /// As CRI's Version tells it, for comparison with a running daemon.
    pub version: Line,
}

/// The running daemon.
#[derive(Debug)]
pub(super) enum Process {
    /// Ours to reap.
    Child(Box<Child>, u32),
    /// Started by an earlier process of ours.
    Adopted(AsyncFd<std::os::fd::OwnedFd>, u32),
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Child(_, pid) | Self::Adopted(_, pid) => *pid,
        }
    }

    /// Returns when the process has ended. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        match self {
            Self::Child(child, _) => drop(child.wait().await),
            Self::Adopted(fd, _) => drop(fd.readable().await),
        }
    }

    /// Ends it, by force if it takes too long. Containers are not affected.
    pub(super) async fn stop(mut self) -> Result<(), ContainerdError> {
        let pid = self.pid();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            send(pid, signal);
            if timeout(STOP_TIMEOUT, self.ended()).await.is_ok() {
                return Ok(());
            }
        }
        Err(ContainerdError::Stuck { pid, within: STOP_TIMEOUT * 2 })
    }
}

/// Signals a process; one that is gone is fine.
fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let sent = kill(Pid::from_raw(pid), signal);
        debug_assert!(matches!(sent, Ok(()) | Err(Errno::ESRCH)), "{sent:?}");
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContainerdError {
    let path = path.to_owned();
    move |source| ContainerdError::File { what, path, source }
}

/// Finds the programs and renders the configuration; creates directories.
pub(super) async fn prepare(options: &Options) -> Result<Plan, ContainerdError> {
    let socket = options.socket();
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(ContainerdError::SocketPath { path: socket });
    }
    let containerd = detect::containerd(options)?;
    // Both exist before anything asks what their file systems can do.
    for directory in [&options.root, &options.state] {
        fs::create_dir_all(directory).map_err(file("create directory", directory))?;
    }
    let version = version::line(&containerd, &options.state.join(version::NOTE)).await?;
    plan(options, containerd, version).await
}

async fn plan(options: &Options, containerd: PathBuf, version: Line) -> Result<Plan, ContainerdError> {
    let machine = detect::machine(options, &version.text).await?;
    Ok(Plan { containerd, config: config::render(options, &machine), version })
}

/// Another plan, where the program is not the one that `present` was made for: what runs says so by its API, or what
/// would run next, where that is not told by the file of the program. Nothing waits for it.
pub(super) async fn reconsider(options: &Options, present: &Plan) -> Option<Plan> {
    let doubtful = present.version.noted && version::is_script(&present.containerd);
    if !doubtful && is_told(&client(options, ADOPT_TIMEOUT).version().await.ok()?, present) {
        return None;
    }
    ask_again(options, present).await
}

/// Another plan, where the program says now that it is not the one that `present` was made for.
pub(super) async fn ask_again(options: &Options, present: &Plan) -> Option<Plan> {
    let asked = version::ask_and_note(&present.containerd, &options.state.join(version::NOTE)).await;
    let text = asked.inspect_err(|error| warn!(%error, "what containerd is is not known")).ok()?;
    if text == present.version.text {
        return None;
    }
    let next = plan(options, present.containerd.clone(), Line { text, noted: false }).await;
    next.inspect_err(|error| warn!(%error, "containerd stays as it is")).ok()
}

/// Takes over the daemon that runs already if it is as planned; replaces it if
/// not; starts one where there is none.
pub(super) async fn adopt_or_start(options: &Options, plan: &Plan) -> Result<Process, ContainerdError> {
    if let Some(process) = running(options).await {
        if is_as_planned(options, plan).await {
            info!(pid = process.pid(), "adopted the running containerd");
            return Ok(process);
        }
        info!(pid = process.pid(), "replacing a containerd of another configuration or version");
        process.stop().await?;
    }
    start(options, plan).await
}

/// The process that listens on the socket. The kernel says which that is, so
/// no file with a number can be stale.
pub(super) async fn running(options: &Options) -> Option<Process> {
    let stream = UnixStream::connect(options.socket()).await.ok()?;
    let pid = stream.peer_cred().ok()?.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)?;
    let fd = sys::pidfd(pid).ok()?;
    Some(Process::Adopted(fd, pid))
}

fn client(options: &Options, request: Duration) -> CriClient {
    CriClient::with_deadlines(options.socket(), Deadlines { request, ..Deadlines::default() })
}

/// Whether what runs has the planned configuration and version.
pub(super) async fn is_as_planned(options: &Options, plan: &Plan) -> bool {
    let same_config = fs::read_to_string(options.config_file()).is_ok_and(|text| text == plan.config);
    same_config && client(options, ADOPT_TIMEOUT).version().await.is_ok_and(|told| is_told(&told, plan))
}

fn is_told(told: &Version, plan: &Plan) -> bool {
    !told.runtime_version.is_empty() && plan.version.text.contains(&told.runtime_version)
}

/// Starts the daemon and waits until it answers.
pub(super) async fn start(options: &Options, plan: &Plan) -> Result<Process, ContainerdError> {
    let path = options.config_file();
    fs::write(&path, &plan.config).map_err(file("write", &path))?;
    let log = open_log(&options.log_file())?;
    let stderr = log.try_clone().map_err(file("open", &options.log_file()))?;
    let mut command = Command::new(&plan.containerd);
    command
        .arg("--config")
        .arg(&path)
        .env("PATH", detect::path_for(&plan.containerd))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(stderr)
        .current_dir("/");
    sys::own_session(&mut command, options.open_files);
    let spawn = |source| ContainerdError::Spawn { program: plan.containerd.clone(), source };
    let child = command.spawn().map_err(spawn)?;
    let pid = child.id().ok_or_else(|| spawn(io::Error::other("it ended at once")))?;
    let mut process = Process::Child(Box::new(child), pid);
    match ready(options, &mut process).await {
        Ok(()) => Ok(process),
        Err(problem) => {
            let last = last_words(&options.log_file());
            process.stop().await?;
            Err(ContainerdError::NotReady { problem, log: options.log_file(), last })
        }
    }
}

/// Waits until CRI answers and says that the runtime is ready; the network
/// need not be. An error says why that will not happen.
async fn ready(options: &Options, process: &mut Process) -> Result<(), String> {
    let client = client(options, options.start_timeout);
    let answering = async {
        let mut pause = Duration::from_millis(5);
        let end = Instant::now() + options.start_timeout;
        loop {
            let problem = match client.status().await {
                Ok(s) if s.conditions.iter().any(|c| c.kind == "RuntimeReady" && c.status) => return Ok(()),
                Ok(_) => "says that it is not ready".to_owned(),
                Err(CriError::Unimplemented { .. }) => return Err("runs without its CRI plugin".to_owned()),
                Err(error) => error.to_string(),
            };
            if Instant::now() > end {
                return Err(format!("is not ready after {:?}: {problem}", options.start_timeout));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    };
    // Both arms are cancel-safe: a wait for the end, and questions.
    tokio::select! {
        () = process.ended() => Err("ended right after its start".to_owned()),
        answer = answering => answer,
    }
}

fn open_log(path: &Path) -> Result<fs::File, ContainerdError> {
    if fs::metadata(path).is_ok_and(|m| m.len() > MAX_LOG) {
        let aside = path.with_extension("log.old");
        fs::rename(path, &aside).map_err(file("rename", path))?;
    }
    OpenOptions::new().create(true).append(true).open(path).map_err(file("open", path))
}

/// The last line of the log that speaks of an error, or just the last line.
fn last_words(path: &Path) -> String {
    let tail = || -> io::Result<String> {
        let mut log = fs::File::open(path)?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = tail().unwrap_or_default();
    let says = |words: &[&str]| text.lines().rev().find(|l| words.iter().any(|word| l.contains(word)));
    let line = says(&["level=fatal", "level=error", "containerd: "])
        .or_else(|| text.lines().find(|l| l.contains("failed to load plugin")))
        .or_else(|| text.lines().next_back());
    line.unwrap_or("nothing").trim().to_owned()
}
