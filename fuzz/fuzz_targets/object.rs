//! Objects of every kind, made, changed and shown: a kind's plural, a line with the object, one with what it becomes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(3, |b| *b == b'\n').map(<[u8]>::trim_ascii);
    let mut line = || lines.next().unwrap_or_default();
    apiserver::fuzzing::object(line(), line(), line());
});
