//! Answers of admission webhooks.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| apiserver::fuzzing::webhook_answer(data));
