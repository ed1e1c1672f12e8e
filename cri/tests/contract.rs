//! One suite over the runtime's traits, on the fake and on real containerd.
//!
//! What the fake promises must be what containerd does, for every release that
//! is supported: the system's, and those that `packaging/runtimes.sh` unpacks
//! below `target/runtimes` (or `CRI_RUNTIMES`). A missing one fails the run.
//!
//! Arguments filter by substrings of `runtime::test`, all of which must match.

#[path = "contract/faults.rs"]
mod faults;
#[path = "contract/registry.rs"]
mod registry;
#[path = "contract/subject.rs"]
mod subject;
#[path = "contract/suite.rs"]
mod suite;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use futures::future::LocalBoxFuture;
use harness::suite::Report;
use harness::tests;
use subject::Subject;

type Test = for<'a> fn(&'a Subject) -> LocalBoxFuture<'a, Result<()>>;

const FOR_ALL: &[(&str, Test)] = tests!(suite:
    tells_version_and_status tells_its_cgroup_driver sandbox_lives_and_dies names_are_taken_once handlers_are_chosen_by_name container_lives_and_dies
    what_is_missing_is_not_found exit_codes_are_told grace_ends_in_a_kill sandbox_takes_its_containers_along
    running_sandbox_can_be_removed exec_runs_commands streams_have_urls events_tell_the_story stopped_means_exited
    sandbox_end_is_an_event listeners_do_not_share images_are_found_by_all_names what_runs_is_measured
    limits_change_while_running pods_start_in_parallel
);

const FOR_REAL: &[(&str, Test)] = tests!(faults:
    logs_are_written a_container_can_join_anothers_processes import_is_idempotent archives_are_imported
    private_images_are_pulled_with_credentials cri_events_where_they_exist
    limits_of_open_files_reach_containers a_daemon_that_dies_in_a_purge_is_replaced
    daemon_is_adopted_or_replaced the_program_behind_a_script_is_followed crashes_can_be_purged
    broken_daemon_says_why daemon_killed_in_a_call
);

fn main() -> ExitCode {
    harness::suite::run("contract", inside)
}

/// Where containerd releases lie, by name; the system's is on PATH.
fn releases() -> Vec<(&'static str, PathBuf)> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/runtimes");
    let beside = env::var_os("CRI_RUNTIMES").map_or(default, PathBuf::from);
    let at = |release: &str| beside.join(release).join("usr/bin/containerd");
    vec![("system", PathBuf::from("containerd")), ("containerd-1.7", at("1.7")), ("containerd-2.1", at("2.1"))]
}

async fn on(report: &mut Report, runtime: &str, subject: &Subject) {
    let real: &[_] = if subject.is_fake() { &[] } else { FOR_REAL };
    for (test, run) in FOR_ALL.iter().chain(real) {
        let name = format!("{runtime}::{test}");
        if report.wants(&name) {
            report.run(&name, run(subject), || subject.complaints()).await;
        }
    }
}

#[tokio::main]
async fn inside(cgroup: &str) -> Result<bool> {
    let mut report = Report::of_arguments();
    on(&mut report, "fake", &Subject::fake()?).await;
    for (name, program) in releases() {
        let tests = FOR_ALL.iter().chain(FOR_REAL).any(|(test, _)| report.wants(&format!("{name}::{test}")));
        if !tests {
            continue;
        }
        let mut started = None;
        let start = async {
            started = Some(Subject::real(&program, cgroup).await?);
            Ok(())
        };
        let hint = || "\n    run packaging/runtimes.sh for the releases beside the system's".to_owned();
        report.run(&format!("{name}::starts"), start, hint).await;
        let Some(subject) = started else { continue };
        on(&mut report, name, &subject).await;
        report.run(&format!("{name}::leaves_nothing"), subject.end(), String::new).await;
    }
    report.conclude("contract")
}
