//! Agents one after the other on one runtime.

use std::path::{Path, PathBuf};

use agent::app::{self, Inputs};
use agent::config::{AgentConfig, Authorization, CgroupDriver, apply_kubelet_configuration};
use anyhow::{Context, Result, bail};
use cri::RuntimeService;
use cri::types::{ContainerFilter, ContainerState, ContainerStatus, SandboxFilter};
use harness::time;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::suite::{Runtime, World};

struct Running {
    token: CancellationToken,
    task: JoinHandle<Result<()>>,
}

pub struct OneNode {
    pub runtime: Runtime,
    pub cgroup: String,
    agent: Option<Running>,
}

pub const NODE: &str = "n1";

impl World for OneNode {
    const NAME: &str = "node";

    async fn start(runtime: Runtime, cgroup: &str) -> Result<Self> {
        std::fs::create_dir_all(runtime.directory.path().join("pods"))?;
        let mut world = Self { runtime, cgroup: cgroup.to_owned(), agent: None };
        world.start_agent().await?;
        Ok(world)
    }

    async fn end(mut self) -> Result<Runtime> {
        self.stop_agent().await?;
        Ok(self.runtime)
    }
}

impl OneNode {
    pub fn directory(&self) -> &Path {
        self.runtime.directory.path()
    }

    pub fn root(&self) -> PathBuf {
        self.directory().join("data/kubelet")
    }

    pub async fn start_agent(&mut self) -> Result<()> {
        self.start_agent_with(None, "").await
    }

    /// Starts it as a node of that API server, with a `KubeletConfiguration` of
    /// these fields.
    pub async fn start_agent_with(&mut self, client: Option<kube::Client>, fields: &str) -> Result<()> {
        let mut config = AgentConfig::new(NODE, self.directory().join("data"));
        config.paths.pod_logs = self.directory().join("logs");
        config.static_pods.directory = Some(self.directory().join("pods"));
        config.cgroups.root.clone_from(&self.cgroup);
        config.cgroups.driver = Some(CgroupDriver::Cgroupfs);
        config.server.address = "127.0.0.1".parse()?;
        config.server.port = 0;
        config.server.authorization = Authorization::AlwaysAllow;
        config.server.webhook_authentication = false;
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        apply_kubelet_configuration(&mut config, &format!("{head}{fields}"))?;
        let inputs =
            Inputs { config, client, runtime: self.runtime.client.clone(), images: self.runtime.client.clone() };
        let (ready, mut is_ready) = watch::channel(false);
        let token = CancellationToken::new();
        let task = tokio::spawn(app::run(inputs, ready, token.clone()));
        time::within("the agent's readiness", is_ready.wait_for(|r| *r)).await??;
        self.agent = Some(Running { token, task });
        Ok(())
    }

    pub async fn stop_agent(&mut self) -> Result<()> {
        if let Some(running) = self.agent.take() {
            running.token.cancel();
            time::within("the agent's end", running.task).await???;
        }
        Ok(())
    }

    /// Writes a static pod: `spec` is YAML below `spec:`.
    pub fn write(&self, name: &str, spec: &str) -> Result<()> {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n{spec}");
        let path = self.file(name);
        let temporary = self.directory().join("new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(temporary, path)?;
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory().join("pods").join(format!("{name}.yaml"))
    }

    /// Takes a static pod away and waits until it is gone.
    pub async fn remove(&self, name: &str) -> Result<()> {
        std::fs::remove_file(self.file(name))?;
        let pod = format!("{name}-{NODE}");
        self.until("the pod is gone", async || {
            let boxes = self.runtime.client.list_pod_sandboxes(&SandboxFilter::default()).await?;
            Ok(!boxes.iter().any(|s| s.metadata.name == pod))
        })
        .await
    }

    /// Containers of that name, newest first.
    pub async fn containers(&self, name: &str) -> Result<Vec<ContainerStatus>> {
        let mut out = Vec::new();
        for c in self.runtime.client.list_containers(&ContainerFilter::default()).await? {
            if c.metadata.name == name {
                match self.runtime.client.container_status(&c.id).await {
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
        time::eventually(&format!("{name} runs"), async || {
            let all = self.containers(name).await?;
            let is = |c: &&ContainerStatus| c.state == ContainerState::Running && Some(&c.id) != not;
            all.iter().find(is).cloned().with_context(|| format!("there are {all:?}"))
        })
        .await
    }

    pub async fn exec(&self, container: &ContainerStatus, command: &[&str]) -> Result<String> {
        let command: Vec<String> = command.iter().map(|&c| c.to_owned()).collect();
        let output = self.runtime.client.exec_sync(&container.id, &command, time::limit()).await?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.exit_code != 0 {
            bail!("{command:?} exited with {}: {text}", output.exit_code);
        }
        Ok(text)
    }

    /// Waits until `done` says so.
    pub async fn until(&self, what: &str, done: impl AsyncFn() -> Result<bool>) -> Result<()> {
        time::eventually(what, async || if done().await? { Ok(()) } else { bail!("it does not hold") }).await
    }

    /// The files of the cgroup of all pods that are there; `{}` is its path.
    pub fn all_pods(&self, files: &[&str]) -> Vec<String> {
        let kubepods = format!("{}/kubepods", self.cgroup.trim_matches('/'));
        let path = |file: &&str| Path::new("/sys/fs/cgroup").join(file.replace("{}", &kubepods));
        files.iter().filter_map(|f| std::fs::read_to_string(path(f)).ok()).map(|t| t.trim().to_owned()).collect()
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
}
