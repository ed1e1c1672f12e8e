//! Creating, listing and deleting local clusters. Creating is idempotent: what
//! runs stays, what is missing (all of it after a reboot) is started again.

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cri::containerd::remove_unused;
use serde_json::{Value, json};

use super::init::{self, NodeSpec};
use super::network;
use super::plan::{self, ClusterName, NodePlan, Role};
use super::start;
use super::state::{ClusterDir, ClusterState, InitProcess, NodeState, start_ticks};
use crate::node::UsageError;
use crate::progress::step;
use crate::sys::netns;
use crate::sys::process::{self, Process};
use crate::{cgroups, credentials, kubeconfig, paths, ready, status};

/// How long a stopping node may take before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// Name of the file with the nodes' configuration.
const NODE_CONFIG: &str = "kubelet.yaml";

/// What `cluster create` was asked for.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    pub name: ClusterName,
    pub nodes: usize,
    /// Port on 127.0.0.1, 0 for any free one.
    pub api_port: u16,
    /// Data directory of the machine; clusters live below it.
    pub data_dir: PathBuf,
    /// Where the nodes see their own data directory.
    pub node_data_dir: PathBuf,
    /// How long to wait for all nodes to be Ready.
    pub wait: Duration,
    /// File to merge the cluster's kubeconfig into.
    pub kubeconfig: Option<PathBuf>,
    /// Further arguments for every node's copepod.
    pub extra_args: Vec<String>,
}

/// Makes the cluster, or starts what is missing of it.
///
/// # Errors
/// Says which step failed; what was made stays for `delete` to remove.
pub fn create(options: &CreateOptions) -> Result<()> {
    let dir = ClusterDir::new(&paths::clusters_dir(&options.data_dir), &options.name);
    let present = dir.load()?;
    if let Some(state) = present.as_ref().filter(|state| state.nodes.len() != options.nodes) {
        bail!("cluster {} exists with {} nodes; delete it first", options.name, state.nodes.len());
    }
    let mut settings = NodeSettings::new(options, &options.extra_args)?;
    for node in plan::nodes(&options.name, options.nodes).map_err(|error| UsageError(format!("--nodes: {error}")))? {
        start::try_arguments(&node_args(&dir, &node, &settings, options))?;
    }
    let mut state = match present {
        Some(mut state) if state.runs() => {
            refuse_another(options, &state)?;
            let args = state.extra_args.get_or_insert_with(|| options.extra_args.clone());
            if state.nodes.iter().any(|node| !node.runs()) {
                // They are to be like those that do.
                settings = NodeSettings::new(options, args)?;
            }
            state
        }
        Some(mut state) => {
            state.extra_args = Some(options.extra_args.clone());
            state.api_port = if options.api_port == 0 { state.api_port } else { options.api_port };
            state
        }
        None => plan_cluster(&dir, options)?,
    };
    let laid = step(format!("lay out {} node(s)", state.nodes.len()));
    std::fs::create_dir_all(dir.root.join("netns")).context("make the cluster's directory")?;
    network::create_switch(&dir.switch())?;
    for (index, node) in state.nodes.iter().enumerate() {
        network::connect_node(&dir.switch(), &dir.netns(&node.plan.name), index, node.plan.ip)?;
    }
    laid.done();
    let admin = start_nodes(&dir, &mut state, &settings, options)?;
    kubeconfig::write(&dir.kubeconfig(), &admin)?;
    let waiting = step("wait for the nodes to be Ready");
    for node in &state.nodes {
        start::wait(&dir, node, options.wait)?;
    }
    ready::wait_for_nodes(&dir.kubeconfig(), state.nodes.len(), options.wait)?;
    waiting.done();
    let context = options.name.context();
    println!("kubeconfig: {}", dir.kubeconfig().display());
    let Some(users) = &options.kubeconfig else {
        println!("cluster {} is ready: kubectl --kubeconfig {} get nodes", options.name, dir.kubeconfig().display());
        return Ok(());
    };
    let merged = kubeconfig::read(users).and_then(|config| {
        kubeconfig::merge(config, &admin).with_context(|| format!("merge into {}", users.display()))
    });
    let merged = merged.and_then(|merged| kubeconfig::write(users, &merged));
    merged.with_context(|| format!("cluster {} is ready, but its context {context} is not added", options.name))?;
    println!("cluster {} is ready; the current context of {} is {context} now", options.name, users.display());
    Ok(())
}

