//! One file per command: arguments in, parts built and run.

pub mod agent;
pub mod cluster;
pub mod doctor;
pub mod down;
pub mod image;
pub mod kubeconfig;
pub mod server;
pub mod token;
pub mod up;

use std::future::Future;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::tasks::{self, Tasks};
use crate::{open_files, resident};

/// Runs the process's tasks: `start` builds them, SIGTERM or SIGINT ends them.
///
/// # Errors
/// What keeps a task from starting, or the task that failed.
fn run_until_signalled<F>(start: impl FnOnce(Tasks) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Two threads serve a node; more stacks cost memory and win nothing.
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).min(4))
        .enable_all()
        .build()
        .context("start the runtime")?;
    open_files::raise();
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let (tasks, supervisor) = tasks::group();
        let token = tasks.token().clone();
        tasks.keep("memory", resident::run);
        let starting = start(tasks);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            started = starting => {
                if let Err(error) = started {
                    token.cancel();
                    // What did start is drained; the first error is the one to tell.
                    let _ = supervisor.run(async {}).await;
                    return Err(error);
                }
            }
            () = &mut stop => return supervisor.run(async {}).await,
        }
        supervisor.run(stop).await
    });
    // A call that hangs in the kernel, on a dead network file system for instance, must not keep the process.
    runtime.shutdown_timeout(STUCK);
    result
}

/// How long calls that hang are waited for at the end.
const STUCK: std::time::Duration = std::time::Duration::from_secs(5);
