//! How the scheduler, the controllers and this process' tasks are, under the API server's `/healthz` and `/metrics`.

use std::fmt::Write as _;

use controlplane_lite::apiserver::components::Component;
use controlplane_lite::client::Status;
use tokio::sync::watch;

use crate::log_file;
use crate::tasks::States;

/// What runs in this process beside the API server.
#[derive(Debug)]
pub struct ProcessComponents {
    /// Informers and work queues of the scheduler and the controllers.
    pub status: Status,
    /// The tasks of the process.
    pub tasks: watch::Receiver<States>,
}

impl Component for ProcessComponents {
    fn checks(&self) -> Vec<(String, Option<String>)> {
        let tasks = self.tasks.borrow();
        let tasks = tasks.iter().map(|(name, state)| (format!("task/{}", dashed(name)), state.problem.clone()));
        let log = std::iter::once(("log".to_owned(), log_file::problem()));
        let tasks = log.chain(tasks);
        tasks.chain(self.status.checks().into_iter().map(|check| (check.name, check.failure))).collect()
    }

    fn write_metrics(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# TYPE copepod_task_restarts_total counter");
        for (name, state) in &*self.tasks.borrow() {
            let _ = writeln!(out, "copepod_task_restarts_total{{task=\"{name}\"}} {}", state.restarts);
        }
        self.status.write_metrics(out);
    }
}

/// A name that can stand in a path.
fn dashed(name: &str) -> String {
    name.replace(' ', "-")
}