/// Refuses to take a running cluster for one that was asked for otherwise.
fn refuse_another(options: &CreateOptions, running: &ClusterState) -> Result<()> {
    let flags = |port: u16, args: &[String]| -> Result<Vec<String>> {
        let port = (port != 0).then(|| format!("--api-port={port}"));
        Ok(port.into_iter().chain(start::typed(args)?).collect())
    };
    let asked = flags(options.api_port, &options.extra_args)?;
    // Of what is not known nothing can be said.
    let args = running.extra_args.as_ref().unwrap_or(&options.extra_args);
    if let Some(new) = status::difference(&asked, &flags(running.api_port, args)?) {
        bail!("cluster {} runs already, and not with {new}; delete it first", options.name);
    }
    Ok(())
}

/// What every node is started with beside its own name and address.
struct NodeSettings {
    /// Further arguments.
    args: Vec<String>,
    /// Content of the control plane's configuration file.
    config: String,
    /// The same of workers, whose kubelets are given a serving certificate.
    worker_config: String,
}

impl NodeSettings {
    fn new(options: &CreateOptions, extra_args: &[String]) -> Result<Self> {
        let (args, files) = start::split_config(extra_args)?;
        let serving = node_paths(&options.node_data_dir).issued_serving();
        let config = start::node_config(&files, None)?;
        Ok(Self { args, config, worker_config: start::node_config(&files, Some(&serving))? })
    }
}

fn plan_cluster(dir: &ClusterDir, options: &CreateOptions) -> Result<ClusterState> {
    let plans = plan::nodes(&options.name, options.nodes).map_err(anyhow::Error::msg)?;
    let listener = listen(options.api_port)?;
    let api_port = listener.local_addr()?.port();
    let nodes = plans.into_iter().map(|plan| NodeState { plan, init: None }).collect();
    let state = ClusterState { api_port, nodes, extra_args: Some(options.extra_args.clone()) };
    std::fs::create_dir_all(&dir.root).with_context(|| format!("make {}", dir.root.display()))?;
    dir.save(&state)?;
    Ok(state)
}

fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("listen on 127.0.0.1:{port}"))
}

/// Starts every node that does not run; the control plane first, since the
/// workers' credentials come from it. Returns the administrator's kubeconfig.
fn start_nodes(
    dir: &ClusterDir,
    state: &mut ClusterState,
    settings: &NodeSettings,
    options: &CreateOptions,
) -> Result<Value> {
    let mut admin = Value::Null;
    for index in 0..state.nodes.len() {
        let node = state.nodes[index].clone();
        let starting = step(format!("start {}", node.plan.name));
        if !node.runs() {
            // One that is about to be gone still has the node's files open.
            if let Some(process) = running(&node)? {
                process.wait(STOP_GRACE)?;
            }
            let (init, mut gate) = start_node(dir, &node, state, settings, options)?;
            state.nodes[index].init = Some(init);
            // Recorded before it begins: should we die in between, it ends by itself.
            dir.save(state)?;
            gate.write_all(b"\n").context("the node's first process ended at once")?;
        }
        if node.plan.role == Role::ControlPlane {
            let node = &state.nodes[index];
            start::wait(dir, node, options.wait)?;
            admin = admin_kubeconfig(dir, node, state.api_port)?;
        }
        starting.done();
    }
    Ok(admin)
}

