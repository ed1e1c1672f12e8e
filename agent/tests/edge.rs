//! The kubelet's server on a real containerd, used by a real kubectl.
//!
//! Everything happens in namespaces of its own ([`isolate`]). [`front`] stands
//! for an API server: it shows one pod and passes sessions on to the kubelet as
//! bytes, as an API server does.

#[path = "edge/cases.rs"]
mod cases;
#[path = "edge/front.rs"]
mod front;
#[path = "../../cri/tests/contract/isolate.rs"]
mod isolate;
#[path = "edge/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::future::LocalBoxFuture;
use world::World;

/// No test may hang the run.
const LIMIT: Duration = Duration::from_secs(60);

type Test = for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>;

macro_rules! tests {
    ($($name:ident)*) => { &[$((stringify!($name), |w| Box::pin(cases::$name(w))),)*] };
}

const TESTS: &[(&str, Test)] = tests!(
    kubectl_runs_commands kubectl_passes_stdin_both_ways kubectl_gets_exit_codes kubectl_has_a_terminal
    kubectl_reads_and_follows_logs kubectl_attaches kubectl_forwards_ports kubectl_copies_files
    old_websocket_clients_are_served channel_port_forward_is_served rotated_logs_are_followed
    strangers_are_refused bad_requests_are_named figures_are_told
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
            eprintln!("edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn inside(cgroup: &str) -> Result<bool> {
    isolate::enter()?;
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let world = World::start(cgroup).await?;
    let mut failed = 0;
    for (name, run) in TESTS.iter().filter(|(name, _)| filters.iter().all(|f| name.contains(f.as_str()))) {
        let begin = Instant::now();
        let outcome = tokio::time::timeout(LIMIT, run(&world)).await;
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
