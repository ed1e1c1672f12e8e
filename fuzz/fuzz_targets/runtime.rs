//! Answers and events of container runtimes, and what containerd says of its version.
#![no_main]

use cri::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    fuzzing::runtime(data);
    fuzzing::containerd_version(&String::from_utf8_lossy(data));
});
