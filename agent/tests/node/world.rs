//! A private containerd, and agents on it one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::app::{self, Inputs};
use agent::config::{AgentConfig, Authorization, CgroupDriver};
use anyhow::{Context, Result, bail};
use cri::containerd::{Containerd, Keep, Options, Shutdown, purge};
use cri::types::{ContainerFilter, ContainerState, ContainerStatus, SandboxFilter};
use cri::{CriClient, RuntimeService, images};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Running {
    token: CancellationToken,
    task: JoinHandle<Result<()>>,
}

pub struct World {
    pub client: Arc<CriClient>,
    pub directory: tempfile::TempDir,
    pub cgroup: String,
    options: Options,
    containerd: Containerd,
    agent: Option<Running>,
}

pub const NODE: &str = "n1";

impl World {
    pub async fn start(cgroup: &str) -> Result<Self> {
        // Short, since sockets' paths must be.
        let directory = tempfile::Builder::new().prefix("node").tempdir()?;
        let options = Options::new(&directory.path().join("data"), &directory.path().join("run"));
        let containerd = Containerd::start(options.clone(), CancellationToken::new()).await?;
        let client: CriClient = containerd.client();
        images::import_builtin(&client).await.context("import the built-in images")?;
        std::fs::create_dir_all(directory.path().join("pods"))?;
        let cgroup = cgroup.to_owned();
        let mut world = Self { client: Arc::new(client), directory, cgroup, options, containerd, agent: None };
        world.start_agent().await?;
        Ok(world)
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("data/kubelet")
    }

    pub async fn start_agent(&mut self) -> Result<()> {
        let mut config = AgentConfig::new(NODE, self.directory.path().join("data"));
        config.paths.pod_logs = self.directory.path().join("logs");
        config.static_pods.directory = Some(self.directory.path().join("pods"));
        config.cgroups.root.clone_from(&self.cgroup);
        config.cgroups.driver = Some(CgroupDriver::Cgroupfs);
        config.server.address = "127.0.0.1".parse()?;
        config.server.port = 0;
        config.server.authorization = Authorization::AlwaysAllow;
        config.server.webhook_authentication = false;
        let inputs = Inputs { config, client: None, runtime: self.client.clone(), images: self.client.clone() };
        let (ready, mut is_ready) = watch::channel(false);
        let token = CancellationToken::new();
        let task = tokio::spawn(app::run(inputs, ready, token.clone()));
        tokio::time::timeout(Duration::from_secs(30), is_ready.wait_for(|r| *r))
            .await
            .context("the agent gets ready")??;
        self.agent = Some(Running { token, task });
        Ok(())
    }

    pub async fn stop_agent(&mut self) -> Result<()> {
        if let Some(running) = self.agent.take() {
            running.token.cancel();
            tokio::time::timeout(Duration::from_secs(20), running.task).await.context("the agent ends")???;
        }
        Ok(())
    }

    /// Writes a static pod: `spec` is YAML below `spec:`.
    pub fn write(&self, name: &str, spec: &str) -> Result<()> {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n{spec}");
        let path = self.file(name);
        let temporary = self.directory.path().join("new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(temporary, path)?;
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("pods").join(format!("{name}.yaml"))
    }

    /// Takes a static pod away and waits until it is gone.
    pub async fn remove(&self, name: &str) -> Result<()> {
        std::fs::remove_file(self.file(name))?;
        let pod = format!("{name}-{NODE}");
        self.until("the pod is gone", async || {
            let boxes = self.client.list_pod_sandboxes(&SandboxFilter::default()).await?;
            Ok(!boxes.iter().any(|s| s.metadata.name == pod))
        })
        .await
    }

    /// Containers of that name, newest first.
    pub async fn containers(&self, name: &str) -> Result<Vec<ContainerStatus>> {
        let mut out = Vec::new();
        for c in self.client.list_containers(&ContainerFilter::default()).await? {
            if c.metadata.name == name {
                match self.client.container_status(&c.id).await {
                    Ok(status) => out.push(status),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        out.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        Ok(out)
    }

    /// The running container of that name, once there is one other than `not`.
    pub async fn running(&self, name: &str, not: Option<&cri::ContainerId>) -> Result<ContainerStatus> {
        let found = std::cell::RefCell::new(None);
        self.until(&format!("{name} runs"), async || {
            let all = self.containers(name).await?;
            let running = all.into_iter().find(|c| c.state == ContainerState::Running && Some(&c.id) != not);
            *found.borrow_mut() = running;
            Ok(found.borrow().is_some())
        })
        .await?;
        found.into_inner().context("it runs")
    }

    pub async fn exec(&self, container: &ContainerStatus, command: &[&str]) -> Result<String> {
        let command: Vec<String> = command.iter().map(|&c| c.to_owned()).collect();
        let output = self.client.exec_sync(&container.id, &command, Duration::from_secs(10)).await?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.exit_code != 0 {
            bail!("{command:?} exited with {}: {text}", output.exit_code);
        }
        Ok(text)
    }

    /// Waits until `done` says so.
    pub async fn until(&self, what: &str, done: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let wait = async {
            while !done().await? {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        match tokio::time::timeout(Duration::from_secs(40), wait).await {
            Ok(result) => result,
            Err(_) => bail!("{what}: not in time"),
        }
    }

    /// Directories of a pod's cgroup, in every hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut out = Vec::new();
        let base = Path::new("/sys/fs/cgroup");
        let roots = std::fs::read_dir(base).into_iter().flatten().flatten().map(|e| e.path());
        for root in roots.chain([base.to_owned()]) {
            for class in ["", "burstable", "besteffort"] {
                let tree = root.join(self.cgroup.trim_start_matches('/')).join("kubepods").join(class);
                let entries = std::fs::read_dir(tree).into_iter().flatten().flatten().map(|e| e.path());
                out.extend(entries.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("pod"))));
            }
        }
        out
    }

    pub async fn end(mut self) -> Result<()> {
        self.stop_agent().await?;
        self.containerd.shutdown(Shutdown::LeaveRunning).await?;
        purge(&self.options, Keep::Nothing).await?;
        Ok(())
    }
}
