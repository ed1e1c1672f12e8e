//! Sessions of exec, attach and port-forward: SPDY frames of the runtime, messages of clients.
#![no_main]

use agent::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match data {
        [b'c', rest @ ..] => fuzzing::channels(rest),
        [b'h', rest @ ..] => fuzzing::header_block(rest),
        [_, rest @ ..] => fuzzing::spdy(rest),
        [] => {}
    }
});