/// Starts a node's first process, which waits for a byte before it begins.
fn start_node(
    dir: &ClusterDir,
    node: &NodeState,
    state: &ClusterState,
    settings: &NodeSettings,
    options: &CreateOptions,
) -> Result<(InitProcess, ChildStdin)> {
    let name = &node.plan.name;
    for path in [dir.node_data(name), dir.node_log(name)] {
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    }
    // Bound here, handed down, and so reachable from the machine although the
    // server itself sits in the node's network namespace.
    let listener = match node.plan.role {
        Role::ControlPlane => Some(listen(state.api_port)?),
        Role::Worker => {
            write_node_credentials(dir, node, state)?;
            None
        }
    };
    if let Some(listener) = &listener {
        process::keep_across_exec(listener)?;
    }
    let spec = NodeSpec {
        hostname: name.clone(),
        data: dir.node_data(name),
        data_dir: options.node_data_dir.clone(),
        log: dir.node_log(name),
        args: node_args(dir, &node.plan, settings, options),
        listen_fd: listener.as_ref().map(AsRawFd::as_raw_fd),
    };
    let config = dir.node_data(name).join(NODE_CONFIG);
    let text = match node.plan.role {
        Role::ControlPlane => &settings.config,
        Role::Worker => &settings.worker_config,
    };
    crate::files::replace(&config, text.as_bytes(), 0o600)?;
    let spec_path = dir.node_spec(name);
    crate::files::replace(&spec_path, &serde_json::to_vec_pretty(&spec)?, 0o600)?;
    launch(&dir.netns(name), &spec_path)
}

/// What lies below a node's data directory.
fn node_paths(data: &Path) -> paths::Paths {
    paths::Paths { data: data.to_owned(), run: PathBuf::new(), log: PathBuf::new() }
}

fn node_args(dir: &ClusterDir, node: &NodePlan, settings: &NodeSettings, options: &CreateOptions) -> Vec<String> {
    let command = match node.role {
        Role::ControlPlane => "up",
        Role::Worker => "agent",
    };
    let mut args = vec![
        command.to_owned(),
        format!("--node-name={}", node.name),
        format!("--node-ip={}", node.ip),
        format!("--data-dir={}", options.node_data_dir.display()),
        format!("--cgroup-root=/{}", plan::cgroup_path(&dir.name, &node.name)),
        format!("--config={}", options.node_data_dir.join(NODE_CONFIG).display()),
        format!("--log-file={}", init::LOG),
        // The machine's resolvers are out of the nodes' reach.
        "--resolv-conf=".to_owned(),
    ];
    if node.role == Role::Worker {
        let node_paths = node_paths(&options.node_data_dir);
        args.push(format!("--kubeconfig={}", node_paths.node_kubeconfig().display()));
        args.push(format!("--proxy-kubeconfig={}", node_paths.proxy_kubeconfig().display()));
    }
    args.extend(settings.args.iter().cloned());
    args
}

