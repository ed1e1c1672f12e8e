//! Static pods: a file's, or the list behind a URL.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| agent::fuzzing::static_pods(text));
