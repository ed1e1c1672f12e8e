//! The whole thing on the real thing: a local cluster of three nodes, real
//! containerd, real nftables, real kubectl. Scenarios run one after another on
//! one cluster, which is deleted whatever happens; nothing of it can reach
//! outside, since its nodes live in namespaces without an uplink.

#![allow(clippy::unwrap_used)]

mod api;
mod bad_input;
mod dns;
mod faults;
mod host_ports;
mod kubectl;
mod lifecycle;
mod nodes;
mod pods;
mod services;
mod support;

use std::process::ExitCode;
use std::sync::Arc;

use harness::token;
use harness::watchdog::Watchdog;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{SigSet, Signal};

use support::cluster::Cluster;

type Scenario = fn(&Cluster) -> anyhow::Result<()>;

/// In the order they run: those that break nodes come last.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("hello_is_served_in_exact_turn", services::hello_is_served_in_exact_turn),
    ("client_ip_affinity_holds_and_times_out", services::client_ip_affinity_holds_and_times_out),
    ("udp_survives_the_replacement_of_its_only_pod", services::udp_survives_the_replacement_of_its_only_pod),
    ("a_service_without_endpoints_refuses", services::a_service_without_endpoints_refuses),
    ("a_pod_reaches_itself_through_its_service", services::a_pod_reaches_itself_through_its_service),
    ("a_host_port_answers_until_its_pod_goes", host_ports::a_host_port_answers_until_its_pod_goes),
    (
        "one_host_port_serves_pods_of_other_addresses_and_protocols",
        host_ports::one_host_port_serves_pods_of_other_addresses_and_protocols,
    ),
    ("pods_resolve_names", dns::pods_resolve_names),
    ("environment_and_volumes_reach_the_container", pods::environment_and_volumes_reach_the_container),
    ("mounted_files_follow_their_objects", pods::mounted_files_follow_their_objects),
    ("init_containers_run_in_order", pods::init_containers_run_in_order),
    ("probes_gate_and_restart", pods::probes_gate_and_restart),
    ("graceful_deletion_runs_pre_stop", pods::graceful_deletion_runs_pre_stop),
    ("resources_become_cgroup_limits", pods::resources_become_cgroup_limits),
    ("runtime_classes_choose_handlers", pods::runtime_classes_choose_handlers),
    ("static_pods_have_mirrors", pods::static_pods_have_mirrors),
    ("kubectl_works_in_every_version", kubectl::works_in_every_version),
    ("bad_input_gets_upstreams_answers", bad_input::gets_upstreams_answers),
    ("watches_and_pages", api::watches_and_pages),
    ("access_is_controlled", api::access_is_controlled),
    ("deployments_roll_and_roll_back", lifecycle::deployments_roll_and_roll_back),
    ("a_rolling_update_fails_no_request", lifecycle::a_rolling_update_fails_no_request),
    ("deletion_propagates", lifecycle::deletion_propagates),
    ("a_killed_container_restarts_with_back_off", faults::a_killed_container_restarts_with_back_off),
    ("a_killed_copepod_adopts_everything", faults::a_killed_copepod_adopts_everything),
    ("acknowledged_writes_survive_kill_9", faults::acknowledged_writes_survive_kill_9),
    ("pods_spread_and_reach_each_other", nodes::pods_spread_and_reach_each_other),
    ("pods_of_a_dead_node_are_replaced", nodes::pods_of_a_dead_node_are_replaced),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One cluster, one scenario at a time.
    arguments.test_threads = Some(1);
    if arguments.list {
        let nothing = |_: &Cluster| Ok(());
        let trials = SCENARIOS.iter().map(|(name, _)| trial(name, nothing, None)).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let _token = match token::take() {
        Ok(token) => token,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let cluster = match Cluster::create("e2e", 3) {
        Ok(cluster) => Arc::new(cluster),
        Err(error) => {
            eprintln!("the cluster cannot be made: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = delete_when_told_to_end(&cluster) {
        eprintln!("signals cannot be waited for: {error}");
    }
    let trials = SCENARIOS.iter().map(|(name, scenario)| trial(name, *scenario, Some(cluster.clone()))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed() {
        eprintln!("{}", cluster.state());
    }
    let left = cluster.delete();
    if let Err(error) = left {
        eprintln!("the cluster left something behind: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Deletes the cluster when the whole test is told to end: by Ctrl-C, by a limit to its time.
fn delete_when_told_to_end(cluster: &Arc<Cluster>) -> nix::Result<()> {
    let signals: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    // Later threads inherit this; programs that are started do not.
    signals.thread_block()?;
    let cluster = Arc::clone(cluster);
    std::thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        eprintln!("{signal}: deleting the cluster");
        if let Err(error) = cluster.delete().and_then(|()| cluster.remove_directory()) {
            eprintln!("the cluster left something behind: {error:#}");
        }
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}

fn trial(name: &'static str, scenario: Scenario, cluster: Option<Arc<Cluster>>) -> Trial {
    Trial::test(name, move || match cluster {
        Some(cluster) => {
            let (shown, ended) = (Arc::clone(&cluster), Arc::clone(&cluster));
            // Without its cluster every wait of the scenario fails.
            let end = move || drop(ended.delete());
            let _watchdog = Watchdog::start(name, move || shown.state(), end);
            cluster.in_own_namespace(name, scenario).map_err(|error| Failed::from(format!("{error:#}")))
        }
        None => Ok(()),
    })
}