fn launch(netns: &Path, spec: &Path) -> Result<(InitProcess, ChildStdin)> {
    let mut command = process::own_command();
    command.arg("node-init").arg(spec).stdin(Stdio::piped()).stdout(Stdio::piped());
    process::isolate(&mut command, netns)?;
    let mut child = command.spawn().context("start a node")?;
    let gate = child.stdin.take().context("a node without a gate")?;
    let output = child.wait_with_output().context("wait for a node's start")?;
    if !output.status.success() {
        bail!("starting a node failed: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let pid = text.trim().parse().with_context(|| format!("a node's first process reported {text:?}"))?;
    let start_ticks = start_ticks(pid).context("the node's first process ended at once")?;
    Ok((InitProcess { pid, start_ticks }, gate))
}

/// The node's first process if it still runs.
fn running(node: &NodeState) -> Result<Option<Process>> {
    let Some(init) = node.init else { return Ok(None) };
    let process = Process::open(init.pid)?;
    Ok(process.filter(|process| start_ticks(process.pid()) == Some(init.start_ticks)))
}

fn admin_kubeconfig(dir: &ClusterDir, node: &NodeState, api_port: u16) -> Result<Value> {
    let file = paths::Paths { data: dir.node_data(&node.plan.name), run: PathBuf::new(), log: PathBuf::new() };
    let mut admin = kubeconfig::read(&file.admin_kubeconfig())?;
    let name = dir.name.context();
    for section in ["clusters", "users", "contexts"] {
        admin[section][0]["name"] = json!(name);
    }
    admin["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.1:{api_port}"));
    admin["contexts"][0]["context"] = json!({"cluster": name, "user": name});
    admin["current-context"] = json!(name);
    Ok(admin)
}

fn write_node_credentials(dir: &ClusterDir, node: &NodeState, state: &ClusterState) -> Result<()> {
    let control_plane = &state.nodes[0].plan;
    let (from, to) = (node_paths(&dir.node_data(&control_plane.name)), node_paths(&dir.node_data(&node.plan.name)));
    let server = format!("https://{}:6443", control_plane.ip);
    let (cert, key) = to.issued_serving();
    let serving = credentials::node_serving(&from.pki(), &node.plan.name, node.plan.ip.into())?;
    crate::files::replace(&cert, serving.cert_pem.as_bytes(), 0o600)?;
    crate::files::replace(&key, serving.key_pem.as_bytes(), 0o600)?;
    let config = credentials::node_kubeconfig(&from.pki(), &node.plan.name, &server)?;
    kubeconfig::write(&to.node_kubeconfig(), &config)?;
    kubeconfig::write(&to.proxy_kubeconfig(), &credentials::proxy_kubeconfig(&from.pki(), &server)?)
}

/// Prints a line per cluster: name, running nodes, API address.
///
/// # Errors
/// When the directory of clusters cannot be read.
pub fn list(data_dir: &Path) -> Result<()> {
    let clusters = paths::clusters_dir(data_dir);
    let entries = match std::fs::read_dir(&clusters) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", clusters.display())),
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: std::collections::BTreeSet<String> = names.collect();
    println!("{:<24} {:<10} API", "NAME", "NODES");
    for name in names.iter().filter_map(|name| name.parse::<ClusterName>().ok()) {
        match ClusterDir::new(&clusters, &name).load() {
            Ok(Some(state)) => {
                let alive = state.nodes.iter().filter(|node| node.runs()).count();
                let nodes = format!("{alive}/{}", state.nodes.len());
                println!("{:<24} {nodes:<10} https://127.0.0.1:{}", name.as_str(), state.api_port);
            }
            Ok(None) => {}
            // Its trouble is not the others'.
            Err(error) => println!("{:<24} {:<10} {error:#}", name.as_str(), "?"),
        }
    }
    Ok(())
}

/// Removes the cluster: processes, namespaces, cgroups, files and its entries in
/// `users` kubeconfig. Goes on past failures and reports them all.
///
/// # Errors
/// When the cluster does not exist, or what could not be removed.
pub fn delete(data_dir: &Path, name: &ClusterName, users: Option<&Path>) -> Result<()> {
    let dir = ClusterDir::new(&paths::clusters_dir(data_dir), name);
    if !dir.root.exists() {
        bail!("there is no cluster {name}");
    }
    let deleting = step(format!("delete cluster {name}"));
    // Where the description is lost, the directories say which nodes there are, and their network
    // namespaces which processes.
    let state = dir.load().ok().flatten();
    let mut failures = Vec::new();
    for node in dir.nodes_on_disk() {
        let mut attempt = |what: &str, result: Result<()>| {
            if let Err(error) = result {
                failures.push(format!("{what} of {node}: {error:#}"));
            }
        };
        let known = state.iter().flat_map(|state| &state.nodes).find(|known| known.plan.name == node);
        if let Some(known) = known {
            attempt("processes", stop_node(known));
        }
        attempt("processes", stop_inhabitants(&dir.netns(&node)));
        attempt("network namespace", netns::delete(&dir.netns(&node)).map_err(Into::into));
        attempt("cgroups", cgroups::remove(plan::cgroup_path(name, &node)));
    }
    if let Err(error) = netns::delete(&dir.switch()) {
        failures.push(format!("the switch: {error}"));
    }
    cgroups::remove_if_empty(format!("copepod/{name}"));
    cgroups::remove_if_empty("copepod");
    if !failures.is_empty() {
        bail!("cluster {name} is not entirely deleted: {}", failures.join("; "));
    }
    cri::dirtree::remove(&dir.root).with_context(|| format!("remove {}", dir.root.display()))?;
    // Made for clusters; where others are in there, they stay.
    let _ = std::fs::remove_dir(paths::clusters_dir(data_dir));
    // Made for nodes to mount over.
    for directory in ["/var/lib/copepod", init::CNI_CACHE] {
        remove_unused(Path::new(directory));
    }
    if let Some(users) = users
        && users.exists()
    {
        let left = kubeconfig::without(kubeconfig::read(users)?, &name.context())
            .with_context(|| format!("change {}", users.display()))?;
        kubeconfig::write(users, &left)?;
    }
    deleting.done();
    Ok(())
}

/// Ends whatever runs in a node's network namespace: nobody but the node is in there.
fn stop_inhabitants(netns: &Path) -> Result<()> {
    for pid in netns::inhabitants(netns)? {
        if let Some(process) = Process::open(pid)? {
            process.terminate(STOP_GRACE)?;
        }
    }
    Ok(())
}

/// The run directories of a cluster's nodes, by the nodes' names.
///
/// # Errors
/// When there is no such cluster, or one of its nodes does not run.
pub fn run_dirs(data_dir: &Path, name: &ClusterName) -> Result<Vec<(String, PathBuf)>> {
    let dir = ClusterDir::new(&paths::clusters_dir(data_dir), name);
    let state = dir.load()?.with_context(|| format!("there is no cluster {name}"))?;
    let run_dir = |node: &NodeState| {
        let run = start::run_dir(&dir, node)?.with_context(|| format!("{} does not run", node.plan.name))?;
        Ok((node.plan.name.clone(), run))
    };
    state.nodes.iter().map(run_dir).collect()
}

/// Ending a node's first process ends the whole node: its PID namespace dies.
fn stop_node(node: &NodeState) -> Result<()> {
    match running(node)? {
        Some(process) => Ok(process.terminate(STOP_GRACE)?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_running_cluster_is_not_taken_for_another_one() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let asked = |api_port, extra: &[&str], running: Option<&[&str]>| {
            let options = CreateOptions {
                name: "dev".parse().unwrap(),
                nodes: 1,
                api_port,
                data_dir: PathBuf::new(),
                node_data_dir: PathBuf::new(),
                wait: Duration::ZERO,
                kubeconfig: None,
                extra_args: words(extra),
            };
            let running = ClusterState { api_port: 6443, nodes: Vec::new(), extra_args: running.map(words) };
            refuse_another(&options, &running).map_err(|error| error.to_string())
        };
        let args: &[&str] = &["--port", "10260", "--config=/k"];
        assert_eq!(asked(0, &[], Some(args)), Ok(()));
        assert_eq!(asked(6443, &["--config", "/k", "--port=10260"], Some(args)), Ok(()));
        assert_eq!(asked(0, args, None), Ok(()), "what an earlier copepod has not noted");
        let refused = |told: Result<(), String>, what: &str| {
            assert!(told.as_ref().is_err_and(|told| told.contains(&format!("not with {what};"))), "{told:?}");
        };
        refused(asked(6444, args, Some(args)), "--api-port=6444");
        refused(asked(6444, args, None), "--api-port=6444");
        refused(asked(6443, &["--port=10261"], Some(args)), "--port=10261");
        refused(asked(0, &["--config=/other"], Some(args)), "--config=/other");
        refused(asked(0, args, Some(&[])), "--config=/k --port=10260");
    }
}
