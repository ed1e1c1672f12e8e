//! The kubelet's server on a real containerd, used by a real kubectl.
//!
//! Everything happens in namespaces of its own ([`suite`]). [`front`] stands
//! for an API server: it shows one pod and passes sessions on to the kubelet as
//! bytes, as an API server does.

#[path = "edge/cases.rs"]
mod cases;
#[path = "edge/front.rs"]
mod front;
#[path = "support/suite.rs"]
mod suite;
#[path = "edge/world.rs"]
mod world;

use std::process::ExitCode;

const TESTS: &[suite::Test<world::Edge>] = harness::tests!(cases:
    kubectl_runs_commands kubectl_passes_stdin_both_ways kubectl_gets_exit_codes kubectl_has_a_terminal
    kubectl_reads_and_follows_logs kubectl_attaches kubectl_forwards_ports kubectl_copies_files
    old_websocket_clients_are_served channel_port_forward_is_served rotated_logs_are_followed
    strangers_are_refused bad_requests_are_named figures_are_told
);

fn main() -> ExitCode {
    suite::run(TESTS)
}
