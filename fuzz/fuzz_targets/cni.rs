//! What the runtime calls the CNI plugin with, and the files that the plugin keeps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netproxy::fuzzing;

fuzz_target!(|text: &str| {
    fuzzing::cni(text);
    fuzzing::leases(text);
    fuzzing::addresses(text);
    apiserver::fuzzing::cidr(text);
});
