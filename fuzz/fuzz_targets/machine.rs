//! Tables and files of the kernel: mounts, cgroups, memory, processors, its log.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    cri::fuzzing::mount_table(data);
    if let Ok(text) = std::str::from_utf8(data) {
        agent::fuzzing::machine(text);
    }
});
