//! A suite on a real containerd: the isolated process, the runtime it has for
//! itself, and running its tests one after the other.

#[path = "../../../cri/tests/contract/isolate.rs"]
mod isolate;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use cri::containerd::{Containerd, Keep, Options, Shutdown, purge};
use cri::{CriClient, images};
use futures::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;

/// A test by its name.
pub type Test<W> = (&'static str, for<'a> fn(&'a mut W) -> LocalBoxFuture<'a, Result<()>>);

/// Tests of `$module`, in the order they run.
macro_rules! tests {
    ($module:ident: $($name:ident)*) => { &[$((stringify!($name), |w| Box::pin($module::$name(w))),)*] };
}
pub(crate) use tests;

/// What a suite's tests share.
pub trait World: Sized {
    /// Also the prefix of its directory: short, since sockets' paths must be.
    const NAME: &str;
    /// No test may hang the run.
    const LIMIT: Duration;

    /// Builds it; pods live below `cgroup`.
    async fn start(runtime: Runtime, cgroup: &str) -> Result<Self>;

    /// Ends what it started and gives the runtime back.
    async fn end(self) -> Result<Runtime>;
}

/// Runs the tests that the command line names, all if it names none, in
/// namespaces of their own ([`isolate`]).
pub fn run<W: World>(tests: &[Test<W>]) -> ExitCode {
    let outcome = match isolate::cgroup() {
        None => isolate::run_inside().map(|status| status.success()),
        Some(cgroup) => inside(tests, &cgroup),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}: {error:#}", W::NAME);
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn inside<W: World>(tests: &[Test<W>], cgroup: &str) -> Result<bool> {
    isolate::enter()?;
    // AGENT_TEST_LOG is a filter as RUST_LOG is.
    if std::env::var_os("AGENT_TEST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::try_from_env("AGENT_TEST_LOG")?;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut world = W::start(Runtime::start(W::NAME).await?, cgroup).await?;
    let mut failed = 0;
    for (name, run) in tests.iter().filter(|(name, _)| filters.iter().all(|f| name.contains(f.as_str()))) {
        let begin = Instant::now();
        let outcome = tokio::time::timeout(W::LIMIT, run(&mut world)).await;
        match outcome.unwrap_or_else(|_| Err(anyhow!("no end after {:?}", W::LIMIT))) {
            Ok(()) => println!("test {name} ... ok ({:.2} s)", begin.elapsed().as_secs_f32()),
            Err(error) => {
                println!("test {name} ... FAILED\n    {error:#}");
                failed += 1;
            }
        }
    }
    world.end().await?.end().await?;
    println!("{failed} failed");
    Ok(failed == 0)
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
