//! The cluster under test, made and deleted by the program itself.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use harness::kubectl::Kubectl;
use harness::net::Namespace;
use harness::program::{self, Background, Ended};
use harness::time;
use serde_json::Value;

/// The address of the onlooker in the switch namespace: a client outside all nodes.
const ONLOOKER: &str = "10.89.0.1/24";

/// A running local cluster in a directory of its own.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    data: tempfile::TempDir,
    /// The namespace of the scenario under way.
    namespace: Mutex<String>,
}

impl Cluster {
    /// Makes a cluster and waits for its nodes.
    pub fn create(name: &str, nodes: usize) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("copepod-e2e-").tempdir()?;
        let name = format!("{name}{}", std::process::id());
        let cluster = Self { name, data, namespace: Mutex::new("default".to_owned()) };
        let made = cluster.copepod(&["cluster", "create", &cluster.name, "--no-merge", "--nodes", &nodes.to_string()]);
        if let Err(error) = made.and_then(|_| cluster.add_onlooker()) {
            eprintln!("{}", cluster.state());
            let _ = cluster.delete();
            return Err(error);
        }
        Ok(cluster)
    }

    /// Deletes the cluster and looks for what it left.
    pub fn delete(&self) -> Result<()> {
        self.copepod(&["cluster", "delete", &self.name])?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        if let Some(left) = mounts.lines().find(|line| line.contains(self.data.path().to_str().unwrap())) {
            bail!("a mount is left: {left}");
        }
        let processes = processes_mentioning(self.data.path().to_str().unwrap())?;
        if !processes.is_empty() {
            bail!("processes are left: {processes:?}");
        }
        let clusters = self.data.path().join("clusters");
        if clusters.exists() {
            bail!("files are left: {:?}", fs::read_dir(clusters)?.collect::<Vec<_>>());
        }
        for hierarchy in ["memory", "cpu", "pids", "systemd", "unified", ""] {
            let cgroup = PathBuf::from("/sys/fs/cgroup").join(hierarchy).join("copepod").join(&self.name);
            if cgroup.exists() {
                bail!("a cgroup is left: {}", cgroup.display());
            }
        }
        Ok(())
    }

    /// Removes the directory of a deleted cluster, where nothing drops it: kubectl keeps notes there.
    pub fn remove_directory(&self) -> Result<()> {
        fs::remove_dir_all(self.data.path()).context("remove the directory of clusters")
    }

    /// What helps to understand a failure.
    pub fn state(&self) -> String {
        let mut text = String::new();
        for arguments in [
            &["get", "nodes", "-o", "wide"][..],
            &["get", "pods", "-A", "-o", "wide"],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ] {
            text += &self.kubectl_output(arguments, None).map_or_else(|error| error.to_string(), |ended| ended.stdout);
        }
        let nodes = self.dir().join("nodes");
        for node in fs::read_dir(nodes).into_iter().flatten().flatten() {
            let log = fs::read_to_string(node.path().join("log/copepod.log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(60).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            text += &format!("--- {}\n{last}\n", node.path().display());
        }
        text
    }

    /// The directory of the cluster.
    pub fn dir(&self) -> PathBuf {
        self.data.path().join("clusters").join(&self.name)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// The data directory of a node, as the machine sees it.
    pub fn node_data(&self, node: &str) -> PathBuf {
        self.dir().join("nodes").join(node).join("data")
    }

    /// The names of the nodes, the control plane first.
    pub fn nodes(&self) -> [String; 3] {
        let name = &self.name;
        [format!("{name}-control-plane"), format!("{name}-worker"), format!("{name}-worker2")]
    }

    /// The network namespace of a node.
    pub fn node_namespace(&self, node: &str) -> Namespace {
        Namespace::at(self.dir().join("netns").join(node))
    }

    /// The network namespace of a client outside all nodes.
    pub fn outside(&self) -> Namespace {
        Namespace::at(self.dir().join("netns/switch"))
    }

    /// Process 1 of a node, as the machine counts.
    pub fn init_of(&self, node: &str) -> Result<i32> {
        let state: Value = serde_json::from_slice(&fs::read(self.dir().join("cluster.json"))?)?;
        let nodes = state["nodes"].as_array().context("a cluster has nodes")?;
        let node = nodes.iter().find(|entry| entry["name"] == node).context("no such node")?;
        let pid = node["init"]["pid"].as_i64().context("the node has no process")?;
        Ok(i32::try_from(pid)?)
    }

    /// The running copepod of a node: the child of its process 1 that is not containerd.
    pub fn copepod_of(&self, node: &str) -> Result<i32> {
        let init = self.init_of(node)?;
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        for child in children.split_whitespace() {
            let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            let arguments: Vec<_> = command.split(|byte| *byte == 0).collect();
            if matches!(arguments.get(1), Some(&b"up") | Some(&b"agent")) {
                return Ok(child.parse()?);
            }
        }
        bail!("no copepod runs on {node}")
    }

    /// Runs the program on this machine.
    pub fn copepod(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_copepod"));
        command.args(arguments).arg("--data-dir").arg(self.data.path()).env_remove("KUBECONFIG");
        program::run(&mut command, None)?.success(&format!("copepod {arguments:?}"))
    }

    /// Runs a scenario in a Kubernetes namespace made for it and removed afterwards.
    pub fn in_own_namespace(&self, name: &str, scenario: fn(&Self) -> Result<()>) -> Result<()> {
        let namespace = name.replace('_', "-");
        self.kubectl(&["create", "namespace", &namespace])?;
        *self.namespace.lock().unwrap() = namespace.clone();
        let result = scenario(self);
        if result.is_err() {
            eprintln!("{}", self.kubectl(&["get", "all,events", "-o", "wide"]).unwrap_or_default());
        }
        *self.namespace.lock().unwrap() = "default".to_owned();
        let removed = self.kubectl(&["delete", "namespace", &namespace, &time::kubectl_timeout()]);
        result.and(removed.map(drop))
    }

    /// The Kubernetes namespace of the scenario under way.
    pub fn namespace(&self) -> String {
        self.namespace.lock().unwrap().clone()
    }

    /// A client with the administrator's credentials.
    pub async fn client(&self) -> Result<kube::Client> {
        let config = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Runs kubectl; its standard output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectls().run(arguments, None)
    }

    /// Runs kubectl with a text on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.kubectls().run(arguments, Some(input))
    }

    /// kubectl for this cluster and the scenario's namespace.
    pub fn kubectls(&self) -> Kubectl {
        let kubectl = Kubectl::with_config(self.data.path(), &self.kubeconfig());
        kubectl.flag(&format!("--namespace={}", self.namespace()))
    }

    /// Runs kubectl whatever comes of it.
    pub fn kubectl_output(&self, arguments: &[&str], input: Option<&str>) -> Result<Ended> {
        self.kubectls().output(arguments, input)
    }

    /// Watches what a JSONPath shows of an object.
    pub fn follow(&self, kind: &str, name: &str, path: &str) -> Result<Followed> {
        let shows = format!("jsonpath=x{path}{{\"\\n\"}}");
        let mut watch = self.kubectls().start(&["get", kind, name, "--watch", "-o", &shows])?;
        // Its first line shows that it watches.
        watch.line("the watch", |line| line.strip_prefix('x').map(drop))?;
        Ok(Followed(watch))
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        // Without the mark, kubectl takes a leading brace for JSON.
        self.kubectl_with(&["apply", "-f", "-"], &format!("---\n{manifest}")).map(drop)
    }

    /// An object as JSON.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", kind, name, "-o", "json"])?)?)
    }

    /// The pods with a label `app=NAME`.
    pub fn pods(&self, app: &str) -> Result<Vec<Value>> {
        let list = self.kubectl(&["get", "pods", "-l", &format!("app={app}"), "-o", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a pod is Ready.
    pub fn wait_ready(&self, pod: &str) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), &time::kubectl_timeout()]).map(drop)
    }

    /// Waits until a Deployment has rolled out.
    pub fn wait_rollout(&self, deployment: &str) -> Result<()> {
        self.kubectl(&["rollout", "status", &format!("deployment/{deployment}"), &time::kubectl_timeout()]).map(drop)
    }

    /// The cluster IP of a Service with a port.
    pub fn service(&self, name: &str, port: u16) -> Result<SocketAddr> {
        let service = self.get("service", name)?;
        let address: IpAddr = service["spec"]["clusterIP"].as_str().context("no cluster IP")?.parse()?;
        Ok((address, port).into())
    }

    /// Waits until a Service is programmed everywhere: an answer comes from each node.
    pub fn wait_served(&self, address: SocketAddr) -> Result<()> {
        for node in self.nodes() {
            let namespace = self.node_namespace(&node);
            time::until(&format!("{address} from {node}"), || namespace.get(address, "/hostname"))?;
        }
        Ok(())
    }

    fn add_onlooker(&self) -> Result<()> {
        let switch = self.outside();
        let ip = |arguments: &str| -> Result<()> {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", switch.path().display())).arg("ip").args(arguments.split(' '));
            program::run(&mut command, None)?.success(&format!("ip {arguments}")).map(drop)
        };
        ip(&format!("address add {ONLOOKER} dev br0"))
    }
}

/// A watch by kubectl; it ends when this is dropped.
pub struct Followed(Background);

impl Followed {
    /// The last value that was shown and was not empty.
    pub fn last(&self) -> Option<String> {
        let shown = self.0.printed().ok()?;
        let mut values = shown.lines().filter_map(|line| line.strip_prefix('x'));
        values.rfind(|value| !value.is_empty()).map(str::to_owned)
    }
}

fn processes_mentioning(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(pid) = path.file_name().unwrap_or_default().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(text) {
            found.push(format!("{pid}: {command}"));
        }
    }
    Ok(found)
}
