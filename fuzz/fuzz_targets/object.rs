//! Objects of every kind, made, changed and shown.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [which, rest @ ..] = data else { return };
    let at = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
    let (before, after) = rest.split_at(at);
    apiserver::fuzzing::object(*which, before, after.get(1..).unwrap_or_default());
});
