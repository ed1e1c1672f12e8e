//! What a user waits for and pays, on a real node: start, pods, memory, CPU.
//! Every figure stands beside the floor measured in the same run: the same pod
//! by raw CRI calls on the same containerd.
//!
//! `cargo bench --bench cluster`; a cluster of one node in namespaces without
//! an uplink, deleted at the end.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agent::convert::container::{ContainerContext, container_config};
use agent::convert::resources::{MemoryControl, ResourceContext, pod_cgroup_limits};
use agent::convert::sandbox::{SandboxContext, sandbox_config};
use anyhow::{Context, Result, ensure};
use cri::floor::PodTimes;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Pods started one after another.
const SINGLE: usize = 20;
/// Pods started together, and how often: one time of thirty pods is a sixth off as often as not.
const TOGETHER: [(usize, usize); 3] = [(10, 7), (30, 7), (90, 3)];
/// Pods that came and went when the node's memory is read for the last time.
const ALL: usize = 1000;
/// Pods on the node whose memory with pods is told.
const RESIDENT: usize = 30;
/// The same for the node without control plane.
const RESIDENT_ON_WORKER: usize = 50;
/// Between single pods: what the last one's end still costs is not the next one's start.
const PAUSE: Duration = Duration::from_millis(300);
/// How long the idle node is watched for its CPU time, before its memory is read: by then what its start or the last
/// pods' start left is given back, and all that goes on at rest was done again.
const IDLE: Duration = Duration::from_secs(60);
/// How long watches can be resumed from, whatever happened: 75 s, and the looks at what may be given back.
const HISTORY: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    // `cargo bench` passes flags of its own; `cargo test` asks not to measure.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    on_cluster(1, measure)?;
    on_cluster(2, worker_at_rest)
}

/// Runs `measure` on a cluster of so many nodes, and deletes it in any case.
fn on_cluster(nodes: usize, measure: impl FnOnce(&BenchNode) -> Result<()>) -> Result<()> {
    let started = Instant::now();
    let node = BenchNode::create(nodes)?;
    println!("{nodes} node(s) from nothing to Ready         {:>9.1} ms", millis(started.elapsed()));
    let result = measure(&node);
    node.delete()?;
    result
}

struct BenchNode {
    data: tempfile::TempDir,
    name: String,
}

impl BenchNode {
    fn create(nodes: usize) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("copepod-bench-").tempdir()?;
        let node = Self { data, name: format!("bench{}", std::process::id()) };
        node.copepod(&["cluster", "create", &node.name, "--no-merge", "--nodes", &nodes.to_string()])?;
        Ok(node)
    }

    fn delete(&self) -> Result<()> {
        self.copepod(&["cluster", "delete", &self.name])
    }

    fn copepod(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_copepod"));
        let status = command.args(arguments).arg("--data-dir").arg(self.data.path()).status()?;
        ensure!(status.success(), "copepod {arguments:?}: {status}");
        Ok(())
    }

    fn dir(&self) -> PathBuf {
        self.data.path().join("clusters").join(&self.name)
    }

    fn state(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.dir().join("cluster.json"))?)?)
    }

    /// Process 1 of a node; the first is the control plane's.
    fn init(&self, node: usize) -> Result<i32> {
        Ok(i32::try_from(self.state()?["nodes"][node]["init"]["pid"].as_i64().context("no process")?)?)
    }

    fn copepod_pid(&self, node: usize) -> Result<i32> {
        let init = self.init(node)?;
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        let mut children = children.split_whitespace().filter_map(|child| child.parse::<i32>().ok());
        let is_copepod = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            matches!(line.split(|b| *b == 0).nth(1), Some(b"up" | b"agent"))
        };
        children.find(is_copepod).context("copepod does not run")
    }

    /// The node's containerd, through its own /run.
    fn containerd_socket(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root/run/copepod/containerd/containerd.sock", self.init(0)?)))
    }

    async fn client(&self) -> Result<Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.dir().join("kubeconfig"))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(Client::try_from(config)?)
    }
}

