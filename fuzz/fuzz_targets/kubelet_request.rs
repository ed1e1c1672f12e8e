//! Requests to a node's server: paths, queries, ports and options of logs.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| agent::fuzzing::request(text));
