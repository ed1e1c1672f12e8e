//! What the suite runs on: the fake, or a real containerd of some release.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cri::containerd::{Containerd, Keep, Options, Shutdown, purge};
use cri::fake::{Behavior, FakeRuntime};
use cri::types::{
    ContainerConfig, ContainerMetadata, ExecOutput, NamespaceMode, NamespaceOptions, SandboxConfig, SandboxMetadata,
};
use cri::{ContainerId, CriClient, CriError, ImageService, RuntimeService, SandboxId, images};
use harness::time;
use tokio_util::sync::CancellationToken;

/// A runtime under test.
pub struct Subject {
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
    pub real: Option<Real>,
    fake: Option<Arc<FakeRuntime>>,
    cgroup: String,
    directory: tempfile::TempDir,
}

/// What only a real runtime has.
pub struct Real {
    pub client: CriClient,
    pub options: Options,
    pub containerd: Containerd,
}

/// The runtime handler beside the default one.
pub const HANDLER: &str = "second";

/// What a container is to do.
#[derive(Clone, Copy)]
pub enum Does {
    Runs,
    IgnoresStopSignal,
    ExitsWith(i32),
}

impl Subject {
    pub fn fake() -> Result<Self> {
        let fake = FakeRuntime::new();
        fake.add_image(images::DEMO);
        fake.add_image(images::PAUSE);
        fake.add_handler(HANDLER);
        fake.on_exec(pretend);
        Ok(Self {
            runtime: fake.clone(),
            images: fake.clone(),
            real: None,
            fake: Some(fake),
            cgroup: String::new(),
            directory: tempfile::tempdir()?,
        })
    }

    /// containerd at `program`, with a directory that only it uses.
    pub async fn real(program: &Path, cgroup: &str) -> Result<Self> {
        // Short, since sockets' paths must be.
        let directory = tempfile::Builder::new().prefix("cri").tempdir()?;
        let second = second_runtime(directory.path())?;
        let options = Options {
            containerd: Some(program.to_owned()),
            handlers: [(HANDLER.to_owned(), second)].into(),
            ..Options::new(&directory.path().join("data"), &directory.path().join("run"))
        };
        let containerd = match Containerd::start(options.clone(), CancellationToken::new()).await {
            Ok(containerd) => containerd,
            Err(error) => {
                // The directory goes, so its log has to be told here.
                eprintln!("{}", std::fs::read_to_string(options.log_file()).unwrap_or_default());
                return Err(error.into());
            }
        };
        let client = containerd.client();
        images::import_builtin(&client).await.context("import the built-in images")?;
        Ok(Self {
            runtime: Arc::new(client.clone()),
            images: Arc::new(client.clone()),
            real: Some(Real { client, options, containerd }),
            fake: None,
            cgroup: cgroup.to_owned(),
            directory,
        })
    }

    /// Ends it and checks that nothing of it is left.
    pub async fn end(self) -> Result<()> {
        let Some(real) = self.real else { return Ok(()) };
        real.containerd.shutdown(Shutdown::LeaveRunning).await?;
        purge(&real.options, Keep::Nothing).await?;
        nothing_left(self.directory.path())?;
        for directory in [&real.options.state, &real.options.root] {
            if directory.exists() {
                bail!("{} is left", directory.display());
            }
        }
        Ok(())
    }

    /// The last complaints of a real runtime, for the failures they explain.
    pub fn complaints(&self) -> String {
        let log = self.real.as_ref().map(|r| std::fs::read_to_string(r.options.log_file()).unwrap_or_default());
        let log = log.unwrap_or_default();
        let lines = log.lines().filter(|l| l.contains("level=error") || l.contains("level=warning"));
        let lines: Vec<_> = lines.map(|l| format!("\n    {l}")).collect();
        lines[lines.len().saturating_sub(5)..].concat()
    }

    /// Whether the second runtime created a container; the fake has no programs.
    /// containerd 2 asks every runtime for its features before that.
    pub fn second_was_used(&self) -> bool {
        let calls = std::fs::read_to_string(self.directory.path().join("second.calls")).unwrap_or_default();
        self.is_fake() || calls.contains(" create ")
    }

    pub fn is_fake(&self) -> bool {
        self.fake.is_some()
    }

    pub fn log_directory(&self, pod: &str) -> PathBuf {
        self.directory.path().join("logs").join(pod)
    }

