//! What the kernel answers by netlink: nf_tables, tracked flows.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| netproxy::fuzzing::netlink(data));
