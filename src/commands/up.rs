//! `copepod up`: control plane and node in one process.

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
pub fn run(args: &UpArgs, typed: Vec<String>) -> Result<()> {
    flags::up(args)?;
    let lacks = doctor::require(doctor::Wanted::by(&args.node))?;
    let paths = args.paths.paths();
    if args.detach {
        for lack in lacks {
            eprintln!("warn  {lack}");
        }
        return detach(args, &paths, &typed);
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
        let identity = Identity::find(&args.node, &tasks).await?;
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
/// is Ready or as soon as it is known that it will not be.
fn detach(args: &UpArgs, paths: &Paths, typed: &[String]) -> Result<()> {
    unmarked::refuse(paths)?;
    let starting = step("start copepod");
    let deadline = Instant::now() + START;
    let mut child = None;
    let admin = paths.admin_kubeconfig();
    // A process that is about to end may be met: then the next one is waited for.
    while !is_up(args, paths, typed, &mut child, deadline)? {}
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
fn is_up(args: &UpArgs, paths: &Paths, typed: &[String], child: &mut Option<Child>, deadline: Instant) -> Result<bool> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let pid = ready::wait_until(left(), || {
        let holder = pidfile::holder(&paths.pid_file())?;
        let told = status::read(&paths.status_file());
        if let Some(child) = child {
            return follow(child, told, paths);
        }
        let Some(pid) = holder else {
            *child = Some(spawn(args, paths)?);
            return Ok(None);
        };
        // A process that was just killed has the lock until it is gone.
        let Some(told) = told.filter(|told| i64::from(told.pid) == i64::from(pid)) else { return Ok(None) };
        if let Some(new) = status::difference(typed, &told.flags) {
            bail!("copepod runs already, as process {pid}, and not with {new}: copepod down --keep-data ends it");
        }
        Ok((told.phase == Phase::Ready && process::is_alive(pid)).then_some(told.pid))
    })
    .with_context(|| format!("copepod does not get ready; its log is {}", paths.log_file().display()))?;
    let serves = || {
        let told = status::read(&paths.status_file());
        let ready = told.is_some_and(|told| told.pid == pid && told.phase == Phase::Ready);
        ready && i32::try_from(pid).is_ok_and(process::is_alive)
    };
    ready::wait_for_nodes_while(&paths.admin_kubeconfig(), 1, left(), serves)
        .with_context(|| format!("see {}", paths.log_file().display()))
}

/// Starts copepod in the background, where nothing is known to be in its way.
fn spawn(args: &UpArgs, paths: &Paths) -> Result<Child> {
    let needed = [(args.control_plane.secure_port, "--secure-port"), (args.node.port, "--port")];
    for (port, flag) in needed {
        if let Some(holder) = ports::holder(port) {
            bail!("port {port} is taken by {holder}: end it, or choose another {flag}");
        }
    }
    // Makes and marks the directories, the log's among them.
    drop(instance::start(paths)?);
    let mut command = process::own_command();
    command.args(std::env::args_os().skip(1).filter(|argument| argument != "--detach"));
    command.arg("--log-file").arg(paths.log_file());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // What an earlier process left is not this one's word.
    let _ = std::fs::remove_file(paths.status_file());
    process::detach(&mut command);
    command.spawn().context("start copepod in the background")
}

/// What the child's state means: done, not yet, or why never.
fn follow(child: &mut Child, told: Option<status::Status>, paths: &Paths) -> Result<Option<u32>> {
    let told = told.filter(|told| told.pid == child.id());
    if let Some(exit) = child.try_wait()? {
        match told {
            Some(told) if told.phase == Phase::Failed => bail!("{}", told.message),
            _ => bail!("copepod ended with {exit}; its last words:\n{}", ready::last_lines(&paths.log_file())),
        }
    }
    Ok(told.filter(|told| told.phase == Phase::Ready).map(|told| told.pid))
}
