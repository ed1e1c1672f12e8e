//! copepod on a machine of its own: a real kernel with nothing but cgroup v2, in
//! an emulator. A machine boots once for each way to manage cgroups, lives a
//! node's life (`guest/scenario.sh`) and tells of it; the checks read that.

#![allow(clippy::unwrap_used)]

mod archive;
mod checks;
mod image;
mod machine;
mod report;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Failed, Trial};

use checks::Seen;
use image::Init;
use machine::Outcome;

type Check = fn(&Seen<'_>) -> anyhow::Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("the_machine_has_cgroup_v2_alone", checks::the_machine_has_cgroup_v2_alone),
    ("the_node_becomes_ready", checks::the_node_becomes_ready),
    ("classes_have_their_places", checks::classes_have_their_places),
    ("all_pods_are_held_to_what_is_not_reserved", checks::all_pods_are_held_to_what_is_not_reserved),
    ("limits_reach_the_kernel", checks::limits_reach_the_kernel),
    ("hogs_die_as_a_whole", checks::hogs_die_as_a_whole),
    ("hello_is_served_in_exact_turn", checks::hello_is_served_in_exact_turn),
    ("exec_logs_and_stats_answer", checks::exec_logs_and_stats_answer),
    ("a_deleted_pods_cgroup_goes", checks::a_deleted_pods_cgroup_goes),
    ("down_leaves_nothing", checks::down_leaves_nothing),
];

/// A machine that boots when the first check wants it.
type Machine = Arc<OnceLock<Result<Outcome, String>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A machine takes all of this one's processors.
    arguments.test_threads = Some(1);
    let mut trials = vec![Trial::test("sections_are_told_apart", || failed(report::sections_are_told_apart()))];
    for (prefix, init) in [("cgroupfs", Init::Script), ("systemd", Init::Systemd)] {
        let machine = Machine::default();
        for (name, check) in CHECKS {
            let machine = Arc::clone(&machine);
            trials.push(Trial::test(format!("{prefix}::{name}"), move || run(&machine, init, *check)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn failed(result: anyhow::Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed::from(format!("{error:#}")))
}

fn run(machine: &Machine, init: Init, check: Check) -> Result<(), Failed> {
    let outcome = machine.get_or_init(|| {
        let outcome = machine::run(init).map_err(|error| format!("{error:#}"))?;
        print_failures(&outcome);
        Ok(outcome)
    });
    let outcome = outcome.as_ref().map_err(Failed::from)?;
    failed(check(&Seen { report: &outcome.report, init }))
}

/// Prints what helps to understand a machine that did not succeed in all.
fn print_failures(outcome: &Outcome) {
    let failures: Vec<_> = outcome.report.failures().collect();
    if outcome.report.code("end") != Some(0) {
        let last: Vec<_> = outcome.console.lines().rev().take(60).collect();
        eprintln!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    for failure in failures {
        eprintln!("{failure}");
    }
}
