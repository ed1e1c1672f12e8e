//! `copepod up`: control plane and node in one process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::run_until_signalled;
use crate::cli::UpArgs;
use crate::control_plane::{self, ControlPlaneInputs};
use crate::node::{self, Identity, NodeInputs};
use crate::paths::Paths;
use crate::progress::step;
use crate::status::{self, Phase, Reporter};
use crate::sys::process;
use crate::{doctor, flags, instance, kubeconfig, network_lock, pidfile, ports, ready, unmarked};

/// How long a start in the background may take until the node is Ready.
const START: Duration = Duration::from_secs(60);

/// Runs until SIGTERM; pods run on. With `--detach`, starts that in the
/// background and waits for the node to be Ready.
///
/// # Errors
/// When a part cannot start or fails.
pub fn run(args: &UpArgs, typed: Vec<String>, log_file: Option<&Path>) -> Result<()> {
    flags::up(args)?;
    let lacks = doctor::require(doctor::Wanted::by(&args.node))?;
    let paths = args.paths.paths();
    if args.detach {
        for lack in lacks {
            eprintln!("warn  {lack}");
        }
        return detach(args, &paths, &typed, log_file);
    }
    for lack in lacks {
        tracing::warn!("{lack}");
    }
    let _held = instance::start(&paths)?;
    let reporter = Reporter::new(&paths, typed);
    let result = serve(args, &paths, &reporter);
    reporter.ended(&result);
    result
}

fn serve(args: &UpArgs, paths: &Paths, reporter: &Reporter) -> Result<()> {
    let _network = network_lock::take()?;
    run_until_signalled(async |tasks| {
        let identity = Identity::find(&args.node, &tasks, reporter).await?;
        let control_plane = control_plane::start(
            ControlPlaneInputs {
                paths: paths.clone(),
                net: args.net.clone(),
                args: args.control_plane.clone(),
                address: args.control_plane.advertise_address.unwrap_or(identity.ip),
            },
            &tasks,
        )
        .await?;
        control_plane.keep_label(&identity.name, &tasks);
        let serving = control_plane.kubelet_serving(&identity, &tasks)?;
        let inputs = NodeInputs {
            client: control_plane.node_client(&identity.name),
            proxy_client: control_plane.proxy_client(),
            proxy_client_is_chosen: false,
            client_ca: control_plane.ca_file(),
            serving: Some(serving),
            asks_serving: false,
            own_ports: vec![args.control_plane.secure_port],
            paths: paths.clone(),
            net: args.net.clone(),
            node: args.node.clone(),
            identity,
        };
        node::start(inputs, &tasks, reporter.clone()).await
    })
}

/// Starts this very command without `--detach`, in a session of its own, and returns when its node
/// is Ready or as soon as it is known that it will not be. `log_file` is the one that was asked for.
fn detach(args: &UpArgs, paths: &Paths, typed: &[String], log_file: Option<&Path>) -> Result<()> {
    unmarked::refuse(paths)?;
    let starting = step("start copepod");
    let deadline = Instant::now() + START;
    let (mut child, mut waits) = (None, Waits::default());
    let admin = paths.admin_kubeconfig();
    // A process that is about to end may be met: then the next one is waited for.
    while !is_up(args, paths, (typed, log_file), (&mut child, &mut waits), deadline)? {}
    starting.done();
    for problem in status::read(&paths.status_file()).into_iter().flat_map(|told| told.problems) {
        eprintln!("warn  {problem}");
    }
    let name = kubeconfig::read(&admin)?["clusters"][0]["cluster"]["server"].clone();
    println!("the node is ready; the API is at {}", name.as_str().unwrap_or_default());
    println!("export KUBECONFIG={}", admin.display());
    Ok(())
}

