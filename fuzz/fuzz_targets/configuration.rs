//! Configuration files: the kubelet's, kube-proxy's (as JSON), the scheduler's.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    agent::fuzzing::kubelet_configuration(text);
    if let Ok(document) = serde_json::from_str(text) {
        netproxy::fuzzing::kube_proxy_configuration(document);
    }
    let _ = scheduler::parse_config(text);
});
