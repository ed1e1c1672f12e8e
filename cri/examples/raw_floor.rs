//! Prints how long pods take by raw CRI calls.
//!
//! usage: raw_floor SOCKET|DIRECTORY [PODS [PARALLEL [RUNTIME]]]
//!
//! A directory gets a containerd of its own for the time of the measurement,
//! with the OCI runtime of that name or path, and with the containerd that
//! CONTAINERD names.
//! The pods use the node's network, so that no CNI plugin is measured.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cri::containerd::{Containerd, Keep, OciRuntime, Options, Shutdown, purge};
use cri::floor::{self, PodTimes};
use cri::types::{ContainerConfig, ContainerMetadata, NamespaceMode, SandboxConfig, SandboxMetadata};
use cri::{CriClient, images};
use tokio_util::sync::CancellationToken;

type Column = fn(&PodTimes) -> std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let at = PathBuf::from(args.next().ok_or("usage: raw_floor SOCKET|DIRECTORY [PODS [PARALLEL [RUNTIME]]]")?);
    let pods = args.next().map_or(Ok(20), |n| n.parse())?;
    let parallel = args.next().map_or(Ok(1), |n| n.parse())?;
    if !at.is_dir() {
        return measure(&CriClient::connect(at), pods, parallel).await;
    }
    let mut options = Options::new(&at.join("data"), &at.join("run"));
    options.containerd = env::var_os("CONTAINERD").map(PathBuf::from);
    options.oci_runtime = args.next().map_or(OciRuntime::Runc, OciRuntime::Program);
    let begin = Instant::now();
    let containerd = Containerd::start(options.clone(), CancellationToken::new()).await?;
    let started = begin.elapsed();
    images::import_builtin(&containerd.client()).await?;
    println!("containerd ready after {started:.0?}, images after {:.0?}", begin.elapsed());
    let measured = measure(&containerd.client(), pods, parallel).await;
    println!("containerd's memory, VmRSS of status: {}", memory(containerd.pid())?);
    containerd.shutdown(Shutdown::LeaveRunning).await?;
    purge(&options, Keep::Nothing).await?;
    measured
}

/// The cgroup that the pods live under.
const CGROUP: &str = "copepod-raw-floor";

/// Containers' cgroups go with them; their parent stays, in each hierarchy.
fn remove_cgroups() {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let _ = std::fs::remove_dir(hierarchy.join(CGROUP));
    }
}

fn memory(pid: u32) -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("unknown").trim().to_owned())
}

async fn measure(client: &CriClient, pods: usize, parallel: usize) -> Result<(), Box<dyn Error>> {
    images::import_builtin(client).await?;
    let mut sandbox = SandboxConfig {
        metadata: SandboxMetadata { name: "floor".into(), uid: "floor".into(), namespace: "floor".into(), attempt: 0 },
        ..Default::default()
    };
    sandbox.cgroup_parent = format!("/{CGROUP}");
    sandbox.security.namespaces.network = NamespaceMode::Node;
    let mut container = ContainerConfig {
        metadata: ContainerMetadata { name: "main".to_owned(), attempt: 0 },
        image: images::DEMO.to_owned(),
        args: ["serve", "--http", "off", "--tcp", "off", "--udp", "off"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    container.security.namespaces.network = NamespaceMode::Node;
    let measured = floor::measure(client, &sandbox, &container, pods, parallel).await;
    remove_cgroups();
    let floor = measured?;
    let lines: &[(&str, Column)] = &[
        ("RunPodSandbox", |p| p.run_pod_sandbox),
        ("CreateContainer", |p| p.create_container),
        ("StartContainer", |p| p.start_container),
        ("start, together", PodTimes::start),
        ("StopContainer", |p| p.stop_container),
        ("RemoveContainer", |p| p.remove_container),
        ("StopPodSandbox", |p| p.stop_pod_sandbox),
        ("RemovePodSandbox", |p| p.remove_pod_sandbox),
        ("delete, together", PodTimes::delete),
    ];
    for (name, of) in lines {
        println!("{name:18} p50 {:7.1?}  p99 {:7.1?}", floor.median(of), floor.percentile(99, of));
    }
    println!("{pods} pods, {parallel} at a time, all started: {:.2?}", floor.all_started);
    Ok(())
}
