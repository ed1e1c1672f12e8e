//! A suite on a real containerd: the runtime it has for itself, and running its
//! tests one after the other, in namespaces of its own.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use cri::containerd::{Containerd, Keep, Options, Shutdown, purge};
use cri::{CriClient, images};
use futures::future::LocalBoxFuture;
use harness::suite::{self, Report};
use tokio_util::sync::CancellationToken;

/// A test by its name.
pub type Test<W> = (&'static str, for<'a> fn(&'a mut W) -> LocalBoxFuture<'a, Result<()>>);

/// What a suite's tests share.
pub trait World: Sized {
    /// Also the prefix of its directory: short, since sockets' paths must be.
    const NAME: &str;

    /// Builds it; pods live below `cgroup`.
    async fn start(runtime: Runtime, cgroup: &str) -> Result<Self>;

    /// Ends what it started and gives the runtime back.
    async fn end(self) -> Result<Runtime>;
}

/// Runs the tests that the command line names, all if it names none.
pub fn run<W: World>(tests: &[Test<W>]) -> ExitCode {
    suite::run(W::NAME, |cgroup| inside(tests, cgroup))
}

#[tokio::main]
async fn inside<W: World>(tests: &[Test<W>], cgroup: &str) -> Result<bool> {
    // AGENT_TEST_LOG is a filter as RUST_LOG is.
    if std::env::var_os("AGENT_TEST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::try_from_env("AGENT_TEST_LOG")?;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let mut report = Report::of_arguments();
    let mut world = W::start(Runtime::start(W::NAME).await?, cgroup).await?;
    for (name, test) in tests {
        if report.wants(name) {
            report.run(name, test(&mut world), String::new).await;
        }
    }
    world.end().await?.end().await?;
    report.conclude(W::NAME)
}

/// A private containerd with the built-in images.
pub struct Runtime {
    pub client: Arc<CriClient>,
    pub directory: tempfile::TempDir,
    options: Options,
    containerd: Containerd,
}

impl Runtime {
    async fn start(name: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(name).tempdir()?;
        let options = Options::new(&directory.path().join("data"), &directory.path().join("run"));
        let containerd = Containerd::start(options.clone(), CancellationToken::new()).await?;
        let client = Arc::new(containerd.client());
        images::import_builtin(&client).await.context("import the built-in images")?;
        Ok(Self { client, directory, options, containerd })
    }

    async fn end(self) -> Result<()> {
        self.containerd.shutdown(Shutdown::LeaveRunning).await?;
        purge(&self.options, Keep::Nothing).await?;
        Ok(())
    }
}