    /// A pod in the node's network: the suite is not about CNI.
    pub fn sandbox(&self, name: &str) -> SandboxConfig {
        let logs = self.log_directory(name);
        std::fs::create_dir_all(&logs).expect("the suite's directory can be written");
        let mut config = SandboxConfig {
            metadata: SandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "contract".to_owned(),
                attempt: 0,
            },
            log_directory: logs.display().to_string(),
            cgroup_parent: format!("{}/{name}", self.cgroup),
            labels: [("app".to_owned(), name.to_owned())].into(),
            annotations: [("note".to_owned(), "kept".to_owned())].into(),
            ..Default::default()
        };
        config.security.namespaces = NamespaceOptions { network: NamespaceMode::Node, ..NamespaceOptions::default() };
        config
    }

    /// A container of the demo image.
    pub fn container(&self, name: &str, does: Does) -> ContainerConfig {
        let args: Vec<String> = match does {
            // No ports: pods of one run share their network.
            Does::Runs => ["serve", "--http", "off", "--tcp", "off", "--udp", "off"].map(str::to_owned).to_vec(),
            // As process 1 it gets no signal that it does not ask for.
            Does::IgnoresStopSignal => vec!["log".to_owned(), "--repeat=2".to_owned(), "--interval=600000".to_owned()],
            Does::ExitsWith(code) => vec!["exit".to_owned(), code.to_string(), "bye".to_owned()],
        };
        if let Some(fake) = &self.fake {
            fake.set_behavior(
                name,
                match does {
                    Does::Runs => Behavior::Runs,
                    Does::IgnoresStopSignal => Behavior::IgnoresStopSignal,
                    Does::ExitsWith(code) => Behavior::ExitsWith(code),
                },
            );
        }
        let mut config = ContainerConfig {
            metadata: ContainerMetadata { name: name.to_owned(), attempt: 0 },
            image: images::DEMO.to_owned(),
            args,
            log_path: format!("{name}.log"),
            labels: [("app".to_owned(), name.to_owned())].into(),
            annotations: [("note".to_owned(), "kept".to_owned())].into(),
            ..Default::default()
        };
        config.security.namespaces = self.sandbox_namespaces();
        config
    }

    fn sandbox_namespaces(&self) -> NamespaceOptions {
        NamespaceOptions { network: NamespaceMode::Node, ..NamespaceOptions::default() }
    }

    /// A running pod of one container, which is called like the pod.
    pub async fn pod(&self, name: &str, does: Does) -> Result<Pod> {
        let config = self.sandbox(name);
        let sandbox = self.runtime.run_pod_sandbox(&config, "").await?;
        let container = self.runtime.create_container(&sandbox, &self.container(name, does), &config).await?;
        self.runtime.start_container(&container).await?;
        if matches!(does, Does::Runs) {
            self.serves(name, name).await?;
        }
        Ok(Pod { sandbox, container })
    }

    /// Waits until the program of a container that [`Does::Runs`] does what it is for. A started container may still be
    /// the OCI runtime's own program, which a signal ends in its way, and one that comes a little later is lost.
    pub async fn serves(&self, pod: &str, container: &str) -> Result<()> {
        if self.is_fake() {
            return Ok(());
        }
        let log = self.log_directory(pod).join(format!("{container}.log"));
        let says = async || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("serves"));
        time::eventually_true("the program serves", says).await
    }

    /// Stops and removes a pod.
    pub async fn remove(&self, pod: &Pod) -> Result<()> {
        self.runtime.stop_container(&pod.container, Duration::ZERO).await?;
        self.runtime.stop_pod_sandbox(&pod.sandbox).await?;
        self.runtime.remove_pod_sandbox(&pod.sandbox).await?;
        Ok(())
    }
}

/// A runtime that notes its calls in a file beside it and is runc otherwise.
fn second_runtime(directory: &Path) -> Result<String> {
    let program = directory.join("second");
    std::fs::write(&program, "#!/bin/sh\necho \"$@\" >> \"$0.calls\"\nexec runc \"$@\"\n")?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(program.display().to_string())
}

/// No mount and no process may name this directory.
pub fn nothing_left(directory: &Path) -> Result<()> {
    let ours = directory.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    if let Some(line) = mounts.lines().find(|l| l.contains(&ours)) {
        bail!("a mount is left: {line}");
    }
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&ours) {
            bail!("a process is left: {line}");
        }
    }
    Ok(())
}

pub struct Pod {
    pub sandbox: SandboxId,
    pub container: ContainerId,
}

/// The demo image's tools, as far as the suite calls them on the fake.
fn pretend(id: &ContainerId, command: &[String]) -> Result<ExecOutput, CriError> {
    let words: Vec<_> = command.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo", rest @ ..] => {
            Ok(ExecOutput { stdout: format!("{}\n", rest.join(" ")).into_bytes(), ..Default::default() })
        }
        ["exit", code, ..] => Ok(ExecOutput { exit_code: code.parse().unwrap_or(0), ..Default::default() }),
        ["sleep", _] => {
            Err(CriError::DeadlineExceeded { op: "ExecSync", object: id.to_string(), deadline: Duration::from_secs(1) })
        }
        _ => Err(CriError::Runtime { op: "ExecSync", object: id.to_string(), message: "no such program".to_owned() }),
    }
}
