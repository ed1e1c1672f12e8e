//! Certificate signing requests.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = pki::Request::from_pem(text);
});