fn measure(node: &BenchNode) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let binary = fs::metadata(env!("CARGO_BIN_EXE_copepod"))?.len();
    println!("binary                                {:>9.1} MiB", binary as f64 / 1048576.0);
    runtime.block_on(async {
        let pods: Api<Pod> = Api::default_namespaced(node.client().await?);
        // The first pod warms what later ones share: the unpacked image.
        let warm = start_one(&pods, "warm").await?;
        let template = pods.get("warm").await?;
        remove(&pods, "warm").await?;
        println!("first pod, POST to Ready              {:>9.1} ms", millis(warm));
        report_idle(node.copepod_pid(0)?, "idle")?;
        singles(node, &pods, &template).await?;
        for (count, rounds) in TOGETHER {
            together(node, &pods, &template, (count, rounds)).await?;
        }
        let total = come_and_go(&pods).await?;
        tokio::time::sleep(HISTORY).await;
        report_idle(node.copepod_pid(0)?, &format!("after {total} pods came and went"))?;
        restart(node, "at rest").await?;
        let count = TOGETHER[TOGETHER.len() - 1].0;
        start_together(&pods, count, None).await?;
        remove_all(&pods).await?;
        restart(node, &format!("after {count} pods")).await
    })
}

/// More pods that come and go, until there were [`ALL`] of copepod's own on the node.
async fn come_and_go(pods: &Api<Pod>) -> Result<usize> {
    let mut total = 1 + SINGLE + TOGETHER.iter().map(|(count, rounds)| count * rounds).sum::<usize>();
    let (count, _) = TOGETHER[TOGETHER.len() - 1];
    while total < ALL {
        start_together(pods, count, None).await?;
        remove_all(pods).await?;
        total += count;
    }
    Ok(total)
}

/// Pods one after another, each after one by raw calls: a machine is not equally fast at all times.
async fn singles(node: &BenchNode, pods: &Api<Pod>, template: &Pod) -> Result<()> {
    let (mut starts, mut deletes) = (Vec::new(), Vec::new());
    let (mut floor_starts, mut floor_deletes) = (Vec::new(), Vec::new());
    for index in 0..SINGLE {
        let floor = cri_floor(node, template, 1, 1).await?;
        floor_starts.extend(floor.pods.iter().map(PodTimes::start));
        floor_deletes.extend(floor.pods.iter().map(PodTimes::delete));
        tokio::time::sleep(PAUSE).await;
        let name = format!("single-{index}");
        starts.push(start_one(pods, &name).await?);
        deletes.push(remove(pods, &name).await?);
        tokio::time::sleep(PAUSE).await;
    }
    report("pod start, POST to Ready, p50", percentile(&mut starts, 50), percentile(&mut floor_starts, 50));
    report("pod start, POST to Ready, p99", percentile(&mut starts, 99), percentile(&mut floor_starts, 99));
    report("pod delete, p50", percentile(&mut deletes, 50), percentile(&mut floor_deletes, 50));
    Ok(())
}

/// So many pods at once, as often as asked for, each time after as many by raw calls.
async fn together(node: &BenchNode, pods: &Api<Pod>, template: &Pod, (count, rounds): (usize, usize)) -> Result<()> {
    let (mut seen, mut floors) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        floors.push(cri_floor(node, template, count, count).await?.all_started);
        seen.push(start_together(pods, count, None).await?);
        if count == RESIDENT && round == 1 {
            report_idle(node.copepod_pid(0)?, &format!("with {count} pods"))?;
        }
        remove_all(pods).await?;
    }
    let what = format!("{count} pods at once, median of {rounds}");
    report(&what, percentile(&mut seen, 50), percentile(&mut floors, 50));
    Ok(())
}

fn report(what: &str, seen: Duration, floor: Duration) {
    let ratio = seen.as_secs_f64() / floor.as_secs_f64();
    println!("{what:<37} {:>9.1} ms   raw CRI {:>9.1} ms   ratio {ratio:.2}", millis(seen), millis(floor));
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)]
}

/// Where the floor's pods are, below the hierarchies' mount points.
const FLOOR_CGROUP: &str = "copepod-floor";

