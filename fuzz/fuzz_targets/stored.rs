//! What the store reads back from disk: objects, rows, keys and revisions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::fuzzing;

fuzz_target!(|data: &[u8]| {
    match data {
        [b'r', rest @ ..] => fuzzing::rows(rest),
        [b'k', rest @ ..] => fuzzing::key(&String::from_utf8_lossy(rest)),
        _ => fuzzing::object(data),
    }
});
