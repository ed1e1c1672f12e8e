//! The whole agent without an API server, on a real containerd: static pods
//! with the node's network, in namespaces of their own ([`suite`]).

#[path = "node/api.rs"]
mod api;
#[path = "node/cases.rs"]
mod cases;
#[path = "support/suite.rs"]
mod suite;
#[path = "node/world.rs"]
mod world;

use std::process::ExitCode;

const TESTS: &[suite::Test<world::OneNode>] = harness::tests!(cases:
    a_pod_runs_as_its_file_says a_killed_process_is_restarted init_containers_share_volumes
    init_containers_run_anew_in_a_new_sandbox a_hook_that_hangs_does_not_hold_up_the_end
    a_failing_liveness_probe_restarts pre_stop_runs_before_the_end a_new_agent_adopts
    a_garbage_file_harms_nobody built_in_images_stay a_pod_that_failed_stays_ended pods_without_grace_come_and_go
    all_pods_are_held_to_what_is_not_reserved a_hard_threshold_evicts a_container_that_ran_out_of_memory_says_so pods_over_their_limits_are_evicted nothing_is_left
);

fn main() -> ExitCode {
    suite::run(TESTS)
}
