//! One suite over the runtime's traits, on the fake and on real containerd.
//!
//! What the fake promises must be what containerd does, for every release that
//! is supported: the system's, and those that `packaging/runtimes.sh` unpacks
//! below `target/runtimes` (or `CRI_RUNTIMES`). A missing one fails the run.
//!
//! Arguments filter by substrings of `runtime::test`, all of which must match.

#[path = "contract/faults.rs"]
mod faults;
#[path = "contract/isolate.rs"]
mod isolate;
#[path = "contract/subject.rs"]
mod subject;
#[path = "contract/suite.rs"]
mod suite;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use futures::future::LocalBoxFuture;
use subject::Subject;

/// No test may hang the run.
const LIMIT: Duration = Duration::from_secs(120);

type Test = for<'a> fn(&'a Subject) -> LocalBoxFuture<'a, Result<()>>;

macro_rules! tests {
    ($module:ident: $($name:ident)*) => {
        &[$((stringify!($name), |s| Box::pin($module::$name(s))),)*]
    };
}

const FOR_ALL: &[(&str, Test)] = tests!(suite:
    tells_version_and_status tells_its_cgroup_driver sandbox_lives_and_dies names_are_taken_once handlers_are_chosen_by_name container_lives_and_dies
    what_is_missing_is_not_found exit_codes_are_told grace_ends_in_a_kill sandbox_takes_its_containers_along
    running_sandbox_can_be_removed exec_runs_commands streams_have_urls events_tell_the_story stopped_means_exited
    sandbox_end_is_an_event listeners_do_not_share images_are_found_by_all_names what_runs_is_measured
    limits_change_while_running pods_start_in_parallel
);

const FOR_REAL: &[(&str, Test)] = tests!(faults:
    logs_are_written a_container_can_join_anothers_processes import_is_idempotent archives_are_imported cri_events_where_they_exist
    limits_of_open_files_reach_containers a_daemon_that_dies_in_a_purge_is_replaced
    daemon_is_adopted_or_replaced crashes_can_be_purged broken_daemon_says_why daemon_killed_in_a_call
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
            eprintln!("contract: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where containerd releases lie, by name; the system's is on PATH.
fn releases() -> Vec<(&'static str, PathBuf)> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/runtimes");
    let beside = env::var_os("CRI_RUNTIMES").map_or(default, PathBuf::from);
    let at = |release: &str| beside.join(release).join("usr/bin/containerd");
    vec![("system", PathBuf::from("containerd")), ("containerd-1.7", at("1.7")), ("containerd-2.1", at("2.1"))]
}

struct Run {
    filters: Vec<String>,
    passed: usize,
    failed: Vec<String>,
}

impl Run {
    fn wants(&self, name: &str) -> bool {
        self.filters.iter().all(|f| name.contains(f.as_str()))
    }

    fn record(&mut self, name: String, took: Duration, outcome: Result<()>) {
        match outcome {
            Ok(()) => {
                println!("test {name} ... ok ({:.2} s)", took.as_secs_f32());
                self.passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED\n    {error:#}");
                self.failed.push(name);
            }
        }
    }

    async fn on(&mut self, runtime: &str, subject: &Subject) {
        let real: &[_] = if subject.is_fake() { &[] } else { FOR_REAL };
        for (test, run) in FOR_ALL.iter().chain(real) {
            let name = format!("{runtime}::{test}");
            if self.wants(&name) {
                let begin = Instant::now();
                let outcome = tokio::time::timeout(LIMIT, run(subject)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("no end after {LIMIT:?}")));
                let outcome = outcome.map_err(|e| anyhow!("{e:#}{}", subject.complaints()));
                self.record(name, begin.elapsed(), outcome);
            }
        }
    }
}

#[tokio::main]
async fn inside(cgroup: &str) -> Result<bool> {
    isolate::enter()?;
    let filters = env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut run = Run { filters, passed: 0, failed: Vec::new() };
    run.on("fake", &Subject::fake()?).await;
    for (name, program) in releases() {
        let tests = FOR_ALL.iter().chain(FOR_REAL).any(|(test, _)| run.wants(&format!("{name}::{test}")));
        if !tests {
            continue;
        }
        let begin = Instant::now();
        let subject = match Subject::real(&program, cgroup).await {
            Ok(subject) => subject,
            Err(error) => {
                let hint = "run packaging/runtimes.sh for the releases beside the system's";
                run.record(format!("{name}::starts"), begin.elapsed(), Err(error.context(hint)));
                continue;
            }
        };
        run.record(format!("{name}::starts"), begin.elapsed(), Ok(()));
        run.on(name, &subject).await;
        let begin = Instant::now();
        run.record(format!("{name}::leaves_nothing"), begin.elapsed(), subject.end().await);
    }
    ensure!(run.passed + run.failed.len() > 0, "no test matches");
    println!("\ncontract: {} passed, {} failed {:?}", run.passed, run.failed.len(), run.failed);
    Ok(run.failed.is_empty())
}
