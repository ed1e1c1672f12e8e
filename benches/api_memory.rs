//! What the control plane's process keeps in memory for its clients: idle, with
//! objects, and with watches, each on a connection of its own as nodes have them.
//!
//! `cargo bench --bench api_memory`; a control plane on loopback, ended at the end.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{PostParams, WatchParams};
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::json;

const OBJECTS: usize = 20_000;
/// Data of each object, so that it is 1 KB with its metadata.
const DATA: usize = 800;
const WATCHES: usize = 1_000;
const CLIENTS: usize = 64;
/// Until memory is read: by then what the last work left is given back.
const REST: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    // `cargo bench` passes flags of its own; `cargo test` asks not to measure.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

/// A control plane on a free port of loopback.
struct Server {
    process: Child,
    data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Our own child; it may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Result<Self> {
        let data = tempfile::Builder::new().prefix("copepod-bench-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_copepod"));
        command.args(["server", "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"]);
        command.args(["--secure-port", &port.to_string()]);
        command.arg("--data-dir").arg(data.path()).arg("--run-dir").arg(data.path().join("run"));
        let process = command.stderr(Stdio::null()).spawn().context("start copepod server")?;
        Ok(Self { process, data })
    }

    async fn kubeconfig(&self) -> Result<Kubeconfig> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            ensure!(Instant::now() < deadline, "the control plane does not answer");
            if let Ok(config) = Kubeconfig::read_from(self.data.path().join("admin.kubeconfig"))
                && client(&config).await?.apiserver_version().await.is_ok()
            {
                return Ok(config);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Says what is resident once the process has come to rest.
    async fn report(&self, with: &str) -> Result<()> {
        tokio::time::sleep(REST).await;
        let status = fs::read_to_string(Path::new("/proc").join(self.process.id().to_string()).join("status"))?;
        let mib = |line: &str| -> Result<f64> {
            let value = status.lines().find_map(|l| l.strip_prefix(line)).context("no such line of memory")?;
            Ok(value.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        let label = format!("copepod server {with}");
        println!("{label:<60} {:>6.1} MiB RSS, {:.1} of it anonymous", mib("VmRSS:")?, mib("RssAnon:")?);
        Ok(())
    }
}

/// A client with connections of its own.
async fn client(config: &Kubeconfig) -> Result<Client> {
    let config = kube::Config::from_custom_kubeconfig(config.clone(), &Default::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn measure() -> Result<()> {
    let server = Server::start()?;
    let config = server.kubeconfig().await?;
    server.report("idle").await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&config).await?);
    let made = futures::stream::iter(0..OBJECTS).map(|index| create(&maps, index)).buffer_unordered(CLIENTS);
    made.try_collect::<()>().await?;
    server.report(&format!("with {OBJECTS} objects of 1 KB")).await?;
    let last = maps.get(&name(OBJECTS - 1)).await?;
    let version = last.metadata.resource_version.context("no version")?;
    let watches = futures::stream::iter(0..WATCHES).map(|index| watch(&config, index, &version)).buffered(8);
    let watches: Vec<_> = watches.try_collect().await?;
    server.report(&format!("with them and {} watches", watches.len())).await
}

fn name(index: usize) -> String {
    format!("object-{index}")
}

async fn create(maps: &Api<ConfigMap>, index: usize) -> Result<()> {
    let map = serde_json::from_value(json!({"metadata": {"name": name(index)}, "data": {"k": "x".repeat(DATA)}}))?;
    maps.create(&PostParams::default(), &map).await?;
    Ok(())
}

/// A watch of one object, begun and held.
async fn watch(config: &Kubeconfig, index: usize, version: &str) -> Result<impl Sized + use<>> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client(config).await?);
    let one = WatchParams::default().fields(&format!("metadata.name={}", name(index)));
    Ok(maps.watch(&one, version).await?.boxed())
}
