//! Probes: paths as pods write them, where answers over HTTP lead, answers over gRPC.
#![no_main]

use agent::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzzing::grpc_answer(data);
    if let Ok(text) = std::str::from_utf8(data) {
        fuzzing::probe(text);
    }
});
