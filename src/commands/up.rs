//! `copepod up`: control plane and node in one process.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;

use super::{make_private_dir, run_until_signalled};
use crate::cli::UpArgs;
use crate::control_plane::{self, ControlPlaneInputs};
use crate::node::{self, Identity, NodeInputs};
use crate::paths::Paths;
use crate::progress::step;
use crate::sys::process;
use crate::{doctor, kubeconfig, pidfile, ready};

/// How long a start in the background may take until the node is Ready.
const START: Duration = Duration::from_secs(60);

/// Runs until SIGTERM; pods run on. With `--detach`, starts that in the
/// background and waits for the node to be Ready.
///
/// # Errors
/// When a part cannot start or fails.
pub fn run(args: &UpArgs) -> Result<()> {
    doctor::require(doctor::Wanted::by(&args.node))?;
    let paths = args.paths.paths();
    make_private_dir(&paths.data)?;
    make_private_dir(&paths.run)?;
    if args.detach {
        return detach(&paths);
    }
    let _held = pidfile::hold(&paths.pid_file())?;
    run_until_signalled(async |tasks| {
        let identity = Identity::new(&args.node)?;
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
        let serving = control_plane.kubelet_serving(&identity)?;
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
        let (ready, _) = watch::channel(false);
        node::start(inputs, &tasks, ready).await
    })
}

/// Starts this very command without `--detach`, in a session of its own.
fn detach(paths: &Paths) -> Result<()> {
    let running = pidfile::holder(&paths.pid_file())?;
    let starting = step("start copepod");
    let mut child = match running {
        Some(_) => None,
        None => {
            // A stale one would be taken for the new server's.
            let _ = std::fs::remove_file(paths.admin_kubeconfig());
            let log = OpenOptions::new().create(true).append(true).open(paths.log_file()).context("open the log")?;
            let mut command = Command::new(std::env::current_exe().context("find this program")?);
            command.args(std::env::args_os().skip(1).filter(|argument| argument != "--detach"));
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            process::detach(&mut command);
            Some(command.spawn().context("start copepod in the background")?)
        }
    };
    let admin = paths.admin_kubeconfig();
    ready::wait_until(START, || {
        if let Some(status) = child.as_mut().map(std::process::Child::try_wait).transpose()?.flatten() {
            bail!("copepod ended with {status}; its last words:\n{}", last_lines(paths));
        }
        Ok(admin.exists().then_some(()))
    })?;
    ready::wait_for_nodes(&admin, 1, START).with_context(|| format!("see {}", paths.log_file().display()))?;
    starting.done();
    let name = kubeconfig::read(&admin)?["clusters"][0]["cluster"]["server"].clone();
    println!("the node is ready; the API is at {}", name.as_str().unwrap_or_default());
    println!("export KUBECONFIG={}", admin.display());
    Ok(())
}

fn last_lines(paths: &Paths) -> String {
    let text = std::fs::read_to_string(paths.log_file()).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
