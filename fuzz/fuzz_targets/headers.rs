//! Headers of requests to the API server: impersonation, content types, subprotocols.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    apiserver::fuzzing::headers(data);
    if let Ok(text) = std::str::from_utf8(data) {
        auth::fuzzing::impersonation(text);
    }
});