/// The same pod by raw calls: configurations as the agent makes them of the
/// object that the API server keeps, so that the runtime does the same work.
async fn cri_floor(node: &BenchNode, template: &Pod, pods: usize, parallel: usize) -> Result<cri::floor::Floor> {
    let client = cri::CriClient::connect(node.containerd_socket()?);
    let resources = ResourceContext {
        memory_capacity: 8 << 30,
        cfs_quota: true,
        cfs_period: 100_000,
        memory: MemoryControl::default(),
        hugepages: Default::default(),
    };
    let mut template = template.clone();
    template.metadata.uid = Some(format!("floor-{pods}-{parallel}"));
    template.metadata.name = Some("floor".to_owned());
    let context = SandboxContext {
        attempt: 0,
        // As `ClusterFirst` makes it on a node without a resolver of its own.
        dns: cri::types::DnsConfig {
            servers: vec!["10.43.0.10".to_owned()],
            searches: ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(str::to_owned).to_vec(),
            options: vec!["ndots:5".to_owned()],
        },
        cluster_domain: "cluster.local",
        pod_logs: Path::new("/var/log/pods"),
        cgroup_parent: format!("/{FLOOR_CGROUP}"),
        limits: pod_cgroup_limits(&template, &resources, None),
    };
    let mut sandbox = sandbox_config(&template, &context)?;
    let spec = template.spec.as_ref().context("no spec")?;
    let context = ContainerContext {
        image_ref: cri::images::DEMO.to_owned(),
        image_user: Default::default(),
        restart_count: 0,
        env: &Default::default(),
        // Stand for /etc/hosts and the termination log.
        mounts: ["/etc/hosts", "/dev/termination-log"].map(mount_of_a_file).to_vec(),
        resources,
        seccomp: Default::default(),
        target: None,
    };
    let mut container = container_config(&template, &spec.containers[0], context)?;
    // Directories of logs are the agent's work; the runtime wants one that exists.
    sandbox.log_directory = "/run".to_owned();
    container.log_path = "floor.log".to_owned();
    // By these labels the agent would take them for pods that were deleted, and end them.
    sandbox.labels.clear();
    container.labels.clear();
    let measured = cri::floor::measure(&client, &sandbox, &container, pods, parallel).await;
    remove_floor_cgroup();
    Ok(measured?)
}

/// The agent removes its pods' cgroups; nobody but us does it for the floor.
fn remove_floor_cgroup() {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        // One that is not mounted, or shown under two names, has none.
        let _ = std::fs::remove_dir(hierarchy.join(FLOOR_CGROUP));
    }
}

fn mount_of_a_file(path: &str) -> cri::types::Mount {
    let (container_path, host_path) = (path.to_owned(), "/etc/hosts".to_owned());
    cri::types::Mount { container_path, host_path, readonly: true, ..Default::default() }
}

fn pod(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"bench": "yes"}},
        "spec": {"terminationGracePeriodSeconds": 5, "automountServiceAccountToken": false, "containers": [
            {"name": "demo", "image": cri::images::DEMO, "imagePullPolicy": "IfNotPresent"}]},
    }))?)
}

fn pod_on(node: Option<&str>, name: &str) -> Result<Pod> {
    let mut pod = pod(name)?;
    pod.spec.as_mut().context("no spec")?.node_name = node.map(str::to_owned);
    Ok(pod)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Creates a pod and waits for a watch to tell that it is Ready.
async fn start_one(pods: &Api<Pod>, name: &str) -> Result<Duration> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(pods.clone(), config).applied_objects());
    let started = Instant::now();
    pods.create(&PostParams::default(), &pod(name)?).await?;
    while let Some(pod) = events.try_next().await? {
        if is_ready(&pod) {
            return Ok(started.elapsed());
        }
    }
    anyhow::bail!("the watch ended")
}

/// Deletes a pod and waits until a watch tells that it is gone.
async fn remove(pods: &Api<Pod>, name: &str) -> Result<Duration> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(pods.clone(), config));
    while !matches!(events.try_next().await?, Some(watcher::Event::InitDone) | None) {}
    let started = Instant::now();
    pods.delete(name, &DeleteParams::default()).await?;
    while let Some(event) = events.try_next().await? {
        if matches!(event, watcher::Event::Delete(_)) {
            return Ok(started.elapsed());
        }
    }
    anyhow::bail!("the watch ended")
}

