//! The whole agent without an API server, on a real containerd: static pods
//! with the node's network, in namespaces of their own ([`isolate`]).

#[path = "node/cases.rs"]
mod cases;
#[path = "../../cri/tests/contract/isolate.rs"]
mod isolate;
#[path = "node/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::future::LocalBoxFuture;
use world::World;

/// No test may hang the run.
const LIMIT: Duration = Duration::from_secs(90);

type Test = for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, Result<()>>;

macro_rules! tests {
    ($($name:ident)*) => { &[$((stringify!($name), |w| Box::pin(cases::$name(w))),)*] };
}

const TESTS: &[(&str, Test)] = tests!(
    a_pod_runs_as_its_file_says a_killed_process_is_restarted init_containers_share_volumes
    a_failing_liveness_probe_restarts pre_stop_runs_before_the_end a_new_agent_adopts
    a_garbage_file_harms_nobody a_pod_that_failed_stays_ended starting_is_timed
    nothing_is_left
);

fn main() -> ExitCode {
    let outcome = match isolate::cgroup() {
        None => isolate::run_inside().map(|status| status.success()),
        Some(cgroup) => inside(&cgroup),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn inside(cgroup: &str) -> Result<bool> {
    isolate::enter()?;
    if std::env::var_os("NODE_TEST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::try_from_env("NODE_TEST_LOG")?;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let mut world = World::start(cgroup).await?;
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut failed = 0;
    for (name, run) in TESTS.iter().filter(|(name, _)| filters.iter().all(|f| name.contains(f.as_str()))) {
        let begin = Instant::now();
        let outcome = tokio::time::timeout(LIMIT, run(&mut world)).await;
        match outcome.unwrap_or_else(|_| Err(anyhow!("no end after {LIMIT:?}"))) {
            Ok(()) => println!("test {name} ... ok ({:.2} s)", begin.elapsed().as_secs_f32()),
            Err(error) => {
                println!("test {name} ... FAILED\n    {error:#}");
                failed += 1;
            }
        }
    }
    world.end().await?;
    println!("{failed} failed");
    Ok(failed == 0)
}