/// Waits until copepod runs, started here where it does not, and its node is Ready; `false` when the process that was
/// waited for is no longer there to be ready.
fn is_up(
    args: &UpArgs,
    paths: &Paths,
    (typed, log_file): (&[String], Option<&Path>),
    (child, waits): (&mut Option<Child>, &mut Waits),
    deadline: Instant,
) -> Result<bool> {
    let log = log_file.map_or_else(|| paths.log_file(), Path::to_owned);
    let left = || deadline.saturating_duration_since(Instant::now());
    let pid = ready::wait_until(left(), || {
        let holder = pidfile::holder(&paths.pid_file())?;
        let told = status::read(&paths.status_file());
        if let Some(child) = child {
            waits.see(told.as_ref().filter(|told| told.pid == child.id()));
            return follow(child, told, &log);
        }
        let Some(pid) = holder else {
            *child = Some(spawn(args, paths, log_file)?);
            return Ok(None);
        };
        // A process that was just killed has the lock until it is gone.
        let Some(told) = told.filter(|told| i64::from(told.pid) == i64::from(pid)) else { return Ok(None) };
        if let Some(new) = status::difference(typed, &told.flags) {
            bail!("copepod runs already, as process {pid}, and not with {new}: copepod down --keep-data ends it");
        }
        waits.see(Some(&told));
        Ok((told.phase == Phase::Ready && process::is_alive(pid)).then_some(told.pid))
    });
    let pid =
        pid.with_context(|| format!("copepod does not get ready{}; its log is {}", waits.why(), log.display()))?;
    let serves = || {
        let told = status::read(&paths.status_file());
        let ready = told.is_some_and(|told| told.pid == pid && told.phase == Phase::Ready);
        ready && i32::try_from(pid).is_ok_and(process::is_alive)
    };
    ready::wait_for_nodes_while(&paths.admin_kubeconfig(), 1, left(), serves)
        .with_context(|| format!("see {}", log.display()))
}

/// What a start in the background waits for, told when it begins to.
#[derive(Default)]
struct Waits(String);

impl Waits {
    fn see(&mut self, told: Option<&status::Status>) {
        let Some(told) = told else { return };
        let waits = if told.phase == Phase::Starting { told.message.as_str() } else { "" };
        if waits != self.0 && !waits.is_empty() {
            eprintln!("warn  {waits}");
        }
        waits.clone_into(&mut self.0);
    }

    fn why(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!(": {}", self.0) }
    }
}

/// Starts copepod in the background, where nothing is known to be in its way.
fn spawn(args: &UpArgs, paths: &Paths, log_file: Option<&Path>) -> Result<Child> {
    let needed = [(args.control_plane.secure_port, "--secure-port"), (args.node.port, "--port")];
    for (port, flag) in needed {
        if let Some(holder) = ports::holder(port) {
            bail!("port {port} is taken by {holder}: end it, or choose another {flag}");
        }
    }
    // Makes and marks the directories, the log's among them.
    drop(instance::start(paths)?);
    if let Some(log) = log_file {
        // The process in the background could tell nobody.
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(log);
        opened.with_context(|| format!("--log-file={}", log.display()))?;
    }
    let mut command = process::own_command();
    command.args(in_background(std::env::args_os().skip(1), log_file.is_none().then(|| paths.log_file())));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // What an earlier process left is not this one's word.
    let _ = std::fs::remove_file(paths.status_file());
    process::detach(&mut command);
    command.spawn().context("start copepod in the background")
}

/// This command's arguments for the process in the background; `log` is where it logs, unless they say so.
fn in_background(typed: impl Iterator<Item = OsString>, log: Option<PathBuf>) -> Vec<OsString> {
    let mut arguments: Vec<_> = typed.filter(|argument| argument != "--detach").collect();
    arguments.extend(log.into_iter().flat_map(|log| [OsString::from("--log-file"), log.into()]));
    arguments
}

/// What the child's state means: done, not yet, or why never.
fn follow(child: &mut Child, told: Option<status::Status>, log: &Path) -> Result<Option<u32>> {
    let told = told.filter(|told| told.pid == child.id());
    if let Some(exit) = child.try_wait()? {
        match told {
            Some(told) if told.phase == Phase::Failed => bail!("{}", told.message),
            _ => bail!("copepod ended with {exit}; its last words:\n{}", ready::last_lines(log)),
        }
    }
    Ok(told.filter(|told| told.phase == Phase::Ready).map(|told| told.pid))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    /// What the process in the background is started with by `words`, as it understands that.
    fn started(words: &[&str]) -> (Option<PathBuf>, bool) {
        let typed = Cli::try_parse_from(["copepod"].iter().chain(words)).unwrap();
        let default = typed.log_file.is_none().then(|| PathBuf::from("/default.log"));
        let arguments = in_background(words.iter().map(OsString::from), default);
        let child = Cli::try_parse_from([OsString::from("copepod")].into_iter().chain(arguments)).unwrap();
        let Command::Up(args) = child.command else { panic!("up") };
        (child.log_file, args.detach)
    }

    #[test]
    fn the_process_in_the_background_logs_where_it_was_asked_to() {
        assert_eq!(started(&["up", "--detach"]), (Some("/default.log".into()), false));
        assert_eq!(started(&["up", "--detach", "--log-file", "/x"]), (Some("/x".into()), false));
        assert_eq!(started(&["--log-file=/x", "up", "--detach"]), (Some("/x".into()), false));
    }
}