/// On `node`, or wherever the scheduler puts them.
async fn start_together(pods: &Api<Pod>, count: usize, node: Option<&str>) -> Result<Duration> {
    let config = watcher::Config::default().labels("bench=yes");
    let mut events = std::pin::pin!(watcher(pods.clone(), config).applied_objects());
    let started = Instant::now();
    let create = |index: usize| async move {
        pods.create(&PostParams::default(), &pod_on(node, &format!("together-{count}-{index}"))?).await?;
        anyhow::Ok(())
    };
    futures::future::try_join_all((0..count).map(create)).await?;
    let mut ready = std::collections::BTreeSet::new();
    while let Some(pod) = events.try_next().await? {
        if is_ready(&pod) {
            ready.extend(pod.metadata.name);
        }
        if ready.len() == count {
            return Ok(started.elapsed());
        }
    }
    anyhow::bail!("the watch ended")
}

async fn remove_all(pods: &Api<Pod>) -> Result<()> {
    let names = pods.list(&Default::default()).await?.items.into_iter().filter_map(|pod| pod.metadata.name);
    let names: Vec<_> = names.collect();
    futures::future::try_join_all(names.iter().map(|name| remove(pods, name))).await?;
    Ok(())
}

/// Kills copepod and times its return: containerd runs on, so this is a warm start. What a node still removes takes its
/// part.
async fn restart(node: &BenchNode, when: &str) -> Result<()> {
    let old = node.copepod_pid(0)?;
    let client = node.client().await?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL)?;
    let started = Instant::now();
    let deadline = started + Duration::from_secs(60);
    let pods: Api<Pod> = Api::default_namespaced(client);
    let name = format!("after-{old}");
    // The API answers, and a pod made through it runs.
    while let Err(error) = pods.create(&PostParams::default(), &pod(&name)?).await {
        ensure!(Instant::now() < deadline, "the API did not come back: {error}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let api = started.elapsed();
    loop {
        if pods.get(&name).await.is_ok_and(|pod| is_ready(&pod)) {
            break;
        }
        ensure!(Instant::now() < deadline, "no pod runs after the restart");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("kill -9 {when}: first write accepted   {:>9.1} ms", millis(api));
    println!("kill -9 {when}: first new pod Ready    {:>9.1} ms", millis(started.elapsed()));
    remove(&pods, &name).await.map(drop)
}

/// A node without a control plane: the agent and the service proxy.
fn worker_at_rest(node: &BenchNode) -> Result<()> {
    report_idle(node.copepod_pid(1)?, "agent, idle")?;
    let name = node.state()?["nodes"][1]["name"].as_str().context("no name")?.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let pods: Api<Pod> = Api::default_namespaced(node.client().await?);
        start_together(&pods, RESIDENT_ON_WORKER, Some(&name)).await.map(drop)
    })?;
    report_idle(node.copepod_pid(1)?, &format!("agent, with {RESIDENT_ON_WORKER} pods"))
}

/// Resident memory of a copepod process, what of it is not the program's file, and its CPU share.
fn report_idle(pid: i32, when: &str) -> Result<()> {
    let before = cpu_ticks(pid)?;
    std::thread::sleep(IDLE);
    let ticks = cpu_ticks(pid)? - before;
    let share = ticks as f64 / ticks_per_second() / IDLE.as_secs_f64() * 100.0;
    let label = format!("copepod {when}");
    let (rss, anonymous) = (memory(pid, "VmRSS:")?, memory(pid, "RssAnon:")?);
    println!("{label:<37} {rss:>9.1} MiB RSS, {anonymous:.1} of it anonymous   {share:.2} % of a core");
    Ok(())
}

/// A line of /proc/PID/status, in MiB.
fn memory(pid: i32, line: &str) -> Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let value = status.lines().find_map(|l| l.strip_prefix(line)).context("no such line of memory")?;
    let kib: f64 = value.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

fn cpu_ticks(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat[stat.rfind(')').context("no command")? + 1..].split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// The unit of /proc/PID/stat: fixed by Linux's user interface.
fn ticks_per_second() -> f64 {
    100.0
}
