//! Certificates, of clients and in files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    auth::fuzzing::certificate(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = pki::CertInfo::from_pem(text);
    }
});
